package router

import (
	"maps"
	"net/netip"
	"slices"

	"fairway/internal/kernel"
)

// steer plans a container's routes. All of them go through the router's address on one network of the container, the one
// that its own default route leaves by, or else the first by name: so that they agree with each other.
func steer(v View, o Options, on []attached, c Container) map[kernel.RouteKey]kernel.Route {
	n, ok := network(on, c)
	if !ok {
		return nil
	}
	out := map[kernel.RouteKey]kernel.Route{}
	for _, p := range destinations(v, o, on, c) {
		via, ok := n.addrs[p.Addr().Is4()]
		if ok && (p.Addr().Is4() || c.V6) && !onLink(on, c, p) {
			out[kernel.RouteKey{Dst: p}] = kernel.Route{Type: kernel.Unicast, NextHops: []kernel.NextHop{{Via: via}}}
		}
	}
	return out
}

// onLink says that a prefix is that of a link of the container's own.
func onLink(on []attached, c Container, p netip.Prefix) bool {
	return slices.ContainsFunc(on, func(a attached) bool {
		_, member := c.Nets[a.ID]
		return member && slices.ContainsFunc(a.Subnets, func(s Subnet) bool { return s.Prefix == p })
	})
}

// destinations are what a container reaches through the router.
func destinations(v View, o Options, on []attached, c Container) []netip.Prefix {
	out := slices.Clone(o.StaticRoutes)
	if o.ContainerGateway && !leftToOthers(v, c) {
		return append(out, everything(true, true)...)
	}
	for _, p := range slices.Concat(prefixesOf(on), slices.Collect(maps.Keys(v.Learned)), v.ByHost) {
		if !slices.ContainsFunc(o.StaticRoutes, func(s netip.Prefix) bool { return s.Bits() <= p.Bits() && s.Contains(p.Addr()) }) {
			out = append(out, p)
		}
	}
	return out
}

// leftToOthers says that a container's own default route leaves by a network of another instance, which then is its way
// to everything else.
func leftToOthers(v View, c Container) bool {
	return c.Gateway.IsValid() && slices.ContainsFunc(v.Networks, func(n Network) bool {
		return n.Others && slices.ContainsFunc(n.Subnets, func(s Subnet) bool { return s.Prefix.Contains(c.Gateway) })
	})
}

// network chooses the network over which a container reaches the router.
func network(on []attached, c Container) (attached, bool) {
	var first attached
	found := false
	for _, n := range on {
		if _, member := c.Nets[n.ID]; !member {
			continue
		}
		if c.Gateway.IsValid() && slices.ContainsFunc(n.Subnets, func(s Subnet) bool { return s.Prefix.Contains(c.Gateway) }) {
			return n, true
		}
		if !found {
			first, found = n, true
		}
	}
	return first, found
}

// everything is the prefixes that cover every address.
func everything(v4, v6 bool) []netip.Prefix {
	var out []netip.Prefix
	if v4 {
		out = append(out, netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	}
	if v6 {
		out = append(out, netip.PrefixFrom(netip.IPv6Unspecified(), 0))
	}
	return out
}
