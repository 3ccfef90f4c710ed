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

// shields says whether the host's engine keeps direct access from containers on its bridges (28 and later), unless the
// network says otherwise.
func (h *host) shields() bool {
	h.t.Helper()
	v, err := h.EngineVersion(h.ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	major, _, _ := strings.Cut(v, ".")
	return len(major) == 2 && major >= "28"
}

// listsDocker says whether `fairway route ls` has a subnet of a bridge of Docker's.
func (h *host) listsDocker(subnet string) error {
	routes, err := h.api().Routes(h.ctx)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Prefix.String() == subnet && r.Kind == "docker" && strings.HasPrefix(r.Link, "br-") {
			return nil
		}
	}
	return fmt.Errorf("%s: no route of kind docker for %s in %+v", h, subnet, routes)
}

// removeDockers takes networks of Docker's own away at the end of the test, wherever they are.
func (s *site) removeDockers(networks ...string) {
	s.t.Cleanup(func() {
		for _, h := range s.hosts {
			h.ctx = context.Background() // the test's has ended
			if _, err := h.try("sh", "-c", "c=$(docker ps -aq); [ -z \"$c\" ] || docker rm -f $c; docker network rm "+strings.Join(networks, " ")+"; true"); err != nil {
				s.t.Error(err)
			}
		}
	})
}

// Docker's own bridge networks are announced when they say so, and as long as they are there; their containers are
// reached at their own addresses, and seen with them, though Docker masquerades what they send elsewhere.
func TestDockerNetworkAnnounced(t *testing.T) {
	s := newSite(t)
	s.network("net")
	routed := s.hosts[0].run("routed", "--network", "net")
	subnet := func(h *host) (v4, v6 string) {
		return fmt.Sprintf("10.9.%d.0/24", 100+h.Number), fmt.Sprintf("fd09:0:0:%d::/64", 100+h.Number)
	}
	s.removeDockers("own", "secret")
	var all []*container
	for _, h := range s.hosts {
		v4, v6 := subnet(h)
		args := []string{"docker", "network", "create", "--ipv6", "--subnet", v4, "--subnet", v6}
		if h.shields() {
			args = append(args, "-o", "com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected", "-o", "com.docker.network.bridge.gateway_mode_ipv6=nat-unprotected")
		}
		h.must("sh", "-c", "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP")
		h.must(append(args, "--label", "fairway.announce=true", "own")...)
		h.must("docker", "network", "create", "--subnet", fmt.Sprintf("10.9.%d.0/24", 110+h.Number), "secret") // says nothing
		all = append(all, h.run("dc", "--network", "own"))
		eventually(t, mendLimit, func() error { return h.listsDocker(v4) })
	}
	start := time.Now()
	for i, h := range s.hosts {
		v4, v6 := subnet(s.hosts[(i+1)%len(s.hosts)])
		s.holdRoutes([]*host{h}, []string{v4, v6}, true, hearsay)
		s.holdRoutes([]*host{h}, []string{fmt.Sprintf("10.9.%d.0/24", 110+s.hosts[(i+1)%len(s.hosts)].Number)}, false, hearsay)
	}
	t.Logf("measured: routes of all networks at all hosts %v after the last container", time.Since(start).Round(10*time.Millisecond))
	everyPair(t, append(all, routed))
	for i, from := range all {
		to := all[(i+1)%len(all)]
		for f, at := range to.addrs() {
			if seen, err := from.seenBy(to, at); err != nil || seen != from.addrs()[f] {
				t.Errorf("%s sees %s as %v (%v), want %v", to, from, seen, err, from.addrs()[f])
			}
		}
		if seen, err := from.seenBy(routed, routed.v4); err != nil || seen != from.v4 {
			t.Errorf("%s sees %s as %v (%v), want %v", routed, from, seen, err, from.v4)
		}
		if out := from.h.fairway("status"); strings.Contains(out, "drops what comes") {
			t.Errorf("%s: %s", from.h, out)
		}
	}
	h, other := s.hosts[0], s.hosts[1]
	v4, v6 := subnet(s.hosts[2])
	s.hosts[2].docker("rm", "-f", "dc")
	s.hosts[2].docker("network", "rm", "own")
	start = time.Now()
	s.holdRoutes(s.hosts[:2], []string{v4, v6}, false, hearsay)
	t.Logf("measured: routes of a removed network gone after %v", time.Since(start).Round(10*time.Millisecond))
	// An agent that is started again does not let the others forget.
	ping := startPing(t, all[1], all[0].v4)
	ping.more(10)
	if err := h.restartAgent(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ping.more(50)
	noLoss(t, "agent killed", ping)
	s.holdRoutes([]*host{other}, []string{h.Block4.String()}, true, hearsay)
	for _, h := range s.hosts {
		h.must("sh", "-c", "iptables -P FORWARD ACCEPT; ip6tables -P FORWARD ACCEPT")
	}
}

// Where the engine keeps everybody out, fairway says so and what to do.
func TestDockerNetworkShielded(t *testing.T) {
	s := newSite(t)
	var h *host
	for _, o := range s.hosts {
		if o.shields() {
			h = o
		}
	}
	if h == nil {
		cannot(t, "no engine of these is 28 or later")
	}
	s.removeDockers("own")
	h.must("docker", "network", "create", "--subnet", "10.9.120.0/24", "--label", "fairway.announce=true", "own")
	c := h.run("dc", "--network", "own")
	eventually(t, 10*time.Second, func() error {
		code, out := h.exitCode("fairway", "status")
		if code != 1 || !strings.Contains(out, c.v4.String()) || !strings.Contains(out, "nat-unprotected") {
			return fmt.Errorf("fairway status exits with %d and says:\n%s", code, out)
		}
		return nil
	})
	if netip.MustParsePrefix("10.9.120.0/24").Contains(c.v4) && s.hosts[0] != h {
		if _, err := s.hosts[0].try("ping", "-n", "-c", "1", "-W", "1", c.v4.String()); err == nil {
			t.Errorf("%s is reached, and status says that it is not", c)
		}
	}
}
