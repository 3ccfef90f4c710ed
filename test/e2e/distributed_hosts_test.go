package e2e_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// Networks of three hosts: some shared between two of them, some of one alone, and one that all have for transit.
func TestRouterOnThreeHosts(t *testing.T) {
	s := newRouterSite(t)
	var all []*container
	for i, h := range s.hosts {
		h.otherNetwork("transit", "-d", "macvlan", "--subnet", "10.68.0.0/24", "--ip-range", fmt.Sprintf("10.68.0.%d/27", 32*(i+1)), "-o", h.segment(68))
		own := fmt.Sprintf("own%d", i)
		h.otherNetwork(own, "-o", "fairway.router=true", "--subnet", fmt.Sprintf("10.68.%d.0/24", 10+i))
		all = append(all, h.run("own", "--network", own))
	}
	for i, h := range s.hosts[1:] { // shared by the second and third
		h.otherNetwork("shared", "-d", "macvlan", "--label", "fairway.router=true", "--subnet", "10.68.5.0/24",
			"--ip-range", fmt.Sprintf("10.68.5.%d/26", 64*(i+1)), "-o", h.segment(69))
		all = append(all, h.run("shared", "--network", "shared"))
	}
	for _, h := range s.hosts {
		h.router("--transit-net", "transit", "--host-shortcut")
	}
	for _, h := range s.hosts {
		h.routerPeers(2)
	}
	everyPair(t, all)
	for _, from := range all {
		for _, to := range all {
			if from == to {
				continue
			}
			path, err := from.path(to.v4)
			// The routers of both ends, or one when it is on both networks; none on a shared network.
			most := 3
			switch {
			case from.name == "shared" && to.name == "shared":
				most = 1
			case from.h == to.h:
				most = 2
			}
			if err != nil || len(path) == 0 || len(path) > most || path[len(path)-1] != to.v4.String() {
				t.Errorf("path of %s to %s: %v, %v; want at most %d steps", from, to, path, err, most)
			}
			t.Logf("measured: path of %s to %s: %s", from, to, strings.Join(path, " > "))
		}
	}
	// From a host to containers of others.
	for _, to := range all[1:] {
		s.hosts[0].itself().reaches(to.v4)
	}
	seen, err := s.hosts[0].itself().seenBy(all[2], all[2].v4)
	if err != nil || seen != s.hosts[0].Address() {
		t.Errorf("%s sees host %s as %s: %v", all[2], s.hosts[0], seen, err)
	}
	routerDies(t, s, all[0])
}

// routerPeers waits for sessions whose BFD has begun, which takes up to three seconds: until then only the hold time ends them.
func (h *host) routerPeers(n int) {
	h.t.Helper()
	eventually(h.t, 30*time.Second, func() error {
		st, err := h.routerStatus()
		up := 0
		for _, p := range st.Peers {
			if p.State == "established" && p.BFD == "up" {
				up++
			}
		}
		if err == nil && up < n {
			err = fmt.Errorf("%s: %d sessions: %+v", h, up, st)
		}
		return err
	})
}

// routerDies kills the router in the way to a container on the network that two hosts share, which is not the one of the
// container's own host.
func routerDies(t *testing.T, s *site, from *container) {
	t.Helper()
	const shared = "10.68.5.0/24"
	var to *container
	var dying *host
	for i := range 12 { // two ways that are as short: the kernel chooses by the addresses
		h, other := s.hosts[2-i%2], s.hosts[1+i%2]
		c := h.run(fmt.Sprintf("to%d", i), "--network", "shared")
		from.reaches(c.v4)
		path, err := from.path(c.v4)
		if err != nil || len(path) != 3 {
			t.Fatalf("path %v: %v", path, err)
		}
		if st, err := other.routerStatus(); err != nil {
			t.Fatal(err)
		} else if slices.Contains(st.addresses(), path[1]) {
			to, dying = c, other
			t.Logf("measured: path of %s to %s, by the router of %s: %s", from, to, dying, strings.Join(path, " > "))
			break
		}
	}
	if to == nil {
		t.Fatal("every container is reached by the router of its own host: the two ways are not used together")
	}
	for _, way := range []struct {
		what       string
		off, on    func()
		least, max time.Duration // of the gap
	}{
		{"was killed", func() { dying.docker("kill", routerName) }, func() { dying.docker("start", routerName) }, 0, 3 * time.Second},
		{"lost its link", func() { dying.link(false) }, func() { dying.link(true) }, 100 * time.Millisecond, 5 * time.Second},
	} {
		ping := startPing(t, from, to.v4)
		ping.more(100)
		way.off()
		ping.more(300)
		sent, lost, err := ping.stop()
		if err != nil {
			t.Fatal(err)
		}
		gap := time.Duration(len(lost)) * (ping.end.Sub(ping.start) / time.Duration(max(sent, 1)))
		path, err := from.path(to.v4)
		t.Logf("measured: the router of %s %s: %d of %d packets lost, a gap of %v; path now: %s, %v",
			dying, way.what, len(lost), sent, gap.Round(time.Millisecond), strings.Join(path, " > "), err)
		if gap > way.max || gap < way.least || len(path) != 3 {
			t.Errorf("the router that is away is not routed around: %d of %d packets lost, %v, path %v", len(lost), sent, gap, path)
		}
		way.on()
		took := eventually(t, 60*time.Second, func() error {
			st, err := from.h.routerStatus()
			for _, r := range st.Routes {
				if r.Prefix == netip.MustParsePrefix(shared) && len(r.Via) == 2 {
					return nil
				}
			}
			return fmt.Errorf("%s has no two ways to %s: %v %w", from.h, shared, st.Routes, err)
		})
		t.Logf("measured: back again, it is used %v later", took.Round(time.Millisecond))
		from.h.routerPeers(2)
		from.reaches(to.v4)
	}
}

// link sets the host's link to the others down or up.
func (h *host) link(up bool) {
	h.t.Helper()
	if err := h.SetLink(h.ctx, up); err != nil {
		h.t.Fatal(err)
	}
}

// addresses are the router's.
func (s routerStatus) addresses() []string {
	var out []string
	for _, n := range s.Networks {
		for _, a := range n.Addresses {
			out = append(out, a.String())
		}
	}
	return out
}

// Routers on a network that carries no multicast find each other when one is told of another.
func TestRouterPeer(t *testing.T) {
	s := newRouterSite(t)
	var all []*container
	for i, h := range s.hosts[:2] {
		h.otherNetwork("transit", "-d", "macvlan", "--subnet", "10.70.0.0/24", "--ip-range", fmt.Sprintf("10.70.0.%d/27", 32*(i+1)), "-o", h.segment(70))
		h.must("nft", "add table netdev quiet; add chain netdev quiet in { type filter hook ingress device seg70 priority 0; }; "+
			"add rule netdev quiet in ip daddr 239.255.70.200 counter drop")
		t.Cleanup(func() {
			if out, err := h.Command(context.WithoutCancel(t.Context()), "nft", "delete", "table", "netdev", "quiet").CombinedOutput(); err != nil {
				t.Errorf("%s: %v %s", h, err, out)
			}
		})
		own := fmt.Sprintf("own%d", i)
		h.otherNetwork(own, "-o", "fairway.router=true", "--subnet", fmt.Sprintf("10.70.%d.0/24", 10+i))
		all = append(all, h.run("own", "--network", own))
	}
	s.hosts[0].router("--transit-net", "transit")
	s.hosts[0].routerOn("own0", "transit")
	st, err := s.hosts[0].routerStatus()
	if err != nil {
		t.Fatal(err)
	}
	peer := ""
	for _, n := range st.Networks {
		if n.Name == "transit" {
			peer = n.Addresses[0].String()
		}
	}
	s.hosts[1].router("--transit-net", "transit", "--peer", peer)
	everyPair(t, all)
	for _, h := range s.hosts[:2] {
		h.routerPeers(1)
		if out := h.must("nft", "list", "table", "netdev", "quiet"); strings.Contains(out, "packets 0 ") {
			t.Errorf("%s: no multicast was kept out:\n%s", h, out)
		}
	}
}
