package cnm

import (
	"context"
	"errors"
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
		switch {
		case r.Block != nil && b.shared.claimer != nil:
			if req, err := ipam.ParsePoolID(r.Block.Pool); err == nil {
				b.letGo(c, releasing{Pool: req.Pool, Block: r.Block.CIDR})
			}
		case r.Holding != nil && r.Holding.Claimed:
			if req, err := ipam.ParsePoolID(r.Holding.Pool); err == nil {
				b.letGo(c, releasing{Pool: req.Pool, Addr: r.Holding.Addr})
			}
		}
	}
	for _, r := range d.Put {
		var was releasing
		switch {
		case r.Block != nil:
			was.Block = r.Block.CIDR
			if req, err := ipam.ParsePoolID(r.Block.Pool); err == nil {
				was.Pool = req.Pool
			}
		case r.Holding != nil && r.Holding.Claimed:
			was.Addr = r.Holding.Addr
			if req, err := ipam.ParsePoolID(r.Holding.Pool); err == nil {
				was.Pool = req.Pool
			}
		default:
			continue
		}
		if _, ok := b.shared.releasing[was.key()]; ok {
			remove(c, b.shared.releasing, releasePrefix, was.key())
		}
	}
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
	var out []cluster.Claim
	for _, p := range b.pendingClaims() {
		out = append(out, p)
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
	pools := map[string]ipam.Pool{}
	for _, p := range b.alloc.Pools() {
		pools[p.ID] = p
	}
	used := map[string]map[netip.Prefix]bool{}
	for _, h := range b.alloc.Holdings() {
		p, ok := pools[h.Pool]
		if !ok || len(p.Own) > 0 || h.State != ipam.StateHeld || (h.Kind != ipam.KindEndpoint && h.Kind != ipam.KindExtra) {
			continue
		}
		if h.Claimed {
			out = append(out, cluster.Claim{
				Pool: b.specOf(p), Addr: h.Addr, Endpoint: h.Endpoint, Fenced: h.Fenced, Doubt: h.Doubt, InUse: true,
			})
			continue
		}
		if used[p.ID] == nil {
			used[p.ID] = map[netip.Prefix]bool{}
		}
		if cidr, err := h.Addr.Prefix(p.BlockSize); err == nil {
			used[p.ID][cidr] = true
		}
	}
	for _, bl := range b.alloc.Blocks() {
		if p := pools[bl.Pool]; len(p.Own) == 0 {
			out = append(out, cluster.Claim{
				Pool: b.specOf(p), Block: bl.CIDR, Fenced: bl.Fenced, Doubt: bl.Doubt, InUse: used[p.ID][bl.CIDR],
			})
		}
	}
	return out
}

// pendingClaims are the addresses that are being claimed and not held yet.
func (b *Book) pendingClaims() []cluster.Claim {
	var out []cluster.Claim
	for _, p := range b.shared.pending {
		out = append(out, p.claim)
	}
	return out
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
		if err == nil {
			b.addresses(c, d)
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
// block of each pool is kept for the next container. It is to be called every few minutes.
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
