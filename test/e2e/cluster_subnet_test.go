package e2e_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

// partsOf are the host's subnets of a network with a subnet per node.
func (h *host) partsOf(network string) ([]netip.Prefix, error) {
	list, err := h.api().Networks(h.ctx)
	if err != nil {
		return nil, within(h.Name, err)
	}
	for _, n := range list {
		if n.Name == network {
			return n.Blocks, nil
		}
	}
	return nil, fmt.Errorf("%s: no network %s in %+v", h, network, list)
}

// exports wants that a router that hears of nothing is told where each prefix is.
func (s *site) exports(where map[netip.Prefix]*host) {
	s.t.Helper()
	for _, h := range s.hosts {
		out := h.fairway("export", "--format", "iproute2", "--for", "10.77.0.99") + "\n"
		for p, at := range where {
			via := at.Address().String()
			if p.Addr().Is6() {
				via = at.Address6().String()
			}
			if want := fmt.Sprintf("route replace %s proto static via %s\n", p, via); !strings.Contains(out, want) {
				s.t.Errorf("%s: want %q in what is exported:\n%s", h, want, out)
			}
		}
	}
}

// A network with a subnet per node is made once: each host claims a part of it for its bridge, and only one, announces it
// as one prefix, and keeps it while the store is away, over a restart of the agent, and without containers.
func TestClusterSubnet(t *testing.T) {
	s := newCluster(t)
	s.agree("--subnet", "10.20.0.0/16", "--subnet", "fd20::/48", "-o", "mode=subnet")
	t.Cleanup(func() { // before the network is removed, which needs the store
		ctx := context.WithoutCancel(t.Context())
		if up, err := s.lab.Store().Running(ctx); err != nil || up {
			return
		}
		if err := s.lab.Store().Start(ctx); err != nil {
			t.Error(err)
		}
	})
	all := everywhere(t, s.hosts, "ca", "--network", "net")
	everyPair(t, append(everywhere(t, s.hosts, "cb", "--network", "net"), all...))
	where := map[netip.Prefix]*host{}
	for i, h := range s.hosts {
		parts, err := h.partsOf("net")
		if err != nil || len(parts) != 2 || parts[0].Bits() != 24 || parts[1].Bits() != 64 || !parts[0].Contains(all[i].v4) || !parts[1].Contains(all[i].v6) {
			t.Fatalf("%s: parts %v (%v), and a container with %v", h, parts, err, all[i].addrs())
		}
		h.bridgeOf(parts[0].Addr().Next())
		for _, p := range parts {
			if other, twice := where[p]; twice {
				t.Errorf("%s and %s both have %s", other, h, p)
			}
			where[p] = h
		}
	}
	for _, h := range s.hosts {
		if out := h.must("sh", "-c", "ip route show proto 200; ip -6 route show proto 200"); len(strings.Split(strings.TrimSpace(out), "\n")) != 2*len(s.hosts) {
			t.Errorf("%s: want one route a family for each host:\n%s", h, out)
		}
	}
	s.exports(where)

	h, far := s.hosts[0], all[1]
	pings := []*pinger{startPing(t, all[0], far.v4), startPing(t, far, all[0].v6)}
	for _, p := range pings {
		p.more(10)
	}
	if err := s.lab.Store().Stop(t.Context(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, hearsay+clusterSlack, func() error { return h.says("store-unreachable") })
	s.exports(where)
	if err := h.restartAgent(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var parts []netip.Prefix
	eventually(t, hearsay, func() (err error) { // until the agent has asked the engine for names
		if parts, err = h.partsOf("net"); err == nil && (len(parts) != 2 || where[parts[0]] != h) {
			err = fmt.Errorf("%s: parts %v after a restart without the store", h, parts)
		}
		return err
	})
	later := h.run("later", "--network", "net")
	later.reaches(far.v4)
	for _, p := range pings {
		p.more(20)
	}
	noLoss(t, "the store killed, an agent started without it", pings...)
	if err := s.lab.Store().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, leaseTime, func() error { return h.settled(len(s.hosts)) })

	// The subnet outlives its containers, and goes with the network.
	h.docker("rm", "-f", "ca", "cb", "later")
	again := h.run("ca", "--network", "net")
	if !parts[0].Contains(again.v4) {
		t.Errorf("%s: a container has %v, and the host's subnet was %s", h, again.v4, parts[0])
	}
	again.reaches(far.v4)
	s.handMade(h, s.hosts[1])
}

// handMade makes a network on two hosts by hand: the first claim decides how it is cut, and the second host is told.
func (s *site) handMade(first, second *host) {
	s.t.Helper()
	create := func(args ...string) []string {
		return append(append([]string{"network", "create", "-d", "fairway", "--ipam-driver", "fairway", "--subnet", "10.21.0.0/16"}, args...), "hand")
	}
	first.docker(create("-o", "mode=subnet")...)
	a := first.run("ha", "--network", "hand")
	eventually(s.t, hearsay, second.hasRoute(netip.PrefixFrom(a.v4, 24).Masked().String(), true))
	if out := second.refused(append([]string{"docker"}, create()...)...); !strings.Contains(out, "give -o mode=subnet") {
		s.t.Errorf("a routed network over subnets of nodes is refused with: %s", out)
	}
	second.docker(create("-o", "mode=subnet")...)
	b := second.run("hb", "--network", "hand")
	everyPair(s.t, []*container{a, b})
	for _, c := range []*container{a, b} {
		c.h.docker("rm", "-f", c.name)
		c.h.docker("network", "rm", "hand")
	}
	gone := func() error {
		return second.hasRoute(netip.PrefixFrom(a.v4, 24).Masked().String(), false)()
	}
	took := eventually(s.t, hearsay, gone)
	s.t.Logf("measured: the subnet of a network that is gone is withdrawn after %v", took.Round(time.Millisecond))
}
