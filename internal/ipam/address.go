package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// maxRested is how many rested addresses a pool remembers. In a pool larger than this, older ones
// are forgotten, or an IPv6 pool would remember every container that ever was.
const maxRested = 4096

// RequestAddress gives out an address: the gateway, the one asked for, or one of its choice.
//
// A gateway, an auxiliary address (one asked for before the pool has a network) and an address
// asked for that no endpoint is bound to yet are given again to a repeated request. [ErrPoolFull]
// says that no address is left, [ErrInUse] who has the one asked for, [ErrNotFound] that there is
// no such pool.
func (a *Allocator) RequestAddress(req AddressRequest, oracle Oracle) (Holding, Delta, error) {
	p := a.pools[req.Pool]
	if p == nil {
		return Holding{}, Delta{}, fmt.Errorf("request address: pool %q %w: it must be requested first", req.Pool, ErrNotFound)
	}
	var h Holding
	var err error
	switch {
	case req.Gateway:
		h, err = a.requestGateway(p, req.Addr.Unmap())
	case req.Addr.IsValid():
		h, err = a.requestExplicit(p, req.Addr.Unmap(), req.Granted, oracle)
	default:
		h, err = a.requestNext(p)
	}
	if err != nil {
		a.rollback()
		return Holding{}, Delta{}, fmt.Errorf("request address: %w", err)
	}
	return h, a.commit(), nil
}

// hold makes the holding be there, with its time and generation.
func (a *Allocator) hold(h Holding) Holding {
	now := a.opts.Now()
	if l := a.pool(h.Pool).leases[h.Addr]; l != nil {
		h.Released = l.Released
	}
	h.State, h.Since, h.Generation = StateHeld, now, a.generation(now)
	a.put(Record{Holding: &h})
	return h
}

// checkAddr refuses what no one can have in the pool.
func checkAddr(p *pool, addr netip.Addr) error {
	if !p.CIDR.Contains(addr) {
		return fmt.Errorf("address %v is not in the pool %v", addr, p.CIDR)
	}
	if what := reserved(p.CIDR, addr); what != "" {
		return fmt.Errorf("address %v is the %s of the pool %v: choose another", addr, what, p.CIDR)
	}
	return nil
}

func (a *Allocator) requestGateway(p *pool, addr netip.Addr) (Holding, error) {
	explicit := addr.IsValid()
	if !explicit {
		addr = p.gateway()
	}
	if p.PerNode && addr != p.gateway() || !addr.IsValid() {
		return Holding{}, fmt.Errorf("gateway: network %s has a gateway on each node, the first address of the node's subnet", p.Network)
	}
	if err := checkAddr(p, addr); err != nil {
		return Holding{}, fmt.Errorf("gateway: %w", err)
	}
	if l := p.leases[addr]; l != nil && l.State == StateHeld {
		if l.Kind == KindGateway {
			return l.Holding, nil
		}
		return Holding{}, fmt.Errorf("gateway: address %v is %w: %s", addr, ErrInUse, describe(l.Holding))
	}
	if old := p.leases[p.Gateway]; old != nil && old.Kind == KindGateway {
		if p.Network != "" {
			return Holding{}, fmt.Errorf("gateway %v of network %s is %w: a network has one gateway, which cannot become %v",
				p.Gateway, p.Network, ErrInUse, addr)
		}
		a.drop(Record{Holding: &Holding{Pool: p.ID, Addr: p.Gateway}})
	}
	rec := p.Pool
	rec.Gateway = addr
	a.put(Record{Pool: &rec})
	return a.hold(Holding{Addr: addr, Pool: p.ID, Kind: KindGateway, Explicit: explicit, Network: p.Network}), nil
}

func (a *Allocator) requestExplicit(p *pool, addr netip.Addr, granted bool, oracle Oracle) (Holding, error) {
	h := Holding{Addr: addr, Pool: p.ID, Kind: KindEndpoint, Explicit: true, Network: p.Network}
	if p.Network == "" {
		h.Kind = KindAux
	}
	if err := checkExplicit(p, addr); err != nil {
		return Holding{}, err
	}
	if l := p.leases[addr]; l != nil && l.State == StateHeld {
		if l.Explicit && l.Endpoint == "" && l.Kind == h.Kind {
			return l.Holding, nil
		}
		return Holding{}, fmt.Errorf("address %v is %w: %s", addr, ErrInUse, describe(l.Holding))
	}
	if h.Kind == KindEndpoint {
		var err error
		if h.Outside, h.Claimed, err = a.place(p, addr, granted, oracle); err != nil {
			return Holding{}, err
		}
	}
	return a.hold(h), nil
}

// checkExplicit refuses what no container can have in the pool.
func checkExplicit(p *pool, addr netip.Addr) error {
	if err := checkAddr(p, addr); err != nil {
		return err
	}
	if addr == p.gateway() {
		if p.PerNode {
			return fmt.Errorf("address %v is the gateway of this node's subnet: choose another", addr)
		}
		return fmt.Errorf("address %v is the gateway of the pool %v, which every node has: choose another", addr, p.CIDR)
	}
	if b := p.block(addr); b != nil && p.PerNode && reserved(b.CIDR, addr) != "" {
		return fmt.Errorf("address %v is the %s of this node's subnet %v: choose another", addr, reserved(b.CIDR, addr), b.CIDR)
	}
	return nil
}

// place finds out how this node can have an address of the pool: in one of its blocks, which it
// may have to claim, or outside them, if the store gave it or no other node seems to have it.
func (a *Allocator) place(p *pool, addr netip.Addr, granted bool, oracle Oracle) (outside, claimed bool, err error) {
	if b := p.block(addr); b != nil {
		return false, false, b.open()
	}
	if p.PerNode && len(p.blocks) > 0 {
		return false, false, outsideNode(p, addr)
	}
	static := p.Static.Contains(addr)
	switch src := a.source(p).(type) {
	case shared:
		if static && granted {
			return true, true, nil
		}
		if static {
			return false, false, &Lack{Pool: p.ID, CIDR: p.CIDR, Addr: addr, Static: true}
		}
		_, err := src.covering(p, addr)
		return false, false, err
	default:
		if static {
			break
		}
		c, err := src.covering(p, addr)
		if err != nil {
			return false, false, fmt.Errorf("address %v is in no block of this node: %w", addr, err)
		}
		if c.IsValid() {
			a.put(Record{Block: &Block{Pool: p.ID, CIDR: c, Since: a.opts.Now()}})
			return false, false, checkExplicit(p, addr)
		}
	}
	if p.PerNode {
		return false, false, outsideNode(p, addr)
	}
	return true, false, p.checkHeard(addr, oracle)
}

// open says why nothing new is given out from the block.
func (b *block) open() error {
	if b.Fenced == "" {
		return nil
	}
	return fmt.Errorf("block %v is %w on this node: %s", b.CIDR, ErrFenced, b.Fenced)
}

// checkHeard refuses an address that another node seems to have.
func (p *pool) checkHeard(addr netip.Addr, oracle Oracle) error {
	if oracle == nil {
		return nil
	}
	holder, heard := oracle(addr)
	switch {
	case !heard:
		return nil
	case !p.Static.Contains(addr) && p.Static.IsValid():
		return fmt.Errorf("address %v is %w: a route for it is heard from %s: addresses that work on any node are in the static range %v",
			addr, ErrInUse, holder, p.Static)
	}
	return fmt.Errorf("address %v is %w: a route for it is heard from %s: choose another", addr, ErrInUse, holder)
}

func (a *Allocator) requestNext(p *pool) (Holding, error) {
	h := Holding{Pool: p.ID, Kind: KindEndpoint, Network: p.Network}
	now := a.opts.Now()
	var ok bool
	if h.Addr, ok = p.unused(); ok {
		return a.hold(h), nil
	}
	if len(p.rest) > 0 && a.rested(p.rest[0].Released, now) {
		h.Addr = p.rest[0].Addr
		return a.hold(h), nil
	}
	for { // auxiliary addresses may fill a block that nobody has claimed yet
		c, err := a.source(p).next(p)
		if lack := (*Lack)(nil); errors.As(err, &lack) || errors.Is(err, ErrFenced) {
			return Holding{}, err
		}
		if err != nil {
			return Holding{}, a.full(p, err)
		}
		a.put(Record{Block: &Block{Pool: p.ID, CIDR: c, Since: now}})
		if h.Addr, ok = p.unused(); ok {
			return a.hold(h), nil
		}
	}
}

// full says where all the addresses are.
func (a *Allocator) full(p *pool, why error) error {
	u := a.usage(p)
	err := fmt.Errorf("%w: %v: %d held and %d resting in %s", ErrPoolFull, p.CIDR, u.Total.Held, u.Total.Resting, p.blockNames())
	if len(p.rest) > 0 {
		err = fmt.Errorf("%w, the next is free at %s", err, day(p.rest[0].Released.Add(a.opts.HoldDown)))
	}
	return fmt.Errorf("%w; %w", err, why)
}

// blockNames names a few of the blocks.
func (p *pool) blockNames() string {
	const few = 3
	switch len(p.blocks) {
	case 0:
		return "no block"
	case 1:
		return "block " + p.blocks[0].CIDR.String()
	}
	s := fmt.Sprintf("%d blocks (", len(p.blocks))
	for i, b := range p.blocks {
		switch {
		case i == few:
			return s + ", ...)"
		case i > 0:
			s += ", "
		}
		s += b.CIDR.String()
	}
	return s + ")"
}

// ReleaseAddress gives an address back. One that is not held is given back already. The gateway
// and auxiliary addresses of a network stay until the network or the pool goes: they come back
// just before that, but also when a second network with the same subnet was refused.
func (a *Allocator) ReleaseAddress(pool string, addr netip.Addr) (Delta, error) {
	p := a.pools[pool]
	if p == nil {
		return Delta{}, nil
	}
	addr = addr.Unmap()
	l := p.leases[addr]
	if l == nil || l.State != StateHeld {
		return Delta{}, nil
	}
	switch l.Kind {
	case KindGateway, KindAux:
		// Without its gateway the pool has the default one, which somebody may have got.
		other := p.leases[firstUsable(p.CIDR)]
		if p.Network != "" || p.Requests > 1 || (l.Kind == KindGateway && other != nil && other != l) {
			return Delta{}, nil
		}
		a.drop(Record{Holding: &Holding{Pool: p.ID, Addr: addr}})
		if l.Kind == KindGateway {
			rec := p.Pool
			rec.Gateway = netip.Addr{}
			a.put(Record{Pool: &rec})
		}
	case KindExtra:
		return Delta{}, fmt.Errorf("release address: %v is %s, and goes with that", addr, describe(l.Holding))
	case KindEndpoint:
		a.release(l)
	}
	return a.commit(), nil
}

// release ends the holding of an endpoint's or extra address.
func (a *Allocator) release(l *lease) {
	p := a.pool(l.Pool)
	h := l.Holding
	used := h.Endpoint != ""
	if p.block(h.Addr) == nil || (!used && h.Released.IsZero()) {
		a.drop(Record{Holding: &h})
		return
	}
	h.State, h.Outside = StateResting, false
	if used {
		h.Released = a.opts.Now()
	}
	a.put(Record{Holding: &h})
	a.forget(p)
}

// forget drops the addresses that rested longest when too many are remembered.
func (a *Allocator) forget(p *pool) {
	now := a.opts.Now()
	for len(p.rest) > maxRested && a.rested(p.rest[0].Released, now) {
		a.drop(Record{Holding: &p.rest[0].Holding})
	}
}

// Unbound returns the addresses that were given out for endpoints at least so long ago and never
// were bound to one: what is left of containers that failed to start.
func (a *Allocator) Unbound(olderThan time.Duration) []Holding {
	now := a.opts.Now()
	var out []Holding
	for _, h := range a.Holdings() {
		if h.Kind == KindEndpoint && h.State == StateHeld && h.Endpoint == "" && now.Sub(h.Since) >= olderThan {
			out = append(out, h)
		}
	}
	return out
}
