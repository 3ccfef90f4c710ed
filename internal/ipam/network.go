package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// BindNetwork gives the pools with these subnets to a network and applies its settings to them. It
// does nothing and returns [ErrForeignPool] when one of them was not requested here, and [ErrInUse]
// when one has another network. It may be repeated.
func (a *Allocator) BindNetwork(network string, cidrs []netip.Prefix, settings BindSettings) (Delta, error) {
	d, err := a.bindNetwork(network, cidrs, settings)
	if err != nil {
		a.rollback()
		return Delta{}, fmt.Errorf("bind network %s: %w", network, err)
	}
	return d, nil
}

func (a *Allocator) bindNetwork(network string, cidrs []netip.Prefix, settings BindSettings) (Delta, error) {
	if network == "" {
		return Delta{}, fmt.Errorf("network ID %q is empty", network)
	}
	for _, static := range settings.Static {
		if !slices.ContainsFunc(cidrs, func(c netip.Prefix) bool { return covers(c, static) }) {
			return Delta{}, fmt.Errorf("staticRange %v is not inside a subnet of the network: want a part of %v", static, cidrs)
		}
	}
	for _, cidr := range cidrs {
		p, err := a.bindable(network, cidr.Masked(), settings.Space)
		if err != nil {
			return Delta{}, err
		}
		rec := p.Pool
		rec.Network = network
		if rec.Static, rec.StaticSet, err = p.static(settings.Static); err != nil {
			return Delta{}, err
		}
		if settings.PerNode {
			if err := a.perNode(p, &rec); err != nil {
				return Delta{}, err
			}
		}
		if rec.Network != p.Network || rec.Static != p.Static || rec.StaticSet != p.StaticSet || rec.PerNode != p.PerNode {
			a.put(Record{Pool: &rec})
			a.tell(p, network)
		}
	}
	return a.commit(), nil
}

// static is the pool's static range: one of the given, if it is in the pool, or the one it has.
func (p *pool) static(ranges []netip.Prefix) (static netip.Prefix, set bool, err error) {
	static, set = p.Static, p.StaticSet
	for i, r := range ranges {
		if !covers(p.CIDR, r) {
			continue
		}
		if err := p.checkStatic(r); err != nil {
			return netip.Prefix{}, false, err
		}
		if slices.ContainsFunc(ranges[:i], func(o netip.Prefix) bool { return covers(p.CIDR, o) }) {
			return netip.Prefix{}, false, fmt.Errorf("staticRange %v is the second one in the subnet %v: give one for each subnet", r, p.CIDR)
		}
		static, set = r, true
	}
	return static, set, nil
}

// tell writes the network into what was held in the pool before there was one.
func (a *Allocator) tell(p *pool, network string) {
	for _, r := range p.holdings() {
		if h := *r.Holding; h.State == StateHeld && h.Network != network {
			h.Network = network
			a.put(Record{Holding: &h})
		}
	}
}

// bindable finds the pool with the subnet that the network has or may have.
func (a *Allocator) bindable(network string, cidr netip.Prefix, space string) (*pool, error) {
	var free, taken *pool
	for _, p := range a.sorted() {
		switch {
		case p.CIDR != cidr || (space != "" && p.Space != space):
		case p.Network == network:
			return p, nil
		case p.Network == "" && free == nil:
			free = p
		case p.Network != "":
			taken = p
		}
	}
	switch {
	case free != nil:
		return free, nil
	case taken != nil:
		return nil, fmt.Errorf("subnet %v is %w by network %s: choose another", cidr, ErrInUse, taken.Network)
	}
	return nil, fmt.Errorf("subnet %v: %w: it was not requested from this IPAM driver", cidr, ErrForeignPool)
}

// checkStatic refuses a static range, chosen by the user, that has something of the node's blocks.
func (p *pool) checkStatic(static netip.Prefix) error {
	if static != static.Masked() {
		return fmt.Errorf("staticRange %v has host bits set: write %v", static, static.Masked())
	}
	for _, b := range p.blocks {
		switch {
		case !b.CIDR.Overlaps(static):
		case b.given:
			return fmt.Errorf("staticRange %v overlaps this node's own part %v (--ip-range or pools[].block): choose a range that no node's part has", static, b.CIDR)
		default:
			return fmt.Errorf("staticRange %v overlaps block %v, which this node claimed at %s: choose another", static, b.CIDR, day(b.Since))
		}
	}
	return nil
}

// UnbindNetwork ends a network: its pools go with everything in them, however often they were
// requested, and so do the addresses outside all pools that its endpoints hold.
func (a *Allocator) UnbindNetwork(network string) Delta {
	if network == "" {
		return Delta{}
	}
	for _, p := range a.sorted() {
		if p.Network == network {
			a.removePool(p)
		}
	}
	for _, r := range a.loose.holdings() {
		if r.Holding.Network == network {
			a.drop(r)
		}
	}
	return a.commit()
}

// BindEndpoint writes down which endpoint of the network holds an address that was requested, and
// in which sandbox it is ("" keeps what was said before). It may be repeated. It is refused with
// [ErrInUse] when another endpoint or something else has the address, with [ErrNotFound] when it
// was not requested, and with [ErrForeignPool] when it is in no pool of the network.
func (a *Allocator) BindEndpoint(addr netip.Addr, network, endpoint, sandbox string) (Delta, error) {
	addr = addr.Unmap()
	if network == "" || endpoint == "" {
		return Delta{}, fmt.Errorf("bind endpoint %q of network %q to address %v: both IDs are needed", endpoint, network, addr)
	}
	p := a.poolOf(network, addr)
	if p == nil {
		return Delta{}, fmt.Errorf("bind endpoint %s to address %v: %w: it is in no pool of network %s", endpoint, addr, ErrForeignPool, network)
	}
	l := p.leases[addr]
	if l == nil || l.State != StateHeld {
		return Delta{}, fmt.Errorf("bind endpoint %s to address %v: %w among the addresses held: it must be requested first", endpoint, addr, ErrNotFound)
	}
	if l.Kind != KindEndpoint || (l.Endpoint != "" && l.Endpoint != endpoint) {
		return Delta{}, fmt.Errorf("bind endpoint %s to address %v: %w: it is %s", endpoint, addr, ErrInUse, describe(l.Holding))
	}
	h := l.Holding
	h.Network, h.Endpoint, h.Sandbox = network, endpoint, cmp.Or(sandbox, h.Sandbox)
	if h != l.Holding {
		a.put(Record{Holding: &h})
	}
	return a.commit(), nil
}

// poolOf is the network's pool with the address, or nil.
func (a *Allocator) poolOf(network string, addr netip.Addr) *pool {
	for _, p := range a.pools {
		if p.Network == network && p.CIDR.Contains(addr) {
			return p
		}
	}
	return nil
}

// HoldExtra gives an endpoint all of the further addresses, or none. An address may be in a pool of
// the network, by the rules for an address asked for, or in no pool of this node, as long as no
// route for it is heard. Those that the endpoint has already stay. Granted are addresses that the
// store gave to this node.
func (a *Allocator) HoldExtra(network, endpoint string, addrs []netip.Addr, oracle Oracle, granted ...netip.Addr) (Delta, error) {
	if network == "" || endpoint == "" {
		return Delta{}, fmt.Errorf("hold addresses %v for endpoint %q of network %q: both IDs are needed", addrs, endpoint, network)
	}
	for _, addr := range addrs {
		if err := a.holdExtra(network, endpoint, addr.Unmap(), slices.Contains(granted, addr), oracle); err != nil {
			a.rollback()
			return Delta{}, fmt.Errorf("hold further address (fairway.addresses): %w", err)
		}
	}
	return a.commit(), nil
}

func (a *Allocator) holdExtra(network, endpoint string, addr netip.Addr, granted bool, oracle Oracle) error {
	if !addr.IsValid() || addr.Zone() != "" {
		return fmt.Errorf("address %q is not an IPv4 or IPv6 address without zone", addr)
	}
	p := a.poolOf(network, addr)
	if p == nil {
		if err := a.checkLoose(addr); err != nil {
			return err
		}
		p = a.loose
	} else if err := checkExplicit(p, addr); err != nil {
		return err
	}
	if l := p.leases[addr]; l != nil && l.State == StateHeld {
		if l.Kind == KindExtra && l.Endpoint == endpoint {
			return nil
		}
		return fmt.Errorf("address %v is %w: %s", addr, ErrInUse, describe(l.Holding))
	}
	outside, claimed, err := a.place(p, addr, granted, oracle)
	if err != nil {
		return err
	}
	a.hold(Holding{
		Addr: addr, Pool: p.ID, Kind: KindExtra, Explicit: true, Outside: outside, Claimed: claimed, Network: network, Endpoint: endpoint,
	})
	return nil
}

// checkLoose refuses an address that is in a pool, which the network does not have, or nowhere.
func (a *Allocator) checkLoose(addr netip.Addr) error {
	if err := checkRoutable(netip.PrefixFrom(addr, addr.BitLen())); err != nil {
		return fmt.Errorf("address %w", err)
	}
	for _, p := range a.sorted() {
		switch {
		case !p.CIDR.Contains(addr):
		case p.Network != "":
			return fmt.Errorf("address %v is in the pool %v of network %s: connect the container to that network instead", addr, p.CIDR, p.Network)
		default:
			return fmt.Errorf("address %v is in the pool %v, which is not of this network: choose another", addr, p.CIDR)
		}
	}
	return nil
}

// ReleaseExtra gives the further addresses of an endpoint back, and only those. It is for the
// end of an endpoint, after which the engine gives its other addresses back itself.
func (a *Allocator) ReleaseExtra(endpoint string) Delta {
	for _, l := range a.leasesOf(endpoint) {
		if l.Kind == KindExtra {
			a.release(l)
		}
	}
	return a.commit()
}

// ReleaseEndpoint gives everything back that an endpoint holds. It is for endpoints that are gone
// without a word. While the engine may still give the address back itself, ReleaseExtra is right:
// its late word would end the holding of whoever asked for the same address in between.
func (a *Allocator) ReleaseEndpoint(endpoint string) Delta {
	for _, l := range a.leasesOf(endpoint) {
		a.release(l)
	}
	return a.commit()
}

// leasesOf are the leases of an endpoint by address.
func (a *Allocator) leasesOf(endpoint string) []*lease {
	var out []*lease
	for key := range a.endpoints[endpoint] {
		out = append(out, a.pool(key.pool).leases[key.addr])
	}
	slices.SortFunc(out, func(x, y *lease) int { return x.Addr.Compare(y.Addr) })
	return out
}
