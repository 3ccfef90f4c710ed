package bgp_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"fairway/internal/config"
)

func on(link string, asn uint32) config.Peer { return config.Peer{Interface: link, ASN: asn} }

// Two nodes on a link without addresses find each other, and IPv4 goes over link-local next hops.
func TestUnnumbered(t *testing.T) {
	if !isolated(t) {
		return
	}
	other := newSpace(t)
	other.wire("va", "vb", nil, nil)
	theirs := them(on("vb", 0))
	theirs.ASN = 64513
	theirs.BGP.Peers[0].BFD = true
	ours := us(on("va", 64513))
	ours.BGP.Peers[0].BFD = true
	ours.Passwords = map[string]string{"va": "s3cret"}
	theirs.Passwords = map[string]string{"vb": "s3cret"}
	r := other.start(theirs, "10.9.2.0/26", "fd00:9:0:2::/122")
	start := time.Now()
	n := startNode(t, ours, "10.9.1.0/26", "fd00:9:0:1::/122")
	p := n.up("va")
	t.Logf("up %v after the start", time.Since(start))
	if p.Name != p.Address.String() || p.Address.Zone() != "va" || !p.Address.IsLinkLocalUnicast() || p.ASN != 64513 {
		t.Errorf("peer %+v", p)
	}
	hop := p.Address.WithZone("").String()
	eventually(t, "IPv4", n.has("10.9.2.0/26", hop))
	eventually(t, "IPv6", n.has("fd00:9:0:2::/122", hop))
	if got := n.rib.Snapshot()[pfx("10.9.2.0/26")].Paths[0]; got.Link != "va" || got.Peer != p.Name || got.Node != adr("10.77.0.2") {
		t.Errorf("path %+v", got)
	}
	eventually(t, "they hear us", func() error {
		if paths := r.routes()[pfx("10.9.1.0/26")].Paths; len(paths) != 1 || paths[0].Link != "vb" {
			return fmt.Errorf("%+v", paths)
		}
		return nil
	})
	eventually(t, "BFD between link-local addresses", func() error {
		if p := n.peer("va"); p.BFD != "up" {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	sh(t, "ip link set va down")
	n.update()
	if err := n.has("10.9.2.0/26")(); err != nil {
		t.Error(err)
	}
	sh(t, "ip link set va up")
	carrier(t, "va")
	n.update()
	took := within(t, 10*time.Second, "back", n.has("10.9.2.0/26", hop))
	t.Logf("heard again %v after the link was up", took)
}

// A peer of our own AS on an unnumbered link must be asked for.
func TestUnnumberedOwnAS(t *testing.T) {
	if !isolated(t) {
		return
	}
	other := newSpace(t)
	other.wire("va", "vb", nil, nil)
	other.start(them(on("vb", 64512)), "10.9.2.0/26")
	n := startNode(t, us(on("va", 0)))
	eventually(t, "refused", func() error {
		if p := n.peer("va"); !strings.Contains(p.Problem, "set asn: 64512") || p.State != "idle" {
			return fmt.Errorf("%+v", p)
		}
		return n.has("10.9.2.0/26")()
	})
	n.set.BGP.Peers[0].ASN = 64512
	n.update()
	eventually(t, "asked for", func() error {
		if len(n.rib.Snapshot()[pfx("10.9.2.0/26")].Paths) != 1 {
			return fmt.Errorf("%+v", n.peer("va"))
		}
		return nil
	})
}

// Nobody on other links gets in, and nobody is told of us there.
func TestUnnumberedOnlyOnItsLink(t *testing.T) {
	if !isolated(t) {
		return
	}
	other, container := newSpace(t), newSpace(t)
	other.wire("va", "vb", nil, nil)
	container.wire("vc", "vd", nil, nil)
	other.start(them(on("vb", 64512)), "10.9.2.0/26")
	intruder := container.start(them(on("vd", 64512)), "10.9.9.0/26")
	n := startNode(t, us(on("va", 64512)))
	n.up("va")
	here := ""
	for _, p := range hereFacts(t).Links["vc"].Addrs {
		here = p.Addr().String()
	}
	// It does not even know our address from us; let it try with what it found out.
	set := them(config.Peer{Address: adr(here + "%vd"), ASN: 64512})
	intruder.ask(request{Do: "update", Set: &set})
	holds(t, 5*time.Second, "the intruder is not heard", n.has("10.9.9.0/26"))
	for _, p := range intruder.peers() {
		if p.State == "established" {
			t.Errorf("the intruder has a session: %+v", p)
		}
	}
}
