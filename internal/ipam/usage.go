package ipam

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
)

// Usage counts addresses that containers can have. Size is Held + Resting + Free.
type Usage struct {
	Size    uint64 `json:"size"` // math.MaxUint64: that many or more
	Held    uint64 `json:"held"`
	Resting uint64 `json:"resting"`
	Free    uint64 `json:"free"` // never used, or rested
}

// BlockUsage is the usage of one of this node's blocks.
type BlockUsage struct {
	Block
	Usage
}

// PoolUsage is the usage of this node's blocks of a pool.
type PoolUsage struct {
	Pool    string       `json:"pool"`
	Total   Usage        `json:"total"`   // of all blocks
	Outside uint64       `json:"outside"` // addresses held that are in none of them, without the gateway
	Blocks  []BlockUsage `json:"blocks"`
}

// usable is how many addresses of a block containers can have; math.MaxUint64: that many or more.
func (p *pool) usable(c netip.Prefix) uint64 {
	n := size(c)
	if n == math.MaxUint64 {
		return n
	}
	whole := p.CIDR
	if p.PerNode {
		whole = c
	}
	gw := p.gateway()
	if p.PerNode && !p.Gateway.IsValid() {
		gw = firstUsable(c)
	}
	for _, addr := range slices.Compact([]netip.Addr{whole.Addr(), gw, last(whole)}) {
		if c.Contains(addr) && (addr == gw || reserved(whole, addr) != "") {
			n--
		}
	}
	return n
}

// Usage counts for every pool, sorted by space and address. It looks at every address held.
func (a *Allocator) Usage() []PoolUsage {
	var out []PoolUsage
	for _, p := range a.sorted() {
		out = append(out, a.usage(p))
	}
	return out
}

func (a *Allocator) usage(p *pool) PoolUsage {
	u := PoolUsage{Pool: p.ID, Blocks: make([]BlockUsage, len(p.blocks))}
	for i, b := range p.blocks {
		u.Blocks[i] = BlockUsage{Block: b.Block, Usage: Usage{Size: p.usable(b.CIDR)}}
	}
	now := a.opts.Now()
	for addr, l := range p.leases {
		i, in := p.find(addr)
		switch {
		case p.nobodys(addr):
		case !in:
			u.Outside++
		case l.State == StateHeld:
			u.Blocks[i].Held++
		case !a.rested(l.Released, now):
			u.Blocks[i].Resting++
		}
	}
	for i := range u.Blocks {
		b := &u.Blocks[i]
		if b.Fenced != "" {
			b.Size = b.Held + b.Resting // nobody can have the others
		}
		b.Free = b.Size - b.Held - b.Resting
		u.Total.Held += b.Held
		u.Total.Resting += b.Resting
		if u.Total.Size += b.Size; u.Total.Size < b.Size {
			u.Total.Size = math.MaxUint64
		}
	}
	u.Total.Free = u.Total.Size - u.Total.Held - u.Total.Resting
	return u
}

// Low tells that less than a quarter of what the node's blocks of a shared pool hold is free, so that
// another one should be claimed before it is needed. It is false as long as there is no block.
func (a *Allocator) Low(pool string) bool {
	p := a.pools[pool]
	if p == nil || len(p.Own) > 0 || !a.opts.Plan.Shared {
		return false
	}
	u := a.usage(p).Total
	return u.Size > 0 && u.Free < u.Size/4
}

// Pools returns the pools by space and address.
func (a *Allocator) Pools() []Pool {
	var out []Pool
	for _, p := range a.sorted() {
		out = append(out, p.Pool)
	}
	return out
}

// Pool returns a pool by its ID.
func (a *Allocator) Pool(id string) (Pool, bool) {
	p := a.pools[id]
	if p == nil {
		return Pool{}, false
	}
	return p.Pool, true
}

// Blocks returns this node's parts of all pools, given or claimed: what it announces as one prefix each.
func (a *Allocator) Blocks() []Block {
	var out []Block
	for _, p := range a.sorted() {
		for _, b := range p.blocks {
			out = append(out, b.Block)
		}
	}
	return out
}

// Holdings returns the addresses that are held, or still rest, by pool and address.
func (a *Allocator) Holdings() []Holding {
	now := a.opts.Now()
	var out []Holding
	for _, p := range append(a.sorted(), a.loose) {
		for _, l := range p.leases {
			if l.State == StateHeld || !a.rested(l.Released, now) {
				out = append(out, l.Holding)
			}
		}
	}
	slices.SortFunc(out, func(x, y Holding) int {
		return cmp.Or(cmp.Compare(x.Pool, y.Pool), x.Addr.Compare(y.Addr))
	})
	return out
}
