package bgp_test

import (
	"net/netip"
	"testing"
	"time"

	"fairway/internal/config"
)

// star puts this node between two others, 10.77.0.2 and 10.78.0.2.
func star(t *testing.T) (a, b *space) {
	t.Helper()
	a, b = pair(t), newSpace(t)
	b.wire("vc", "vd", []string{"10.78.0.1/24", "fd78::1/64"}, []string{"10.78.0.2/24", "fd78::2/64"})
	return a, b
}

func second(peers ...config.Peer) settings {
	return settings{ASN: 64512, Node: adr("10.78.0.2"), Node6: adr("fd78::2"), Pools: pools, BGP: config.BGP{Peers: peers}}
}

// What is refused is not passed on either, by a route reflector and between autonomous systems; what is taken is, with the
// node that holds it.
func TestPassedOn(t *testing.T) {
	if !isolated(t) {
		return
	}
	a, b := star(t)
	for _, tt := range []struct {
		name                string
		asA, asB            uint32
		reflect             bool
		hop4, hop6, outside string
	}{
		{"route reflector", 64512, 64512, true, "10.77.0.2", "fd77::2", "192.0.2.0/24"},
		{"transit", 64513, 64514, false, "10.78.0.1", "fd78::1", "192.0.2.0/24"},
	} {
		setA, setB := them(at("10.77.0.1", 64512)), second(at("10.78.0.1", 64512))
		setA.ASN, setB.ASN = tt.asA, tt.asB
		setB.BGP.Import.Prefixes = []netip.Prefix{pfx("192.0.2.0/24")}
		ra := a.start(setA, "10.9.2.0/26", "fd00:9:0:2::/122", tt.outside)
		rb := b.start(setB)
		set := us(at("10.77.0.2", tt.asA), at("10.78.0.2", tt.asB))
		set.BGP.RouteReflector = tt.reflect
		n := startNode(t, set, "10.9.1.0/26")
		eventually(t, tt.name+": IPv4 passed on", rb.has("10.9.2.0/26", tt.hop4))
		eventually(t, tt.name+": IPv6 passed on", rb.has("fd00:9:0:2::/122", tt.hop6))
		eventually(t, tt.name+": ours", rb.has("10.9.1.0/26", "10.78.0.1"))
		if got := rb.routes()[pfx("10.9.2.0/26")].Paths[0]; got.Node != adr("10.77.0.2") {
			t.Errorf("%s: path %+v", tt.name, got)
		}
		holds(t, 500*time.Millisecond, tt.name+": the refused one is not", rb.has(tt.outside))
		// Once it is allowed, it is passed on without a new session.
		n.set.BGP.Import.Prefixes = []netip.Prefix{pfx(tt.outside)}
		n.update()
		eventually(t, tt.name+": allowed later", rb.has(tt.outside, tt.hop4))
		if p := n.peer("10.78.0.2"); p.Sent != 4 || p.Refused != 0 {
			t.Errorf("%s: peer %+v", tt.name, p)
		}
		// And the loss of a link is passed on.
		sh(t, "ip link set va down")
		n.update()
		within(t, 2*time.Second, tt.name+": loss passed on", rb.has("10.9.2.0/26"))
		sh(t, "ip link set va up")
		carrier(t, "va")
		n.stop()
		ra.kill()
		rb.kill()
	}
}

// A default route is taken only when the config has it.
func TestDefaultRoute(t *testing.T) {
	if !isolated(t) {
		return
	}
	other := pair(t)
	other.start(them(at("10.77.0.1", 64512)), "0.0.0.0/0", "::/0", "10.9.2.0/26")
	set := us(at("10.77.0.2", 64512))
	set.Pools = append(set.Pools[:2:2], pfx("0.0.0.0/0")) // as wide as a pool can be
	n := startNode(t, set)
	eventually(t, "the rest", n.has("10.9.2.0/26", "10.77.0.2"))
	holds(t, 500*time.Millisecond, "no default route", n.has("0.0.0.0/0"))
	n.set.BGP.Import.Prefixes = []netip.Prefix{pfx("0.0.0.0/0")}
	n.update()
	eventually(t, "default route", n.has("0.0.0.0/0", "10.77.0.2"))
	if err := n.has("::/0")(); err != nil {
		t.Error(err)
	}
}
