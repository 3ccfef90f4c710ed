package ipam

import (
	"errors"
	"fmt"
	"net/netip"
)

// Prefix lengths of a node's subnet when the config does not say.
const (
	nodeBits4 = 24
	nodeBits6 = 64
)

// A pool that is [Pool.PerNode] has one block on each node: the subnet of the node's bridge. Its gateway is an address of
// the block, and so another one on each node; there is no static range, since an address works only behind its own
// node's bridge.

// one is a source of which a node takes one block and no more.
type one struct{ source }

// next implements source.
func (s one) next(p *pool) (netip.Prefix, error) {
	if len(p.blocks) > 0 {
		if err := p.blocks[0].open(); err != nil {
			return netip.Prefix{}, err
		}
		return netip.Prefix{}, fmt.Errorf("a node has one subnet of the network, and this one's is %s: give the pool shorter blocks (pools[].blockSize) and make the network again",
			p.blocks[0].CIDR)
	}
	return s.source.next(p)
}

// covering implements source.
func (s one) covering(p *pool, addr netip.Addr) (netip.Prefix, error) {
	if len(p.blocks) > 0 {
		return netip.Prefix{}, nil
	}
	return s.source.covering(p, addr)
}

// nodeSize is the prefix length of a node's subnet: what was asked for, or the default, as far as the pool has room.
func nodeSize(cidr netip.Prefix, asked int) int {
	if asked <= 0 || asked > cidr.Addr().BitLen() {
		asked = nodeBits6
		if cidr.Addr().Is4() {
			asked = nodeBits4
		}
	}
	return max(asked, cidr.Bits())
}

// perNode is the pool's record as a network with a subnet per node has it. The gateway that the engine requested before
// anybody knew of the mode is dropped, unless the user chose it.
func (a *Allocator) perNode(p *pool, rec *Pool) error {
	if p.PerNode {
		return nil
	}
	if p.lived() || len(p.blocks) > len(p.Own) {
		return fmt.Errorf("subnet %v has addresses of containers already, which were given out before its mode was known: %w", p.CIDR, ErrInUse)
	}
	asked := 0
	for _, plan := range a.opts.Plan.Pools {
		if covers(plan.CIDR, p.CIDR) {
			asked = plan.NodeSize
		}
	}
	if shape := (Shape{BlockSize: p.BlockSize, Static: p.Static}); len(p.Own) == 0 && shape.PerNode(p.CIDR) {
		asked = p.BlockSize // cut already as nodes agreed on
	}
	rec.PerNode, rec.BlockSize = true, nodeSize(p.CIDR, asked)
	rec.Static, rec.StaticSet = netip.Prefix{}, false
	bits := rec.BlockSize
	if len(rec.Own) > 0 {
		bits = rec.Own[0].Bits()
	}
	if bits == p.CIDR.Addr().BitLen() {
		return fmt.Errorf("this node's part of subnet %v is a /%d, which has no room for a gateway and a container: give a larger one", p.CIDR, bits)
	}
	gw := p.leases[p.Gateway]
	if gw == nil || gw.Kind != KindGateway {
		return nil
	}
	if gw.Explicit {
		return a.checkNodeGateway(p, gw.Addr)
	}
	a.drop(Record{Holding: &Holding{Pool: p.ID, Addr: gw.Addr}})
	rec.Gateway = netip.Addr{}
	return nil
}

// checkNodeGateway takes a gateway of the user's only where it is known to be in this node's subnet.
func (a *Allocator) checkNodeGateway(p *pool, gw netip.Addr) error {
	if len(p.Own) == 0 {
		return fmt.Errorf("gateway %v: in mode=subnet each node's gateway is the first address of its own subnet: leave --gateway out, or give this node its part with --ip-range", gw)
	}
	own := p.Own[0]
	if what := reserved(own, gw); what != "" || !own.Contains(gw) {
		if what != "" {
			what = "the " + what + " of"
		} else {
			what = "not in"
		}
		return fmt.Errorf("gateway %v is %s this node's subnet %v: leave --gateway out, or give an address of the subnet", gw, what, own)
	}
	return nil
}

// nodeGateway is the gateway of the node's subnet: the user's, or the first address that is not reserved for something
// else (--aux-address). It is zero while the node has no subnet.
func (p *pool) nodeGateway() netip.Addr {
	switch {
	case p.Gateway.IsValid():
		return p.Gateway
	case len(p.blocks) == 0:
		return netip.Addr{}
	}
	block := p.blocks[0].CIDR
	gw := firstUsable(block)
	for l := p.leases[gw]; l != nil && l.Kind == KindAux && block.Contains(gw.Next()); l = p.leases[gw] {
		gw = gw.Next()
	}
	return gw
}

// NodeSubnet is this node's subnet of a pool that is PerNode, and its gateway; false while the node has none.
func (a *Allocator) NodeSubnet(pool string) (subnet netip.Prefix, gateway netip.Addr, ok bool) {
	p := a.pools[pool]
	if p == nil || !p.PerNode || len(p.blocks) == 0 {
		return netip.Prefix{}, netip.Addr{}, false
	}
	return p.blocks[0].CIDR, p.nodeGateway(), true
}

// outsideNode refuses an address of another node's subnet.
func outsideNode(p *pool, addr netip.Addr) error {
	if len(p.blocks) == 0 {
		return fmt.Errorf("address %v: this node has no subnet of %v yet, and cannot have the one around it: %w", addr, p.CIDR, errNoSubnet)
	}
	return fmt.Errorf("address %v is not in this node's subnet %v: in mode=subnet a container has an address of the node that it runs on", addr, p.blocks[0].CIDR)
}

var errNoSubnet = errors.New("leave the address out")

// possibleSize says that the blocks of a saved pool have a length that they can have. A pool that nodes agreed on to have
// a subnet on each is cut like that before its network says the mode.
func possibleSize(rec Pool) bool {
	shape := Shape{BlockSize: rec.BlockSize, Static: rec.Static}
	if rec.PerNode || rec.Shared && shape.PerNode(rec.CIDR) {
		return rec.BlockSize == nodeSize(rec.CIDR, rec.BlockSize)
	}
	return rec.BlockSize == blockSize(rec.CIDR, rec.BlockSize)
}
