package cnm

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"fairway/internal/kernel"
)

// CreateEndpoint takes in an endpoint whose addresses were given out before. The same request again succeeds.
func (b *Book) CreateEndpoint(ctx context.Context, req EndpointRequest) (Endpoint, error) {
	var out Endpoint
	err := b.claiming(ctx, func(c *change, granted []netip.Addr) error {
		e, err := b.endpoint(req)
		if err != nil {
			return err
		}
		if was, ok := b.endpoints[e.ID]; ok {
			if was.Network != e.Network || !slices.Equal(was.Addrs, e.Addrs) {
				return fmt.Errorf("endpoint %s exists already, with %v on network %s", short(e.ID), was.Addrs, short(was.Network))
			}
			out = was
			return nil
		}
		if b.node.Refuse != nil {
			if err := b.node.Refuse(); err != nil {
				return fmt.Errorf("endpoint %s: %w", short(e.ID), err)
			}
		}
		if err := b.hold(c, e, granted); err != nil {
			return err
		}
		put(c, b.endpoints, endpointPrefix, e.ID, e)
		out = e
		return nil
	})
	return out, err
}

func (b *Book) endpoint(req EndpointRequest) (Endpoint, error) {
	if req.ID == "" {
		return Endpoint{}, errors.New("endpoint without an ID")
	}
	n, ok := b.networks[req.Network]
	if !ok {
		return Endpoint{}, fmt.Errorf("network %s is not known here: it was made by another driver or before this agent's state was lost; remove it and create it again", short(req.Network))
	}
	e := Endpoint{ID: req.ID, Network: n.ID, State: Created, MAC: req.MAC, MACSet: !req.MAC.IsZero(), Created: b.now(), Changed: b.now()}
	for _, a := range []netip.Prefix{req.Addr4, req.Addr6} {
		if !a.IsValid() {
			continue
		}
		if !slices.ContainsFunc(n.Subnets, func(s Subnet) bool { return s.Prefix.Contains(a.Addr()) }) {
			return Endpoint{}, fmt.Errorf("endpoint %s: address %s is in no subnet of the network", short(e.ID), a.Addr())
		}
		e.Addrs = append(e.Addrs, a)
	}
	if len(e.Addrs) == 0 {
		return Endpoint{}, fmt.Errorf("endpoint %s: no address", short(e.ID))
	}
	switch {
	case !e.MACSet:
		e.MAC = macOf(e.ID)
	case !e.MAC.IsUnicast():
		return Endpoint{}, fmt.Errorf("endpoint %s: MAC address %s is not a unicast one (the lowest bit of its first byte is set)", short(e.ID), e.MAC)
	}
	for _, o := range b.endpoints {
		if o.ID != e.ID && o.LinkName() == e.LinkName() {
			return Endpoint{}, fmt.Errorf("endpoint %s: its link would have the name of endpoint %s's; try again", short(e.ID), o.ID)
		}
	}
	var err error
	e.Extra, e.Options, err = endpointOptions(req.Options)
	return e, err
}

// hold ties the addresses to the endpoint.
func (b *Book) hold(c *change, e Endpoint, granted []netip.Addr) error {
	for _, a := range e.Addrs {
		d, err := b.alloc.BindEndpoint(a.Addr(), e.Network, e.ID, "")
		if err != nil {
			return err
		}
		b.addresses(c, d)
	}
	if len(e.Extra) == 0 {
		return nil
	}
	if err := b.checkExtra(e); err != nil {
		return fmt.Errorf("option %s: %w", OptEPAddresses, err)
	}
	d, err := b.alloc.HoldExtra(e.Network, e.ID, e.Extra, b.node.Heard, granted...)
	if err != nil {
		return fmt.Errorf("option %s: %w", OptEPAddresses, err)
	}
	b.addresses(c, d)
	return nil
}

// macOf makes a locally administered unicast address of an endpoint's ID, the same after a restart of the agent.
func macOf(id string) kernel.MAC {
	var m kernel.MAC
	m[0] = 0x02
	var h uint64 = 14695981039346656037 // FNV-1a, 64 bit
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	for i := 1; i < len(m); i++ {
		m[i] = byte(h >> (8 * i))
	}
	return m
}

// Join plugs an endpoint into a sandbox and says what the engine has to know. The same again succeeds, in another
// sandbox too: the engine retries.
func (b *Book) Join(ctx context.Context, network, endpoint, sandbox string) (JoinReply, error) {
	var reply JoinReply
	err := b.edit(ctx, func(c *change) error {
		e, ok := b.endpoints[endpoint]
		if !ok || e.Network != network {
			return fmt.Errorf("endpoint %s of network %s is not known here", short(endpoint), short(network))
		}
		reply = b.seen(b.networks[network]).Reply(e)
		if e.State == Joined && e.Sandbox == sandbox {
			return nil
		}
		e.State, e.Sandbox, e.Changed = Joined, sandbox, b.now()
		put(c, b.endpoints, endpointPrefix, e.ID, e)
		return nil
	})
	return reply, err
}

// Reply says how a container gets out. On an internal network it gets routes to the network's own subnets and no
// default route.
func (n Network) Reply(e Endpoint) JoinReply {
	r := JoinReply{Link: e.PeerName()}
	for _, a := range e.Addrs {
		gw := n.Gateway(a.Addr())
		if !gw.IsValid() {
			continue
		}
		if !n.onLink(gw) {
			r.OnLink = append(r.OnLink, gw)
		}
		switch {
		case n.Internal:
			for _, s := range n.Subnets {
				if s.Prefix.Addr().Is4() == gw.Is4() && s.Prefix != s.Part {
					r.Routes = append(r.Routes, JoinRoute{Dst: s.Prefix, Via: gw})
				}
			}
		case gw.Is4():
			r.Gateway4 = gw
		default:
			r.Gateway6 = gw
		}
	}
	return r
}

// Leave takes an endpoint out of use; its addresses stay held until it is deleted. One that is unknown is no error.
func (b *Book) Leave(ctx context.Context, network, endpoint string) error {
	return b.edit(ctx, func(c *change) error {
		e, ok := b.endpoints[endpoint]
		if !ok || e.Network != network || e.State != Joined {
			return nil
		}
		e.State, e.Changed = Left, b.now()
		put(c, b.endpoints, endpointPrefix, e.ID, e)
		return nil
	})
}

// DeleteEndpoint forgets an endpoint. Its addresses stay held until the engine releases each, as it does next: let go
// of now, one could be given to another container, and that release would take it from there. One that is unknown is no
// error.
func (b *Book) DeleteEndpoint(ctx context.Context, network, endpoint string) error {
	return b.edit(ctx, func(c *change) error {
		if e, ok := b.endpoints[endpoint]; ok && e.Network == network {
			remove(c, b.endpoints, endpointPrefix, endpoint)
			b.addresses(c, b.alloc.ReleaseExtra(endpoint))
		}
		return nil
	})
}

// DropEndpoint forgets an endpoint that the engine does not have, and lets go of its addresses.
func (b *Book) DropEndpoint(ctx context.Context, endpoint string) error {
	return b.edit(ctx, func(c *change) error {
		if _, ok := b.endpoints[endpoint]; ok {
			b.dropEndpoint(c, endpoint)
		}
		return nil
	})
}

func (b *Book) dropEndpoint(c *change, id string) {
	remove(c, b.endpoints, endpointPrefix, id)
	b.addresses(c, b.alloc.ReleaseEndpoint(id))
}

// LeaveAll takes all endpoints out of use: the machine was booted, and no sandbox is left.
func (b *Book) LeaveAll(ctx context.Context) error {
	return b.edit(ctx, func(c *change) error {
		for _, e := range b.endpoints {
			if e.State == Joined {
				e.State, e.Changed = Left, b.now()
				put(c, b.endpoints, endpointPrefix, e.ID, e)
			}
		}
		return nil
	})
}
