package ipam_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"fairway/internal/ipam"
)

const (
	space    = "local"
	holdDown = 30 * time.Second
)

// clock is the time of a test.
type clock struct{ now time.Time }

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time          { return c.now }
func (c *clock) advance(d time.Duration) { c.now = c.now.Add(d) }

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func ip(s string) netip.Addr    { return netip.MustParseAddr(s) }

// opt is a prefix, or zero for "".
func opt(s string) netip.Prefix {
	if s == "" {
		return netip.Prefix{}
	}
	return pfx(s)
}

func newAllocator(c *clock, plan ipam.Plan) *ipam.Allocator {
	return ipam.New(ipam.Options{Now: c.Now, HoldDown: holdDown, Plan: plan})
}

func lonely() ipam.Plan { return ipam.Plan{Alone: true} }

// network makes a network with one subnet as the engine does: pool, gateway, bind.
func network(t *testing.T, a *ipam.Allocator, id, subnet, own string) ipam.Pool {
	t.Helper()
	p, _, err := a.RequestPool(ipam.PoolRequest{Space: space, Pool: pfx(subnet), Range: opt(own)})
	must(t, err)
	_, _, err = a.RequestAddress(ipam.AddressRequest{Pool: p.ID, Gateway: true}, nil)
	must(t, err)
	_, err = a.BindNetwork(id, []netip.Prefix{p.CIDR}, ipam.BindSettings{})
	must(t, err)
	p, _ = a.Pool(p.ID)
	return p
}

// next gives an address of its choice.
func next(t *testing.T, a *ipam.Allocator, pool string) netip.Addr {
	t.Helper()
	h, _, err := a.RequestAddress(ipam.AddressRequest{Pool: pool}, nil)
	must(t, err)
	return h.Addr
}

// run gives an address of its choice to an endpoint.
func run(t *testing.T, a *ipam.Allocator, p ipam.Pool, endpoint string) netip.Addr {
	t.Helper()
	addr := next(t, a, p.ID)
	_, err := a.BindEndpoint(addr, p.Network, endpoint, "")
	must(t, err)
	return addr
}

func ask(a *ipam.Allocator, pool, addr string) (ipam.Holding, error) {
	h, _, err := a.RequestAddress(ipam.AddressRequest{Pool: pool, Addr: ip(addr)}, nil)
	return h, err
}

func release(t *testing.T, a *ipam.Allocator, pool string, addr netip.Addr) {
	t.Helper()
	_, err := a.ReleaseAddress(pool, addr)
	must(t, err)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// refused wants an error that wraps the sentinel, if there is one, and has all the words.
func refused(t *testing.T, err, sentinel error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	if sentinel != nil && !errors.Is(err, sentinel) {
		t.Errorf("error %q does not wrap %q", err, sentinel)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not say %q", err, word)
		}
	}
}

// dump is everything the allocator remembers, as it would be saved.
func dump(tb testing.TB, a *ipam.Allocator) map[string]string {
	tb.Helper()
	out := map[string]string{}
	for _, r := range a.Records() {
		out[r.Key()] = text(tb, r)
	}
	return out
}

func text(tb testing.TB, r ipam.Record) string {
	tb.Helper()
	b, err := json.Marshal(r)
	must(tb, err)
	return string(b)
}

// saved returns the records as a file would give them back.
func saved(tb testing.TB, records []ipam.Record) []ipam.Record {
	tb.Helper()
	b, err := json.Marshal(records)
	must(tb, err)
	var out []ipam.Record
	must(tb, json.Unmarshal(b, &out))
	return out
}

func hears(prefix, holder string) ipam.Oracle {
	return func(addr netip.Addr) (string, bool) {
		if pfx(prefix).Contains(addr) {
			return holder, true
		}
		return "", false
	}
}
