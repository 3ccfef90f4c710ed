package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"fairway/internal/config"
	"fairway/internal/kernel"
)

// underlay is how this node is reached by others, and why that was chosen.
type underlay struct {
	Link         string
	Addr4, Addr6 netip.Addr
	MTU          int // bytes; 0 when there is no link
	Why          string
}

// chooseUnderlay finds the node's addresses by the config's way: given addresses, an interface, a prefix, or the link
// of the default route. Docker's own bridges are never chosen unless they are named.
func chooseUnderlay(cfg config.Node, facts kernel.Facts) (underlay, error) {
	switch {
	case cfg.Address.IsValid() || cfg.Address6.IsValid():
		return byAddress(cfg, facts)
	case cfg.Interface != "":
		l, ok := facts.Links[cfg.Interface]
		if !ok {
			return underlay{}, fmt.Errorf("node.interface %q: no such link; the node has %s", cfg.Interface, linkNames(facts))
		}
		return byLink(l, "node.interface is "+l.Name), nil
	case cfg.CIDR.IsValid():
		return byPrefix(cfg.CIDR, facts)
	}
	for _, def := range []kernel.NextHop{facts.Default4, facts.Default6} {
		if l, ok := facts.Links[def.Link]; ok {
			return byLink(l, "the default route leaves through "+l.Name), nil
		}
	}
	for _, l := range sortedLinks(facts) {
		if u := byLink(l, "the first link that is up and has an address is "+l.Name); !dockers(l) && l.Up && u.Addr4.IsValid() {
			return u, nil
		}
	}
	return underlay{Why: "no link has an address yet"}, nil
}

func byAddress(cfg config.Node, facts kernel.Facts) (underlay, error) {
	u := underlay{Addr4: cfg.Address, Addr6: cfg.Address6, Why: "node.address is set"}
	for _, l := range sortedLinks(facts) {
		has4 := slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return p.Addr() == u.Addr4 })
		has6 := slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return p.Addr() == u.Addr6 })
		if !has4 && !has6 {
			continue
		}
		u.Link, u.MTU = l.Name, l.MTU
		if found := byLink(l, ""); !u.Addr6.IsValid() {
			u.Addr6 = found.Addr6
		} else if !u.Addr4.IsValid() {
			u.Addr4 = found.Addr4
		}
		return u, nil
	}
	given := cfg.Address
	if !given.IsValid() {
		given = cfg.Address6
	}
	return underlay{}, fmt.Errorf("node.address %s: no link of this node has it; the links are %s", given, linkNames(facts))
}

func byPrefix(cidr netip.Prefix, facts kernel.Facts) (underlay, error) {
	for _, l := range sortedLinks(facts) {
		for _, p := range l.Addrs {
			if !cidr.Contains(p.Addr()) {
				continue
			}
			u := byLink(l, fmt.Sprintf("node.cidr is %s, and %s has %s", cidr, l.Name, p.Addr()))
			if p.Addr().Is4() {
				u.Addr4 = p.Addr()
			} else {
				u.Addr6 = p.Addr()
			}
			return u, nil
		}
	}
	return underlay{}, fmt.Errorf("node.cidr %s: no address of this node is inside; the links are %s", cidr, linkNames(facts))
}

// byLink takes the first global address of each family.
func byLink(l kernel.FactLink, why string) underlay {
	u := underlay{Link: l.Name, MTU: l.MTU, Why: why}
	for _, p := range l.Addrs {
		a := p.Addr()
		switch {
		case !a.IsGlobalUnicast():
		case a.Is4() && !u.Addr4.IsValid():
			u.Addr4 = a
		case a.Is6() && !u.Addr6.IsValid():
			u.Addr6 = a
		}
	}
	return u
}

// dockers says whether a link is one of the engine's.
func dockers(l kernel.FactLink) bool {
	return l.Name == "lo" || strings.HasPrefix(l.Name, "docker") || strings.HasPrefix(l.Name, "br-") || strings.HasPrefix(l.Name, "veth")
}

func sortedLinks(facts kernel.Facts) []kernel.FactLink {
	out := make([]kernel.FactLink, 0, len(facts.Links))
	for _, l := range facts.Links {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b kernel.FactLink) int { return a.Index - b.Index })
	return out
}

func linkNames(facts kernel.Facts) string {
	var names []string
	for _, l := range sortedLinks(facts) {
		if !dockers(l) {
			names = append(names, fmt.Sprintf("%s %v", l.Name, l.Addrs))
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
