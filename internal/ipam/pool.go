package ipam

import (
	"fmt"
	"maps"
	"net/netip"
	"time"
)

const (
	blockBits4 = 26 // prefix length of an IPv4 block when the config does not say
	blockBits6 = 122
	// abandoned is when a pool without a network is taken for the rest of a creation that failed. The
	// engine makes the network within milliseconds, or some 15 s retries, of its request for the pool.
	abandoned = 5 * time.Minute
)

// RequestPool makes the pool of a network, or chooses one from the plan, a different one each time.
//
// A second request for a pool that no network has yet returns that pool again; [Allocator.ReleasePool]
// must then come as often. A pool that a network has, or that overlaps another of its address space,
// is refused with [ErrInUse]; it never matters what another space has. [ErrPoolFull] says that the
// plan has no subnet left.
func (a *Allocator) RequestPool(req PoolRequest) (Pool, Delta, error) {
	var rec Pool
	var err error
	if req.Pool.IsValid() {
		rec, err = a.requestNamed(req)
	} else {
		rec, err = a.requestAny(req)
	}
	if err != nil {
		a.rollback()
		return Pool{}, Delta{}, fmt.Errorf("request pool: %w", err)
	}
	a.put(Record{Pool: &rec})
	return rec, a.commit(), nil
}

func (a *Allocator) requestNamed(req PoolRequest) (Pool, error) {
	if err := checkRequest(req); err != nil {
		return Pool{}, err
	}
	rec, err := a.design(req)
	if err != nil {
		return Pool{}, err
	}
	p := a.pools[rec.ID]
	if p == nil {
		return rec, a.checkFree(req.Space, req.Pool)
	}
	if p.Network != "" {
		return Pool{}, fmt.Errorf("subnet %v is %w by network %s since %s: choose another, or remove that network",
			p.CIDR, ErrInUse, p.Network, day(p.Created))
	}
	if a.opts.Now().Sub(p.Created) >= abandoned && !p.lived() {
		a.removePool(p)
		return rec, nil
	}
	rec = p.Pool
	rec.Requests++
	return rec, nil
}

// lived tells that the pool has, or had, addresses of containers.
func (p *pool) lived() bool {
	for _, l := range p.leases {
		if l.Kind == KindEndpoint || l.Kind == KindExtra {
			return true
		}
	}
	return false
}

// requestAny chooses the next subnet of the plan that overlaps nothing.
func (a *Allocator) requestAny(req PoolRequest) (Pool, error) {
	if err := checkSpace(req.Space); err != nil {
		return Pool{}, err
	}
	family := "IPv4"
	if req.V6 {
		family = "IPv6"
	}
	if req.Range.IsValid() {
		return Pool{}, fmt.Errorf("ip-range %v without a subnet: give --subnet too", req.Range)
	}
	var denied error
	full := 0
	for _, plan := range a.opts.Plan.Pools {
		if plan.CIDR.Addr().Is6() != req.V6 {
			continue
		}
		req.Pool = netip.Prefix{}
		if !plan.Block.IsValid() && !a.opts.Plan.Alone && !a.opts.Plan.Shared {
			denied = a.noPart(plan.CIDR)
			continue
		}
		if req.Pool = a.freeSubnet(req.Space, plan); req.Pool.IsValid() {
			return a.design(req)
		}
		full++
	}
	switch {
	case full > 0:
		return Pool{}, fmt.Errorf("%w: every %s subnet of the config's pools is taken: give --subnet, or add a pool to the config", ErrPoolFull, family)
	case denied != nil:
		return Pool{}, denied
	}
	return Pool{}, fmt.Errorf("no subnet given and no %s pool in the config: give --subnet, or add one to pools", family)
}

// freeSubnet is the first subnet of the plan's pool that overlaps nothing, or zero.
func (a *Allocator) freeSubnet(space string, plan PoolPlan) netip.Prefix {
	bits := max(plan.Size, plan.CIDR.Bits())
	if plan.Block.IsValid() {
		bits = plan.CIDR.Bits()
	}
	for c := netip.PrefixFrom(plan.CIDR.Addr(), bits); covers(plan.CIDR, c); {
		taken := a.inTheWay(space, c)
		if !taken.IsValid() {
			return c
		}
		if taken.Bits() > c.Bits() {
			taken = c
		}
		c = after(taken, bits)
	}
	return netip.Prefix{}
}

// inTheWay is a pool, or a single address outside all pools, that a new pool must not overlap.
func (a *Allocator) inTheWay(space string, c netip.Prefix) netip.Prefix {
	for _, p := range a.pools {
		if p.Space == space && p.CIDR.Overlaps(c) {
			return p.CIDR
		}
	}
	for addr := range a.loose.leases {
		if c.Contains(addr) {
			return netip.PrefixFrom(addr, addr.BitLen())
		}
	}
	return netip.Prefix{}
}

// checkFree says what overlaps a subnet.
func (a *Allocator) checkFree(space string, c netip.Prefix) error {
	for _, p := range a.sorted() {
		switch {
		case p.Space != space || !p.CIDR.Overlaps(c):
		case p.Network != "":
			return fmt.Errorf("subnet %v overlaps pool %v, which is %w by network %s: choose another subnet, or remove that network",
				c, p.CIDR, ErrInUse, p.Network)
		default:
			return fmt.Errorf("subnet %v overlaps pool %s, which is %w: it was requested at %s and no network took it yet: choose another subnet, "+
				"or end it with `fairway ipam check --fix`", c, p.ID, ErrInUse, day(p.Created))
		}
	}
	for _, l := range a.loose.leases {
		if c.Contains(l.Addr) {
			return fmt.Errorf("subnet %v holds address %v, which is %w: %s", c, l.Addr, ErrInUse, describe(l.Holding))
		}
	}
	return nil
}

// design decides what the pool looks like before anything is in it.
func (a *Allocator) design(req PoolRequest) (Pool, error) {
	rec := Pool{
		ID:       poolID(req.Space, req.Pool, req.Range),
		Space:    req.Space,
		CIDR:     req.Pool,
		Range:    req.Range,
		Options:  maps.Clone(req.Options),
		Created:  a.opts.Now(),
		Requests: 1,
	}
	var plan PoolPlan
	for _, p := range a.opts.Plan.Pools {
		if covers(p.CIDR, req.Pool) {
			plan = p
		}
	}
	rec.BlockSize = blockSize(req.Pool, plan.BlockSize)
	switch {
	case req.Range.IsValid():
		rec.Own = []netip.Prefix{req.Range}
	case plan.Block.IsValid():
		own := overlap(plan.Block, req.Pool)
		if !own.IsValid() {
			return Pool{}, fmt.Errorf("subnet %v has no part of this node: pools[].block %v of pool %v in the config is outside it: "+
				"give --ip-range, or a subnet with the block in it", req.Pool, plan.Block, plan.CIDR)
		}
		rec.Own = []netip.Prefix{own}
	case a.opts.Plan.Shared:
		rec.Shared = true
		if req.Shape != nil {
			rec.BlockSize, rec.Static = req.Shape.BlockSize, req.Shape.Static
			rec.StaticSet = rec.Static != quarter(rec.CIDR)
			return rec, checkShape(rec)
		}
	case !a.opts.Plan.Alone:
		return Pool{}, a.noPart(req.Pool)
	}
	rec.Static = quarter(rec.CIDR)
	for _, own := range rec.Own {
		if covers(own, rec.Static) {
			rec.Static = netip.Prefix{}
		}
	}
	return rec, nil
}

// noPart says that other nodes would give out the same addresses, and what to do.
func (a *Allocator) noPart(subnet netip.Prefix) error {
	where := fmt.Sprintf("add a pool with %v in it and a block to pools in the config", subnet)
	for _, p := range a.opts.Plan.Pools {
		if covers(p.CIDR, subnet) {
			where = fmt.Sprintf("set pools[].block of pool %v in the config", p.CIDR)
		}
	}
	return fmt.Errorf("subnet %v has no part of this node: there are other nodes, which would give out the same addresses: "+
		"give --ip-range, a different one on each node, or %s", subnet, where)
}

// blockSize is the prefix length of the pool's blocks: what was asked for, or longer so that the last
// quarter of the pool can stay whole.
func blockSize(pool netip.Prefix, asked int) int {
	if hostBits(pool) < 2 {
		return pool.Bits()
	}
	if asked <= 0 || asked > pool.Addr().BitLen() {
		asked = blockBits6
		if pool.Addr().Is4() {
			asked = blockBits4
		}
	}
	return max(asked, pool.Bits()+2)
}

// ReleasePool gives a pool back, and everything in it once it was given back as often as it was
// requested. A pool that is not known is given back already.
func (a *Allocator) ReleasePool(id string) (Delta, error) {
	p := a.pools[id]
	if p == nil {
		return Delta{}, nil
	}
	if p.Requests > 1 {
		rec := p.Pool
		rec.Requests--
		a.put(Record{Pool: &rec})
		return a.commit(), nil
	}
	return a.DropPool(id), nil
}

// DropPool ends a pool and everything in it, however often it was requested. It is for leaks.
func (a *Allocator) DropPool(id string) Delta {
	if p := a.pools[id]; p != nil {
		a.removePool(p)
	}
	return a.commit()
}

func (a *Allocator) removePool(p *pool) {
	for _, r := range p.holdings() {
		a.drop(r)
	}
	for _, b := range append([]*block(nil), p.blocks...) {
		if !b.given {
			a.drop(Record{Block: &b.Block})
		}
	}
	a.drop(Record{Pool: &Pool{ID: p.ID}})
}

// day prints a time in an error.
func day(t time.Time) string { return t.Format(time.DateTime) }

// describe says who has an address.
func describe(h Holding) string {
	s := ""
	switch h.Kind {
	case KindGateway:
		s = "the gateway"
	case KindAux:
		s = "reserved by --aux-address"
	case KindExtra, KindEndpoint:
		s = "held by endpoint " + h.Endpoint
		if h.Endpoint == "" {
			s = "held for an endpoint that is being made"
		}
		if h.Kind == KindExtra {
			s += " (fairway.addresses)"
		}
	}
	if h.Network != "" {
		s += " of network " + h.Network
	}
	return s + " since " + day(h.Since)
}
