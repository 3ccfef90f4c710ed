package kernel

import (
	"net/netip"
	"slices"
)

// Unhidden says which packets keep their source although somebody else's rules masquerade it: those from From to To. Both
// are sorted and unique; a prefix may be inside another. The zero value says nothing.
type Unhidden struct {
	From, To []netip.Prefix
}

// Equal compares two settings.
func (u Unhidden) Equal(o Unhidden) bool {
	return slices.Equal(u.From, o.From) && slices.Equal(u.To, o.To)
}

// Clone shares nothing with u.
func (u Unhidden) Clone() Unhidden {
	return Unhidden{From: slices.Clone(u.From), To: slices.Clone(u.To)}
}
