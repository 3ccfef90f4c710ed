package router

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"fairway/internal/kernel"
)

// Wanted is what should be true.
type Wanted struct {
	Join  []Join
	Leave []string // network IDs
	// Self are the routes of the router's own namespace, Host those of the host, over the host link.
	Self, Host map[kernel.RouteKey]kernel.Route
	// Steered are the routes in containers' namespaces, by container ID. A container that is not steered has none.
	Steered map[string]map[kernel.RouteKey]kernel.Route
	// Tell are the prefixes that other routers are told of: those of the networks that are joined.
	Tell []netip.Prefix
	// Masquerade are the sources that the host hides.
	Masquerade []netip.Prefix
	// Bridges are Docker's bridges on the host whose containers are led.
	Bridges []string
	// Answered are networks whose containers leave through the host with their own addresses, and are answered there;
	// Reached are those that the host's agent tells of, so that they are reached from outside.
	Answered, Reached []netip.Prefix
	// Keep are destinations of the host to which containers keep their addresses.
	Keep     []netip.Prefix
	Problems []string
}

// Join is a network to join.
type Join struct {
	Network    string // ID
	Name       string
	IPv4, IPv6 netip.Addr // zero: Docker's IPAM chooses
}

// Decide says what should be true. It is pure.
func Decide(v View, o Options) Wanted {
	w := Wanted{Self: map[kernel.RouteKey]kernel.Route{}, Host: map[kernel.RouteKey]kernel.Route{}, Steered: map[string]map[kernel.RouteKey]kernel.Route{}}
	for _, n := range v.Networks {
		w.membership(n, o)
	}
	if o.TransitNet != "" && !slices.ContainsFunc(v.Networks, func(n Network) bool { return n.Transit }) {
		w.Problems = append(w.Problems, fmt.Sprintf("--transit-net %s: the engine has no such network; it is joined once there is one", o.TransitNet))
	}
	on := connected(v)
	w.tell(v, o, on)
	w.self(v, o, on)
	w.host(v, o, on)
	for _, c := range v.Containers {
		if routes := steer(v, o, on, c); len(routes) > 0 {
			w.Steered[c.ID] = routes
		}
	}
	slices.Sort(w.Problems)
	return w
}

// membership decides whether the router is to be on a network.
func (w *Wanted) membership(n Network, o Options) {
	wanted := n.Transit || n.Marked && !n.ours(o) && (o.Aggressive || n.Local > 0) && !n.Left
	switch {
	case wanted && !n.Joined:
		j := Join{Network: n.ID, Name: n.Name}
		if o.IPOffset != 0 {
			if err := j.place(n, o.IPOffset); err != nil {
				w.Problems = append(w.Problems, fmt.Sprintf("network %s is not joined: %v", n.Name, err))
				return
			}
		}
		w.Join = append(w.Join, j)
	case !wanted && n.Joined:
		w.Leave = append(w.Leave, n.ID)
	}
}

// ours says that the node routes the network itself.
func (n Network) ours(o Options) bool { return n.Driver == o.Driver }

// place chooses the router's addresses.
func (j *Join) place(n Network, offsetBy int) error {
	for _, s := range n.Subnets {
		a, err := offset(s.Prefix, offsetBy)
		if err != nil {
			return err
		}
		if a == s.Gateway {
			return fmt.Errorf("--ip-offset %d is %s, the network's own gateway: choose another offset, or make the network with another --gateway", offsetBy, a)
		}
		switch {
		case a.Is4() && !j.IPv4.IsValid():
			j.IPv4 = a
		case a.Is6() && !j.IPv6.IsValid():
			j.IPv6 = a
		}
	}
	return nil
}

// attached is a network that the router is on and forwards for.
type attached struct {
	Network
	link  string
	addrs map[bool]netip.Addr // the router's own, by whether it is IPv4
}

// connected finds the networks that the router is on, with the link of each. One whose link is not there yet is left out.
func connected(v View) []attached {
	var out []attached
	for _, n := range v.Networks {
		if !n.Joined || !n.Marked && !n.Transit {
			continue
		}
		a := attached{Network: n, addrs: map[bool]netip.Addr{}}
		for _, l := range v.Links {
			for _, p := range l.Addrs {
				if slices.ContainsFunc(n.Subnets, func(s Subnet) bool { return s.Prefix.Contains(p.Addr()) && s.Prefix.Bits() == p.Bits() }) {
					a.link, a.addrs[p.Addr().Is4()] = l.Name, p.Addr()
				}
			}
		}
		if a.link != "" {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(x, y attached) int { return cmp.Or(strings.Compare(x.Name, y.Name), strings.Compare(x.ID, y.ID)) })
	return out
}

// tell are the prefixes of all networks that are joined: of a shared network each router of it tells, and the nearest is
// chosen. With a shortcut, the host itself is reached through its router too.
func (w *Wanted) tell(v View, o Options, on []attached) {
	if o.HostShortcut {
		for _, a := range v.Host {
			w.Tell = append(w.Tell, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	for _, n := range on {
		for _, s := range n.Subnets {
			w.Tell = append(w.Tell, s.Prefix)
		}
		if n.Bridge != "" {
			w.Bridges = append(w.Bridges, n.Bridge)
		}
	}
	slices.SortFunc(w.Tell, netip.Prefix.Compare)
	w.Tell = slices.Compact(w.Tell)
}

// self plans the router's own routes: to what other routers have, to what the host routes, and the rest.
func (w *Wanted) self(v View, o Options, on []attached) {
	own := map[netip.Prefix]bool{}
	for _, p := range w.Tell {
		own[p] = true
	}
	if o.HostShortcut {
		for _, a := range v.Host {
			viaHost(w.Self, o, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	w.learned(v, own)
	for _, p := range []netip.Prefix{o.P2PNet, o.P2PNet6} {
		if o.HostLink && p.IsValid() {
			w.Self[kernel.RouteKey{Dst: p}] = kernel.Route{Type: kernel.Unicast, NextHops: []kernel.NextHop{{Link: hostLinkName}}}
		}
	}
	if o.HostLink {
		for _, p := range v.ByHost {
			if _, learned := w.Self[kernel.RouteKey{Dst: p}]; !learned && !own[p] {
				viaHost(w.Self, o, p)
			}
		}
	}
	switch {
	case o.HostGateway:
		for _, p := range everything(true, o.P2PNet6.IsValid()) {
			viaHost(w.Self, o, p)
		}
	default:
		w.transitGateway(on)
	}
}

// learned plans the routes to what other routers have and is not connected here, which is the shortest path.
func (w *Wanted) learned(v View, own map[netip.Prefix]bool) {
	for p, hops := range v.Learned {
		if own[p] {
			continue
		}
		r := kernel.Route{Type: kernel.Unicast}
		for _, h := range hops {
			if l := linkTo(v.Links, h); l != "" {
				r.NextHops = append(r.NextHops, kernel.NextHop{Via: h, Link: l})
			}
		}
		if len(r.NextHops) > 0 {
			r.NextHops = kernel.SortNextHops(r.NextHops)
			w.Self[kernel.RouteKey{Dst: p}] = r
		}
	}
}

// transitGateway leads everything else to the gateway of the transit network.
func (w *Wanted) transitGateway(on []attached) {
	for _, n := range on {
		if !n.Transit {
			continue
		}
		for _, s := range n.Subnets {
			if !s.Gateway.IsValid() {
				continue
			}
			for _, p := range everything(s.Gateway.Is4(), s.Gateway.Is6()) {
				w.Self[kernel.RouteKey{Dst: p}] = kernel.Route{Type: kernel.Unicast, NextHops: []kernel.NextHop{{Via: s.Gateway, Link: n.link}}}
			}
		}
	}
}

// hostLinkName is the router's end of the host link.
const hostLinkName = "host0"

func viaHost(m map[kernel.RouteKey]kernel.Route, o Options, p netip.Prefix) {
	via := hostEnd(o.P2PNet).Addr()
	if p.Addr().Is6() {
		if !o.P2PNet6.IsValid() {
			return
		}
		via = hostEnd(o.P2PNet6).Addr()
	}
	m[kernel.RouteKey{Dst: p}] = kernel.Route{Type: kernel.Unicast, NextHops: []kernel.NextHop{{Via: via, Link: hostLinkName}}}
}

// host plans the host's routes to the networks that are joined and to those that other routers have.
func (w *Wanted) host(v View, o Options, on []attached) {
	if v.Agent && o.HostLink {
		w.Keep = compact(slices.Clone(v.ByHost))
	}
	if !o.HostShortcut {
		return
	}
	prefixes := prefixesOf(on)
	for p := range v.Learned {
		// Other hosts' addresses are reached as they were: a shortcut is for containers.
		if !p.IsSingleIP() {
			prefixes = append(prefixes, p)
		}
	}
	for _, p := range prefixes {
		if slices.Contains(w.Tell, p) || !slices.Contains(v.ByHost, p) {
			w.overLink(v, o, p)
		}
	}
	if o.HostGateway && !o.Masquerade {
		w.Answered = compact(prefixesOf(on))
	}
	if v.Agent {
		w.Reached = compact(prefixesOf(on))
	}
	if o.Masquerade {
		w.Masquerade = compact(prefixes)
	}
}

// overLink plans a route of the host over the link, from the address that other machines know.
func (w *Wanted) overLink(v View, o Options, p netip.Prefix) {
	via := routerEnd(o.P2PNet).Addr()
	if p.Addr().Is6() {
		if !o.P2PNet6.IsValid() {
			return
		}
		via = routerEnd(o.P2PNet6).Addr()
	}
	r := kernel.Route{Type: kernel.Unicast, NextHops: []kernel.NextHop{{Via: via}}}
	for _, a := range v.Host {
		if a.Is4() == p.Addr().Is4() {
			r.Src = a
		}
	}
	w.Host[kernel.RouteKey{Dst: p}] = r
}

// prefixesOf are the subnets of networks.
func prefixesOf(on []attached) []netip.Prefix {
	var out []netip.Prefix
	for _, n := range on {
		for _, s := range n.Subnets {
			out = append(out, s.Prefix)
		}
	}
	return out
}

// compact sorts prefixes, each once.
func compact(list []netip.Prefix) []netip.Prefix {
	slices.SortFunc(list, netip.Prefix.Compare)
	return slices.Compact(list)
}

// linkTo is the link whose subnet has the address.
func linkTo(links []Link, a netip.Addr) string {
	for _, l := range links {
		for _, p := range l.Addrs {
			if p.Masked().Contains(a) {
				return l.Name
			}
		}
	}
	return ""
}
