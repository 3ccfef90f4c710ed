package bgp_test

import (
	"net/netip"
	"testing"
	"time"

	"fairway/internal/config"
)

func from(prefix string, asn uint32) config.Peer { return config.Peer{Range: pfx(prefix), ASN: asn} }

// A router knows its hosts by their ranges only: they become peers by calling, also after its restart, which their routes
// survive. Who calls from elsewhere does not.
func TestRange(t *testing.T) {
	if !isolated(t) {
		return
	}
	a, b := star(t)
	setA, setB := them(at("10.77.0.1", 64512)), second(at("10.78.0.1", 64512))
	setA.ASN, setB.ASN = 64513, 64514
	set := us(from("10.77.0.0/24", 0), from("10.0.0.0/8", 64999))
	set.BGP.Aggregate = []netip.Prefix{pfx("10.9.0.0/16")}
	n := startNode(t, set, "10.9.0.0/16")
	ra := a.start(setA, "10.9.2.0/26")
	rb := b.start(setB, "10.9.3.0/26")
	took := eventually(t, "the one in the range", n.has("10.9.2.0/26", "10.77.0.2"))
	t.Logf("up %v after its start", took)
	eventually(t, "told", ra.has("10.9.0.0/16", "10.77.0.1"))
	if p := n.peer("10.77.0.2"); p.ASN != 64513 || p.State != "established" {
		t.Errorf("peer %+v", p)
	}
	holds(t, time.Second, "not the one in another AS", n.has("10.9.3.0/26"))
	n.set.BGP.Peers = []config.Peer{from("10.77.0.0/24", 0), from("10.78.0.0/24", 64514)}
	n.update()
	eventually(t, "a second range", n.has("10.9.3.0/26", "10.78.0.2"))

	t.Log("we restart")
	n.stop()
	set = n.set
	set.Restarting = true
	n = startNode(t, set, "10.9.0.0/16")
	eventually(t, "both are back", func() error {
		if err := ra.has("10.9.0.0/16", "10.77.0.1")(); err != nil {
			t.Fatalf("lost during our restart: %v", err)
		}
		if err := n.has("10.9.2.0/26", "10.77.0.2")(); err != nil {
			return err
		}
		return n.has("10.9.3.0/26", "10.78.0.2")()
	})
	holds(t, 2*time.Second, "kept after our restart", ra.has("10.9.0.0/16", "10.77.0.1"))

	n.set.BGP.Peers = []config.Peer{from("10.78.0.0/24", 64514)}
	n.update()
	eventually(t, "gone with its range", n.has("10.9.2.0/26"))
	eventually(t, "and withdrawn", ra.has("10.9.0.0/16"))
	if err := n.has("10.9.3.0/26", "10.78.0.2")(); err != nil {
		t.Error(err)
	}
	n.set.BGP.Peers = []config.Peer{from("10.78.0.0/24", 64514), at("10.77.0.2", 64513)}
	n.update()
	eventually(t, "by its address", n.has("10.9.2.0/26", "10.77.0.2"))
	ra.kill()
	rb.kill()
}
