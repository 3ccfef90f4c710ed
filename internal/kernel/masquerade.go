package kernel

import (
	"net/netip"
	"slices"
)

// Masquerade says which forwarded packets leave with the node's address: those from From to anything but Direct. The
// zero value means no NAT at all. All slices are sorted and unique; a prefix may be inside another.
type Masquerade struct {
	From   []netip.Prefix
	Direct []netip.Prefix // destinations that see the container's own address; they matter only with From
	Except []Exception    // further ones, each of one source
}

// Exception is a destination that one source's packets reach with their own address.
type Exception struct {
	From, To netip.Prefix // of one family
}

// Compare orders by source, then by destination.
func (e Exception) Compare(o Exception) int {
	if c := e.From.Compare(o.From); c != 0 {
		return c
	}
	return e.To.Compare(o.To)
}

// Equal compares two settings.
func (m Masquerade) Equal(o Masquerade) bool {
	return slices.Equal(m.From, o.From) && slices.Equal(m.Direct, o.Direct) && slices.Equal(m.Except, o.Except)
}

// Clone shares nothing with m.
func (m Masquerade) Clone() Masquerade {
	return Masquerade{From: slices.Clone(m.From), Direct: slices.Clone(m.Direct), Except: slices.Clone(m.Except)}
}

// Hides says whether a packet from src to dst leaves with the node's address.
func (m Masquerade) Hides(src, dst netip.Addr) bool {
	return covers(m.From, src) && !covers(m.Direct, dst) && !slices.ContainsFunc(m.Except, func(e Exception) bool {
		return e.From.Contains(src) && e.To.Contains(dst)
	})
}

func covers(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Flow is a connection that the kernel tracks, whatever its protocol.
type Flow struct {
	Src netip.Addr // of the first packet, before any NAT
	Dst netip.Addr // where it really went, after NAT of its destination
	// Seen is the source that the destination saw; it differs from Src when the source is masqueraded.
	Seen netip.Addr
}
