package cnm

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Egress is how what a network's containers send to destinations outside the cluster leaves the node.
type Egress struct {
	Way EgressWay `json:"way,omitempty"`
	// NoMasqueradeTo are further destinations that see the containers' own addresses; those of the pool are added.
	NoMasqueradeTo []netip.Prefix `json:"no_masquerade_to,omitempty"`
}

// EgressWay is one of the ways, or "" for the one of the config's pool.
type EgressWay string

// The ways out.
const (
	EgressRoute      EgressWay = "route"      // with the container's own address
	EgressMasquerade EgressWay = "masquerade" // with the node's
)

// set takes in an option.
func (e *Egress) set(key, val string) error {
	if key == OptEgress {
		e.Way = EgressWay(val)
		if e.Way != EgressRoute && e.Way != EgressMasquerade {
			return fmt.Errorf("option %s=%s: allowed are %s and %s", key, val, EgressRoute, EgressMasquerade)
		}
		return nil
	}
	for part := range strings.SplitSeq(val, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil || p.Addr().Is4In6() || p.Addr().IsMulticast() {
			return fmt.Errorf("option %s=%s: want prefixes, as 192.0.2.0/24, comma-separated", key, val)
		}
		if p != p.Masked() {
			return fmt.Errorf("option %s=%s: %s has host bits set; did you mean %s?", key, val, p, p.Masked())
		}
		e.NoMasqueradeTo = append(e.NoMasqueradeTo, p)
	}
	slices.SortFunc(e.NoMasqueradeTo, netip.Prefix.Compare)
	e.NoMasqueradeTo = slices.Compact(e.NoMasqueradeTo)
	return nil
}
