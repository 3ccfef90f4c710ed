// Package rib knows routes: what was heard from fabrics and what is static, and which of it is best for each prefix.
// It is pure: no input or output, no clock, no logging. What the node itself holds is not in here (internal/plan has it,
// and it always wins over what is heard).
package rib

import "net/netip"

// Source says where a path was heard; a lower one is preferred (administrative distance).
type Source int

// The sources, in order of preference.
const (
	Static Source = iota + 1 // the config's nodes and routes
	Store                    // the cluster's records
	BGP                      // a BGP session
)

// String is the source's name in listings.
func (s Source) String() string {
	switch s {
	case Static:
		return "static"
	case Store:
		return "store"
	case BGP:
		return "bgp"
	}
	return "unknown"
}

// Path is one way to a prefix, heard from one peer.
type Path struct {
	NextHop netip.Addr // may be of the other family than the prefix (RFC 8950); link-local with Link
	Link    string     // the link of a link-local next hop, else ""
	Source  Source
	Peer    string // who told: the peer's address, "fe80::1%eth1" on unnumbered sessions, or the node's name (static)
	// Node is the router ID of the fairway node that holds the prefix, as its announcement says (large community);
	// zero when a stranger announced it.
	Node     netip.Addr
	OriginAS uint32 // last AS of the AS_PATH; 0 for a path of our own AS
	ASPath   []uint32
	MED      uint32
	Stale    bool // kept over a graceful restart (RFC 4724)
}

// Route is what was chosen for a prefix: the best source's paths, more than one for multipath.
type Route struct {
	Prefix netip.Prefix
	Paths  []Path // sorted; never empty
}

// Conflict is a host prefix (/32, /128) that more than one node announces.
type Conflict struct {
	Prefix netip.Prefix
	Paths  []Path // one for each holder
}
