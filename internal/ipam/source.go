package ipam

import (
	"errors"
	"fmt"
	"net/netip"
)

// source says where this node's blocks of a pool come from, besides those that it has.
type source interface {
	// next is the block to claim when all others are full. The error says why there is none.
	next(p *pool) (netip.Prefix, error)
	// covering is the block to claim for an address outside the static range that a user asks for;
	// zero: none.
	covering(p *pool, addr netip.Addr) (netip.Prefix, error)
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
	case a.opts.Plan.Shared:
		return shared{}
	case p.Shared:
		return unshared{}
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

func (given) covering(*pool, netip.Addr) (netip.Prefix, error) { return netip.Prefix{}, nil }

// nobody gives nothing: the node was alone when it made the pool and is no longer.
type nobody struct{}

func (nobody) next(*pool) (netip.Prefix, error) {
	return netip.Prefix{}, errors.New("this node has peers now and no store, so it claims no more blocks: " +
		"make the network again with --ip-range, or with pools[].block in the config")
}

func (nobody) covering(*pool, netip.Addr) (netip.Prefix, error) { return netip.Prefix{}, nil }

// unshared gives nothing: other nodes claim blocks of the pool in a store that is gone from the config.
type unshared struct{}

func (unshared) next(*pool) (netip.Prefix, error) {
	return netip.Prefix{}, errors.New("blocks of this pool are claimed in a store, and the config has none any more: " +
		"put store.etcd back, or make the network again")
}

func (u unshared) covering(p *pool, _ netip.Addr) (netip.Prefix, error) { return u.next(p) }

// shared is a store in which all nodes claim blocks. The caller does that, and asks again.
type shared struct{}

func (shared) next(p *pool) (netip.Prefix, error) {
	return netip.Prefix{}, &Lack{Pool: p.ID, CIDR: p.CIDR}
}

func (shared) covering(p *pool, addr netip.Addr) (netip.Prefix, error) {
	return netip.Prefix{}, &Lack{Pool: p.ID, CIDR: p.CIDR, Addr: addr}
}

// Lack is the error that says what has to be claimed in the store before the allocator can answer:
// a block of the pool, the block with Addr in it, or, when Static is set, the address Addr itself.
// The caller claims that, takes a block in with [Allocator.Adopt] or names an address as granted,
// and asks again.
type Lack struct {
	Pool   string // ID
	CIDR   netip.Prefix
	Addr   netip.Addr // zero: any block will do
	Static bool
}

// Error says it to a user, who sees it when the claim is not possible.
func (l *Lack) Error() string {
	switch {
	case l.Static:
		return fmt.Sprintf("address %v of the static range of %v has to be claimed in the store", l.Addr, l.CIDR)
	case l.Addr.IsValid():
		return fmt.Sprintf("address %v is in no block of this node: the block with it has to be claimed in the store", l.Addr)
	}
	return fmt.Sprintf("no address is free in this node's blocks of %v: another block has to be claimed in the store", l.CIDR)
}

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

func (alone) covering(p *pool, addr netip.Addr) (netip.Prefix, error) {
	c := netip.PrefixFrom(addr, p.BlockSize).Masked()
	if p.Static.Overlaps(c) {
		return netip.Prefix{}, nil
	}
	return c, nil
}
