package bgp_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"fairway/internal/config"
	"fairway/internal/fabric"
	"fairway/internal/fabric/bgp"
)

var _ fabric.Fabric = (*bgp.Fabric)(nil)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func adr(s string) netip.Addr   { return netip.MustParseAddr(s) }

var pools = []netip.Prefix{pfx("10.9.0.0/16"), pfx("fd00:9::/48")}

// us and them are two nodes on one link, 10.77.0.1 and 10.77.0.2.
func us(peers ...config.Peer) settings {
	return settings{ASN: 64512, Node: adr("10.77.0.1"), Node6: adr("fd77::1"), Pools: pools, BGP: config.BGP{Peers: peers}}
}

func them(peers ...config.Peer) settings {
	return settings{ASN: 64512, Node: adr("10.77.0.2"), Node6: adr("fd77::2"), Pools: pools, BGP: config.BGP{Peers: peers}}
}

func at(addr string, asn uint32) config.Peer { return config.Peer{Address: adr(addr), ASN: asn} }

func pair(t *testing.T) *space {
	t.Helper()
	s := newSpace(t)
	s.wire("va", "vb", []string{"10.77.0.1/24", "fd77::1/64"}, []string{"10.77.0.2/24", "fd77::2/64"})
	return s
}

func TestNewNeedsRouterID(t *testing.T) {
	set := settings{ASN: 64512, Node6: adr("fd77::1")}
	if _, err := bgp.New(bgp.Config{Node6: set.Node6, Cfg: set.config()}); err == nil || !strings.Contains(err.Error(), "bgp.routerID") {
		t.Errorf("New without an IPv4 address: %v", err)
	}
}

// Two nodes of one AS, IPv4 and IPv6 over one IPv4 session: what is told, heard, refused, counted, and withdrawn.
func TestInternalSession(t *testing.T) {
	if !isolated(t) {
		return
	}
	other := pair(t)
	r := other.start(them(at("10.77.0.1", 64512)), "10.9.2.0/26", "10.9.200.7/32", "fd00:9:0:2::/122", "192.0.2.0/24", "10.9.1.0/26")
	n := startNode(t, us(at("10.77.0.2", 64512)), "10.9.1.0/26", "fd00:9:0:1::/122")
	p := n.up("10.77.0.2")
	if p.ASN != 64512 || p.RouterID != adr("10.77.0.2") || p.Link != "va" || p.HoldTime != 9*time.Second {
		t.Errorf("peer %+v", p)
	}
	eventually(t, "block heard", n.has("10.9.2.0/26", "10.77.0.2"))
	eventually(t, "address heard", n.has("10.9.200.7/32", "10.77.0.2"))
	eventually(t, "IPv6 over an IPv4 session", n.has("fd00:9:0:2::/122", "fd77::2"))
	eventually(t, "the other hears us", r.has("fd00:9:0:1::/122", "fd77::1"))
	if got := n.rib.Snapshot()[pfx("10.9.2.0/26")].Paths[0]; got.Node != adr("10.77.0.2") || got.Peer != "10.77.0.2" || got.OriginAS != 0 {
		t.Errorf("path %+v", got)
	}
	eventually(t, "numbers", func() error {
		if p := n.peer("10.77.0.2"); p.Received != 3 || p.Refused != 2 || p.Sent != 2 || !strings.Contains(p.Problem, "announces 10.9.1.0/26") {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	eventually(t, "converged", func() error {
		if !n.fabric.Status().Converged {
			return fmt.Errorf("not converged")
		}
		return nil
	})
	// A new network's pool lets in what was refused before, and a smaller one takes it away.
	if err := n.fabric.SetPools([]netip.Prefix{pfx("192.0.2.0/24")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "more pools", n.has("192.0.2.0/24", "10.77.0.2"))
	if err := n.fabric.SetPools(nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "fewer pools", n.has("192.0.2.0/24"))
	r.announce("10.9.2.0/26")
	took := within(t, time.Second, "withdrawn", n.has("10.9.200.7/32"))
	t.Logf("withdrawn after %v", took)
	if err := n.has("10.9.2.0/26", "10.77.0.2")(); err != nil {
		t.Error(err)
	}
	n.announce()
	within(t, time.Second, "all of ours withdrawn", r.has("fd00:9:0:1::/122"))
}

func TestExternalSessions(t *testing.T) {
	if !isolated(t) {
		return
	}
	other := pair(t)
	tests := []struct {
		name     string
		ours     config.Peer
		theirs   config.Peer
		password string
		hop      string // of IPv4
		hop6     string
	}{
		{"IPv4", at("10.77.0.2", 64513), at("10.77.0.1", 64512), "", "10.77.0.2", "fd77::2"},
		{"IPv6, RFC 8950", at("fd77::2", 64513), at("fd77::1", 64512), "", "fd77::2", "fd77::2"},
		{"MD5", at("10.77.0.2", 64513), at("10.77.0.1", 64512), "s3cret", "10.77.0.2", "fd77::2"},
		{"GTSM", config.Peer{Address: adr("10.77.0.2"), ASN: 64513, TTLSecurity: true}, config.Peer{Address: adr("10.77.0.1"), ASN: 64512, TTLSecurity: true}, "", "10.77.0.2", "fd77::2"},
		{"they are passive", at("10.77.0.2", 64513), config.Peer{Address: adr("10.77.0.1"), ASN: 64512, Passive: true}, "", "10.77.0.2", "fd77::2"},
	}
	for _, tt := range tests {
		ours, theirs := us(tt.ours), them(tt.theirs)
		theirs.ASN = 64513
		if tt.password != "" {
			ours.Passwords = map[string]string{tt.ours.Name(): tt.password}
			theirs.Passwords = map[string]string{tt.theirs.Name(): tt.password}
		}
		r := other.start(theirs, "10.9.2.0/26", "fd00:9:0:2::/122")
		n := startNode(t, ours, "10.9.1.0/26")
		eventually(t, tt.name+": IPv4", n.has("10.9.2.0/26", tt.hop))
		eventually(t, tt.name+": IPv6", n.has("fd00:9:0:2::/122", tt.hop6))
		p := n.rib.Snapshot()[pfx("10.9.2.0/26")].Paths[0]
		if p.OriginAS != 64513 || len(p.ASPath) != 1 || p.Node != adr("10.77.0.2") {
			t.Errorf("%s: path %+v", tt.name, p)
		}
		n.stop()
		r.kill()
	}
}

// A wrong password, then the right one, then none on either side.
func TestPasswordChange(t *testing.T) {
	if !isolated(t) {
		return
	}
	other := pair(t)
	theirs := them(at("10.77.0.1", 64512))
	theirs.Passwords = map[string]string{"10.77.0.1": "right"}
	r := other.start(theirs, "10.9.2.0/26")
	ours := us(at("10.77.0.2", 64512))
	ours.Passwords = map[string]string{"10.77.0.2": "wrong"}
	n := startNode(t, ours)
	holds(t, 4*time.Second, "no session with a wrong password", n.has("10.9.2.0/26"))
	n.set.Passwords["10.77.0.2"] = "right"
	n.update()
	eventually(t, "the right password", n.has("10.9.2.0/26", "10.77.0.2"))
	n.set.Passwords = nil
	n.update()
	theirs.Passwords = nil
	theirs.BGP.Peers[0].Passive = true // so that our way out of MD5 is what is tried
	r.ask(request{Do: "update", Set: &theirs})
	n.up("10.77.0.2")
	// And in: the listening socket must have lost its key.
	theirs.BGP.Peers[0].Passive = false
	n.set.BGP.Peers[0].Passive = true
	r.ask(request{Do: "update", Set: &theirs})
	n.update()
	eventually(t, "session", n.has("10.9.2.0/26", "10.77.0.2"))
	n.up("10.77.0.2")
}

// Only the session whose settings changed ends.
func TestUpdateTouchesOnlyWhatChanged(t *testing.T) {
	if !isolated(t) {
		return
	}
	other := pair(t)
	other.sh("ip addr add 10.77.0.3/24 dev vb")
	theirs := them(at("10.77.0.1", 64512))
	other.start(theirs, "10.9.2.0/26")
	n := startNode(t, us(at("10.77.0.2", 64512)))
	before := n.up("10.77.0.2")
	n.set.BGP.Peers = append(n.set.BGP.Peers, at("10.77.0.9", 64512))
	n.set.BGP.Import = config.Import{MaxPrefixes: 500, Prefixes: []netip.Prefix{pfx("198.51.100.0/24")}}
	n.update()
	n.set.BGP.Peers = n.set.BGP.Peers[:1]
	n.update()
	if after := n.up("10.77.0.2"); after.Since != before.Since {
		t.Errorf("the session began anew: %+v, then %+v", before, after)
	}
	n.set.BGP.Peers[0].HoldTime = 6 * time.Second
	n.update()
	eventually(t, "the new hold time", func() error {
		if p := n.peer("10.77.0.2"); p.HoldTime != 6*time.Second || p.State != "established" {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	n.set.BGP.Peers = nil
	n.update()
	if err := n.has("10.9.2.0/26")(); err != nil {
		t.Errorf("after its peer left the config: %v", err)
	}
}

func TestMaxPrefixes(t *testing.T) {
	if !isolated(t) {
		return
	}
	other := pair(t)
	r := other.start(them(at("10.77.0.1", 64512)), "10.9.2.0/26", "10.9.3.0/26")
	set := us(at("10.77.0.2", 64512))
	set.BGP.Import.MaxPrefixes = 2
	n := startNode(t, set)
	eventually(t, "two are allowed", n.has("10.9.3.0/26", "10.77.0.2"))
	r.announce("10.9.2.0/26", "10.9.3.0/26", "10.9.4.0/26")
	eventually(t, "three are not", n.has("10.9.2.0/26"))
	p := n.peer("10.77.0.2")
	if p.State != "idle" || !strings.Contains(p.Problem, "3 prefixes of one family, and 2 are allowed") || !strings.Contains(p.Problem, "bgp.import.maxPrefixes") {
		t.Errorf("peer %+v", p)
	}
	holds(t, 3*time.Second, "it stays closed", n.has("10.9.2.0/26"))
}
