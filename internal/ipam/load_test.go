package ipam_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/ipam"
)

// full is an allocator with every kind of record.
func full(t *testing.T, c *clock) *ipam.Allocator {
	t.Helper()
	a := newAllocator(c, lonely())
	p := network(t, a, "n1", "10.9.0.0/24", "")
	network(t, a, "n2", "fd09::/64", "fd09::100/120")
	for _, e := range []string{"e1", "e2", "e3"} {
		run(t, a, p, e)
	}
	release(t, a, p.ID, ip("10.9.0.3"))
	c.advance(time.Second)
	release(t, a, p.ID, ip("10.9.0.2"))
	_, err := a.HoldExtra("n1", "e3", []netip.Addr{ip("192.0.2.1"), ip("10.9.0.200")}, nil)
	must(t, err)
	return a
}

func TestLoad(t *testing.T) {
	c := newClock()
	a := full(t, c)
	records := saved(t, a.Records())
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })

	b := newAllocator(c, lonely())
	must(t, b.Load(records))
	if diff := cmp.Diff(dump(t, a), dump(t, b)); diff != "" {
		t.Fatal(diff)
	}
	c.advance(holdDown)
	// It goes on as if nothing had been: never used ones, then the longest rested.
	id := "v1/local/10.9.0.0/24"
	for range 63 {
		if x, y := next(t, a, id), next(t, b, id); x != y {
			t.Fatalf("%v, and %v when loaded", x, y)
		}
	}
	x, _, _ := a.RequestAddress(ipam.AddressRequest{Pool: id, Addr: ip("10.9.0.201")}, nil)
	y, _, _ := b.RequestAddress(ipam.AddressRequest{Pool: id, Addr: ip("10.9.0.201")}, nil)
	if x != y || x.Generation == 0 {
		t.Errorf("%+v, and %+v when loaded", x, y)
	}
	if d := b.ReleaseEndpoint("e3"); len(d.Put) != 1 || len(d.Delete) != 2 {
		t.Errorf("the loaded endpoint had %+v", d)
	}
	must(t, b.Load(nil))
	if got := b.Records(); len(got) != 0 {
		t.Errorf("%v is left of what was there before", got)
	}
}

// A clock that was set back must not make addresses rest for years.
func TestLoadClockSetBack(t *testing.T) {
	c := newClock()
	a := newAllocator(c, ipam.Plan{})
	p := network(t, a, "n1", "10.9.0.0/24", "10.9.0.8/32")
	first := run(t, a, p, "e1")
	generation := a.Holdings()[1].Generation
	release(t, a, p.ID, first)
	records := saved(t, a.Records())

	c.advance(-20 * 365 * 24 * time.Hour)
	b := newAllocator(c, ipam.Plan{})
	must(t, b.Load(records))
	c.advance(holdDown)
	h, _, err := b.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
	must(t, err)
	if h.Addr != first || h.Generation <= generation {
		t.Errorf("got %+v, want %v with a generation above %d", h, first, generation)
	}
}

func TestLoadRefused(t *testing.T) {
	const pool, part = "v1/local/10.9.0.0/24", "v1/local/fd09::/64/fd09::100/120"
	held := ipam.Holding{Addr: ip("10.9.0.40"), Pool: pool, Kind: ipam.KindEndpoint, State: ipam.StateHeld, Generation: 7}
	change := func(f func(*ipam.Holding)) ipam.Record {
		h := held
		f(&h)
		return ipam.Record{Holding: &h}
	}
	change4 := func(f func(*ipam.Pool)) ipam.Record {
		p := ipam.Pool{ID: "v1/local/10.8.0.0/24", Space: space, CIDR: pfx("10.8.0.0/24"), BlockSize: 26}
		f(&p)
		return ipam.Record{Pool: &p}
	}
	block := func(pool, cidr string) ipam.Record {
		return ipam.Record{Block: &ipam.Block{Pool: pool, CIDR: pfx(cidr)}}
	}
	tests := []struct {
		name  string
		add   ipam.Record
		words []string
	}{
		{"nothing", ipam.Record{}, []string{"0 things"}},
		{"two things", ipam.Record{Pool: &ipam.Pool{ID: "x"}, Block: &ipam.Block{}}, []string{"pool/x", "2 things"}},
		{"pool twice", change4(func(p *ipam.Pool) { p.ID, p.CIDR = pool, pfx("10.9.0.0/24") }), []string{"pool/" + pool, "twice"}},
		{"pool overlaps", change4(func(p *ipam.Pool) { p.ID, p.CIDR, p.BlockSize = "v1/local/10.9.0.0/25", pfx("10.9.0.0/25"), 27 }), []string{"pool/v1/local/10.9.0.0/25", "n1"}},
		{"pool ID", change4(func(p *ipam.Pool) { p.ID = "10.8.0.0/24" }), []string{"pool/10.8.0.0/24", "parse pool ID"}},
		{"pool is not its ID", change4(func(p *ipam.Pool) { p.CIDR = pfx("10.8.0.0/16") }), []string{"10.8.0.0/16", "not those of the ID"}},
		{"block size", change4(func(p *ipam.Pool) { p.BlockSize = 25 }), []string{"/25"}},
		{"own part", change4(func(p *ipam.Pool) { p.Own = []netip.Prefix{pfx("10.7.0.0/26")} }), []string{"10.7.0.0/26"}},
		{"static range", change4(func(p *ipam.Pool) { p.Static = pfx("10.7.0.0/26") }), []string{"10.7.0.0/26"}},
		{"gateway", change4(func(p *ipam.Pool) { p.Gateway = ip("10.8.0.255") }), []string{"10.8.0.255", "broadcast"}},
		{"block of no pool", block("v1/local/10.7.0.0/24", "10.7.0.0/26"), []string{"block/v1/local/10.7.0.0/24/10.7.0.0/26", "not found"}},
		{"block outside", block(pool, "10.8.0.0/26"), []string{"10.8.0.0/26"}},
		{"block of another size", block(pool, "10.9.0.64/27"), []string{"10.9.0.64/27", "/26"}},
		{"block twice", block(pool, "10.9.0.0/26"), []string{"twice"}},
		{"block in the static range", block(pool, "10.9.0.192/26"), []string{"static range"}},
		{"block beside an own part", block(part, "fd09::/122"), []string{"own part"}},
		{"address of no pool", change(func(h *ipam.Holding) { h.Pool = "v1/local/10.7.0.0/24" }), []string{"addr/v1/local/10.7.0.0/24/10.9.0.40", "not found"}},
		{"address outside", change(func(h *ipam.Holding) { h.Addr = ip("10.8.0.4") }), []string{"10.8.0.4"}},
		{"no address", change(func(h *ipam.Holding) { h.Addr = netip.Addr{} }), []string{"addr/" + pool}},
		{"broadcast", change(func(h *ipam.Holding) { h.Addr = ip("10.9.0.255") }), []string{"broadcast"}},
		{"address twice", change(func(h *ipam.Holding) { h.Addr = ip("10.9.0.4") }), []string{"10.9.0.4", "twice"}},
		{"kind", change(func(h *ipam.Holding) { h.Kind = "guest" }), []string{`"guest"`}},
		{"second gateway", change(func(h *ipam.Holding) { h.Kind = ipam.KindGateway }), []string{"gateway", "10.9.0.1"}},
		{"state", change(func(h *ipam.Holding) { h.State = "lost" }), []string{`"lost"`}},
		{"never released", change(func(h *ipam.Holding) { h.State = ipam.StateResting }), []string{"never released"}},
		{"rests outside", change(func(h *ipam.Holding) {
			h.Addr, h.State, h.Released = ip("10.9.0.210"), ipam.StateResting, time.Unix(1, 0)
		}), []string{"10.9.0.210", "no block"}},
		{"extra of nobody", change(func(h *ipam.Holding) { h.Kind = ipam.KindExtra }), []string{"no endpoint"}},
		{"endpoint outside all pools", change(func(h *ipam.Holding) { h.Pool, h.Addr = "", ip("192.0.2.4") }), []string{"addr//192.0.2.4", "extra"}},
		{"outside all pools, but in one", change(func(h *ipam.Holding) { h.Pool, h.Kind, h.Endpoint = "", ipam.KindExtra, "e1" }), []string{"addr//10.9.0.40", "n1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newClock()
			good := full(t, c).Records()
			a := newAllocator(c, lonely())
			must(t, a.Load(good))
			before := dump(t, a)
			refused(t, a.Load(append(saved(t, good), tt.add)), nil, append(tt.words, tt.add.Key())...)
			if diff := cmp.Diff(before, dump(t, a)); diff != "" {
				t.Errorf("a refused load changed something\n%s", diff)
			}
		})
	}
}

func TestLoadSaysAll(t *testing.T) {
	a := newAllocator(newClock(), lonely())
	err := a.Load([]ipam.Record{
		{Block: &ipam.Block{Pool: "v1/local/10.7.0.0/24", CIDR: pfx("10.7.0.0/26")}},
		{Holding: &ipam.Holding{Pool: "v1/local/10.6.0.0/24", Addr: ip("10.6.0.2")}},
	})
	refused(t, err, ipam.ErrNotFound, "block/v1/local/10.7.0.0/24/10.7.0.0/26", "addr/v1/local/10.6.0.0/24/10.6.0.2")
}

func TestThen(t *testing.T) {
	a := newAllocator(newClock(), lonely())
	p := network(t, a, "n1", "10.9.0.0/24", "")
	before := dump(t, a)
	h, first, err := a.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
	must(t, err)
	second, err := a.BindEndpoint(h.Addr, "n1", "e1", "")
	must(t, err)
	third, err := a.HoldExtra("n1", "e1", []netip.Addr{ip("192.0.2.1")}, nil)
	must(t, err)
	fourth := a.ReleaseExtra("e1")
	all := first.Then(second).Then(third).Then(fourth)

	now := dump(t, a)
	for key := range before {
		delete(now, key)
	}
	got := map[string]string{}
	for _, r := range all.Put {
		got[r.Key()] = text(t, r)
	}
	if diff := cmp.Diff(now, got); diff != "" || len(all.Put) != 2 { // the block and the bound address
		t.Errorf("%d records to put\n%s", len(all.Put), diff)
	}
	if diff := cmp.Diff([]string{"addr//192.0.2.1"}, all.Delete); diff != "" {
		t.Error(diff)
	}
	a.Undo(all)
	if diff := cmp.Diff(before, dump(t, a)); diff != "" {
		t.Error(diff)
	}

	_, first, err = a.RequestAddress(ipam.AddressRequest{Pool: p.ID, Addr: ip("10.9.0.200")}, nil)
	must(t, err)
	before = dump(t, a)
	second, err = a.ReleaseAddress(p.ID, ip("10.9.0.200"))
	must(t, err)
	_, third, err = a.RequestAddress(ipam.AddressRequest{Pool: p.ID, Addr: ip("10.9.0.200")}, nil)
	must(t, err)
	if back := second.Then(third); len(first.Put) != 1 || len(back.Put) != 1 || len(back.Delete) != 0 {
		t.Errorf("released and held again: %+v, want one record to put", back)
	}
	a.Undo(second.Then(third))
	if diff := cmp.Diff(before, dump(t, a)); diff != "" {
		t.Error(diff)
	}
}
