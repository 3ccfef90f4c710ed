package export

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Node is one that has prefixes: addresses of containers.
type Node struct {
	Name     string
	Address  netip.Addr // IPv4 next hop; zero: none
	Address6 netip.Addr // IPv6 next hop; zero: none
	Prefixes []netip.Prefix
}

// hop is the node's address of a prefix's family.
func (n Node) hop(p netip.Prefix) netip.Addr {
	if p.Addr().Is4() {
		return n.Address
	}
	return n.Address6
}

// Router is who the routes are for. Its zero value is any router that has all next hops on its links.
type Router struct {
	Name  string // of a node; "" for a stranger
	Links []Link
}

// Link is one of the router's links.
type Link struct {
	Name   string       // "" when it does not matter
	Prefix netip.Prefix // the router's address on it, with the length of the subnet; one address alone says nothing of a subnet
}

// String is the link's name, or else its subnet.
func (l Link) String() string {
	switch {
	case l.Name != "":
		return clean(l.Name)
	case l.Prefix.IsValid():
		return l.Prefix.Masked().String()
	}
	return "a link that is not known"
}

// subnet says whether the link tells which next hops are on it.
func (l Link) subnet() bool { return l.Prefix.IsValid() && !l.Prefix.IsSingleIP() }

// is says whether a node is the router itself.
func (r Router) is(n Node) bool {
	if r.Name != "" && r.Name == n.Name {
		return true
	}
	return slices.ContainsFunc(r.Links, func(l Link) bool {
		a := l.Prefix.Addr()
		return a.IsValid() && (a == n.Address || a == n.Address6)
	})
}

// link finds the link that has a next hop. Without subnets every next hop is taken to be on a link that nobody named.
func (r Router) link(hop netip.Addr) (Link, bool) {
	known := false
	for _, l := range r.Links {
		if !l.subnet() {
			continue
		}
		known = true
		if l.Prefix.Contains(hop) {
			return l, true
		}
	}
	return Link{}, !known
}

// Route is a prefix with all of its ways, at least one.
type Route struct {
	Prefix netip.Prefix
	Hops   []Hop // sorted by address
}

// Hop is one way.
type Hop struct {
	Node string     // who has the prefix
	Via  netip.Addr // of the prefix's family
	Link Link       // of the router, that Via is on; zero when it is not known
}

// Routes are what a router needs to reach everything that the nodes have, sorted by prefix, IPv4 first. What the router has
// itself is not among them. A prefix that the router cannot be given a route for is a line in left, with the reason.
func Routes(nodes []Node, r Router) (routes []Route, left []string) {
	own := map[netip.Prefix]bool{}
	for _, n := range nodes {
		for _, p := range n.Prefixes {
			if r.is(n) {
				own[p.Masked()] = true
			}
		}
	}
	hops := map[netip.Prefix][]Hop{}
	for _, n := range nodes {
		if r.is(n) {
			continue
		}
		for _, p := range n.Prefixes {
			p = p.Masked()
			if own[p] {
				continue
			}
			hop, err := r.hop(n, p)
			if err != nil {
				left = append(left, fmt.Sprintf("%s of %s: %v", p, clean(n.Name), err))
				continue
			}
			if !slices.ContainsFunc(hops[p], func(h Hop) bool { return h.Via == hop.Via }) {
				hops[p] = append(hops[p], hop)
			}
		}
	}
	for p, list := range hops {
		slices.SortFunc(list, func(a, b Hop) int { return a.Via.Compare(b.Via) })
		routes = append(routes, Route{Prefix: p, Hops: list})
	}
	slices.SortFunc(routes, func(a, b Route) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), a.Prefix.Bits()-b.Prefix.Bits())
	})
	slices.Sort(left)
	return routes, slices.Compact(left)
}

// hop is the router's way to a prefix of a node.
func (r Router) hop(n Node, p netip.Prefix) (Hop, error) {
	via := n.hop(p)
	switch {
	case !via.IsValid():
		return Hop{}, fmt.Errorf("no next hop of its family is known")
	case via.IsLinkLocalUnicast():
		return Hop{}, fmt.Errorf("the next hop %s means something on one link only", via)
	case via.Is4() != p.Addr().Is4():
		return Hop{}, fmt.Errorf("the next hop %s is of the other family", via)
	}
	l, ok := r.link(via)
	if !ok {
		return Hop{}, fmt.Errorf("the next hop %s is on none of the router's links", via)
	}
	return Hop{Node: n.Name, Via: via, Link: l}, nil
}
