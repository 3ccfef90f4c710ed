package ipam

import (
	"container/heap"
	"net/netip"
	"slices"
	"time"
)

// pool is a Pool with what is found fast.
type pool struct {
	Pool
	blocks []*block // sorted by address; they never overlap
	fresh  int      // blocks before this one hold no address that was never used
	leases map[netip.Addr]*lease
	rest   restHeap // the resting ones; all of them are in a block that is not fenced
}

// block is a claimed block, or an own part that was given.
type block struct {
	Block
	given bool // not a record of its own
	// next is where to look for an address that was never used: every address before it has a
	// lease or can be nobody's. Zero: there is none left. So nothing is ever enumerated.
	next netip.Addr
}

type lease struct {
	Holding
	slot int // in the heap, when resting; or aside
}

// aside is the slot of a lease that rests in a fenced block: it is never chosen.
const aside = -1

// leaseKey finds a lease.
type leaseKey struct {
	pool string
	addr netip.Addr
}

// restHeap has the lease that rested longest at its head.
type restHeap []*lease

func (h restHeap) Len() int { return len(h) }

func (h restHeap) Less(i, j int) bool {
	if c := h[i].Released.Compare(h[j].Released); c != 0 {
		return c < 0
	}
	return h[i].Generation < h[j].Generation
}

func (h restHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].slot, h[j].slot = i, j
}

// Push is for container/heap.
func (h *restHeap) Push(x any) {
	l := x.(*lease)
	l.slot = len(*h)
	*h = append(*h, l)
}

// Pop is for container/heap.
func (h *restHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return l
}

func newPool(rec Pool) *pool {
	p := &pool{Pool: rec, leases: make(map[netip.Addr]*lease)}
	for _, own := range rec.Own {
		p.addBlock(Block{Pool: rec.ID, CIDR: own, Since: rec.Created}, true)
	}
	return p
}

// setBlock adds a block, or changes one.
func (p *pool) setBlock(rec Block) {
	i, ok := p.find(rec.CIDR.Addr())
	if !ok {
		p.addBlock(rec, false)
		return
	}
	b := p.blocks[i]
	fenced := b.Fenced
	b.Block, p.fresh = rec, 0
	if (fenced == "") == (rec.Fenced == "") {
		return
	}
	for addr, l := range p.leases {
		switch {
		case l.State != StateResting || !rec.CIDR.Contains(addr):
		case rec.Fenced != "":
			heap.Remove(&p.rest, l.slot)
			l.slot = aside
		default:
			heap.Push(&p.rest, l)
		}
	}
}

func (p *pool) addBlock(rec Block, given bool) {
	i, _ := p.find(rec.CIDR.Addr())
	p.blocks = slices.Insert(p.blocks, i, &block{Block: rec, given: given, next: rec.CIDR.Addr()})
	p.fresh = 0
}

// find is the index of the block with the address, or of the first block behind it.
func (p *pool) find(addr netip.Addr) (int, bool) {
	return slices.BinarySearchFunc(p.blocks, addr, func(b *block, addr netip.Addr) int {
		if b.CIDR.Contains(addr) {
			return 0
		}
		return b.CIDR.Addr().Compare(addr)
	})
}

// block is the node's block with the address, or nil.
func (p *pool) block(addr netip.Addr) *block {
	if i, ok := p.find(addr); ok {
		return p.blocks[i]
	}
	return nil
}

// gateway is the gateway, or what it will be.
func (p *pool) gateway() netip.Addr {
	if p.PerNode {
		return p.nodeGateway()
	}
	if p.Gateway.IsValid() {
		return p.Gateway
	}
	return firstUsable(p.CIDR)
}

// nobodys tells that no container may have the address of the pool.
func (p *pool) nobodys(addr netip.Addr) bool {
	if addr == p.gateway() || reserved(p.CIDR, addr) != "" {
		return true
	}
	return p.PerNode && len(p.blocks) > 0 && reserved(p.blocks[0].CIDR, addr) != ""
}

// unused is the first address in the node's blocks that was never used.
func (p *pool) unused() (netip.Addr, bool) {
	for ; p.fresh < len(p.blocks); p.fresh++ {
		b := p.blocks[p.fresh]
		if b.Fenced != "" {
			continue
		}
		for b.next.IsValid() && b.CIDR.Contains(b.next) {
			if p.free(b.next) && !slices.Contains(b.edges(), b.next) {
				return b.next, true
			}
			b.next = b.next.Next()
		}
		b.next = netip.Addr{}
	}
	for _, b := range p.blocks {
		for _, addr := range b.edges() {
			if p.free(addr) {
				return addr, true
			}
		}
	}
	return netip.Addr{}, false
}

// free tells that a container may have the address, and none ever had it.
func (p *pool) free(addr netip.Addr) bool {
	_, taken := p.leases[addr]
	return !taken && !p.nobodys(addr)
}

// edges are addresses of a given part that are chosen when no other is left: its first one, and its last one of IPv4.
// Users take a part for a subnet, where nobody has these.
func (b *block) edges() []netip.Addr {
	switch {
	case !b.given || hostBits(b.CIDR) < 3:
		return nil
	case b.CIDR.Addr().Is4():
		return []netip.Addr{b.CIDR.Addr(), last(b.CIDR)}
	}
	return []netip.Addr{b.CIDR.Addr()}
}

// forgotten makes an address that was used one that never was.
func (p *pool) forgotten(addr netip.Addr) {
	if i, ok := p.find(addr); ok {
		b := p.blocks[i]
		if !b.next.IsValid() || addr.Less(b.next) {
			b.next = addr
		}
		p.fresh = min(p.fresh, i)
	}
}

// rewind forgets what was found about addresses that can be nobody's.
func (p *pool) rewind() {
	p.fresh = 0
	for _, b := range p.blocks {
		b.next = b.CIDR.Addr()
	}
}

// rested tells that the address with this release time may be given out again.
func (a *Allocator) rested(released, now time.Time) bool {
	return now.Sub(released) >= a.opts.HoldDown
}

// pool finds a pool by its ID; "" is the place of addresses outside all pools. Nil: none.
func (a *Allocator) pool(id string) *pool {
	if id == "" {
		return a.loose
	}
	return a.pools[id]
}

// put and drop are the only ways to change anything. They note what was there before.
func (a *Allocator) put(r Record) {
	a.pending = append(a.pending, a.before(r))
	a.apply(r)
}

func (a *Allocator) drop(r Record) {
	a.pending = append(a.pending, a.before(r))
	a.erase(r)
}

func (a *Allocator) before(r Record) change {
	if was, had := a.current(r); had {
		return change{key: r.Key(), was: was, had: true}
	}
	return change{key: r.Key(), was: r}
}

// current is a copy of the record with the same key as r.
func (a *Allocator) current(r Record) (Record, bool) {
	switch {
	case r.Pool != nil:
		if p := a.pools[r.Pool.ID]; p != nil {
			rec := p.Pool
			return Record{Pool: &rec}, true
		}
	case r.Block != nil:
		if p := a.pools[r.Block.Pool]; p != nil {
			if i, ok := p.find(r.Block.CIDR.Addr()); ok && !p.blocks[i].given {
				rec := p.blocks[i].Block
				return Record{Block: &rec}, true
			}
		}
	case r.Holding != nil:
		if p := a.pool(r.Holding.Pool); p != nil {
			if l := p.leases[r.Holding.Addr]; l != nil {
				rec := l.Holding
				return Record{Holding: &rec}, true
			}
		}
	}
	return Record{}, false
}

// apply makes the record be there. Its pool must be there already.
func (a *Allocator) apply(r Record) {
	switch {
	case r.Pool != nil:
		p := a.pools[r.Pool.ID]
		if p == nil {
			a.pools[r.Pool.ID] = newPool(*r.Pool)
			return
		}
		moved := p.gateway()
		p.Pool = *r.Pool
		if p.gateway() != moved {
			p.rewind()
		}
	case r.Block != nil:
		a.pools[r.Block.Pool].setBlock(*r.Block)
	case r.Holding != nil:
		a.applyHolding(*r.Holding)
	}
}

func (a *Allocator) applyHolding(h Holding) {
	p := a.pool(h.Pool)
	l := p.leases[h.Addr]
	if l == nil {
		l = &lease{}
		p.leases[h.Addr] = l
	} else {
		a.unlink(p, l)
	}
	l.Holding = h
	a.gen = max(a.gen, h.Generation)
	if h.State == StateResting {
		if b := p.block(h.Addr); b != nil && b.Fenced != "" {
			l.slot = aside
			return
		}
		heap.Push(&p.rest, l)
		return
	}
	if h.Endpoint != "" {
		if a.endpoints[h.Endpoint] == nil {
			a.endpoints[h.Endpoint] = make(map[leaseKey]struct{}, 2)
		}
		a.endpoints[h.Endpoint][leaseKey{h.Pool, h.Addr}] = struct{}{}
	}
}

// unlink takes a lease out of what it is found by, but for its address.
func (a *Allocator) unlink(p *pool, l *lease) {
	if l.State == StateResting {
		if l.slot != aside {
			heap.Remove(&p.rest, l.slot)
		}
		return
	}
	if keys := a.endpoints[l.Endpoint]; keys != nil {
		delete(keys, leaseKey{l.Pool, l.Addr})
		if len(keys) == 0 {
			delete(a.endpoints, l.Endpoint)
		}
	}
}

// erase makes the record not be there. Nothing may be left in a pool that goes.
func (a *Allocator) erase(r Record) {
	switch {
	case r.Pool != nil:
		delete(a.pools, r.Pool.ID)
	case r.Block != nil:
		p := a.pools[r.Block.Pool]
		if i, ok := p.find(r.Block.CIDR.Addr()); ok {
			p.blocks = slices.Delete(p.blocks, i, i+1)
			p.fresh = 0
		}
	case r.Holding != nil:
		p := a.pool(r.Holding.Pool)
		if l := p.leases[r.Holding.Addr]; l != nil {
			a.unlink(p, l)
			delete(p.leases, l.Addr)
			p.forgotten(l.Addr)
		}
	}
}
