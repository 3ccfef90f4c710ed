package ipam_test

import (
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/ipam"
)

// Addresses never used come first, in order and the edges of a given part last; then the one that rested longest.
func TestOrder(t *testing.T) {
	c := newClock()
	a := newAllocator(c, ipam.Plan{})
	p := network(t, a, "n1", "10.9.0.0/24", "10.9.0.8/29") // eight addresses, none reserved

	for i := range 4 {
		if got := run(t, a, p, fmt.Sprint("e", i)); got != ip("10.9.0.10") && i == 1 {
			t.Fatalf("second address %v, want 10.9.0.10", got)
		}
	}
	for _, addr := range []string{"10.9.0.11", "10.9.0.9", "10.9.0.10"} {
		release(t, a, p.ID, ip(addr))
		c.advance(time.Second)
	}
	c.advance(holdDown)
	var got []string
	for i := range 7 {
		got = append(got, run(t, a, p, fmt.Sprint("f", i)).String())
	}
	want := []string{"10.9.0.13", "10.9.0.14", "10.9.0.8", "10.9.0.15", "10.9.0.11", "10.9.0.9", "10.9.0.10"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRest(t *testing.T) {
	c := newClock()
	a := newAllocator(c, ipam.Plan{})
	p := network(t, a, "n1", "10.9.0.0/24", "10.9.0.8/31")
	one, two := run(t, a, p, "e1"), run(t, a, p, "e2")
	release(t, a, p.ID, two)
	c.advance(10 * time.Second)
	release(t, a, p.ID, one)

	_, d, err := a.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
	refused(t, err, ipam.ErrPoolFull, "10.9.0.0/24", "0 held", "2 resting", "10.9.0.8/31", "2026-03-01 12:00:30", "--ip-range")
	if !d.Empty() {
		t.Errorf("a refused request left %v", d)
	}
	c.advance(20*time.Second - 1)
	_, _, err = a.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
	refused(t, err, ipam.ErrPoolFull)
	c.advance(1)
	if got := run(t, a, p, "e3"); got != two {
		t.Errorf("got %v, want %v, which has rested", got, two)
	}
	// The hold-down of a changed config counts for what rests already.
	a.SetOptions(ipam.Options{Now: c.Now, HoldDown: 5 * time.Second})
	if got := run(t, a, p, "e4"); got != one {
		t.Errorf("got %v, want %v", got, one)
	}
}

func TestNoHoldDown(t *testing.T) {
	c := newClock()
	a := ipam.New(ipam.Options{Now: c.Now, Plan: lonely()})
	p := network(t, a, "n1", "10.9.0.0/24", "10.9.0.8/31")
	one, two := run(t, a, p, "e1"), run(t, a, p, "e2")
	release(t, a, p.ID, one)
	c.advance(time.Millisecond)
	release(t, a, p.ID, two)
	if got := run(t, a, p, "e3"); got != one {
		t.Errorf("got %v, want %v, released first", got, one)
	}
	if u := a.Usage()[0].Total; u != (ipam.Usage{Size: 2, Held: 1, Free: 1}) {
		t.Errorf("usage %+v", u)
	}
}

// An address that no container ever had is free at once; one that had not rested yet when it was
// asked for goes back to its rest.
func TestReleaseUnused(t *testing.T) {
	c := newClock()
	a := newAllocator(c, ipam.Plan{})
	p := network(t, a, "n1", "10.9.0.0/24", "10.9.0.8/31")
	for range 3 {
		if got := next(t, a, p.ID); got != ip("10.9.0.8") {
			t.Fatalf("got %v, want 10.9.0.8 again", got)
		}
		release(t, a, p.ID, ip("10.9.0.8"))
	}
	run(t, a, p, "e1")
	other := next(t, a, p.ID)
	release(t, a, p.ID, ip("10.9.0.8"))
	c.advance(holdDown / 2)
	_, err := ask(a, p.ID, "10.9.0.8")
	must(t, err)
	release(t, a, p.ID, ip("10.9.0.8"))
	_, _, err = a.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
	refused(t, err, ipam.ErrPoolFull, "1 held and 1 resting")
	c.advance(holdDown / 2)
	if got := next(t, a, p.ID); got != ip("10.9.0.8") || other != ip("10.9.0.9") {
		t.Errorf("got %v and %v, want 10.9.0.8 after 30 s in all", got, other)
	}
}

func TestBlocks(t *testing.T) {
	c := newClock()
	a := newAllocator(c, ipam.Plan{Alone: true, Pools: []ipam.PoolPlan{{CIDR: pfx("10.9.0.0/24"), BlockSize: 28}}})
	p := network(t, a, "n1", "10.9.0.0/24", "")
	if got := a.Blocks(); len(got) != 0 {
		t.Fatalf("blocks %v before the first address, want none", got)
	}
	// An auxiliary address is nothing that this node has: no block for it.
	for i := range 12 * 16 {
		if i < 2 {
			continue
		}
		if got, want := run(t, a, p, fmt.Sprint("e", i)), ip(fmt.Sprint("10.9.0.", i)); got != want {
			t.Fatalf("address %v, want %v", got, want)
		}
		if got, want := len(a.Blocks()), i/16+1; got != want {
			t.Fatalf("%d blocks with %d addresses, want %d", got, i-1, want)
		}
	}
	_, _, err := a.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
	refused(t, err, ipam.ErrPoolFull, "10.9.0.0/24", "190 held and 0 resting", "12 blocks (10.9.0.0/28, 10.9.0.16/28, 10.9.0.32/28, ...)", "static range")

	// What rested is taken before another block, and a node with peers claims no more.
	_, err = a.ReleasePool(p.ID)
	must(t, err)
	p = network(t, a, "n2", "10.9.0.0/24", "")
	for i := range 14 {
		run(t, a, p, fmt.Sprint("e", i))
	}
	release(t, a, p.ID, ip("10.9.0.7"))
	c.advance(holdDown)
	if got := run(t, a, p, "e20"); got != ip("10.9.0.7") || len(a.Blocks()) != 1 {
		t.Errorf("got %v with %v, want 10.9.0.7", got, a.Blocks())
	}
	a.SetOptions(ipam.Options{Now: c.Now, HoldDown: holdDown})
	_, _, err = a.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
	refused(t, err, ipam.ErrPoolFull, "peers", "--ip-range", "pools[].block")
}

// A node that is alone again claims blocks around the addresses that it announces one by one.
func TestBlockAroundOutside(t *testing.T) {
	c := newClock()
	a := newAllocator(c, lonely())
	p := network(t, a, "n1", "10.9.0.0/16", "")
	a.SetOptions(ipam.Options{Now: c.Now, HoldDown: holdDown})
	h, err := ask(a, p.ID, "10.9.0.2")
	if err != nil || !h.Outside || len(a.Blocks()) != 0 {
		t.Fatalf("got %+v, %v, want it outside all blocks", h, err)
	}
	_, err = a.BindEndpoint(h.Addr, "n1", "e1", "")
	must(t, err)
	a.SetOptions(ipam.Options{Now: c.Now, HoldDown: holdDown, Plan: lonely()})
	if got := next(t, a, p.ID); got != ip("10.9.0.3") {
		t.Errorf("got %v, want 10.9.0.3", got)
	}
	if u := a.Usage()[0]; u.Outside != 0 || u.Total.Held != 2 {
		t.Errorf("usage %+v, want both in the block", u)
	}
	release(t, a, p.ID, h.Addr)
	for _, h := range a.Holdings() {
		if h.State == ipam.StateResting && (h.Addr != ip("10.9.0.2") || h.Outside) {
			t.Errorf("got %+v, want it to rest in the block", h)
		}
	}
}

// A block in which nobody can have an address is not claimed.
func TestBlocksOfNobody(t *testing.T) {
	for _, tt := range []struct{ pool, block string }{{"10.9.0.0/30", "10.9.0.2/32"}, {"fd09::/126", "fd09::2/128"}} {
		a := newAllocator(newClock(), lonely())
		p := network(t, a, "n1", tt.pool, "")
		next(t, a, p.ID)
		if got := a.Blocks(); len(got) != 1 || got[0].CIDR != pfx(tt.block) {
			t.Errorf("%s: blocks %v, want %s", tt.pool, got, tt.block)
		}
		_, _, err := a.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
		refused(t, err, ipam.ErrPoolFull)
	}
}

// A block that auxiliary addresses fill is passed over; nothing of it stays when the pool is full.
func TestBlocksFullOfAux(t *testing.T) {
	a := newAllocator(newClock(), ipam.Plan{Alone: true, Pools: []ipam.PoolPlan{{CIDR: pfx("10.9.0.0/28"), BlockSize: 31}}})
	p, _, err := a.RequestPool(ipam.PoolRequest{Space: space, Pool: pfx("10.9.0.0/28")})
	must(t, err)
	for i := 2; i < 12; i++ {
		if i != 4 && i != 5 {
			_, err := ask(a, p.ID, fmt.Sprint("10.9.0.", i))
			must(t, err)
		}
	}
	_, err = a.BindNetwork("n1", []netip.Prefix{p.CIDR}, ipam.BindSettings{})
	must(t, err)
	if got := []netip.Addr{next(t, a, p.ID), next(t, a, p.ID)}; got[0] != ip("10.9.0.4") || got[1] != ip("10.9.0.5") {
		t.Errorf("got %v, want the two addresses that are left", got)
	}
	before := dump(t, a)
	_, _, err = a.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
	refused(t, err, ipam.ErrPoolFull)
	if diff := cmp.Diff(before, dump(t, a)); diff != "" {
		t.Error(diff)
	}
}

func TestExplicit(t *testing.T) {
	own := ipam.Plan{}
	heard := hears("10.9.0.0/16", "host2 (10.77.0.12)")
	type ask struct {
		addr    string
		outside bool
		block   string   // claimed for it
		err     error    // nil with words: any
		words   []string // refused
	}
	tests := []struct {
		name      string
		plan      ipam.Plan
		pool, sub string
		oracle    ipam.Oracle
		asks      []ask
	}{
		{"not in the pool", lonely(), "10.9.0.0/16", "", nil, []ask{
			{addr: "10.8.0.1", words: []string{"10.8.0.1", "10.9.0.0/16"}},
			{addr: "fd09::1", words: []string{"fd09::1", "10.9.0.0/16"}},
			{addr: "fe80::1%eth0", words: []string{"fe80::1%eth0"}},
		}},
		{"nobody's", lonely(), "10.9.0.0/16", "", nil, []ask{
			{addr: "10.9.0.0", words: []string{"10.9.0.0", "network address"}},
			{addr: "10.9.255.255", words: []string{"10.9.255.255", "broadcast"}},
			{addr: "10.9.0.1", words: []string{"10.9.0.1", "gateway"}},
		}},
		{"nobody's, ipv6", lonely(), "fd09::/64", "", nil, []ask{
			{addr: "fd09::", words: []string{"fd09::", "anycast"}},
			{addr: "fd09::1", words: []string{"fd09::1", "gateway"}},
			{addr: "fd09::ffff:ffff:ffff:ffff", outside: true},
		}},
		{"block borders are addresses", own, "10.9.0.0/16", "10.9.8.0/24", nil, []ask{{addr: "10.9.8.0"}, {addr: "10.9.8.255"}}},
		{"mapped", own, "10.9.0.0/16", "10.9.8.0/24", nil, []ask{{addr: "::ffff:10.9.8.5"}, {addr: "10.9.8.5"}}},
		{"/31", lonely(), "10.9.0.0/31", "", nil, []ask{{addr: "10.9.0.1", block: "10.9.0.0/31"}, {addr: "10.9.0.0", words: []string{"gateway"}}}},
		{"static range", lonely(), "10.9.0.0/16", "", nil, []ask{{addr: "10.9.192.0", outside: true}, {addr: "10.9.255.254", outside: true}}},
		{"static range, heard", own, "10.9.0.0/16", "10.9.8.0/24", heard, []ask{
			{addr: "10.9.192.7", err: ipam.ErrInUse, words: []string{"10.9.192.7", "host2 (10.77.0.12)"}},
		}},
		{"own part, heard", own, "10.9.0.0/16", "10.9.8.0/24", heard, []ask{{addr: "10.9.8.7"}}},
		{"own part in the static range, heard", own, "10.9.0.0/16", "10.9.200.0/24", heard, []ask{{addr: "10.9.200.7"}}},
		{"another node's, heard", own, "10.9.0.0/16", "10.9.8.0/24", heard, []ask{
			{addr: "10.9.9.7", err: ipam.ErrInUse, words: []string{"10.9.9.7", "host2 (10.77.0.12)", "static range 10.9.192.0/18"}},
		}},
		{"without static range, heard", own, "10.9.0.0/24", "10.9.0.192/26", heard, []ask{
			{addr: "10.9.0.7", err: ipam.ErrInUse, words: []string{"10.9.0.7", "host2"}},
		}},
		{"nobody's block, not alone", own, "10.9.0.0/16", "10.9.8.0/24", hears("10.9.10.0/24", "host3"), []ask{{addr: "10.9.9.7", outside: true}}},
		{"nobody's block, alone", lonely(), "10.9.0.0/16", "", nil, []ask{
			{addr: "10.9.9.7", block: "10.9.9.0/26"}, {addr: "10.9.9.8"}, {addr: "10.9.9.65", block: "10.9.9.64/26"},
		}},
		{"alone with an own part", lonely(), "10.9.0.0/16", "10.9.8.0/24", nil, []ask{{addr: "10.9.9.7", outside: true}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAllocator(newClock(), tt.plan)
			p := network(t, a, "n1", tt.pool, tt.sub)
			for _, k := range tt.asks {
				before := a.Blocks()
				h, d, err := a.RequestAddress(ipam.AddressRequest{Pool: p.ID, Addr: ip(k.addr)}, tt.oracle)
				if k.words != nil {
					refused(t, err, k.err, k.words...)
					if !d.Empty() {
						t.Errorf("%s: refused with delta %v", k.addr, d)
					}
					continue
				}
				must(t, err)
				if h.Addr != ip(k.addr).Unmap() || h.Outside != k.outside || !h.Explicit || h.Kind != ipam.KindEndpoint || h.Network != "n1" {
					t.Errorf("%s: got %+v", k.addr, h)
				}
				claimed := ""
				if now := a.Blocks(); len(now) > len(before) {
					claimed = now[len(now)-1].CIDR.String()
				}
				if claimed != k.block {
					t.Errorf("%s: claimed %q, want %q", k.addr, claimed, k.block)
				}
			}
		})
	}
}

func TestExplicitHeld(t *testing.T) {
	c := newClock()
	a := newAllocator(c, lonely())
	p := network(t, a, "n1", "10.9.0.0/16", "")
	first, err := ask(a, p.ID, "10.9.0.5")
	must(t, err)
	again, d, err := a.RequestAddress(ipam.AddressRequest{Pool: p.ID, Addr: first.Addr}, nil)
	if err != nil || again != first || !d.Empty() {
		t.Errorf("asked again: %+v, %v, %v, want the same holding and no change", again, d, err)
	}
	_, err = a.BindEndpoint(first.Addr, "n1", "e1", "/run/netns/1")
	must(t, err)
	_, err = ask(a, p.ID, "10.9.0.5")
	refused(t, err, ipam.ErrInUse, "10.9.0.5", "endpoint e1", "network n1", "2026-03-01 12:00:00")

	chosen := next(t, a, p.ID)
	_, err = ask(a, p.ID, chosen.String())
	refused(t, err, ipam.ErrInUse, chosen.String(), "being made")

	// A container with --ip that restarts gives its address back and asks for it at once.
	release(t, a, p.ID, first.Addr)
	c.advance(time.Second)
	back, err := ask(a, p.ID, "10.9.0.5")
	must(t, err)
	if back.Generation <= first.Generation || back.Endpoint != "" || back.Sandbox != "" || back.Since != c.now {
		t.Errorf("got %+v after %+v, want a newer generation of nobody", back, first)
	}
}

// Addresses outside the blocks are never chosen, so they need not rest, or be remembered.
func TestOutsideForgotten(t *testing.T) {
	c := newClock()
	a := newAllocator(c, lonely())
	p := network(t, a, "n1", "10.9.0.0/16", "")
	before := dump(t, a)
	h, err := ask(a, p.ID, "10.9.200.1")
	must(t, err)
	_, err = a.BindEndpoint(h.Addr, "n1", "e1", "")
	must(t, err)
	if u := a.Usage()[0]; u.Outside != 1 || u.Total != (ipam.Usage{}) {
		t.Errorf("usage %+v, want one address outside", u)
	}
	release(t, a, p.ID, h.Addr)
	if diff := cmp.Diff(before, dump(t, a)); diff != "" {
		t.Error(diff)
	}
	again, err := ask(a, p.ID, "10.9.200.1")
	must(t, err)
	if again.Generation <= h.Generation {
		t.Errorf("generation %d after %d", again.Generation, h.Generation)
	}
}

func TestGateway(t *testing.T) {
	a := newAllocator(newClock(), lonely())
	p, _, err := a.RequestPool(ipam.PoolRequest{Space: space, Pool: pfx("10.9.0.0/24")})
	must(t, err)
	gateway := func(addr netip.Addr) (ipam.Holding, error) {
		h, _, err := a.RequestAddress(ipam.AddressRequest{Pool: p.ID, Addr: addr, Gateway: true}, hears("0.0.0.0/0", "everybody"))
		return h, err
	}
	for _, bad := range []string{"10.9.0.0", "10.9.0.255", "10.8.0.1", "fd09::1"} {
		_, err := gateway(ip(bad))
		refused(t, err, nil, "gateway", bad)
	}
	h, err := gateway(netip.Addr{})
	must(t, err)
	if h.Addr != ip("10.9.0.1") || h.Kind != ipam.KindGateway || h.Explicit || h.Outside {
		t.Errorf("got %+v, want the first address", h)
	}
	// The creation is tried again with a gateway of the user's.
	if h, err = gateway(ip("10.9.0.254")); err != nil || !h.Explicit {
		t.Fatalf("got %+v, %v", h, err)
	}
	if got := a.Holdings(); len(got) != 1 || got[0].Addr != ip("10.9.0.254") {
		t.Errorf("holdings %v, want only the new gateway", got)
	}
	_, err = ask(a, p.ID, "10.9.0.254")
	refused(t, err, nil, "gateway", "10.9.0.254")
	if _, err = ask(a, p.ID, "10.9.0.9"); err != nil { // --aux-address
		t.Fatal(err)
	}
	_, err = gateway(ip("10.9.0.9"))
	refused(t, err, ipam.ErrInUse, "10.9.0.9", "--aux-address")

	_, err = a.BindNetwork("n1", []netip.Prefix{p.CIDR}, ipam.BindSettings{})
	must(t, err)
	if again, err := gateway(netip.Addr{}); err != nil || again.Addr != h.Addr || again.Network != "n1" {
		t.Errorf("got %+v, %v, want the gateway that there is", again, err)
	}
	_, err = gateway(ip("10.9.0.1"))
	refused(t, err, ipam.ErrInUse, "10.9.0.254", "n1", "10.9.0.1")
	_, err = ask(a, p.ID, "10.9.0.9")
	refused(t, err, ipam.ErrInUse, "--aux-address", "n1")
	if got := next(t, a, p.ID); got != ip("10.9.0.1") {
		t.Errorf("first address %v, want 10.9.0.1, which is not the gateway", got)
	}
	// They stay as long as the network.
	for _, addr := range []string{"10.9.0.254", "10.9.0.9"} {
		if d, err := a.ReleaseAddress(p.ID, ip(addr)); err != nil || !d.Empty() {
			t.Errorf("release of %s: %v, %v, want nothing", addr, d, err)
		}
	}
}

func TestGatewayReleased(t *testing.T) {
	a := newAllocator(newClock(), lonely())
	p, _, err := a.RequestPool(ipam.PoolRequest{Space: space, Pool: pfx("10.9.0.0/24")})
	must(t, err)
	before := dump(t, a)
	_, _, err = a.RequestAddress(ipam.AddressRequest{Pool: p.ID, Addr: ip("10.9.0.7"), Gateway: true}, nil)
	must(t, err)
	_, err = ask(a, p.ID, "10.9.0.8")
	must(t, err)
	release(t, a, p.ID, ip("10.9.0.7"))
	release(t, a, p.ID, ip("10.9.0.8"))
	if diff := cmp.Diff(before, dump(t, a)); diff != "" {
		t.Error(diff)
	}
}

func TestReleaseUnknown(t *testing.T) {
	a := newAllocator(newClock(), lonely())
	p := network(t, a, "n1", "10.9.0.0/24", "")
	addr := run(t, a, p, "e1")
	release(t, a, p.ID, addr)
	for _, tt := range []struct{ pool, addr string }{
		{p.ID, addr.String()}, {p.ID, "10.9.0.77"}, {p.ID, "10.8.0.1"}, {"v1/local/10.8.0.0/24", "10.8.0.1"}, {"", "10.9.0.2"},
	} {
		if d, err := a.ReleaseAddress(tt.pool, ip(tt.addr)); err != nil || !d.Empty() {
			t.Errorf("release of %s in %q: %v, %v, want nothing", tt.addr, tt.pool, d, err)
		}
	}
	_, _, err := a.RequestAddress(ipam.AddressRequest{Pool: "v1/local/10.8.0.0/24"}, nil)
	refused(t, err, ipam.ErrNotFound, "v1/local/10.8.0.0/24")
}

// A block of 2^64 addresses and more costs nothing, and remembers only so many addresses.
func TestHugeBlock(t *testing.T) {
	c := newClock()
	a := newAllocator(c, ipam.Plan{})
	p := network(t, a, "n1", "fd09::/32", "fd09:0:1::/48")
	for i := range 6000 {
		addr := run(t, a, p, "e")
		if i == 0 && addr != ip("fd09:0:1::1") {
			t.Fatalf("first address %v", addr)
		}
		release(t, a, p.ID, addr)
		c.advance(time.Minute)
	}
	if n := len(a.Records()); n < 4096 || n > 4100 {
		t.Errorf("%d records, want 4096 addresses and few others", n)
	}
	if u := a.Usage()[0].Total; u.Size != math.MaxUint64 || u.Free != math.MaxUint64 {
		t.Errorf("usage %+v", u)
	}
}

func TestUnbound(t *testing.T) {
	c := newClock()
	a := newAllocator(c, lonely())
	p := network(t, a, "n1", "10.9.0.0/24", "")
	lost := next(t, a, p.ID)
	run(t, a, p, "e1")
	c.advance(time.Minute)
	next(t, a, p.ID)
	if got := a.Unbound(time.Minute); len(got) != 1 || got[0].Addr != lost {
		t.Errorf("got %v, want %v", got, lost)
	}
	if got := a.Unbound(2 * time.Minute); len(got) != 0 {
		t.Errorf("got %v, want none", got)
	}
}

func TestUsage(t *testing.T) {
	c := newClock()
	a := newAllocator(c, lonely())
	p := network(t, a, "n1", "10.9.0.0/28", "") // blocks of four
	for i := range 4 {
		run(t, a, p, fmt.Sprint("e", i))
	}
	release(t, a, p.ID, ip("10.9.0.3"))
	_, err := ask(a, p.ID, "10.9.0.13")
	must(t, err)
	block := func(cidr string, u ipam.Usage) ipam.BlockUsage {
		return ipam.BlockUsage{Block: ipam.Block{Pool: p.ID, CIDR: pfx(cidr), Since: c.now}, Usage: u}
	}
	want := []ipam.PoolUsage{{
		Pool: p.ID, Outside: 1, Total: ipam.Usage{Size: 6, Held: 3, Resting: 1, Free: 2},
		Blocks: []ipam.BlockUsage{
			block("10.9.0.0/30", ipam.Usage{Size: 2, Held: 1, Resting: 1}),
			block("10.9.0.4/30", ipam.Usage{Size: 4, Held: 2, Free: 2}),
		},
	}}
	if diff := cmp.Diff(want, a.Usage(), cmp.Comparer(func(x, y netip.Prefix) bool { return x == y })); diff != "" {
		t.Error(diff)
	}
}
