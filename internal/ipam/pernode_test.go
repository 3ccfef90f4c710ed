package ipam_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/ipam"
)

// bridged makes the pool of a network with a subnet per node: as the engine does, with its gateway before the mode is
// known. A gateway other than "" is the user's.
func bridged(t *testing.T, a *ipam.Allocator, subnet, own, gateway string) (ipam.Pool, error) {
	t.Helper()
	p, _, err := a.RequestPool(ipam.PoolRequest{Space: space, Pool: pfx(subnet), Range: opt(own)})
	must(t, err)
	req := ipam.AddressRequest{Pool: p.ID, Gateway: true}
	if gateway != "" {
		req.Addr = ip(gateway)
	}
	_, _, err = a.RequestAddress(req, nil)
	must(t, err)
	_, err = a.BindNetwork("n1", []netip.Prefix{pfx(subnet)}, ipam.BindSettings{Space: space, PerNode: true})
	if err != nil {
		return p, err
	}
	p, _ = a.Pool(p.ID)
	return p, nil
}

func TestPerNode(t *testing.T) {
	for _, c := range []struct {
		name, subnet, own, gateway string
		plan                       ipam.Plan
		part, gw, first            string
		free                       uint64
	}{
		{name: "alone", plan: lonely(), subnet: "10.9.0.0/16", part: "10.9.0.0/24", gw: "10.9.0.1", first: "10.9.0.2", free: 252},
		{name: "alone, IPv6", plan: lonely(), subnet: "fd09::/48", part: "fd09::/64", gw: "fd09::1", first: "fd09::2"},
		{name: "alone, small", plan: lonely(), subnet: "10.9.0.0/26", part: "10.9.0.0/26", gw: "10.9.0.1", first: "10.9.0.2", free: 60},
		{name: "alone, two", plan: lonely(), subnet: "10.9.0.0/31", part: "10.9.0.0/31", gw: "10.9.0.0", first: "10.9.0.1", free: 0},
		{
			name: "block size of the config", plan: ipam.Plan{Alone: true, Pools: []ipam.PoolPlan{{CIDR: pfx("10.9.0.0/16"), BlockSize: 22, NodeSize: 22, Size: 16}}},
			subnet: "10.9.0.0/16", part: "10.9.0.0/22", gw: "10.9.0.1", first: "10.9.0.2", free: 1020,
		},
		{
			name: "default block size of the config", plan: ipam.Plan{Alone: true, Pools: []ipam.PoolPlan{{CIDR: pfx("10.9.0.0/16"), BlockSize: 26, Size: 16}}},
			subnet: "10.9.0.0/16", part: "10.9.0.0/24", gw: "10.9.0.1", first: "10.9.0.2", free: 252,
		},
		{name: "ip-range", subnet: "10.9.0.0/16", own: "10.9.7.0/24", part: "10.9.7.0/24", gw: "10.9.7.1", first: "10.9.7.2", free: 252},
		{name: "ip-range, own gateway", subnet: "10.9.0.0/16", own: "10.9.7.0/24", gateway: "10.9.7.254", part: "10.9.7.0/24", gw: "10.9.7.254", first: "10.9.7.1", free: 252},
		{
			name: "block of the config", plan: ipam.Plan{Pools: []ipam.PoolPlan{{CIDR: pfx("10.9.0.0/16"), Block: pfx("10.9.200.0/23"), BlockSize: 26, Size: 16}}},
			subnet: "10.9.0.0/16", part: "10.9.200.0/23", gw: "10.9.200.1", first: "10.9.200.2", free: 508,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAllocator(newClock(), c.plan)
			p, err := bridged(t, a, c.subnet, c.own, c.gateway)
			must(t, err)
			if got := next(t, a, p.ID); got != ip(c.first) {
				t.Errorf("the first container has %v, want %s", got, c.first)
			}
			part, gw, ok := a.NodeSubnet(p.ID)
			if !ok || part != pfx(c.part) || gw != ip(c.gw) {
				t.Errorf("subnet %v with gateway %v (%v), want %s with %s", part, gw, ok, c.part, c.gw)
			}
			u := a.Usage()[0].Total
			if pfx(c.subnet).Addr().Is4() && u.Free != c.free {
				t.Errorf("%d addresses are free, want %d", u.Free, c.free)
			}
			// What is saved is all there is.
			b := newAllocator(newClock(), c.plan)
			must(t, b.Load(saved(t, a.Records())))
			if diff := cmp.Diff(dump(t, a), dump(t, b)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A node has one subnet, fills it, and gets no other; the gateway, the network and the broadcast address are nobody's.
func TestPerNodeIsOneBlock(t *testing.T) {
	a := newAllocator(newClock(), ipam.Plan{Alone: true, Pools: []ipam.PoolPlan{{CIDR: pfx("10.9.0.0/16"), NodeSize: 29, Size: 16}}})
	p, err := bridged(t, a, "10.9.0.0/16", "", "")
	must(t, err)
	if _, _, ok := a.NodeSubnet(p.ID); ok {
		t.Error("a subnet is claimed before anybody needs it")
	}
	for i := 2; i <= 6; i++ {
		if got, want := next(t, a, p.ID), netip.AddrFrom4([4]byte{10, 9, 0, byte(i)}); got != want {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
	_, _, err = a.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
	refused(t, err, ipam.ErrPoolFull, "this one's is 10.9.0.0/29")
	for addr, word := range map[string]string{
		"10.9.0.0": "network address", "10.9.0.1": "gateway", "10.9.0.7": "broadcast address of this node's subnet",
		"10.9.0.8": "not in this node's subnet 10.9.0.0/29", "10.9.255.1": "not in this node's subnet 10.9.0.0/29",
	} {
		_, err := ask(a, p.ID, addr)
		refused(t, err, nil, word)
	}
	if _, err := a.HoldExtra("n1", "e1", []netip.Addr{ip("10.9.7.7")}, nil); err == nil {
		t.Error("a further address of another node's subnet is given out")
	}
	if _, err := a.HoldExtra("n1", "e1", []netip.Addr{ip("192.0.2.7")}, nil); err != nil {
		t.Errorf("a further address outside of all pools: %v", err)
	}
}

// The first address that is asked for chooses the subnet of a node that is alone.
func TestPerNodeAroundAnAddress(t *testing.T) {
	a := newAllocator(newClock(), lonely())
	p, err := bridged(t, a, "10.9.0.0/16", "", "")
	must(t, err)
	if _, err := ask(a, p.ID, "10.9.5.1"); err == nil {
		t.Error("the gateway of the subnet to be is given out")
	}
	h, err := ask(a, p.ID, "10.9.5.9")
	must(t, err)
	part, gw, _ := a.NodeSubnet(p.ID)
	if h.Outside || part != pfx("10.9.5.0/24") || gw != ip("10.9.5.1") {
		t.Errorf("held %+v in %v with gateway %v", h, part, gw)
	}
}

// --aux-address keeps an address away, also the one that would be the gateway.
func TestPerNodeReserved(t *testing.T) {
	a := newAllocator(newClock(), lonely())
	p, _, err := a.RequestPool(ipam.PoolRequest{Space: space, Pool: pfx("10.9.0.0/16"), Range: pfx("10.9.7.0/24")})
	must(t, err)
	_, err = ask(a, p.ID, "10.9.7.1")
	must(t, err)
	_, err = a.BindNetwork("n1", []netip.Prefix{pfx("10.9.0.0/16")}, ipam.BindSettings{PerNode: true})
	must(t, err)
	if _, gw, _ := a.NodeSubnet(p.ID); gw != ip("10.9.7.2") {
		t.Errorf("gateway %v, want 10.9.7.2", gw)
	}
	if got := next(t, a, p.ID); got != ip("10.9.7.3") {
		t.Errorf("got %v, want 10.9.7.3", got)
	}
}

func TestPerNodeRefused(t *testing.T) {
	for _, c := range []struct {
		name, own, gateway, want string
		plan                     ipam.Plan
	}{
		{name: "gateway elsewhere", own: "10.9.7.0/24", gateway: "10.9.0.9", want: "not in this node's subnet 10.9.7.0/24"},
		{name: "gateway is the broadcast address", own: "10.9.7.0/24", gateway: "10.9.7.255", want: "the broadcast address of this node's subnet"},
		{name: "gateway of a subnet not known yet", gateway: "10.9.0.9", plan: lonely(), want: "leave --gateway out"},
		{name: "one address", own: "10.9.7.7/32", want: "no room for a gateway and a container"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAllocator(newClock(), c.plan)
			before := dump(t, a)
			p, err := bridged(t, a, "10.9.0.0/16", c.own, c.gateway)
			refused(t, err, nil, c.want)
			if got, _ := a.Pool(p.ID); got.PerNode || got.Network != "" {
				t.Errorf("half made: %+v", got)
			}
			a.DropPool(p.ID)
			if diff := cmp.Diff(before, dump(t, a)); diff != "" {
				t.Error(diff)
			}
		})
	}
	a := newAllocator(newClock(), lonely())
	p, err := bridged(t, a, "10.9.0.0/16", "", "")
	must(t, err)
	next(t, a, p.ID)
	records := append(a.Records(), ipam.Record{Block: &ipam.Block{Pool: p.ID, CIDR: pfx("10.9.9.0/24")}})
	if err := newAllocator(newClock(), lonely()).Load(saved(t, records)); err == nil || errors.Is(err, ipam.ErrNotFound) {
		t.Errorf("two blocks of a node are loaded: %v", err)
	}
}
