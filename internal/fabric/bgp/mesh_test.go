package bgp_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"fairway/internal/config"
	"fairway/internal/fabric"
)

// segment is a bridge in this namespace with nodes on it: this one is 10.77.0.1, and the others 10.77.0.2 and so on.
func segment(t *testing.T, others int) []*space {
	t.Helper()
	sh(t, "ip link add br0 type bridge; ip link set br0 up; ip addr add 10.77.0.1/24 dev br0; ip addr add fd77::1/64 dev br0 nodad")
	var all []*space
	for i := range others {
		s := newSpace(t)
		s.wire(fmt.Sprintf("v%d", i), "vb", nil, []string{fmt.Sprintf("10.77.0.%d/24", i+2), fmt.Sprintf("fd77::%d/64", i+2)})
		sh(t, "ip link set v%d master br0", i)
		all = append(all, s)
	}
	return all
}

// member is node i of the segment with these nodes as mesh peers. The one with the lower number connects.
func member(i int, others ...int) settings {
	s := settings{ASN: 64512, Node: adr(fmt.Sprintf("10.77.0.%d", i)), Node6: adr(fmt.Sprintf("fd77::%d", i)), Pools: pools}
	for _, o := range others {
		s.Mesh = append(s.Mesh, fabric.MeshPeer{
			Node: fmt.Sprintf("h%d", o), Peer: config.Peer{Address: adr(fmt.Sprintf("10.77.0.%d", o)), Passive: i > o},
		})
	}
	return s
}

// A node that joins or leaves the mesh, or is taken for dead, changes no other session.
func TestMeshJoinAndLeave(t *testing.T) {
	if !isolated(t) {
		return
	}
	others := segment(t, 2)
	others[0].start(member(2, 1), "10.9.2.0/26", "fd00:9:0:2::/122")
	n := startNode(t, member(1, 2), "10.9.1.0/26")
	start := time.Now()
	before := n.up("10.77.0.2")
	t.Logf("up %v after the start", time.Since(start))
	if before.Node != "h2" || before.Away {
		t.Errorf("peer %+v", before)
	}
	eventually(t, "IPv6 heard", n.has("fd00:9:0:2::/122", "fd77::2"))
	same := func(what string) {
		t.Helper()
		if p := n.peer("10.77.0.2"); p.Since != before.Since || p.State != "established" || p.LastError != "" {
			t.Errorf("%s: the session was %+v and is %+v", what, before, p)
		}
	}
	third := others[1].start(member(3, 1), "10.9.3.0/26")
	n.set.Mesh = member(1, 2, 3).Mesh
	start = time.Now()
	n.update()
	eventually(t, "the one who joined", n.has("10.9.3.0/26", "10.77.0.3"))
	t.Logf("heard %v after it joined", time.Since(start))
	eventually(t, "heard by it", third.has("10.9.1.0/26", "10.77.0.1"))
	same("one joined")
	n.set.BGP.Peers = []config.Peer{{Address: adr("10.77.0.9"), ASN: 64512}}
	n.update()
	same("a peer came into the config")
	third.kill()
	n.set.Mesh[1].Away = true
	n.update()
	same("one is dead")
	n.set.Mesh = n.set.Mesh[:1]
	n.update()
	eventually(t, "the one who left", n.has("10.9.3.0/26"))
	same("one left")
	if p := n.peer("10.77.0.3"); p.Name != "" {
		t.Errorf("peer of who left: %+v", p)
	}
}

// With BFD a node of the mesh that falls silent is noticed within a second, and without it after the hold time.
func TestMeshSilence(t *testing.T) {
	if !isolated(t) {
		return
	}
	others := segment(t, 2)
	with := func(s settings) settings {
		s.Mesh[0].Peer.BFD = true
		return s
	}
	others[0].start(with(member(2, 1)), "10.9.2.0/26")
	others[1].start(member(3, 1), "10.9.3.0/26")
	n := startNode(t, with(member(1, 2, 3)))
	eventually(t, "both", func() error {
		// BFD is not trusted against a session that came up a moment ago.
		if p := n.peer("10.77.0.2"); p.BFD != "up" || time.Since(p.Since) < 2*time.Second {
			return fmt.Errorf("%+v", p)
		}
		return errors.Join(n.has("10.9.2.0/26", "10.77.0.2")(), n.has("10.9.3.0/26", "10.77.0.3")())
	})
	sh(t, "ip link set v0 nomaster; ip link set v1 nomaster")
	took := within(t, 3*time.Second, "BFD", n.has("10.9.2.0/26"))
	t.Logf("with BFD noticed after %v", took)
	took = within(t, 12*time.Second, "hold time", n.has("10.9.3.0/26"))
	t.Logf("without, %v later", took)
	sh(t, "ip link set v0 master br0; ip link set v1 master br0")
	took = eventually(t, "back", func() error {
		return errors.Join(n.has("10.9.2.0/26", "10.77.0.2")(), n.has("10.9.3.0/26", "10.77.0.3")())
	})
	t.Logf("both are back after %v", took)
}

// The config has the last word about an address.
func TestMeshBesideConfig(t *testing.T) {
	if !isolated(t) {
		return
	}
	other := pair(t)
	theirs := them()
	theirs.Mesh = member(2, 1).Mesh
	other.start(theirs, "10.9.2.0/26")
	set := member(1, 2)
	set.Mesh[0].Peer.ASN = 65000 // wrong
	set.BGP.Peers = []config.Peer{at("10.77.0.2", 64512)}
	n := startNode(t, set)
	eventually(t, "heard", n.has("10.9.2.0/26", "10.77.0.2"))
	if p := n.peer("10.77.0.2"); p.Node != "" || len(n.fabric.Status().Peers) != 1 {
		t.Errorf("peers %+v", n.fabric.Status().Peers)
	}
}

// Two reflectors with a client each: what a client tells arrives at the other's, with the node that holds it as next hop.
func TestMeshReflectors(t *testing.T) {
	if !isolated(t) {
		return
	}
	others := segment(t, 3)
	reflector := func(i int, like int, client int) settings {
		s := member(i, like, client)
		s.BGP.RouteReflector = true
		s.Mesh[1].Client, s.Mesh[1].Peer.Passive = true, true
		return s
	}
	n := startNode(t, reflector(1, 2, 3), "10.9.1.0/26")
	others[0].start(reflector(2, 1, 4), "10.9.2.0/26")
	client := member(3, 1)
	client.Mesh[0].Peer.Passive = false
	a := others[1].start(client, "10.9.3.0/26", "fd00:9:0:3::/122")
	client = member(4, 2)
	client.Mesh[0].Peer.Passive = false
	b := others[2].start(client, "10.9.4.0/26")
	eventually(t, "over two reflectors", b.has("10.9.3.0/26", "10.77.0.3"))
	eventually(t, "IPv6", b.has("fd00:9:0:3::/122", "fd77::3"))
	eventually(t, "the other way", a.has("10.9.4.0/26", "10.77.0.4"))
	eventually(t, "a reflector's own", b.has("10.9.1.0/26", "10.77.0.1"))
	eventually(t, "the reflector hears its like's client", n.has("10.9.4.0/26", "10.77.0.4"))
}

// A node that is drained asks others to prefer any other way, and inside and outside of its AS they do.
func TestGracefulShutdownHeard(t *testing.T) {
	if !isolated(t) {
		return
	}
	for _, asn := range []uint32{64512, 65001} {
		others := segment(t, 2)
		theirs := func(i int) settings {
			s := member(i)
			s.ASN, s.BGP.Peers = asn, []config.Peer{at("10.77.0.1", 64512)}
			return s
		}
		a := others[0].start(theirs(2), "10.9.2.0/24", "fd00:9:0:2::/122")
		b := others[1].start(theirs(3), "10.9.2.0/24", "fd00:9:0:2::/122")
		set := member(1)
		set.BGP.Peers = []config.Peer{at("10.77.0.2", asn), at("10.77.0.3", asn)}
		n := startNode(t, set)
		eventually(t, "both ways", n.has("10.9.2.0/24", "10.77.0.2", "10.77.0.3"))
		eventually(t, "both ways, IPv6", n.has("fd00:9:0:2::/122", "fd77::2", "fd77::3"))
		a.ask(request{Do: "part", Prefixes: []string{"10.9.2.0/24", "fd00:9:0:2::/122"}})
		within(t, 2*time.Second, "the other way", n.has("10.9.2.0/24", "10.77.0.3"))
		within(t, 2*time.Second, "the other way, IPv6", n.has("fd00:9:0:2::/122", "fd77::3"))
		b.announce()
		eventually(t, "the only way", n.has("10.9.2.0/24", "10.77.0.2"))
		a.announce()
		eventually(t, "withdrawn", n.has("10.9.2.0/24"))
		a.announce("10.9.2.0/24")
		b.announce("10.9.2.0/24")
		eventually(t, "both again", n.has("10.9.2.0/24", "10.77.0.2", "10.77.0.3"))
		n.stop()
		a.kill()
		b.kill()
		sh(t, "ip link del br0; ip link del v0; ip link del v1")
	}
}

// FRR sees the community, prefers nothing less, and then sees the withdrawal.
func TestFRRGracefulShutdown(t *testing.T) {
	if requireFRR(t); !isolated(t) {
		return
	}
	other := pair(t)
	r := other.startFRR(strings.NewReplacer(" neighbor 10.77.0.1 password s3cret\n", "", " neighbor 10.77.0.1 bfd\n", "", " neighbor 10.77.0.1 bfd profile f\n", "").Replace(frrNumbered), "bgpd")
	n := startNode(t, us(config.Peer{Address: adr("10.77.0.2"), ASN: 65002}), "10.9.1.0/26")
	eventually(t, "told", r.has("ip", "10.9.1.0/26", "10.77.0.1"))
	detail := func() string { return r.vtysh("show bgp ipv4 unicast 10.9.1.0/26") }
	if out := detail(); strings.Contains(out, "graceful-shutdown") {
		t.Errorf("the community is there before: %s", out)
	}
	if err := n.fabric.Announce(context.Background(), parting([]string{"10.9.1.0/26"})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "community, local preference 0", func() error {
		if out := detail(); !strings.Contains(out, "graceful-shutdown") || !strings.Contains(out, "localpref 0") {
			return fmt.Errorf("%s", out)
		}
		return r.has("ip", "10.9.1.0/26", "10.77.0.1")()
	})
	n.announce()
	eventually(t, "withdrawn", r.has("ip", "10.9.1.0/26", ""))
	n.announce("10.9.1.0/26")
	eventually(t, "announced again", func() error {
		if out := detail(); strings.Contains(out, "graceful-shutdown") {
			return fmt.Errorf("%s", out)
		}
		return r.has("ip", "10.9.1.0/26", "10.77.0.1")()
	})
}

// What changes just when a session comes up arrives, and what went then is gone.
func TestChangesWhileSessionsComeUp(t *testing.T) {
	if !isolated(t) {
		return
	}
	other := pair(t)
	n := startNode(t, member(1), "10.9.1.0/26")
	r := other.start(member(2, 1))
	n.set.Mesh = member(1, 2).Mesh
	n.update()
	// Until the session is up, and a moment longer, something changes all the time.
	i := 0
	eventually(t, "session", func() error {
		i++
		n.announce("10.9.1.0/26", fmt.Sprintf("10.9.%d.%d/32", 100+i/250%100, i%250))
		if p := n.peer("10.77.0.2"); p.State != "established" || time.Since(p.Since) < 500*time.Millisecond {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	last := fmt.Sprintf("10.9.%d.%d/32", 100+i/250%100, i%250)
	// A second after it came up the peer is told all once more, and what was withdrawn is there again for a moment.
	eventually(t, "told once more", func() error {
		if age := time.Since(n.peer("10.77.0.2").Since); age < 3*time.Second {
			return fmt.Errorf("the session is %v old", age)
		}
		return nil
	})
	var got string
	within(t, 10*time.Second, "the last of it, and nothing else", func() error {
		got = fmt.Sprint(slices.Sorted(maps.Keys(texts(r))))
		if want := fmt.Sprintf("[10.9.1.0/26 %s]", last); got != want {
			return fmt.Errorf("%s, want %s", got, want)
		}
		return nil
	})
	holds(t, 2*time.Second, "it stays so", func() error {
		if now := fmt.Sprint(slices.Sorted(maps.Keys(texts(r)))); now != got {
			return fmt.Errorf("%s", now)
		}
		return nil
	})
	t.Logf("%d changes", i)
}

func texts(r *remote) map[string]bool {
	all := map[string]bool{}
	for p := range r.routes() {
		all[p.String()] = true
	}
	return all
}
