package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairway/internal/lab"
)

// outside is a way for routes to get from host to host: a daemon with one of the examples, or our own BGP.
type outside struct {
	name    string
	example string // directory; "" for our own BGP
	needs   []string
	proto   string // of the routes that the other host has in its kernel
	start   func(h *host, dir string) (show func(words string) string)
}

func outsides() []outside {
	frr := func(d string) []string { return []string{frrDir + "zebra", frrDir + d, "vtysh"} }
	return []outside{
		{"our own BGP", "", nil, "200", nil},
		{"FRR BGP", "frr-bgp", frr("bgpd"), "bgp", (*host).startFRR},
		{"FRR OSPF", "frr-ospf", frr("ospfd"), "ospf", (*host).startFRR},
		{"BIRD BGP", "bird-bgp", []string{"bird", "birdc"}, "bird", (*host).startBird},
		{"BIRD OSPF", "bird-ospf", []string{"bird", "birdc"}, "bird", (*host).startBird},
	}
}

// Each example, with its daemon on two hosts: blocks and single addresses get to the other host's kernel and go again, and
// containers use them; and how long that takes, beside our own BGP.
func TestOutsideDaemons(t *testing.T) {
	needEngines(t)
	table := []string{fmt.Sprintf("%-12s %14s %14s %14s %14s", "", "start, there", "kernel, there", "stop, gone", "kernel, gone")}
	for _, o := range outsides() {
		t.Run(o.name, func(t *testing.T) {
			needDaemon(t, o.needs...)
			s := outsideSite(t, o)
			s.spreadsBridges(o)
			s.network("net")
			var all []*container
			for _, h := range s.hosts {
				all = append(all, h.run("c"+h.Name, "--network", "net"))
			}
			s.spreads(o)
			for _, a := range all[0].addrs() { // its block has a route, and that will do
				if err := s.hosts[1].hasRoute(netip.PrefixFrom(a, a.BitLen()).String(), false)(); err != nil {
					t.Error(err)
				}
			}
			everyPair(t, all)
			ownAddress(t, all[0], all[1])
			times := s.times(5)
			table = append(table, fmt.Sprintf("%-12s %14v %14v %14v %14v", o.name, times[0], times[1], times[2], times[3]))
			if o.example != "" {
				s.leavesAlone(o)
			}
		})
	}
	t.Logf("measured: medians of 5, from docker start and from the route in the own kernel until it is in the other host's; "+
		"from docker stop and from the route's end in the own kernel until it is gone from the other host's\n%s", strings.Join(table, "\n"))
}

// outsideSite is a lab of two hosts with the daemon of an example on each.
func outsideSite(t *testing.T, o outside) *site {
	t.Helper()
	opts := lab.Options{Hosts: 2}
	if o.example != "" {
		opts.AgentConfig = func(h lab.HostInfo, _ string) string { return example(t, h.Name, o.example, "fairway.yaml") }
	}
	l, err := raise("outside", opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Down(context.Background(), l.Dir()); err != nil {
			t.Error(err)
		}
	})
	s := enter(t, l)
	if o.example == "" {
		return s
	}
	for _, h := range s.hosts {
		show := o.start(h, o.example)
		t.Cleanup(func() {
			if !t.Failed() {
				return
			}
			words := "show route all"
			if strings.HasPrefix(o.example, "frr") {
				words = "show ip route"
			}
			h.t.Logf("---- %s: %s:\n%s", h, words, show(words))
		})
	}
	return s
}

// spreadsBridges checks that the other host hears of a subnet on a bridge, which daemons may take for a connected one.
func (s *site) spreadsBridges(o outside) {
	s.t.Helper()
	var all []*container
	for _, h := range s.hosts {
		h.must("docker", "network", "create", "-d", "fairway", "--ipam-driver", "fairway", "--ipv6", "-o", "mode=subnet",
			"--subnet", "10.9.0.0/16", "--subnet", "fd09::/48", "bridged")
		all = append(all, h.run("b"+h.Name, "--network", "bridged"))
	}
	for i, h := range s.hosts {
		other := s.hosts[(i+1)%len(s.hosts)]
		for _, p := range []string{h.Block4.String(), h.Block6.String()} {
			eventually(s.t, 60*time.Second, func() error { return other.hears(p, o.proto) })
		}
	}
	everyPair(s.t, all)
	for _, h := range s.hosts {
		h.must("sh", "-c", "docker rm -f b"+h.Name+" && docker network rm bridged")
	}
}

// hears says whether the host has one route to a prefix, of the protocol.
func (h *host) hears(prefix, proto string) error {
	list, err := h.route(prefix)
	if err == nil && (len(list) != 1 || list[0].Proto != proto) {
		err = fmt.Errorf("%s: routes to %s: %+v, want one of protocol %s", h, prefix, list, proto)
	}
	return err
}

// spreads checks that blocks, and addresses outside of them, are in the other host's kernel as the daemon's routes.
func (s *site) spreads(o outside) {
	s.t.Helper()
	h, other := s.hosts[0], s.hosts[1]
	c := h.run("explicit", "--network", "net", "--ip", "10.9.200.2", "--ip6", "fd09:0:0:c000::2")
	for _, p := range []string{h.Block4.String(), h.Block6.String(), "10.9.200.2/32", "fd09:0:0:c000::2/128"} {
		eventually(s.t, 60*time.Second, func() error { return other.hears(p, o.proto) })
	}
	for _, a := range c.addrs() {
		if _, err := other.try("ping", "-n", "-c", "1", "-W", "2", a.String()); err != nil {
			s.t.Error(err)
		}
	}
	h.docker("rm", "-f", "explicit")
	for _, p := range []string{"10.9.200.2/32", "fd09:0:0:c000::2/128"} {
		eventually(s.t, 20*time.Second, other.hasRoute(p, false))
	}
}

// calm is how long a container was there before it is stopped. OSPF does not take up a change of what it was told less than
// five seconds ago (RFC 2328, MinLSInterval, and MinLSArrival with the retransmission after it).
const calm = 6 * time.Second

// times starts and stops containers with addresses of their own on the first host. It returns medians: from docker start
// and from the route in the own kernel until the other host has it; from docker stop and from the end of the own route
// until the other host's is gone.
func (s *site) times(n int) [4]time.Duration {
	s.t.Helper()
	h, other := s.hosts[0], s.hosts[1]
	here, there := h.monitor(), other.monitor()
	var all [4][]time.Duration
	run := func(i, column int, words ...string) {
		name, addr := fmt.Sprintf("timed%d", i), fmt.Sprintf("10.9.201.%d", i+1)
		asked := time.Now()
		h.docker(append(words, name)...)
		own, far := here(addr, column > 0, asked), there(addr, column > 0, asked)
		all[column] = append(all[column], far.Sub(asked))
		all[column+1] = append(all[column+1], far.Sub(own))
	}
	for i := range n {
		name, addr := fmt.Sprintf("timed%d", i), fmt.Sprintf("10.9.201.%d", i+1)
		h.docker(append([]string{"create", "--name", name, "--network", "net", "--ip", addr}, idle...)...)
		run(i, 0, "start")
	}
	<-time.After(calm) // what is measured is no flapping
	for i := range n {
		run(i, 2, "stop", "-t", "0")
	}
	var medians [4]time.Duration
	for i, list := range all {
		s.t.Logf("samples: %v", list)
		slices.Sort(list)
		medians[i] = list[len(list)/2].Round(time.Millisecond)
	}
	return medians
}

// monitor listens to the host's routes. What it returns waits for the first news since a time that an address came or went,
// and says when that was.
func (h *host) monitor() func(addr string, gone bool, since time.Time) time.Time {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := h.Command(ctx, "ip", "-4", "-ts", "monitor", "route")
	var out transcript
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		cancel()
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
	})
	return func(addr string, gone bool, since time.Time) (when time.Time) {
		h.t.Helper()
		eventually(h.t, 30*time.Second, func() error {
			for line := range strings.Lines(out.String()) {
				at, news, _ := strings.Cut(strings.TrimPrefix(line, "["), "] ")
				news, deleted := strings.CutPrefix(news, "Deleted ")
				t, err := time.ParseInLocation("2006-01-02T15:04:05.999999", at, time.Local)
				if err == nil && deleted == gone && strings.HasPrefix(news, addr+" ") && !t.Before(since.Truncate(time.Microsecond)) {
					when = t
					return nil
				}
			}
			return errors.New("no news of " + addr + " on " + h.Name)
		})
		return when
	}
}

// leavesAlone checks that the daemon's routes and the operator's outlive the agent's end, start and cleanup.
func (s *site) leavesAlone(o outside) {
	s.t.Helper()
	h := s.hosts[1]
	h.must("ip", "route", "add", "192.0.2.0/24", "via", s.hosts[0].Address().String(), "proto", "static", "metric", "200")
	theirs := func() string {
		return h.must("sh", "-c", fmt.Sprintf("ip route show proto %s; ip -6 route show proto %[1]s; ip route show proto static", o.proto))
	}
	before := theirs()
	if !strings.Contains(before, s.hosts[0].Block4.String()) || !strings.Contains(before, s.hosts[0].Block6.String()) {
		s.t.Errorf("%s has no routes of %s:\n%s", h, o.name, before)
	}
	if err := h.restartAgent(syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	if now := theirs(); now != before {
		s.t.Errorf("%s: after a restart of the agent:\n%s\nbefore:\n%s", h, now, before)
	}
	if err := h.empty(); err != nil {
		s.t.Fatal(err)
	}
	if err := h.StopAgent(h.ctx, syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	h.fairway("cleanup", "--yes")
	if now := theirs(); now != before {
		s.t.Errorf("%s: after cleanup:\n%s\nbefore:\n%s", h, now, before)
	}
}
