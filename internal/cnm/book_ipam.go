package cnm

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"fairway/internal/ipam"
)

// maxTries bounds the search for a subnet that nothing of the node lies in.
const maxTries = 64

// RequestPool gives a pool for a network that is about to be made.
func (b *Book) RequestPool(ctx context.Context, req PoolRequest) (id string, cidr netip.Prefix, err error) {
	err = b.edit(ctx, func(c *change) error {
		var passed []string
		for range maxTries {
			shape, odd := b.shape(req.Pool)
			p, d, err := b.alloc.RequestPool(ipam.PoolRequest{
				Space: req.Space, Pool: req.Pool, Range: req.Range, V6: req.V6, Options: req.Options, Shape: shape,
			})
			if err != nil {
				return err
			}
			b.addresses(c, d)
			what, taken := b.taken(p.CIDR)
			if !taken {
				if what, taken, err = b.takenInCluster(p, req.Pool.IsValid(), odd); err != nil {
					return err
				}
			}
			if !taken {
				id, cidr = p.ID, p.CIDR
				return b.giveBack(c, passed)
			}
			if req.Pool.IsValid() {
				return fmt.Errorf("subnet %s overlaps %s of this node; choose another", p.CIDR, what)
			}
			passed = append(passed, p.ID)
		}
		return fmt.Errorf("%d subnets of the configured pools overlap subnets of this node; give --subnet", maxTries)
	})
	return id, cidr, err
}

func (b *Book) taken(p netip.Prefix) (string, bool) {
	if b.node.Taken == nil {
		return "", false
	}
	return b.node.Taken(p)
}

// giveBack releases pools that were passed over.
func (b *Book) giveBack(c *change, ids []string) error {
	for _, id := range ids {
		d, err := b.alloc.ReleasePool(id)
		if err != nil {
			return err
		}
		b.addresses(c, d)
	}
	return nil
}

// ReleasePool lets go of a pool and everything in it. One that is unknown is no error.
func (b *Book) ReleasePool(ctx context.Context, id string) error {
	return b.edit(ctx, func(c *change) error {
		d, err := b.alloc.ReleasePool(id)
		if err == nil {
			b.addresses(c, d)
		}
		return err
	})
}

// RequestAddress gives an address out. A container's comes with the prefix length that the engine puts on the
// interface: 32 or 128, since no subnet is on a routed link, or that of the node's subnet, which is on a bridge. A
// gateway's has the pool's, as users expect to see it.
func (b *Book) RequestAddress(ctx context.Context, req AddressRequest) (netip.Prefix, error) {
	var out netip.Prefix
	low := false
	err := b.claiming(ctx, func(c *change, granted []netip.Addr) error {
		if err := b.refused(req); err != nil {
			return err
		}
		h, d, err := b.alloc.RequestAddress(ipam.AddressRequest{
			Pool: req.Pool, Addr: req.Addr, Gateway: req.Gateway, Options: req.Options, Granted: slices.Contains(granted, req.Addr.Unmap()),
		}, b.node.Heard)
		if err != nil {
			return err
		}
		b.addresses(c, d)
		low = !h.Explicit && h.Kind == ipam.KindEndpoint && b.alloc.Low(h.Pool)
		bits := h.Addr.BitLen()
		for _, p := range b.alloc.Pools() {
			if p.ID == h.Pool && h.Kind != ipam.KindEndpoint {
				bits = p.CIDR.Bits()
			}
		}
		if part, _, ok := b.alloc.NodeSubnet(h.Pool); ok && h.Kind == ipam.KindEndpoint {
			bits = part.Bits()
		}
		out = netip.PrefixFrom(h.Addr, bits)
		return nil
	})
	if err == nil && low {
		b.claimAhead(ctx, req.Pool)
	}
	return out, err
}

// ReleaseAddress lets go of an address. One that nobody holds is no error. The engine also says this of an endpoint
// that lives, when IPv6 is turned off in its sandbox: the endpoint then goes on without that address.
func (b *Book) ReleaseAddress(ctx context.Context, pool string, addr netip.Addr) error {
	return b.edit(ctx, func(c *change) error {
		d, err := b.alloc.ReleaseAddress(pool, addr)
		if err != nil {
			return err
		}
		b.addresses(c, d)
		for _, e := range b.endpoints {
			i := slices.IndexFunc(e.Addrs, func(p netip.Prefix) bool { return p.Addr() == addr })
			if i < 0 || b.networks[e.Network].poolID(addr) != pool {
				continue
			}
			e.Addrs = slices.Delete(slices.Clone(e.Addrs), i, i+1)
			put(c, b.endpoints, endpointPrefix, e.ID, e)
		}
		return nil
	})
}

func (n Network) poolID(a netip.Addr) string {
	for _, s := range n.Subnets {
		if s.Prefix.Contains(a) {
			return s.Pool
		}
	}
	return ""
}

// DropPool ends a pool that no network was made of, and everything in it.
func (b *Book) DropPool(ctx context.Context, id string) error {
	return b.edit(ctx, func(c *change) error {
		b.addresses(c, b.alloc.DropPool(id))
		return nil
	})
}

// Unused are addresses that were given out for a container at least so long ago and never came to be one's.
func (b *Book) Unused(age time.Duration) []ipam.Holding {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.alloc.Unbound(age)
}

// Orphans are addresses held for endpoints that are deleted, until the engine releases them.
func (b *Book) Orphans() []ipam.Holding {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(b.alloc.Holdings(), func(h ipam.Holding) bool {
		_, alive := b.endpoints[h.Endpoint]
		return alive || h.Endpoint == "" || h.State != ipam.StateHeld
	})
}

// Usage tells how full the pools and their blocks are.
func (b *Book) Usage() []ipam.PoolUsage {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.alloc.Usage()
}
