package ipam_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/ipam"
)

func TestBindNetwork(t *testing.T) {
	v4, v6 := pfx("10.9.0.0/16"), pfx("fd09::/64")
	both := []netip.Prefix{v4, v6}
	statics := func(s ...string) ipam.BindSettings {
		var out ipam.BindSettings
		for _, r := range s {
			out.Static = append(out.Static, pfx(r))
		}
		return out
	}
	tests := []struct {
		name     string
		cidrs    []netip.Prefix
		settings ipam.BindSettings
		static   []string // of the pools afterwards
		set      bool     // of the first
		err      error
		words    []string // refused
	}{
		{name: "default", cidrs: both, static: []string{"10.9.192.0/18", "fd09:0:0:0:c000::/66"}},
		{name: "chosen", cidrs: both, settings: statics("10.9.255.0/24", "fd09::1:0/112"), static: []string{"10.9.255.0/24", "fd09::1:0/112"}, set: true},
		{name: "one chosen", cidrs: both, settings: statics("10.9.0.0/28"), static: []string{"10.9.0.0/28", "fd09:0:0:0:c000::/66"}, set: true},
		{name: "the whole pool", cidrs: both, settings: statics("fd09::/64"), static: []string{"10.9.192.0/18", "fd09::/64"}},
		{name: "space", cidrs: both, settings: ipam.BindSettings{Space: space}, static: []string{"10.9.192.0/18", "fd09:0:0:0:c000::/66"}},
		{name: "another space", cidrs: both, settings: ipam.BindSettings{Space: "LocalDefault"}, err: ipam.ErrForeignPool, words: []string{"10.9.0.0/16"}},
		{name: "foreign", cidrs: []netip.Prefix{v4, pfx("10.8.0.0/16")}, err: ipam.ErrForeignPool, words: []string{"10.8.0.0/16"}},
		{name: "outside", cidrs: both, settings: statics("10.8.0.0/24"), words: []string{"staticRange 10.8.0.0/24", "10.9.0.0/16"}},
		{name: "larger", cidrs: both, settings: statics("10.8.0.0/15"), words: []string{"staticRange 10.8.0.0/15"}},
		{name: "host bits", cidrs: both, settings: statics("10.9.0.1/24"), words: []string{"staticRange 10.9.0.1/24", "10.9.0.0/24"}},
		{name: "two in one pool", cidrs: both, settings: statics("10.9.1.0/24", "10.9.2.0/24"), words: []string{"10.9.2.0/24", "second"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAllocator(newClock(), lonely())
			for _, cidr := range both {
				_, _, err := a.RequestPool(ipam.PoolRequest{Space: space, Pool: cidr})
				must(t, err)
			}
			before := dump(t, a)
			d, err := a.BindNetwork("n1", tt.cidrs, tt.settings)
			if tt.words != nil {
				refused(t, err, tt.err, tt.words...)
				if diff := cmp.Diff(before, dump(t, a)); diff != "" || !d.Empty() {
					t.Errorf("a refused network left %v\n%s", d, diff)
				}
				return
			}
			must(t, err)
			for i, p := range a.Pools() {
				if p.Network != "n1" || p.Static != pfx(tt.static[i]) || (i == 0 && p.StaticSet != tt.set) {
					t.Errorf("pool %+v, want network n1 and static range %s", p, tt.static[i])
				}
			}
			if d, err = a.BindNetwork("n1", tt.cidrs, tt.settings); err != nil || !d.Empty() {
				t.Errorf("bound again: %v, %v, want no change", d, err)
			}
		})
	}
}

func TestBindNetworkStaticOverlaps(t *testing.T) {
	a := newAllocator(newClock(), ipam.Plan{})
	p, _, err := a.RequestPool(ipam.PoolRequest{Space: space, Pool: pfx("10.9.0.0/16"), Range: pfx("10.9.8.0/24")})
	must(t, err)
	_, err = a.BindNetwork("n1", []netip.Prefix{p.CIDR}, ipam.BindSettings{Static: []netip.Prefix{pfx("10.9.0.0/20")}})
	refused(t, err, nil, "staticRange 10.9.0.0/20", "10.9.8.0/24")

	b := newAllocator(newClock(), lonely())
	p = network(t, b, "n1", "10.9.0.0/16", "")
	next(t, b, p.ID)
	_, err = b.BindNetwork("n1", []netip.Prefix{p.CIDR}, ipam.BindSettings{Static: []netip.Prefix{pfx("10.9.0.0/24")}})
	refused(t, err, nil, "staticRange 10.9.0.0/24", "block 10.9.0.0/26")
}

// A static range that was chosen is passed over by blocks, wherever it is.
func TestStaticNeverCut(t *testing.T) {
	for _, tt := range []struct{ static, first string }{
		{"10.9.0.0/24", "10.9.1.0"},
		{"10.9.0.0/28", "10.9.0.64"},
		{"10.9.0.96/27", "10.9.0.2"},
	} {
		a := newAllocator(newClock(), lonely())
		_, _, err := a.RequestPool(ipam.PoolRequest{Space: space, Pool: pfx("10.9.0.0/16")})
		must(t, err)
		_, err = a.BindNetwork("n1", []netip.Prefix{pfx("10.9.0.0/16")}, ipam.BindSettings{Static: []netip.Prefix{pfx(tt.static)}})
		must(t, err)
		p := a.Pools()[0]
		if got := next(t, a, p.ID); got != ip(tt.first) {
			t.Errorf("static range %s: first address %v, want %s", tt.static, got, tt.first)
		}
		for range 100 {
			next(t, a, p.ID)
		}
		for _, b := range a.Blocks() {
			if b.CIDR.Overlaps(pfx(tt.static)) {
				t.Errorf("block %v is in the static range %s", b.CIDR, tt.static)
			}
		}
		// An address beside the static range, in a block that can never be claimed, is a host route.
		if tt.static == "10.9.0.96/27" {
			h, err := ask(a, p.ID, "10.9.0.70")
			if err != nil || !h.Outside {
				t.Errorf("got %+v, %v, want it outside", h, err)
			}
		}
	}
}

// The same subnet is a pool of two spaces when a swarm manager asks too: the network takes the one of its own space.
func TestBindNetworkSpaces(t *testing.T) {
	a := newAllocator(newClock(), lonely())
	for _, s := range []string{"a-global", space} {
		_, _, err := a.RequestPool(ipam.PoolRequest{Space: s, Pool: pfx("10.9.0.0/16")})
		must(t, err)
	}
	_, err := a.BindNetwork("n1", []netip.Prefix{pfx("10.9.0.0/16")}, ipam.BindSettings{Space: space})
	must(t, err)
	for _, p := range a.Pools() {
		if (p.Network == "n1") != (p.Space == space) {
			t.Errorf("pool %s has network %q", p.ID, p.Network)
		}
	}
	_, err = a.HoldExtra("n1", "e1", []netip.Addr{ip("10.9.0.9")}, nil)
	must(t, err)
	if d := a.UnbindNetwork("n1"); len(d.Delete) != 3 || len(a.Pools()) != 1 { // pool, block, address
		t.Errorf("delta %+v leaves %v, want the pool of the other space alone", d, a.Pools())
	}
}

func TestUnbindNetwork(t *testing.T) {
	a := newAllocator(newClock(), lonely())
	network(t, a, "n2", "10.8.0.0/24", "")
	before := dump(t, a)
	p := network(t, a, "n1", "10.9.0.0/24", "")
	run(t, a, p, "e1")
	_, err := a.HoldExtra("n1", "e1", []netip.Addr{ip("192.0.2.1")}, nil)
	must(t, err)
	a.UnbindNetwork("n1")
	if diff := cmp.Diff(before, dump(t, a)); diff != "" {
		t.Error(diff)
	}
	for _, id := range []string{"", "n1"} {
		if d := a.UnbindNetwork(id); !d.Empty() {
			t.Errorf("unbound %q: %v, want nothing", id, d)
		}
	}
}

func TestBindEndpoint(t *testing.T) {
	c := newClock()
	a := newAllocator(c, lonely())
	p := network(t, a, "n1", "10.9.0.0/24", "")
	network(t, a, "n2", "10.8.0.0/24", "")
	addr := next(t, a, p.ID)
	bind := func(addr, network, endpoint, sandbox string) (ipam.Delta, error) {
		return a.BindEndpoint(ip(addr), network, endpoint, sandbox)
	}
	d, err := bind(addr.String(), "n1", "e1", "")
	if err != nil || len(d.Put) != 1 {
		t.Fatalf("%v, %v", d, err)
	}
	if d, err = bind(addr.String(), "n1", "e1", ""); err != nil || !d.Empty() {
		t.Errorf("bound again: %v, %v, want no change", d, err)
	}
	if d, err = bind(addr.String(), "n1", "e1", "/run/netns/1"); err != nil || len(d.Put) != 1 || d.Put[0].Holding.Sandbox != "/run/netns/1" {
		t.Errorf("sandbox: %v, %v", d, err)
	}
	if d, err = bind(addr.String(), "n1", "e1", ""); err != nil || !d.Empty() {
		t.Errorf("without sandbox: %v, %v, want no change", d, err)
	}
	_, err = a.HoldExtra("n1", "e1", []netip.Addr{ip("10.9.0.30")}, nil)
	must(t, err)
	rested := run(t, a, p, "e7")
	release(t, a, p.ID, rested)

	for _, tt := range []struct {
		addr, network, endpoint string
		err                     error
		words                   []string
	}{
		{addr.String(), "n1", "e2", ipam.ErrInUse, []string{"e1", "e2", addr.String()}},
		{"10.9.0.1", "n1", "e2", ipam.ErrInUse, []string{"gateway"}},
		{"10.9.0.30", "n1", "e1", ipam.ErrInUse, []string{"fairway.addresses"}},
		{rested.String(), "n1", "e7", ipam.ErrNotFound, []string{"requested first"}},
		{"10.9.0.77", "n1", "e2", ipam.ErrNotFound, []string{"10.9.0.77"}},
		{addr.String(), "n2", "e1", ipam.ErrForeignPool, []string{"n2"}},
		{"10.7.0.1", "n1", "e2", ipam.ErrForeignPool, []string{"10.7.0.1", "n1"}},
		{addr.String(), "", "e1", nil, []string{"both IDs"}},
		{addr.String(), "n1", "", nil, []string{"both IDs"}},
	} {
		d, err := bind(tt.addr, tt.network, tt.endpoint, "")
		refused(t, err, tt.err, tt.words...)
		if !d.Empty() {
			t.Errorf("refused with delta %v", d)
		}
	}
}

func TestHoldExtra(t *testing.T) {
	tests := []struct {
		name    string
		addrs   []string
		outside []bool
		pool    string // of the last one
		err     error
		words   []string // refused
	}{
		{name: "own part", addrs: []string{"10.9.8.20"}, outside: []bool{false}, pool: "v1/local/10.9.0.0/16/10.9.8.0/24"},
		{name: "static range", addrs: []string{"10.9.200.1"}, outside: []bool{true}, pool: "v1/local/10.9.0.0/16/10.9.8.0/24"},
		{name: "nobody's part", addrs: []string{"10.9.10.1"}, outside: []bool{true}, pool: "v1/local/10.9.0.0/16/10.9.8.0/24"},
		{name: "outside all pools", addrs: []string{"192.0.2.1", "2001:db8::1"}, outside: []bool{true, true}},
		{name: "mixed, and one twice", addrs: []string{"10.9.8.20", "192.0.2.1", "::ffff:192.0.2.1"}, outside: []bool{false, true}},
		{name: "none"},
		{name: "another network's", addrs: []string{"192.0.2.1", "10.8.8.9"}, words: []string{"10.8.8.9", "network n2", "10.8.0.0/16"}},
		{name: "a pool without network", addrs: []string{"10.7.8.9"}, words: []string{"10.7.8.9", "10.7.0.0/16"}},
		{name: "gateway", addrs: []string{"10.9.8.20", "10.9.0.1"}, words: []string{"10.9.0.1", "gateway"}},
		{name: "broadcast", addrs: []string{"10.9.255.255"}, words: []string{"10.9.255.255", "broadcast"}},
		{name: "held", addrs: []string{"192.0.2.1", "10.9.8.1"}, err: ipam.ErrInUse, words: []string{"10.9.8.1", "e0"}},
		{name: "extra of another", addrs: []string{"192.0.2.9"}, err: ipam.ErrInUse, words: []string{"192.0.2.9", "e0", "fairway.addresses"}},
		{name: "heard", addrs: []string{"192.0.2.200"}, err: ipam.ErrInUse, words: []string{"192.0.2.200", "host2"}},
		{name: "heard in the static range", addrs: []string{"10.9.201.1"}, err: ipam.ErrInUse, words: []string{"10.9.201.1", "host2"}},
		{name: "loopback", addrs: []string{"127.0.0.5"}, words: []string{"127.0.0.5", "loopback"}},
		{name: "multicast", addrs: []string{"ff02::1"}, words: []string{"ff02::1", "multicast"}},
		{name: "zone", addrs: []string{"2001:db8::1%eth0"}, words: []string{"zone"}},
	}
	oracle := func(addr netip.Addr) (string, bool) {
		return "host2", pfx("192.0.2.128/25").Contains(addr) || pfx("10.9.201.0/24").Contains(addr)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAllocator(newClock(), ipam.Plan{})
			p := network(t, a, "n1", "10.9.0.0/16", "10.9.8.0/24")
			network(t, a, "n2", "10.8.0.0/16", "10.8.8.0/24")
			_, _, err := a.RequestPool(ipam.PoolRequest{Space: space, Pool: pfx("10.7.0.0/16"), Range: pfx("10.7.8.0/24")})
			must(t, err)
			run(t, a, p, "e0") // 10.9.8.1
			run(t, a, p, "other")
			_, err = a.HoldExtra("n1", "e0", []netip.Addr{ip("192.0.2.9")}, nil)
			must(t, err)
			before := dump(t, a)

			var addrs []netip.Addr
			for _, s := range tt.addrs {
				addrs = append(addrs, ip(s))
			}
			d, err := a.HoldExtra("n1", "e1", addrs, oracle)
			if tt.words != nil {
				refused(t, err, tt.err, tt.words...)
				if diff := cmp.Diff(before, dump(t, a)); diff != "" || !d.Empty() {
					t.Errorf("all or nothing, but %v is left\n%s", d, diff)
				}
				return
			}
			must(t, err)
			if len(d.Put) != len(tt.outside) {
				t.Fatalf("delta %+v, want %d addresses", d, len(tt.outside))
			}
			for i, want := range tt.outside {
				h := d.Put[i].Holding
				if h.Kind != ipam.KindExtra || h.Outside != want || h.Endpoint != "e1" || h.Network != "n1" || !h.Explicit {
					t.Errorf("got %+v, want an extra address, outside %v", h, want)
				}
				if i == len(tt.outside)-1 && h.Pool != tt.pool {
					t.Errorf("pool %q, want %q", h.Pool, tt.pool)
				}
			}
			if d, err = a.HoldExtra("n1", "e1", addrs, hears("0.0.0.0/0", "all")); err != nil || !d.Empty() {
				t.Errorf("held again: %v, %v, want no change", d, err)
			}
		})
	}
}

// At the end of an endpoint its further addresses go; its own goes when the engine gives it back.
func TestReleaseExtra(t *testing.T) {
	a := newAllocator(newClock(), lonely())
	p := network(t, a, "n1", "10.9.0.0/24", "")
	run(t, a, p, "e1")
	before := dump(t, a)
	_, err := a.HoldExtra("n1", "e1", []netip.Addr{ip("192.0.2.1"), ip("10.9.0.200")}, nil)
	must(t, err)
	a.ReleaseExtra("e1")
	if diff := cmp.Diff(before, dump(t, a)); diff != "" {
		t.Error(diff)
	}
	if d := a.ReleaseExtra("e1"); !d.Empty() {
		t.Errorf("released again: %v, want nothing", d)
	}
}

func TestReleaseEndpoint(t *testing.T) {
	c := newClock()
	a := newAllocator(c, lonely())
	p4, p6 := network(t, a, "n1", "10.9.0.0/24", ""), network(t, a, "n1", "fd09::/64", "")
	one, two := run(t, a, p4, "e1"), run(t, a, p6, "e1")
	run(t, a, p4, "e2")
	_, err := a.HoldExtra("n1", "e1", []netip.Addr{ip("192.0.2.1"), ip("10.9.0.20")}, nil)
	must(t, err)
	_, err = a.ReleaseAddress(p4.ID, ip("10.9.0.20"))
	refused(t, err, nil, "10.9.0.20", "fairway.addresses", "e1")

	a.ReleaseEndpoint("e1")
	resting := map[netip.Addr]bool{}
	for _, h := range a.Holdings() {
		if h.State == ipam.StateResting {
			resting[h.Addr] = true
		}
		if h.State == ipam.StateHeld && h.Endpoint == "e1" {
			t.Errorf("still held: %+v", h)
		}
	}
	if diff := cmp.Diff(map[netip.Addr]bool{one: true, two: true, ip("10.9.0.20"): true}, resting, cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
		t.Error(diff)
	}
	if d := a.ReleaseEndpoint("e1"); !d.Empty() {
		t.Errorf("released again: %v, want nothing", d)
	}
}
