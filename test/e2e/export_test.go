package e2e_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"fairway/internal/lab"
)

// byHand is a host's config of the recipe without a daemon on any wire: its own blocks, and one route of each pool.
func byHand(h lab.HostInfo, _ string) string {
	if h.Router() {
		return "node: {name: router}\ndocker: {enabled: false}\nfabric: none\n"
	}
	segment := h.NICs[0].Segment
	return fmt.Sprintf("node: {name: %s, address: %s, address6: %q}\nfabric: static\n", h.Name, h.Address(), h.Address6()) +
		fmt.Sprintf("pools:\n  - {cidr: %s, block: %s}\n  - {cidr: %q, block: %q}\n", pool4, h.Block4, pool6, h.Block6) +
		fmt.Sprintf("routes:\n  - {to: %s, via: 10.77.%d.1}\n  - {to: %q, via: \"fd77:0:0:%[2]d::1\"}\n", pool4, segment, pool6)
}

// nodesFile is a config that lists all hosts, for fairway export.
func nodesFile(t *testing.T, hosts []*lab.Host) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("nodes:\n")
	for _, h := range hosts {
		fmt.Fprintf(&b, "  - {name: %s, address: %s, address6: %q, subnets: [%s, %q]}\n", h.Name, h.Address(), h.Address6(), h.Block4, h.Block6)
	}
	return b.String()
}

// The recipe without a routing daemon: hosts with one static route of each pool, and a router that fairway does not run on,
// with one route for each host from fairway export. A new host is one route more on the router and no change elsewhere.
func TestStaticBehindRouter(t *testing.T) {
	needEngines(t)
	l, err := raise("byhand", lab.Options{Topology: lab.TwoSegments, Hosts: 2, AgentConfig: byHand})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Down(context.Background(), l.Dir()); err != nil {
			t.Error(err)
		}
	})
	s, router := enter(t, l), newHost(t, l.Router())
	pid, err := router.AgentPID(t.Context())
	if err != nil || pid == 0 {
		t.Fatalf("the router's agent: process %d, %v", pid, err)
	}
	if err := router.StopAgent(t.Context(), 9); err != nil {
		t.Fatal(err)
	}
	load := func() string {
		if err := os.WriteFile(router.Path("/tmp/nodes.yaml"), []byte(nodesFile(t, l.Hosts())), 0o644); err != nil {
			t.Fatal(err)
		}
		router.must("sh", "-ec", `for f in iproute2 netplan systemd-networkd frr bird; do
			fairway export --format $f --config /tmp/nodes.yaml --for eth0=10.77.1.1/24 --for eth0=fd77:0:0:1::1/64 >/tmp/$f 2>/tmp/left
			grep -q 10.77.2. /tmp/left
		done
		fairway export --format iproute2 --config /tmp/nodes.yaml -o /tmp/batch --for 10.77.1.1/24 --for fd77:0:0:1::1/64 --for 10.77.2.1/24 --for fd77:0:0:2::1/64
		ip -batch /tmp/batch`)
		return router.tables()
	}
	before := load()
	s.network("net")
	var all []*container
	for _, h := range s.hosts {
		h.oneRoute()
		all = append(all, h.run("c"+h.Name, "--network", "net"))
	}
	all = append(all, s.hosts[0].run("near", "--network", "net"))
	everyPair(t, all)
	ownAddress(t, all[0], all[1])
	tables := []string{s.hosts[0].tables(), s.hosts[1].tables()}

	added, err := l.AddHost(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	third := newHost(t, added)
	s.hosts = append(s.hosts, third)
	after := load()
	if gained := strings.Count(after, "\n") - strings.Count(before, "\n"); gained != 2 {
		t.Errorf("the router gained %d routes, want one of each family; before:\n%s\nafter:\n%s", gained, before, after)
	}
	if err := third.createNetwork("net"); err != nil {
		t.Fatal(err)
	}
	everyPair(t, append(all, third.run("c"+third.Name, "--network", "net")))
	for i, h := range s.hosts[:2] {
		if now := h.tables(); now != tables[i] {
			t.Errorf("%s: its tables have changed:\n%s\nbefore:\n%s", h, now, tables[i])
		}
	}
	if err := router.StartAgent(t.Context()); err != nil {
		t.Error(err)
	}
}

// Hosts on one segment, each with the others under nodes:, and what one of their agents exports for another machine.
func TestStaticNodes(t *testing.T) {
	needEngines(t)
	l, err := raise("static", lab.Options{Hosts: 2, AgentConfig: func(h lab.HostInfo, _ string) string {
		// One list for all: each finds itself in it.
		return fmt.Sprintf("fabric: static\npools: [{cidr: %s, block: %s}, {cidr: %q, block: %q}]\n", pool4, h.Block4, pool6, h.Block6) + `nodes:
  - {name: host1, address: 10.77.0.11, address6: "fd77::11", subnets: [10.9.1.0/24, "fd09:0:0:1::/64"]}
  - {name: host2, address: 10.77.0.12, address6: "fd77::12", subnets: [10.9.2.0/24, "fd09:0:0:2::/64"]}
`
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Down(context.Background(), l.Dir()); err != nil {
			t.Error(err)
		}
	})
	s := enter(t, l)
	for _, h := range s.hosts {
		h.lasting = regexp.MustCompile(" via ") // the routes to the other
	}
	s.network("net")
	a, b := s.hosts[0].run("near", "--network", "net"), s.hosts[1].run("far", "--network", "net")
	everyPair(t, []*container{a, b})
	ownAddress(t, a, b)
	s.hosts[0].run("explicit", "--network", "net", "--ip", "10.9.200.2")
	var text string
	eventually(t, 5*time.Second, func() (err error) {
		text, err = s.hosts[0].try("sh", "-c", "fairway export --format iproute2 --for 10.77.0.1/24 --for fd77::1/64 | grep ^route")
		if err == nil && !strings.Contains(text, "10.9.200.2") {
			err = fmt.Errorf("no explicit address in:\n%s", text)
		}
		return err
	})
	want := `route replace 10.9.1.0/24 proto static via 10.77.0.11
route replace 10.9.2.0/24 proto static via 10.77.0.12
route replace 10.9.200.2/32 proto static via 10.77.0.11
route replace fd09:0:0:1::/64 proto static via fd77::11
route replace fd09:0:0:2::/64 proto static via fd77::12`
	got := strings.Split(text, "\n")
	for line := range strings.SplitSeq(want, "\n") {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in:\n%s", line, text)
		}
	}
	for _, line := range got {
		if !strings.Contains(want, line) && !strings.Contains(line, "fd09:0:0:c") { // the container's IPv6 address, if it is an explicit one
			t.Errorf("%q is too much", line)
		}
	}
}
