package plan

import (
	"net/netip"
	"slices"
	"strings"

	"fairway/internal/cnm"
	"fairway/internal/kernel"
)

// bridgeMAC is the address of a network's bridge. Bridges of other nodes are on other segments, so the same address
// serves all, and containers keep the right one when a bridge is made anew.
func bridgeMAC(n cnm.Network) kernel.MAC {
	if n.Bridge.MAC.IsZero() {
		return HostMAC()
	}
	return n.Bridge.MAC
}

// bridge plans the bridge of a network with a subnet per node, once the node has its subnet: the gateway on it, and the
// subnet as a route of ours, which is announced. The route is not left to the kernel, which would not bring it back.
func (p *planner) bridge(n cnm.Network) {
	parts := n.Parts()
	if len(parts) == 0 {
		return
	}
	s, name := &p.out.State, n.BridgeName()
	link := kernel.Link{Kind: kernel.Bridge, Alias: kernel.AliasPrefix + short(n.ID) + "/bridge", MTU: n.Bridge.MTU, MAC: bridgeMAC(n)}
	if link.MTU == 0 {
		link.MTU = p.mtu(n)
	}
	s.Links[name] = link
	for _, part := range parts {
		s.Addrs[kernel.AddrKey{Link: name, Prefix: netip.PrefixFrom(part.Gateway, part.Part.Bits())}] = struct{}{}
		key := kernel.RouteKey{Dst: part.Part}
		s.Routes[key] = kernel.Route{Type: kernel.Unicast, NextHops: []kernel.NextHop{{Link: name}}}
		if !slices.Contains(p.in.Fenced, part.Part) { // the containers in it go on, as far as this node reaches
			p.out.Announce[part.Part] = Announcement{Kind: "block", Needs: key, Link: name}
		}
		if part.Gateway.Is6() {
			s.Sysctls["net/ipv6/conf/"+name+"/disable_ipv6"] = "0"
		}
	}
	if !strings.HasPrefix(name, kernel.LinkPrefix) {
		s.Firewall.Links = append(s.Firewall.Links, name)
	}
}

// bridged plans one endpoint of a network with a subnet per node: a veth as a port of the bridge, permanent neighbour
// entries on both sides, and routes to those of its addresses that are not of the subnet.
func (p *planner) bridged(n cnm.Network, e cnm.Endpoint) {
	s, link, bridge := &p.out.State, e.LinkName(), n.BridgeName()
	s.Links[link] = kernel.Link{
		Kind: kernel.Veth, Alias: alias(n, e), MTU: p.mtu(n), MAC: HostMAC(), Master: bridge,
		Peer: kernel.Peer{Name: e.PeerName(), MAC: e.MAC, Plug: plug(n, e)}, Existing: e.State == cnm.Left,
	}
	if e.State == cnm.Left {
		return
	}
	port := kernel.BridgePort{Link: link, Bridge: bridge, MAC: e.MAC, Addrs: e.All()}
	for _, a := range e.All() {
		if slices.ContainsFunc(n.Subnets, func(s cnm.Subnet) bool { return s.Part.Contains(a) }) {
			s.Neighs[kernel.NeighKey{Link: bridge, IP: a}] = e.MAC
			continue
		}
		p.address(bridge, a, e.MAC)
	}
	p.out.State.Firewall.Ports = append(p.out.State.Firewall.Ports, port)
	var neighs []kernel.Neigh
	for _, gw := range gatewaysOf(n, e) {
		neighs = append(neighs, kernel.Neigh{IP: gw, MAC: bridgeMAC(n)})
	}
	p.sandbox(e, neighs)
}

// device is the link over which the node's IP layer sees an endpoint.
func (p *planner) device(e cnm.Endpoint) string {
	if n, ok := p.networks[e.Network]; ok && n.Mode == cnm.PerNode {
		return n.BridgeName()
	}
	return e.LinkName()
}

// ports completes the ports of bridges: a container may send through one from its addresses on its other networks.
func (p *planner) ports(also map[string][]netip.Addr) {
	ports := p.out.State.Firewall.Ports
	for i := range ports {
		all := slices.Concat(ports[i].Addrs, also[ports[i].Link])
		slices.SortFunc(all, netip.Addr.Compare)
		ports[i].Addrs = slices.Compact(all)
	}
	slices.SortFunc(ports, func(a, b kernel.BridgePort) int { return strings.Compare(a.Link, b.Link) })
}
