package agent

import (
	"net/netip"
	"testing"

	"fairway/internal/rib"
)

// A route of an address or of another node's block says that the address is taken; one of the whole pool does not.
func TestHeard(t *testing.T) {
	a := &Agent{rib: rib.New(nil), pools: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}}
	routes := map[netip.Prefix][]rib.Path{}
	for _, p := range []string{"0.0.0.0/0", "10.9.0.0/16", "10.9.2.0/24", "10.9.200.2/32"} {
		routes[netip.MustParsePrefix(p)] = []rib.Path{{NextHop: netip.MustParseAddr("10.77.0.1"), Source: rib.BGP, Peer: "10.77.0.1"}}
	}
	a.rib.Replace(rib.BGP, routes)
	for addr, want := range map[string]bool{"10.9.200.2": true, "10.9.2.9": true, "10.9.200.3": false, "10.8.0.1": true} {
		if who, got := a.heard(netip.MustParseAddr(addr)); got != want {
			t.Errorf("heard of %s: %v %q, want %v", addr, got, who, want)
		}
	}
}
