// Package plan is one pure function: from what Docker asked for, what was heard from others, the config and the facts
// of the node, it says what the kernel should look like and what is announced.
//
// A new mode of networks is a new function beside routed; a new kind of kernel object is a new map of kernel.State.
package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"fairway/internal/cnm"
	"fairway/internal/kernel"
	"fairway/internal/rib"
)

// HostMAC is the MAC of the node's end of every veth. Each veth is a segment of its own, so the same address serves
// all; containers get a permanent neighbour entry with it, and keep it when the agent makes the veth anew.
func HostMAC() kernel.MAC { return kernel.MAC{0x02, 0xfa, 0x18, 0xfa, 0x18, 0x01} }

// defaultMTU is used while the underlay is unknown: Ethernet's (RFC 894).
const defaultMTU = 1500

// Input is a snapshot of everything that decides. Compute only reads it.
type Input struct {
	Node      Node
	Networks  []cnm.Network
	Endpoints []cnm.Endpoint
	Blocks    []netip.Prefix // this node's own, of networks that exist
	// Fenced are blocks and addresses whose record in the cluster is another node's; no block is in Blocks as well.
	// Containers there keep their local routes, and nobody is told.
	Fenced []netip.Prefix
	Drain  Drain
	Heard  map[netip.Prefix]rib.Route
	Facts  kernel.Facts
	// Aggregates are announced by this node in place of what is inside them.
	Aggregates []netip.Prefix
	Egress     Egress
	// Docker are networks of Docker's own that are announced.
	Docker []DockerNetwork
	// Announce are further prefixes that the config has announced.
	Announce []netip.Prefix
	// Guests are prefixes that other programs of the node route, as the distributed router: they are announced, and never
	// looked for elsewhere.
	Guests []netip.Prefix
}

// Node is what the agent knows of its own node.
type Node struct {
	Addr4, Addr6 netip.Addr // underlay addresses; zero: none
	MTU          int        // bytes, of the underlay; 0: unknown
	Docker       bool       // containers may live here
	BGPPort      uint16     // TCP port closed to containers; 0: no BGP
	BFD          bool       // udp/3784 is closed to containers
}

// Output is what should be true.
type Output struct {
	State    kernel.State
	Announce map[netip.Prefix]Announcement
	Problems []Problem
}

// Announcement is a prefix for others, once its route is in the kernel.
type Announcement struct {
	Kind  string          // "block", "address", "aggregate", "route" or "docker"
	Needs kernel.RouteKey // announced only while this route of ours is in place; zero: nothing is needed
	Link  string          // and while this link of ours is as it should be, with its addresses; "": none is needed
	// GracefulShutdown marks it as about to be withdrawn.
	GracefulShutdown bool
}

// Problem is a fault that the plan found, with the object it is about.
type Problem struct {
	Code string // stable, for programs
	Text string
	Hint string
}

// Compute plans.
func Compute(in Input) Output {
	p := planner{
		in: in, out: Output{State: kernel.NewState(), Announce: map[netip.Prefix]Announcement{}}, ways: map[netip.Addr]way{},
		networks: make(map[string]cnm.Network, len(in.Networks)),
	}
	p.out.State.Routes = make(map[kernel.RouteKey]kernel.Route, len(in.Heard)+len(in.Endpoints)+len(in.Blocks))
	p.node()
	for _, b := range in.Blocks {
		p.block(b)
	}
	for _, b := range in.Fenced {
		p.fencedBlock(b)
	}
	for _, a := range in.Aggregates {
		p.aggregate(a)
	}
	for _, n := range in.Networks {
		p.networks[n.ID] = n
		if n.Mode == cnm.PerNode {
			p.bridge(n) // in the place of its blocks
		}
	}
	p.endpoints()
	if in.Node.Docker {
		p.siblings()
		p.internal()
		p.dockerBridge()
		p.docker()
	}
	for _, prefix := range in.Announce {
		p.out.Announce[prefix] = Announcement{Kind: "route"}
	}
	for _, prefix := range in.Guests {
		p.out.Announce[prefix] = Announcement{Kind: "guest"}
	}
	p.drain()
	p.heard()
	p.egress()
	slices.SortFunc(p.out.Problems, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.Code, b.Code), strings.Compare(a.Text, b.Text))
	})
	return p.out
}

type planner struct {
	in       Input
	out      Output
	networks map[string]cnm.Network
	ways     map[netip.Addr]way // next hops looked up so far: many routes share few
}

// way is the link that has a next hop in its subnet.
type way struct {
	link string // "" when none has
	dead bool   // the link cannot pass frames now
}

func (p *planner) problem(code, hint, format string, args ...any) {
	p.out.Problems = append(p.out.Problems, Problem{Code: code, Text: fmt.Sprintf(format, args...), Hint: hint})
}

// node plans forwarding and the firewall, which a node has also without containers.
func (p *planner) node() {
	s := &p.out.State
	s.Sysctls["net/ipv4/ip_forward"] = "1"
	if p.v6() {
		s.Sysctls["net/ipv6/conf/all/forwarding"] = "1"
	}
	if !p.in.Node.Docker {
		return
	}
	s.Firewall = kernel.Firewall{Links: []string{kernel.LinkPrefix + "*"}, AntiSpoof: true}
	if p.in.Node.BGPPort != 0 {
		s.Firewall.ClosedTCP = []uint16{p.in.Node.BGPPort}
	}
	if p.in.Node.BFD {
		s.Firewall.ClosedUDP = []uint16{bfdPort}
	}
}

// bfdPort is single-hop BFD's (RFC 5881, 4).
const bfdPort = 3784

// v6 says whether this node forwards IPv6: turning it on changes how the node treats router advertisements, so it is
// left alone until an IPv6 prefix is there.
func (p *planner) v6() bool {
	for _, n := range p.in.Networks {
		for _, s := range n.Subnets {
			if s.Prefix.Addr().Is6() {
				return true
			}
		}
	}
	if slices.ContainsFunc(p.in.Egress.Bridge.Subnets, func(s netip.Prefix) bool { return s.Addr().Is6() }) {
		return true
	}
	for prefix := range p.in.Heard {
		if prefix.Addr().Is6() {
			return true
		}
	}
	return false
}

// block announces a block as one prefix. What nobody in it has is dropped here and not sent back to where it came from
// by the default route (a loop).
func (p *planner) block(b netip.Prefix) {
	key := kernel.RouteKey{Dst: b}
	p.out.State.Routes[key] = kernel.Route{Type: kernel.Blackhole}
	p.out.Announce[b] = Announcement{Kind: "block", Needs: key}
}

func (p *planner) mtu(n cnm.Network) int {
	if n.MTU != 0 {
		return n.MTU
	}
	if p.in.Node.MTU != 0 {
		return p.in.Node.MTU
	}
	return defaultMTU
}

// routed plans one endpoint of a routed network: a veth, the gateways' addresses on the node's end, and a route and a
// permanent neighbour entry for each address of the container. Permanent entries do not count against the kernel's
// neighbour table limits (net/core/neighbour.c, gc_entries), and the container's first packet waits for no ARP.
func (p *planner) routed(n cnm.Network, e cnm.Endpoint) {
	s, link := &p.out.State, e.LinkName()
	s.Links[link] = kernel.Link{
		Kind: kernel.Veth, Alias: alias(n, e), MTU: p.mtu(n), MAC: HostMAC(),
		Peer: kernel.Peer{Name: e.PeerName(), MAC: e.MAC, Plug: plug(n, e)}, Existing: e.State == cnm.Left,
	}
	if e.State == cnm.Left {
		return
	}
	var neighs []kernel.Neigh
	for _, gw := range gatewaysOf(n, e) {
		s.Addrs[kernel.AddrKey{Link: link, Prefix: host(gw)}] = struct{}{}
		neighs = append(neighs, kernel.Neigh{IP: gw, MAC: HostMAC()})
		if gw.Is6() {
			s.Sysctls["net/ipv6/conf/"+link+"/disable_ipv6"] = "0"
		}
	}
	for _, a := range e.All() {
		p.address(link, a, e.MAC)
	}
	p.sandbox(e, neighs)
}

// plug is what the engine was answered at Join.
func plug(n cnm.Network, e cnm.Endpoint) kernel.Plug {
	reply := n.Reply(e)
	out := kernel.Plug{Addrs: slices.Clone(e.Addrs), OnLink: reply.OnLink}
	for _, a := range e.Extra {
		out.Addrs = append(out.Addrs, host(a))
	}
	for _, gw := range []netip.Addr{reply.Gateway4, reply.Gateway6} {
		if gw.IsValid() {
			out.Routes = append(out.Routes, kernel.SandboxRoute{Dst: netip.PrefixFrom(gw, 0).Masked(), Via: gw})
		}
	}
	for _, r := range reply.Routes {
		out.Routes = append(out.Routes, kernel.SandboxRoute{Dst: r.Dst, Via: r.Via})
	}
	return out
}

// internal keeps internal networks apart in the firewall too: a container with the right to do so could give itself a
// default route.
func (p *planner) internal() {
	f := &p.out.State.Firewall
	for _, n := range p.in.Networks {
		if !n.Internal {
			continue
		}
		var subnets []netip.Prefix
		for _, s := range n.Subnets {
			subnets = append(subnets, s.Prefix)
		}
		slices.SortFunc(subnets, netip.Prefix.Compare)
		f.Internal = append(f.Internal, subnets)
	}
	slices.SortFunc(f.Internal, func(a, b []netip.Prefix) int { return slices.CompareFunc(a, b, netip.Prefix.Compare) })
}

// address plans the way to one address of a container. The node's own packets to it carry the node's underlay address,
// which the container can answer wherever it moves, and which traceroute shows as the node.
func (p *planner) address(link string, a netip.Addr, mac kernel.MAC) {
	s, key := &p.out.State, kernel.RouteKey{Dst: host(a)}
	s.Neighs[kernel.NeighKey{Link: link, IP: a}] = mac
	r := kernel.Route{Type: kernel.Unicast, NextHops: []kernel.NextHop{{Link: link}}, Src: p.in.Node.Addr4}
	if a.Is6() {
		r.Src = p.in.Node.Addr6
	}
	s.Routes[key] = r
	has := func(b netip.Prefix) bool { return b.Contains(a) }
	if !slices.ContainsFunc(p.in.Blocks, has) && !slices.ContainsFunc(p.in.Fenced, has) {
		p.out.Announce[key.Dst] = Announcement{Kind: "address", Needs: key}
	}
}

// siblings lets a container with several networks answer over one of them from its address on another: its default
// route decides the way out, and the source is its own all the same.
func (p *planner) siblings() {
	bySandbox := map[string][]cnm.Endpoint{}
	for _, e := range p.in.Endpoints {
		if e.State == cnm.Joined && e.Sandbox != "" {
			bySandbox[e.Sandbox] = append(bySandbox[e.Sandbox], e)
		}
	}
	f, also := &p.out.State.Firewall, map[string][]netip.Addr{}
	for _, eps := range bySandbox {
		for _, out := range eps {
			for _, own := range eps {
				if own.ID == out.ID {
					continue
				}
				also[out.LinkName()] = append(also[out.LinkName()], own.All()...)
				for _, a := range own.All() {
					f.Siblings = append(f.Siblings, kernel.LinkAddr{Link: p.device(out), Addr: a})
				}
			}
		}
	}
	slices.SortFunc(f.Siblings, kernel.LinkAddr.Compare)
	f.Siblings = slices.Compact(f.Siblings)
	p.ports(also)
}

// gatewaysOf are the gateways of the network that this endpoint has a use for: those of the families of its addresses.
func gatewaysOf(n cnm.Network, e cnm.Endpoint) []netip.Addr {
	var out []netip.Addr
	for _, a := range e.Addrs {
		if gw := n.Gateway(a.Addr()); gw.IsValid() && !slices.Contains(out, gw) {
			out = append(out, gw)
		}
	}
	return out
}

// heard plans the routes to others. What this node has itself is never looked for elsewhere.
func (p *planner) heard() {
	for prefix, r := range p.in.Heard {
		if slices.Contains(p.in.Guests, prefix) {
			continue // several nodes may be on one network of theirs
		}
		key := kernel.RouteKey{Dst: prefix}
		if _, own := p.out.State.Routes[key]; own || p.out.Announce[prefix].Kind == KindDocker {
			if p.out.Announce[prefix].Kind != kindAggregate { // which several routers may have
				p.claimed(r)
			}
			continue
		}
		hops := p.nextHops(r)
		if len(hops) == 0 {
			continue
		}
		p.out.State.Routes[key] = kernel.Route{Type: kernel.Unicast, NextHops: hops}
	}
}

// claimed reports a prefix that this node has and another announces.
func (p *planner) claimed(r rib.Route) {
	who := r.Paths[0].Peer
	if r.Paths[0].Node.IsValid() {
		who = "node " + r.Paths[0].Node.String()
	}
	what, hint := "address", "stop one of the two containers, or give one of them another address"
	if !r.Prefix.IsSingleIP() {
		what, hint = "block", "give each node its own --ip-range or pools[].block"
	}
	p.problem("duplicate_"+what, hint, "%s %s is held by this node and announced by %s too", what, r.Prefix, who)
}

// nextHops resolves a route's next hops: each must be on a link of the node.
func (p *planner) nextHops(r rib.Route) []kernel.NextHop {
	hops := make([]kernel.NextHop, 0, len(r.Paths))
	for _, path := range r.Paths {
		if path.Link != "" {
			hops = append(hops, kernel.NextHop{Via: path.NextHop, Link: path.Link})
			continue
		}
		w := p.wayTo(path.NextHop)
		switch {
		case w.link == "":
			p.problem("next_hop_unreachable", "peer with a router on a link of this node, or add a link in its subnet",
				"route %s from %s: next hop %s is on no link of this node", r.Prefix, path.Peer, path.NextHop)
		case w.dead:
			// The fabric ends the session over a dead link and the path goes; until then it is just not used.
		default:
			hops = append(hops, kernel.NextHop{Via: path.NextHop, Link: w.link})
		}
	}
	return kernel.SortNextHops(hops)
}

func (p *planner) wayTo(a netip.Addr) way {
	w, ok := p.ways[a]
	if ok {
		return w
	}
	if l, ok := p.in.Facts.Connected(a); ok {
		w = way{link: l.Name, dead: !l.Up || !l.Carrier}
	}
	p.ways[a] = w
	return w
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// short is the form of an engine's ID in an alias.
func short(id string) string { return id[:min(len(id), 12)] }
