package ipam

import (
	"fmt"
	"net/netip"
)

// Adopt takes in a block that the store gave to this node. One that is fenced is this node's again.
// It may be repeated. The error says why the pool cannot have the block.
func (a *Allocator) Adopt(pool string, cidr netip.Prefix) (Delta, error) {
	p := a.pools[pool]
	rec := Block{Pool: pool, CIDR: cidr, Since: a.opts.Now()}
	if err := a.checkBlock(rec); err != nil {
		return Delta{}, fmt.Errorf("adopt block %v: %w", cidr, err)
	}
	if i, ok := p.find(cidr.Addr()); ok {
		rec.Since = p.blocks[i].Since
	}
	if !p.Shared {
		p := p.Pool
		p.Shared = true
		a.put(Record{Pool: &p})
	}
	if was, ok := a.current(Record{Block: &rec}); !ok || *was.Block != rec {
		a.put(Record{Block: &rec})
	}
	return a.commit(), nil
}

// Fence stops giving out addresses of a claimed block, or marks a claimed address; what is held stays
// held. Why "" lifts it. Doubt tells that it is announced all the same. What the node has not claimed
// is no error.
func (a *Allocator) Fence(pool string, cidr netip.Prefix, why string, doubt bool) Delta {
	if was, ok := a.current(Record{Block: &Block{Pool: pool, CIDR: cidr}}); ok && was.Block.CIDR == cidr {
		rec := *was.Block
		if rec.Fenced, rec.Doubt = why, doubt; rec != *was.Block {
			a.put(Record{Block: &rec})
		}
		return a.commit()
	}
	if was, ok := a.current(Record{Holding: &Holding{Pool: pool, Addr: cidr.Addr()}}); ok && was.Holding.Claimed && cidr.IsSingleIP() {
		rec := *was.Holding
		if rec.Fenced, rec.Doubt = why, doubt; rec != *was.Holding {
			a.put(Record{Holding: &rec})
		}
	}
	return a.commit()
}

// DropBlock ends a claimed block in which no container has an address; [ErrInUse] names one that has.
// A block that the node does not have is no error.
func (a *Allocator) DropBlock(pool string, cidr netip.Prefix) (Delta, error) {
	was, ok := a.current(Record{Block: &Block{Pool: pool, CIDR: cidr}})
	if !ok || was.Block.CIDR != cidr {
		return Delta{}, nil
	}
	p := a.pools[pool]
	for _, r := range p.holdings() {
		h := r.Holding
		switch {
		case !cidr.Contains(h.Addr):
		case h.State == StateResting:
			a.drop(r)
		case h.Kind == KindEndpoint || h.Kind == KindExtra:
			a.rollback()
			return Delta{}, fmt.Errorf("drop block %v: address %v is %w: %s", cidr, h.Addr, ErrInUse, describe(*h))
		}
	}
	a.drop(was)
	return a.commit(), nil
}
