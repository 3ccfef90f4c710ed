package cnm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"fairway/internal/ipam"
)

// CreateNetwork takes in a network. The same request again succeeds; another one under the same ID is refused.
func (b *Book) CreateNetwork(ctx context.Context, req NetworkRequest) error {
	n, static, err := b.network(req)
	if err != nil {
		return err
	}
	if err := b.agrees(ctx, n); err != nil {
		return err
	}
	return b.edit(ctx, func(c *change) error {
		if was, ok := b.networks[n.ID]; ok {
			if was.Mode != n.Mode || was.Internal != n.Internal || !maps.Equal(was.Options, n.Options) || !sameSubnets(was, n) {
				return fmt.Errorf("network %s exists already, with other settings", short(n.ID))
			}
			return nil
		}
		if err := errors.Join(b.checkSubnets(n), b.checkBridge(n)); err != nil {
			return err
		}
		if err := b.bind(c, n, static, req.space()); err != nil {
			return err
		}
		for i := range n.Subnets {
			n.Subnets[i].Pool = poolOf(b.alloc.Pools(), n.ID, n.Subnets[i].Prefix)
		}
		put(c, b.networks, networkPrefix, n.ID, n)
		return nil
	})
}

// bind ties the pools of the subnets to the network.
func (b *Book) bind(c *change, n Network, static []netip.Prefix, space string) error {
	cidrs := make([]netip.Prefix, 0, len(n.Subnets))
	for _, s := range n.Subnets {
		cidrs = append(cidrs, s.Prefix)
	}
	d, err := b.alloc.BindNetwork(n.ID, cidrs, ipam.BindSettings{Space: space, Static: static, PerNode: n.Mode == PerNode})
	if errors.Is(err, ipam.ErrForeignPool) {
		return fmt.Errorf("mode=%s needs addresses from fairway: create the network with --ipam-driver too (%w)", n.Mode, err)
	}
	if err != nil {
		return err
	}
	b.addresses(c, d)
	return b.checkAgreed(n, cidrs)
}

// network checks what can be checked of a request by itself.
func (b *Book) network(req NetworkRequest) (Network, []netip.Prefix, error) {
	if req.ID == "" {
		return Network{}, nil, errors.New("network without an ID")
	}
	if len(req.IPv4)+len(req.IPv6) == 0 {
		return Network{}, nil, errors.New("network without a subnet: give --subnet, or leave IPv4 on")
	}
	s, err := parseSettings(req.Options, len(req.IPv6) > 0)
	if err != nil {
		return Network{}, nil, err
	}
	n := Network{ID: req.ID, Mode: s.mode, Internal: req.Internal, MTU: s.mtu, Egress: s.egress, Bridge: s.bridge, Options: maps.Clone(req.Options), Created: b.now()}
	for _, r := range slices.Concat(req.IPv4, req.IPv6) {
		if !r.Prefix.IsValid() {
			return Network{}, nil, errors.New("subnet without a prefix")
		}
		if r.Prefix != r.Prefix.Masked() {
			return Network{}, nil, fmt.Errorf("subnet %s: has host bits set; did you mean %s?", r.Prefix, r.Prefix.Masked())
		}
		n.Subnets = append(n.Subnets, Subnet{Prefix: r.Prefix, Gateway: r.Gateway})
	}
	return n, s.static, nil
}

// checkSubnets refuses what another network of the node has, or the node itself.
func (b *Book) checkSubnets(n Network) error {
	for i, s := range n.Subnets {
		for _, o := range n.Subnets[:i] {
			if s.Prefix.Overlaps(o.Prefix) {
				return fmt.Errorf("subnets %s and %s of one network overlap", o.Prefix, s.Prefix)
			}
		}
		for _, other := range b.networks {
			for _, o := range other.Subnets {
				if s.Prefix.Overlaps(o.Prefix) {
					return fmt.Errorf("subnet %s overlaps %s of network %s", s.Prefix, o.Prefix, short(other.ID))
				}
				if n.Mode != PerNode && s.Gateway.IsValid() && s.Gateway == o.Gateway {
					return fmt.Errorf("gateway %s is that of network %s too; two networks of one container must not share it", s.Gateway, short(other.ID))
				}
			}
		}
	}
	return nil
}

func sameSubnets(a, b Network) bool {
	return slices.EqualFunc(a.Subnets, b.Subnets, func(x, y Subnet) bool { return x.Prefix == y.Prefix && x.Gateway == y.Gateway })
}

func poolOf(pools []ipam.Pool, network string, cidr netip.Prefix) string {
	for _, p := range pools {
		if p.Network == network && p.CIDR == cidr {
			return p.ID
		}
	}
	return ""
}

// DeleteNetwork forgets a network and its endpoints; one that is unknown is no error, since the engine says it once
// and does not listen.
func (b *Book) DeleteNetwork(ctx context.Context, id string) error {
	return b.edit(ctx, func(c *change) error {
		if _, ok := b.networks[id]; !ok {
			return nil
		}
		for _, e := range b.endpoints {
			if e.Network == id {
				b.dropEndpoint(c, e.ID)
			}
		}
		remove(c, b.networks, networkPrefix, id)
		b.addresses(c, b.alloc.UnbindNetwork(id))
		return nil
	})
}

func short(id string) string { return id[:min(len(id), 12)] }
