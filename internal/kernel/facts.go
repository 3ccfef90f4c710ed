package kernel

import "net/netip"

// Facts is what a node's kernel looks like around us: strangers' links and addresses, read only, that decide next hops,
// the MTU and the node's own address.
type Facts struct {
	// Links are all links of the node that are not ours, by name.
	Links map[string]FactLink
	// Default4 and Default6 are the ways of the default routes; zero when there is none.
	Default4, Default6 NextHop
}

// FactLink is a link that is not ours.
type FactLink struct {
	Name    string
	Index   int
	MTU     int // bytes
	MAC     MAC
	Kind    string         // as ip(8) names it: "veth", "bridge", "device" for hardware
	Up      bool           // administratively up
	Carrier bool           // operationally up: frames can pass (RFC 2863 ifOperStatus up, or unknown)
	Addrs   []netip.Prefix // with host bits, in the kernel's order; link-local ones too
}

// Connected returns the link whose subnet has the address, the longest prefix winning; false when no link has it.
// Link-local addresses are on every link and never found.
func (f Facts) Connected(a netip.Addr) (FactLink, bool) {
	var best FactLink
	bits := -1
	if a.IsLinkLocalUnicast() {
		return best, false
	}
	for _, l := range f.Links {
		for _, p := range l.Addrs {
			if p.Bits() > bits && p.Masked().Contains(a) {
				best, bits = l, p.Bits()
			}
		}
	}
	return best, bits >= 0
}
