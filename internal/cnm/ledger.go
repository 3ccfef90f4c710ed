package cnm

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"fairway/internal/cluster"
	"fairway/internal/ipam"
)

// releasing is a block or an address that this node no longer has, and that the store still says it has.
type releasing struct {
	Pool  netip.Prefix `json:"pool"`
	Block netip.Prefix `json:"block,omitzero"`
	Addr  netip.Addr   `json:"addr,omitzero"`
	// asked tells that the store may have been asked to take it back. It is not saved: an earlier run may have asked.
	asked bool
}

func (r releasing) claim() cluster.Claim {
	return cluster.Claim{Pool: cluster.PoolSpec{CIDR: r.Pool}, Block: r.Block, Addr: r.Addr, Releasing: true}
}

func (r releasing) key() string { return r.claim().Key() }

func (r releasing) prefix() netip.Prefix {
	if r.Addr.IsValid() {
		return netip.PrefixFrom(r.Addr, r.Addr.BitLen())
	}
	return r.Block
}

// leaving are the prefixes that are on their way back to the store.
func (s *shared) leaving() []netip.Prefix {
	var out []netip.Prefix
	for _, r := range s.releasing {
		out = append(out, r.prefix())
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// claims writes down, in the same transaction, what a change of the allocator makes of claims: what it lets go of is to be
// released, and what it takes in is no longer.
func (b *Book) claims(c *change, d ipam.Delta) {
	for _, r := range d.Gone() {
		if gone, ok := claimOf(r); ok && (r.Holding != nil || b.shared.claimer != nil) {
			b.letGo(c, gone)
		}
	}
	for _, r := range d.Put {
		if has, ok := claimOf(r); ok {
			if _, leaving := b.shared.releasing[has.key()]; leaving {
				remove(c, b.shared.releasing, releasePrefix, has.key())
			}
		}
	}
}

// claimOf is what a record of the allocator is in the store; false: nothing.
func claimOf(r ipam.Record) (releasing, bool) {
	var out releasing
	var pool string
	switch {
	case r.Block != nil:
		pool, out.Block = r.Block.Pool, r.Block.CIDR
	case r.Holding != nil && r.Holding.Claimed:
		pool, out.Addr = r.Holding.Pool, r.Holding.Addr
	default:
		return releasing{}, false
	}
	req, err := ipam.ParsePoolID(pool)
	out.Pool = req.Pool
	return out, err == nil
}

func (b *Book) letGo(c *change, r releasing) {
	put(c, b.shared.releasing, releasePrefix, r.key(), r)
}

// giveToStore has the store take back what a change let go of. That it is done is not waited for beyond releaseTime: the
// record of it is saved.
func (b *Book) giveToStore(ctx context.Context, c *change) {
	released := false
	for key := range c.txn.Put {
		released = released || strings.HasPrefix(key, releasePrefix)
	}
	b.mu.Lock()
	claimer := b.shared.claimer
	b.mu.Unlock()
	if !released || claimer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	_ = claimer.Release(ctx) // what was not done is done later
}

// Claims implements cluster.Ledger. What it returns as being released is no longer taken back without the store.
func (b *Book) Claims() []cluster.Claim {
	b.mu.Lock()
	defer b.mu.Unlock()
	pools := map[string]ipam.Pool{}
	for _, p := range b.alloc.Pools() {
		if len(p.Own) == 0 {
			pools[p.ID] = p
		}
	}
	out, used := b.claimedAddresses(pools)
	for _, bl := range b.alloc.Blocks() {
		if p, ok := pools[bl.Pool]; ok {
			out = append(out, cluster.Claim{
				Pool: b.specOf(p), Block: bl.CIDR, Fenced: bl.Fenced, Doubt: bl.Doubt, InUse: used[ipam.Block{Pool: p.ID, CIDR: bl.CIDR}],
			})
		}
	}
	for _, p := range b.shared.pending {
		out = append(out, p.claim)
	}
	for key, r := range b.shared.releasing {
		if _, again := b.shared.pending[key]; again {
			continue
		}
		k := r.claim()
		if k.Pending = b.node.Announced != nil && b.node.Announced(r.prefix()); !k.Pending {
			r.asked = true
			b.shared.releasing[key] = r
		}
		out = append(out, k)
	}
	return out
}

// claimedAddresses are the addresses that the store gave, and the blocks in which containers have any, by pool and prefix.
func (b *Book) claimedAddresses(pools map[string]ipam.Pool) (out []cluster.Claim, used map[ipam.Block]bool) {
	used = map[ipam.Block]bool{}
	for _, h := range b.alloc.Holdings() {
		p, ok := pools[h.Pool]
		if !ok || h.State != ipam.StateHeld || (h.Kind != ipam.KindEndpoint && h.Kind != ipam.KindExtra) {
			continue
		}
		if h.Claimed {
			out = append(out, cluster.Claim{
				Pool: b.specOf(p), Addr: h.Addr, Endpoint: h.Endpoint, Fenced: h.Fenced, Doubt: h.Doubt, InUse: true,
			})
			continue
		}
		if cidr, err := h.Addr.Prefix(p.BlockSize); err == nil {
			used[ipam.Block{Pool: p.ID, CIDR: cidr}] = true
		}
	}
	return out, used
}

// poolsOf are the pools with this subnet whose blocks are claimed in the store.
func (b *Book) poolsOf(cidr netip.Prefix) []ipam.Pool {
	return slices.DeleteFunc(b.alloc.Pools(), func(p ipam.Pool) bool { return p.CIDR != cidr || len(p.Own) > 0 })
}

// Adopt implements cluster.Ledger.
func (b *Book) Adopt(ctx context.Context, bl cluster.Block) error {
	return b.edit(ctx, func(c *change) error {
		pools := b.poolsOf(bl.Pool)
		if len(pools) == 0 {
			return cluster.ErrNotUsed
		}
		d, err := b.alloc.Adopt(pools[0].ID, bl.CIDR)
		switch {
		case err == nil:
			b.addresses(c, d)
		case errors.Is(err, ipam.ErrOneBlock):
			err = fmt.Errorf("%w: %w", cluster.ErrNotUsed, err)
		}
		return err
	})
}

// Fence implements cluster.Ledger.
func (b *Book) Fence(ctx context.Context, k cluster.Claim) error {
	return b.edit(ctx, func(c *change) error {
		cidr := releasing{Block: k.Block, Addr: k.Addr}.prefix()
		for _, p := range b.poolsOf(k.Pool.CIDR) {
			b.addresses(c, b.alloc.Fence(p.ID, cidr, k.Fenced, k.Doubt))
		}
		return nil
	})
}

// Forget implements cluster.Ledger.
func (b *Book) Forget(ctx context.Context, k cluster.Claim) error {
	return b.edit(ctx, func(c *change) error {
		if !k.Releasing {
			for _, p := range b.poolsOf(k.Pool.CIDR) {
				d, err := b.alloc.DropBlock(p.ID, k.Block)
				if errors.Is(err, ipam.ErrInUse) {
					return nil // a container came meanwhile; it is fenced with it
				}
				if err != nil {
					return err
				}
				b.addresses(c, d)
			}
		}
		if _, ok := b.shared.releasing[k.Key()]; ok {
			remove(c, b.shared.releasing, releasePrefix, k.Key())
		}
		return nil
	})
}

// fenced are the blocks and addresses that must not be announced.
func (b *Book) fenced() []netip.Prefix {
	var out []netip.Prefix
	for _, bl := range b.alloc.Blocks() {
		if bl.Fenced != "" && !bl.Doubt {
			out = append(out, bl.CIDR)
		}
	}
	for _, h := range b.alloc.Holdings() {
		if h.Fenced != "" && !h.Doubt {
			out = append(out, netip.PrefixFrom(h.Addr, h.Addr.BitLen()))
		}
	}
	return out
}

// ReturnEmpty gives blocks back in which nothing was held or rested on two looks, at least emptyTime apart. One empty
// block of each pool is kept for the next container, and so is the one that a node has of a pool with a subnet per node. It is to be called every few minutes.
func (b *Book) ReturnEmpty(ctx context.Context) error {
	return b.edit(ctx, func(c *change) error {
		if b.shared.claimer == nil {
			return nil
		}
		now, seen := b.now(), b.shared.empty
		empty := map[string]bool{}
		for _, u := range b.alloc.Usage() {
			p, _ := b.alloc.Pool(u.Pool)
			if len(p.Own) > 0 {
				continue
			}
			kept := false
			for _, bl := range u.Blocks {
				if bl.Held+bl.Resting > 0 || bl.Fenced != "" {
					continue
				}
				if !kept {
					kept = true
					continue
				}
				key := releasing{Pool: p.CIDR, Block: bl.CIDR}.key()
				since, again := seen[key]
				if !again {
					since = now
				}
				seen[key], empty[key] = since, true
				if now.Sub(since) < emptyTime {
					continue
				}
				d, err := b.alloc.DropBlock(p.ID, bl.CIDR)
				if err != nil {
					return err
				}
				b.addresses(c, d)
			}
		}
		for key := range seen {
			if !empty[key] {
				delete(seen, key)
			}
		}
		return nil
	})
}

var _ cluster.Ledger = (*Book)(nil)
