package ipam

import (
	"errors"
	"net/netip"
)

// source says where this node's blocks of a pool come from, besides those that it has. Blocks
// that nodes agree on in a store will be another source, filled before the allocator asks.
type source interface {
	// next is the block to claim when all others are full. The error says why there is none.
	next(p *pool) (netip.Prefix, error)
	// covering is the block to claim for an address that a user asks for.
	covering(p *pool, addr netip.Addr) (netip.Prefix, bool)
}

func (a *Allocator) source(p *pool) source {
	if p.PerNode {
		return one{a.anySource(p)}
	}
	return a.anySource(p)
}

func (a *Allocator) anySource(p *pool) source {
	switch {
	case len(p.Own) > 0, p == a.loose:
		return given{}
	case a.opts.Plan.Alone:
		return alone{}
	}
	return nobody{}
}

// given is the own part of the pool: there is no more of it.
type given struct{}

func (given) next(*pool) (netip.Prefix, error) {
	return netip.Prefix{}, errors.New("this node's own part was given (--ip-range or pools[].block) and does not grow")
}

func (given) covering(*pool, netip.Addr) (netip.Prefix, bool) { return netip.Prefix{}, false }

// nobody gives nothing: the node was alone when it made the pool and is no longer.
type nobody struct{}

func (nobody) next(*pool) (netip.Prefix, error) {
	return netip.Prefix{}, errors.New("this node has peers now and no store, so it claims no more blocks: " +
		"make the network again with --ip-range, or with pools[].block in the config")
}

func (nobody) covering(*pool, netip.Addr) (netip.Prefix, bool) { return netip.Prefix{}, false }

// alone is one node that may claim the pool's blocks in order.
type alone struct{}

func (alone) next(p *pool) (netip.Prefix, error) {
	for c := netip.PrefixFrom(p.CIDR.Addr(), p.BlockSize); covers(p.CIDR, c); {
		skip := c
		i, claimed := p.find(c.Addr())
		switch {
		case claimed:
			skip = p.blocks[i].CIDR
		case p.Static.Overlaps(c):
			if covers(p.Static, c) {
				skip = p.Static
			}
		case p.usable(c) > 0:
			return c, nil
		}
		c = after(skip, p.BlockSize)
	}
	return netip.Prefix{}, errors.New("every block outside the static range is claimed")
}

func (alone) covering(p *pool, addr netip.Addr) (netip.Prefix, bool) {
	c := netip.PrefixFrom(addr, p.BlockSize).Masked()
	return c, !p.Static.Overlaps(c)
}
