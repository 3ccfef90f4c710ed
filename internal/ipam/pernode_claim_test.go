package ipam_test

import (
	"errors"
	"net/netip"
	"testing"

	"fairway/internal/ipam"
)

// A node claims one block of a pool of which each has one, and no second, whatever the store and the user say.
func TestPerNodeFromTheStore(t *testing.T) {
	a := newAllocator(newClock(), together())
	p, err := bridged(t, a, "10.9.0.0/16", "", "")
	must(t, err)
	if p.BlockSize != 24 || p.Static.IsValid() || p.Gateway.IsValid() {
		t.Errorf("made by hand: %+v, want parts of /24, no static range, no gateway yet", p)
	}
	_, _, err = a.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
	lacks(t, err, ipam.Lack{Pool: p.ID, CIDR: p.CIDR})
	_, err = ask(a, p.ID, "10.9.200.7") // there is no static range
	lacks(t, err, ipam.Lack{Pool: p.ID, CIDR: p.CIDR, Addr: ip("10.9.200.7")})

	_, err = a.Adopt(p.ID, pfx("10.9.7.0/24"))
	must(t, err)
	if got := next(t, a, p.ID); got != ip("10.9.7.2") {
		t.Errorf("the first container has %v", got)
	}
	_, err = a.Adopt(p.ID, pfx("10.9.8.0/24"))
	refused(t, err, ipam.ErrOneBlock, "10.9.7.0/24")
	_, err = ask(a, p.ID, "10.9.8.9")
	refused(t, err, nil, "not in this node's subnet 10.9.7.0/24")

	// Fenced, it gives nothing, and says why; a second one is no way out. Then it is the node's again.
	a.Fence(p.ID, pfx("10.9.7.0/24"), "node host2 has it", false)
	for _, addr := range []string{"", "10.9.7.9"} {
		req := ipam.AddressRequest{Pool: p.ID}
		if addr != "" {
			req.Addr = ip(addr)
		}
		_, _, err = a.RequestAddress(req, nil)
		refused(t, err, ipam.ErrFenced, "10.9.7.0/24", "node host2 has it")
		if errors.Is(err, ipam.ErrPoolFull) {
			t.Errorf("fenced, and said to be full: %v", err)
		}
	}
	_, err = a.Adopt(p.ID, pfx("10.9.7.0/24"))
	must(t, err)
	if got := next(t, a, p.ID); got != ip("10.9.7.3") {
		t.Errorf("got %v, want the next address", got)
	}

	// It is kept over a restart, and goes only when no container has anything of it.
	b := newAllocator(newClock(), together())
	must(t, b.Load(saved(t, a.Records())))
	if part, gw, ok := b.NodeSubnet(p.ID); !ok || part != pfx("10.9.7.0/24") || gw != ip("10.9.7.1") {
		t.Errorf("loaded: subnet %v with gateway %v (%v)", part, gw, ok)
	}
	_, err = b.DropBlock(p.ID, pfx("10.9.7.0/24"))
	refused(t, err, ipam.ErrInUse, "10.9.7.2")
	for _, addr := range []string{"10.9.7.2", "10.9.7.3"} {
		_, err = b.ReleaseAddress(p.ID, ip(addr))
		must(t, err)
	}
	_, err = b.DropBlock(p.ID, pfx("10.9.7.0/24"))
	must(t, err)
	if _, _, ok := b.NodeSubnet(p.ID); ok {
		t.Error("a subnet is left")
	}
	_, err = b.Adopt(p.ID, pfx("10.9.8.0/24"))
	must(t, err)
	if got := next(t, b, p.ID); got != ip("10.9.8.2") {
		t.Errorf("got %v of the other subnet, want 10.9.8.2", got)
	}
}

// What the nodes agreed on decides how a pool is cut, also one with room for two parts, and one that was saved before its
// network said the mode.
func TestPerNodeAgreed(t *testing.T) {
	for _, c := range []struct {
		subnet string
		size   int
	}{{"10.9.0.0/16", 22}, {"10.9.0.0/23", 24}, {"fd09::/48", 64}, {"fd09::/63", 64}} {
		a := newAllocator(newClock(), ipam.Plan{Shared: true, Pools: []ipam.PoolPlan{{CIDR: pfx("10.0.0.0/8"), NodeSize: 28, Size: 16}}})
		p, _, err := a.RequestPool(ipam.PoolRequest{Space: space, Pool: pfx(c.subnet), Shape: &ipam.Shape{BlockSize: c.size}})
		must(t, err)
		must(t, newAllocator(newClock(), together()).Load(saved(t, a.Records())))
		_, err = a.BindNetwork("n1", []netip.Prefix{p.CIDR}, ipam.BindSettings{Space: space, PerNode: true})
		must(t, err)
		if p, _ = a.Pool(p.ID); p.BlockSize != c.size || !p.PerNode {
			t.Errorf("%s: %+v, want parts of /%d", c.subnet, p, c.size)
		}
	}
}

func TestNodeShape(t *testing.T) {
	for _, c := range []struct {
		subnet      string
		asked, size int
		wrong       string
	}{
		{"10.9.0.0/16", 0, 24, ""},
		{"10.9.0.0/16", 20, 20, ""},
		{"10.9.0.0/25", 26, 26, ""},
		{"fd09::/48", 0, 64, ""},
		{"10.9.0.0/24", 0, 0, "subnet 10.9.0.0/24 is one part, of /24"},
		{"10.9.0.0/25", 0, 0, "subnet 10.9.0.0/25 is one part, of /25"},
		{"fd09::/64", 0, 0, "pools[].blockSize"},
		{"10.9.0.0/29", 31, 0, "no room"},
		{"10.9.0.1/16", 0, 0, "host bits"},
	} {
		s, err := ipam.NodeShape(netip.MustParsePrefix(c.subnet), c.asked)
		if c.wrong != "" {
			refused(t, err, nil, c.wrong)
			continue
		}
		if err != nil || s != (ipam.Shape{BlockSize: c.size}) || !s.PerNode(pfx(c.subnet)) {
			t.Errorf("%s: %+v, %v; want parts of /%d", c.subnet, s, err, c.size)
		}
	}
	if s, err := ipam.ShapeOf(pfx("10.9.0.0/16"), 24, netip.Prefix{}); err != nil || s.PerNode(pfx("10.9.0.0/16")) {
		t.Errorf("one with blocks: %+v, %v", s, err)
	}
}
