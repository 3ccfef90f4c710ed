package ipam_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/ipam"
)

func TestRequestPool(t *testing.T) {
	block := ipam.PoolPlan{CIDR: pfx("10.9.0.0/16"), BlockSize: 26, Block: pfx("10.9.1.0/24"), Size: 16}
	part := ipam.PoolPlan{CIDR: pfx("10.9.0.0/16"), BlockSize: 28, Size: 20}
	tests := []struct {
		name              string
		plan              ipam.Plan
		pool, sub         string
		id                string // "": the pool's, without --ip-range
		own, static       string
		size              int
		gateway, firstGot string // "full": no address
	}{
		{name: "alone", plan: lonely(), pool: "10.9.0.0/16", static: "10.9.192.0/18", size: 26, gateway: "10.9.0.1", firstGot: "10.9.0.2"},
		{name: "alone ipv6", plan: lonely(), pool: "fd09::/64", static: "fd09:0:0:0:c000::/66", size: 122, gateway: "fd09::1", firstGot: "fd09::2"},
		{name: "exactly four blocks", plan: lonely(), pool: "10.9.0.0/24", static: "10.9.0.192/26", size: 26, gateway: "10.9.0.1", firstGot: "10.9.0.2"},
		{name: "smaller blocks", plan: lonely(), pool: "10.9.0.0/25", static: "10.9.0.96/27", size: 27, gateway: "10.9.0.1", firstGot: "10.9.0.2"},
		{name: "block size of the plan", plan: ipam.Plan{Alone: true, Pools: []ipam.PoolPlan{part}}, pool: "10.9.4.0/22", static: "10.9.7.0/24", size: 28, gateway: "10.9.4.1", firstGot: "10.9.4.2"},
		{name: "/29", plan: lonely(), pool: "10.9.0.0/29", static: "10.9.0.6/31", size: 31, gateway: "10.9.0.1", firstGot: "10.9.0.2"},
		{name: "/30", plan: lonely(), pool: "10.9.0.0/30", static: "10.9.0.3/32", size: 32, gateway: "10.9.0.1", firstGot: "10.9.0.2"},
		{name: "/31", plan: lonely(), pool: "10.9.0.0/31", size: 31, gateway: "10.9.0.0", firstGot: "10.9.0.1"},
		{name: "/32", plan: lonely(), pool: "10.9.0.0/32", size: 32, gateway: "10.9.0.0", firstGot: "full"},
		{name: "/126", plan: lonely(), pool: "fd09::/126", static: "fd09::3/128", size: 128, gateway: "fd09::1", firstGot: "fd09::2"},
		{name: "/127", plan: lonely(), pool: "fd09::/127", size: 127, gateway: "fd09::", firstGot: "fd09::1"},
		{name: "/128", plan: lonely(), pool: "fd09::/128", size: 128, gateway: "fd09::", firstGot: "full"},
		{
			name: "ip-range", pool: "10.9.0.0/16", sub: "10.9.8.0/22", id: "v1/local/10.9.0.0/16/10.9.8.0/22",
			own: "10.9.8.0/22", static: "10.9.192.0/18", size: 26, gateway: "10.9.0.1", firstGot: "10.9.8.1",
		},
		{
			name: "ip-range has the gateway", pool: "10.9.0.0/24", sub: "10.9.0.0/26", id: "v1/local/10.9.0.0/24/10.9.0.0/26",
			own: "10.9.0.0/26", static: "10.9.0.192/26", size: 26, gateway: "10.9.0.1", firstGot: "10.9.0.2",
		},
		{
			name: "ip-range is the last quarter", pool: "10.9.0.0/24", sub: "10.9.0.192/26", id: "v1/local/10.9.0.0/24/10.9.0.192/26",
			own: "10.9.0.192/26", size: 26, gateway: "10.9.0.1", firstGot: "10.9.0.193",
		},
		{
			name: "ip-range has some of the last quarter", pool: "10.9.0.0/24", sub: "10.9.0.192/28", id: "v1/local/10.9.0.0/24/10.9.0.192/28",
			own: "10.9.0.192/28", static: "10.9.0.192/26", size: 26, gateway: "10.9.0.1", firstGot: "10.9.0.193",
		},
		{
			name: "ip-range is the subnet", pool: "10.9.0.0/24", sub: "10.9.0.0/24", id: "v1/local/10.9.0.0/24/10.9.0.0/24",
			own: "10.9.0.0/24", size: 26, gateway: "10.9.0.1", firstGot: "10.9.0.2",
		},
		{
			name: "block of the config", plan: ipam.Plan{Pools: []ipam.PoolPlan{block}}, pool: "10.9.0.0/16",
			own: "10.9.1.0/24", static: "10.9.192.0/18", size: 26, gateway: "10.9.0.1", firstGot: "10.9.1.1",
		},
		{
			name: "subnet inside the block of the config", plan: ipam.Plan{Pools: []ipam.PoolPlan{block}}, pool: "10.9.1.128/25",
			own: "10.9.1.128/25", size: 27, gateway: "10.9.1.129", firstGot: "10.9.1.130",
		},
		{
			name: "ip-range wins over block", plan: ipam.Plan{Pools: []ipam.PoolPlan{block}}, pool: "10.9.0.0/16", sub: "10.9.8.0/22",
			id: "v1/local/10.9.0.0/16/10.9.8.0/22", own: "10.9.8.0/22", static: "10.9.192.0/18", size: 26, gateway: "10.9.0.1", firstGot: "10.9.8.1",
		},
		{
			name: "ip-range, alone", plan: lonely(), pool: "fd09::/64", sub: "fd09::1:0/112", id: "v1/local/fd09::/64/fd09::1:0/112",
			own: "fd09::1:0/112", static: "fd09:0:0:0:c000::/66", size: 122, gateway: "fd09::1", firstGot: "fd09::1:1",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newClock()
			a := newAllocator(c, tt.plan)
			got := network(t, a, "n1", tt.pool, tt.sub)
			want := ipam.Pool{
				ID: tt.id, Space: space, CIDR: pfx(tt.pool), Range: opt(tt.sub), Static: opt(tt.static), BlockSize: tt.size,
				Gateway: ip(tt.gateway), Network: "n1", Created: c.now, Requests: 1,
			}
			if want.ID == "" {
				want.ID = "v1/local/" + tt.pool
			}
			if tt.own != "" {
				want.Own = []netip.Prefix{pfx(tt.own)}
			}
			if diff := cmp.Diff(want, got, cmp.Comparer(func(x, y netip.Prefix) bool { return x == y }), cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
				t.Error(diff)
			}
			h, _, err := a.RequestAddress(ipam.AddressRequest{Pool: got.ID}, nil)
			if tt.firstGot == "full" {
				refused(t, err, ipam.ErrPoolFull, tt.pool)
				return
			}
			must(t, err)
			if h.Addr != ip(tt.firstGot) {
				t.Errorf("first address %v, want %s", h.Addr, tt.firstGot)
			}
		})
	}
}

func TestRequestPoolRefused(t *testing.T) {
	block := ipam.PoolPlan{CIDR: pfx("10.9.0.0/16"), BlockSize: 26, Block: pfx("10.9.1.0/24"), Size: 16}
	noBlock := ipam.PoolPlan{CIDR: pfx("10.9.0.0/16"), BlockSize: 26, Size: 20}
	tests := []struct {
		name  string
		plan  ipam.Plan
		req   ipam.PoolRequest
		words []string
	}{
		{"no space", lonely(), ipam.PoolRequest{Pool: pfx("10.9.0.0/16")}, []string{"address space", "one word"}},
		{"space with slash", lonely(), ipam.PoolRequest{Space: "a/b", Pool: pfx("10.9.0.0/16")}, []string{`"a/b"`}},
		{"host bits", lonely(), ipam.PoolRequest{Space: space, Pool: pfx("10.9.0.1/16")}, []string{"10.9.0.1/16", "write 10.9.0.0/16"}},
		{"multicast", lonely(), ipam.PoolRequest{Space: space, Pool: pfx("239.1.0.0/16")}, []string{"239.1.0.0/16", "multicast"}},
		{"everything", lonely(), ipam.PoolRequest{Space: space, Pool: pfx("0.0.0.0/0")}, []string{"0.0.0.0/0"}},
		{"link-local", lonely(), ipam.PoolRequest{Space: space, Pool: pfx("fe80::/64")}, []string{"fe80::/64", "link-local"}},
		{"mapped", lonely(), ipam.PoolRequest{Space: space, Pool: pfx("::ffff:10.9.0.0/112")}, []string{"IPv4-mapped"}},
		{"range outside", lonely(), ipam.PoolRequest{Space: space, Pool: pfx("10.9.0.0/16"), Range: pfx("10.8.0.0/24")}, []string{"ip-range 10.8.0.0/24", "10.9.0.0/16"}},
		{"range larger", lonely(), ipam.PoolRequest{Space: space, Pool: pfx("10.9.0.0/16"), Range: pfx("10.8.0.0/15")}, []string{"ip-range"}},
		{"range with host bits", lonely(), ipam.PoolRequest{Space: space, Pool: pfx("10.9.0.0/16"), Range: pfx("10.9.0.1/24")}, []string{"write 10.9.0.0/24"}},
		{"range without subnet", lonely(), ipam.PoolRequest{Space: space, Range: pfx("10.9.0.0/24")}, []string{"ip-range 10.9.0.0/24", "--subnet"}},
		{"not alone, no pool in the config", ipam.Plan{}, ipam.PoolRequest{Space: space, Pool: pfx("10.8.0.0/16")}, []string{"10.8.0.0/16", "--ip-range", "add a pool"}},
		{
			"not alone, no block",
			ipam.Plan{Pools: []ipam.PoolPlan{noBlock}},
			ipam.PoolRequest{Space: space, Pool: pfx("10.9.16.0/20")},
			[]string{"10.9.16.0/20", "--ip-range", "pools[].block of pool 10.9.0.0/16"},
		},
		{
			"not alone, no block, no subnet",
			ipam.Plan{Pools: []ipam.PoolPlan{noBlock}},
			ipam.PoolRequest{Space: space},
			[]string{"--ip-range", "pools[].block of pool 10.9.0.0/16"},
		},
		{
			"block outside the subnet",
			ipam.Plan{Pools: []ipam.PoolPlan{block}},
			ipam.PoolRequest{Space: space, Pool: pfx("10.9.16.0/20")},
			[]string{"10.9.16.0/20", "pools[].block 10.9.1.0/24 of pool 10.9.0.0/16", "--ip-range"},
		},
		{"no pool of the family", ipam.Plan{Alone: true, Pools: []ipam.PoolPlan{noBlock}}, ipam.PoolRequest{Space: space, V6: true}, []string{"IPv6", "--subnet"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAllocator(newClock(), tt.plan)
			_, d, err := a.RequestPool(tt.req)
			refused(t, err, nil, tt.words...)
			if !d.Empty() || len(a.Records()) > 0 {
				t.Errorf("a refused pool left %v, %v", d, a.Records())
			}
		})
	}
}

// The engine asks again for as long as the answer overlaps a route of the host, and gives the
// answers it does not want back at the end: no answer may come twice, and there must be an end.
func TestRequestPoolFromPlan(t *testing.T) {
	a := newAllocator(newClock(), ipam.Plan{Alone: true, Pools: []ipam.PoolPlan{
		{CIDR: pfx("10.210.0.0/22"), BlockSize: 26, Size: 24},
		{CIDR: pfx("fdfa::/48"), BlockSize: 122, Size: 64},
		{CIDR: pfx("10.220.0.0/24"), BlockSize: 26, Size: 24},
	}})
	_, _, err := a.RequestPool(ipam.PoolRequest{Space: space, Pool: pfx("10.210.1.128/25")})
	must(t, err)
	network(t, a, "n2", "10.210.3.0/24", "")
	_, err = a.HoldExtra("n2", "e1", []netip.Addr{ip("10.210.2.77")}, nil)
	must(t, err)

	var got []string
	for range 2 {
		p, _, err := a.RequestPool(ipam.PoolRequest{Space: space})
		must(t, err)
		got = append(got, p.CIDR.String())
	}
	if diff := cmp.Diff([]string{"10.210.0.0/24", "10.220.0.0/24"}, got); diff != "" {
		t.Error(diff)
	}
	_, _, err = a.RequestPool(ipam.PoolRequest{Space: space})
	refused(t, err, ipam.ErrPoolFull, "IPv4", "--subnet")

	_, err = a.ReleasePool("v1/local/10.210.0.0/24")
	must(t, err)
	p, _, err := a.RequestPool(ipam.PoolRequest{Space: space})
	must(t, err)
	if p.CIDR != pfx("10.210.0.0/24") {
		t.Errorf("got %v, want the subnet that was released", p.CIDR)
	}
	for _, want := range []string{"fdfa::/64", "fdfa:0:0:1::/64"} {
		p, _, err = a.RequestPool(ipam.PoolRequest{Space: space, V6: true})
		must(t, err)
		if p.CIDR != pfx(want) {
			t.Errorf("got %v, want %s", p.CIDR, want)
		}
	}
	// Another space does not see the pools of this one.
	if p, _, err = a.RequestPool(ipam.PoolRequest{Space: "global"}); err != nil || p.CIDR != pfx("10.210.0.0/24") {
		t.Errorf("got %v, %v, want 10.210.0.0/24 in another space", p.CIDR, err)
	}
}

func TestRequestPoolFromBlock(t *testing.T) {
	a := newAllocator(newClock(), ipam.Plan{Pools: []ipam.PoolPlan{{CIDR: pfx("10.9.0.0/16"), BlockSize: 26, Block: pfx("10.9.1.0/24"), Size: 16}}})
	p, _, err := a.RequestPool(ipam.PoolRequest{Space: space})
	must(t, err)
	if p.CIDR != pfx("10.9.0.0/16") || len(p.Own) != 1 || p.Own[0] != pfx("10.9.1.0/24") {
		t.Errorf("got %v with %v, want the whole pool with the block", p.CIDR, p.Own)
	}
	_, _, err = a.RequestPool(ipam.PoolRequest{Space: space})
	refused(t, err, ipam.ErrPoolFull)
}

func TestRequestPoolHuge(t *testing.T) {
	a := newAllocator(newClock(), ipam.Plan{Alone: true, Pools: []ipam.PoolPlan{{CIDR: pfx("fd00::/16"), Size: 64}}})
	_, _, err := a.RequestPool(ipam.PoolRequest{Space: space, Pool: pfx("fd00::/17")})
	must(t, err)
	p, _, err := a.RequestPool(ipam.PoolRequest{Space: space, V6: true})
	must(t, err)
	if p.CIDR != pfx("fd00:8000::/64") {
		t.Errorf("got %v, want the first /64 behind a pool of half the range", p.CIDR)
	}
}

func TestRequestPoolOverlap(t *testing.T) {
	c := newClock()
	a := newAllocator(c, lonely())
	network(t, a, "n1", "10.9.0.0/16", "")
	_, _, err := a.RequestPool(ipam.PoolRequest{Space: space, Pool: pfx("10.8.0.0/16")})
	must(t, err)

	for _, tt := range []struct{ pool, sub, words string }{
		{"10.9.0.0/16", "", "10.9.0.0/16"},
		{"10.9.0.0/16", "10.9.0.0/24", "n1"},
		{"10.9.4.0/24", "", "10.9.4.0/24"},
		{"10.0.0.0/8", "", "10.0.0.0/8"},
	} {
		_, _, err := a.RequestPool(ipam.PoolRequest{Space: space, Pool: pfx(tt.pool), Range: opt(tt.sub)})
		if tt.pool == "10.0.0.0/8" {
			refused(t, err, ipam.ErrInUse, "10.8.0.0/16", tt.words, "no network took it")
			continue
		}
		refused(t, err, ipam.ErrInUse, "10.9.0.0/16", "n1", tt.words)
	}
	for _, pool := range []string{"10.9.0.0/16", "10.9.4.0/24"} {
		b := newAllocator(c, lonely())
		network(t, b, "n1", "10.9.0.0/16", "")
		_, _, err := b.RequestPool(ipam.PoolRequest{Space: "global", Pool: pfx(pool)})
		must(t, err)
	}
	_, err = a.HoldExtra("n1", "e1", []netip.Addr{ip("192.0.2.7")}, nil)
	must(t, err)
	_, _, err = a.RequestPool(ipam.PoolRequest{Space: space, Pool: pfx("192.0.2.0/24")})
	refused(t, err, ipam.ErrInUse, "192.0.2.7", "e1", "n1")
}

// Two networks with the same subnet are made at once: the one that comes second fails, and what
// the engine gives back for it must not take anything from the first.
func TestRequestPoolTwice(t *testing.T) {
	a := newAllocator(newClock(), lonely())
	req := ipam.PoolRequest{Space: space, Pool: pfx("10.9.0.0/24")}
	first, _, err := a.RequestPool(req)
	must(t, err)
	second, _, err := a.RequestPool(req)
	must(t, err)
	if first.ID != second.ID || second.Requests != 2 {
		t.Fatalf("got %s and %s, requests %d, want the same pool twice", first.ID, second.ID, second.Requests)
	}
	gateway := ipam.AddressRequest{Pool: first.ID, Gateway: true}
	for range 2 {
		h, _, err := a.RequestAddress(gateway, nil)
		must(t, err)
		if h.Addr != ip("10.9.0.1") {
			t.Fatalf("gateway %v, want 10.9.0.1", h.Addr)
		}
	}
	_, err = a.BindNetwork("n1", []netip.Prefix{req.Pool}, ipam.BindSettings{})
	must(t, err)
	_, err = a.BindNetwork("n2", []netip.Prefix{req.Pool}, ipam.BindSettings{})
	refused(t, err, ipam.ErrInUse, "n1", "10.9.0.0/24")

	release(t, a, second.ID, ip("10.9.0.1"))
	_, err = a.ReleasePool(second.ID)
	must(t, err)
	p, ok := a.Pool(first.ID)
	if !ok || p.Network != "n1" || p.Gateway != ip("10.9.0.1") || len(a.Holdings()) != 1 {
		t.Fatalf("the first network has %+v, %v, want its pool and gateway", p, a.Holdings())
	}
	_, err = a.ReleasePool(first.ID)
	must(t, err)
	if left := a.Records(); len(left) > 0 {
		t.Errorf("records left: %v", left)
	}
}

// The second may fail before the first has its network.
func TestRequestPoolTwiceUnbound(t *testing.T) {
	a := newAllocator(newClock(), lonely())
	req := ipam.PoolRequest{Space: space, Pool: pfx("10.9.0.0/24")}
	p, _, err := a.RequestPool(req)
	must(t, err)
	_, _, err = a.RequestAddress(ipam.AddressRequest{Pool: p.ID, Gateway: true}, nil)
	must(t, err)
	before := dump(t, a)
	_, _, err = a.RequestPool(req)
	must(t, err)
	release(t, a, p.ID, ip("10.9.0.1"))
	_, err = a.ReleasePool(p.ID)
	must(t, err)
	if diff := cmp.Diff(before, dump(t, a)); diff != "" {
		t.Error(diff)
	}
}

// What a failed creation left must not stop the next one.
func TestRequestPoolAbandoned(t *testing.T) {
	c := newClock()
	a := newAllocator(c, lonely())
	req := ipam.PoolRequest{Space: space, Pool: pfx("10.9.0.0/24")}
	p, _, err := a.RequestPool(req)
	must(t, err)
	_, err = ask(a, p.ID, "10.9.0.5")
	must(t, err)
	c.advance(time.Hour)
	p, d, err := a.RequestPool(req)
	must(t, err)
	if p.Requests != 1 || p.Created != c.now || len(d.Put) != 1 || len(d.Delete) != 1 || len(a.Records()) != 1 {
		t.Errorf("got %+v, delta %+v, want a new pool without the old auxiliary address", p, d)
	}
}

// A network of another driver that has our addresses is never bound; it is alive all the same.
func TestRequestPoolNotAbandoned(t *testing.T) {
	c := newClock()
	a := newAllocator(c, lonely())
	req := ipam.PoolRequest{Space: space, Pool: pfx("10.9.0.0/24")}
	p, _, err := a.RequestPool(req)
	must(t, err)
	addr := next(t, a, p.ID)
	c.advance(time.Hour)
	p, _, err = a.RequestPool(req)
	must(t, err)
	if held := a.Holdings(); p.Requests != 2 || len(held) != 1 || held[0].Addr != addr {
		t.Errorf("got %+v with %v, want the pool with its address", p, held)
	}
	if d := a.DropPool(p.ID); len(d.Delete) != 3 || len(a.Records()) != 0 {
		t.Errorf("dropped %+v, left %v", d, a.Records())
	}
}

func TestReleasePool(t *testing.T) {
	a := newAllocator(newClock(), lonely())
	p := network(t, a, "n1", "10.9.0.0/24", "")
	run(t, a, p, "e1")
	d, err := a.ReleasePool(p.ID)
	must(t, err)
	if len(d.Delete) != 4 || len(d.Put) != 0 || len(a.Records()) != 0 { // pool, block, gateway, e1
		t.Errorf("delta %+v, records %v, want four deletions and nothing left", d, a.Records())
	}
	for range 2 {
		d, err = a.ReleasePool(p.ID)
		if err != nil || !d.Empty() {
			t.Errorf("released again: %+v, %v, want nothing", d, err)
		}
	}
}

func TestParsePoolID(t *testing.T) {
	for _, id := range []string{"v1/local/10.9.0.0/16", "v1/fairway-global/fd09::/64", "v1/x/10.9.0.0/16/10.9.1.0/24", "v1/x/fd09::/64/fd09::100/120"} {
		req, err := ipam.ParsePoolID(id)
		must(t, err)
		a := newAllocator(newClock(), lonely())
		p, _, err := a.RequestPool(req)
		must(t, err)
		if p.ID != id {
			t.Errorf("%q makes the pool %q", id, p.ID)
		}
	}
	for _, id := range []string{
		"", "v1", "v1/local", "v2/local/10.9.0.0/16", "v1//10.9.0.0/16", "v1/local/10.9.0.0", "v1/local/10.9.0.1/16", "v1/local/10.9.0.0/33",
		"v1/local/10.9.0.0/16/10.9.1.0", "v1/local/10.9.0.0/16/10.8.1.0/24", "v1/local/10.9.0.0/16/10.9.1.0/24/", "v1/local/fd09:0::/64", "v1/lo cal/10.9.0.0/16",
	} {
		_, err := ipam.ParsePoolID(id)
		refused(t, err, nil, "parse pool ID")
	}
}

func FuzzParsePoolID(f *testing.F) {
	for _, id := range []string{"v1/local/10.9.0.0/16", "v1/g/fd09::/64/fd09::100/120", "v1/x/10.9.0.0/016", "v1/x/::ffff:1.2.3.4/128", "v1/\x00/1.0.0.0/8", "////"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		req, err := ipam.ParsePoolID(id)
		if err != nil {
			return
		}
		p, _, err := newAllocator(newClock(), lonely()).RequestPool(req)
		if err != nil || p.ID != id {
			t.Errorf("%q parses to %+v, which makes %q, %v", id, req, p.ID, err)
		}
	})
}
