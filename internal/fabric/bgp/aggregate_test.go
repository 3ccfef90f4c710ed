package bgp_test

import (
	"net/netip"
	"testing"
	"time"
)

// A router with aggregates tells them in place of what is inside them, reflecting and between autonomous systems, from the
// moment that the config says so until it does not.
func TestAggregate(t *testing.T) {
	if !isolated(t) {
		return
	}
	a, b := star(t)
	for _, tt := range []struct {
		name     string
		asA, asB uint32
		hop      string
	}{
		{"route reflector", 64512, 64512, "10.77.0.2"},
		{"transit", 64513, 64514, "10.78.0.1"},
	} {
		setA, setB := them(at("10.77.0.1", 64512)), second(at("10.78.0.1", 64512))
		setA.ASN, setB.ASN = tt.asA, tt.asB
		ra := a.start(setA, "10.9.2.0/26", "10.9.200.2/32", "fd00:9:0:2::/122")
		rb := b.start(setB)
		set := us(at("10.77.0.2", tt.asA), at("10.78.0.2", tt.asB))
		set.BGP.RouteReflector = true
		set.BGP.Aggregate = []netip.Prefix{pfx("10.9.0.0/16"), pfx("fd00:9::/48")}
		n := startNode(t, set, "10.9.0.0/16", "fd00:9::/48")
		eventually(t, tt.name+": the aggregate", rb.has("10.9.0.0/16", "10.78.0.1"))
		eventually(t, tt.name+": the IPv6 aggregate", rb.has("fd00:9::/48", "fd78::1"))
		eventually(t, tt.name+": the router has a part", n.has("10.9.2.0/26", "10.77.0.2"))
		eventually(t, tt.name+": the router has an IPv6 part", n.has("fd00:9:0:2::/122", "fd77::2"))
		for _, part := range []string{"10.9.2.0/26", "10.9.200.2/32", "fd00:9:0:2::/122"} {
			holds(t, 300*time.Millisecond, tt.name+": not the part "+part, rb.has(part))
		}
		n.set.BGP.Aggregate = nil
		n.update()
		eventually(t, tt.name+": the part, once there is no aggregate", rb.has("10.9.200.2/32", tt.hop))
		n.set.BGP.Aggregate = set.BGP.Aggregate
		n.update()
		eventually(t, tt.name+": the part is withdrawn", rb.has("10.9.200.2/32"))
		eventually(t, tt.name+": the other part is withdrawn", rb.has("10.9.2.0/26"))
		if err := rb.has("10.9.0.0/16", "10.78.0.1")(); err != nil {
			t.Errorf("%s: the aggregate: %v", tt.name, err)
		}
		n.stop()
		ra.kill()
		rb.kill()
	}
}
