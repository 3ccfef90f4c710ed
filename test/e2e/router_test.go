package e2e_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/api"
	"fairway/internal/lab"
)

// routed is a lab of two segments with a plain router between them, and that router.
func routed(t *testing.T, name string, hosts int) (*site, *host) {
	t.Helper()
	needEngines(t)
	l, err := raise(name, lab.Options{Topology: lab.TwoSegments, Hosts: hosts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Down(context.Background(), l.Dir()); err != nil {
			t.Error(err)
		}
	})
	s, router := enter(t, l), newHost(t, l.Router())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("---- router, agent's log:\n%s", router.logSince("agent", 60))
		}
	})
	return s, router
}

// tables are a node's routing tables of both families, without the routes to its own containers.
func (h *host) tables() string {
	h.t.Helper()
	return h.must("sh", "-c", "ip route show table main; ip -6 route show table main | grep -v ^fe80")
}

// Three hosts on two segments have one route to the cluster's range, by way of the router, and the router has one for each
// host. A fourth host changes one table, the router's, by its own routes, and nobody's config.
func TestRouterTables(t *testing.T) {
	s, router := routed(t, "routertables", 3)
	s.network("net")
	var all []*container
	for _, h := range s.hosts {
		all = append(all, h.run("c"+h.Name, "--network", "net"))
	}
	everyPair(t, all)
	nodes := append(append([]*host{}, s.hosts...), router)
	before, configs, pids := map[string]string{}, map[string]string{}, s.agents()
	for _, h := range nodes {
		before[h.Name], configs[h.Name] = h.tables(), h.configText()
		t.Logf("measured: routing tables of %s:\n%s", h, before[h.Name])
	}
	for _, h := range s.hosts {
		h.oneRoute()
	}
	for _, h := range s.hosts {
		for _, block := range []string{h.Block4.String(), h.Block6.String()} {
			if list, err := router.route(block); err != nil || len(list) != 1 {
				t.Errorf("the router's routes to %s: %v (%v)", block, list, err)
			}
		}
	}

	start := time.Now()
	added, err := s.lab.AddHost(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fourth := newHost(t, added)
	s.hosts = append(s.hosts, fourth)
	if err := fourth.createNetwork("net"); err != nil {
		t.Fatal(err)
	}
	all = append(all, fourth.run("c"+fourth.Name, "--network", "net"))
	everyPair(t, all)
	t.Logf("measured: a fourth host is there and reached by all after %v", time.Since(start).Round(10*time.Millisecond))
	fourth.oneRoute()
	for _, h := range nodes {
		diff := cmp.Diff(strings.Split(before[h.Name], "\n"), strings.Split(h.tables(), "\n"))
		t.Logf("measured: %s after a fourth host was added (-before +after):\n%s", h, diff)
		if h != router && diff != "" {
			t.Errorf("%s: its routing tables have changed", h)
		}
		if h.configText() != configs[h.Name] {
			t.Errorf("%s: its config has changed", h)
		}
	}
	if now := s.agents(); !strings.HasPrefix(now, pids) {
		t.Errorf("agents %s, before: %s", now, pids)
	}
	for _, block := range []string{fourth.Block4.String(), fourth.Block6.String()} {
		if list, err := router.route(block); err != nil || len(list) != 1 {
			t.Errorf("the router's routes to %s: %v (%v)", block, list, err)
		}
	}
	gained := len(strings.Split(router.tables(), "\n")) - len(strings.Split(before[router.Name], "\n"))
	if gained != 2 {
		t.Errorf("the router gained %d routes, want one of each family", gained)
	}
	t.Run("no loop", func(t *testing.T) { noLoop(t, router, all[0]) })
	t.Run("given out twice", func(t *testing.T) {
		s.hosts[0].in(t).run("once", "--network", "net", "--ip", "10.9.200.2")
		s.hosts[2].in(t).run("twice", "--network", "net", "--ip", "10.9.200.2")
		eventually(t, hearsay, func() error {
			st, err := router.api().Status(router.ctx)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(st.Conditions, func(c api.Condition) bool {
				return c.Code == "duplicate-address" && strings.Contains(c.Text, "10.9.200.2")
			}) {
				return fmt.Errorf("the router's conditions: %+v", st.Conditions)
			}
			return nil
		})
	})
}

// oneRoute checks that there is one route of each pool besides the host's own, and that it leads to the router.
func (h *host) oneRoute() {
	h.t.Helper()
	for family, pool := range map[string]string{"-4": pool4, "-6": pool6} {
		var list []ipRoute
		if err := h.ip(&list, family, "route", "show", "root", pool); err != nil {
			h.t.Fatal(err)
		}
		var far []string
		for _, r := range list {
			if r.Gateway != "" {
				far = append(far, r.Dst+" via "+r.Gateway)
			}
		}
		gateway := map[string]string{"-4": fmt.Sprintf("10.77.%d.1", h.NICs[0].Segment), "-6": fmt.Sprintf("fd77:0:0:%d::1", h.NICs[0].Segment)}[family]
		if want := []string{pool + " via " + gateway}; !cmp.Equal(far, want) {
			h.t.Errorf("%s: routes to other nodes: %v, want %v", h, far, want)
		}
	}
}

// noLoop sends packets to what no host has: they end at the router, and each node sees them once.
func noLoop(t *testing.T, router *host, c *container) {
	t.Helper()
	for _, a := range []string{"10.9.77.7", "fd09:0:0:77::7"} {
		if out, err := router.try("ip", "route", "get", a); err == nil {
			t.Errorf("the router would send a packet for %s on: %s", a, out)
		}
		out, err := c.net("traceroute", "-n", "-q", "1", "-w", "1", "-m", "4", a)
		if err != nil {
			t.Error(err)
		}
		hops := 0
		for _, line := range strings.Split(out, "\n")[1:] {
			if !strings.HasSuffix(strings.TrimSpace(line), "*") {
				hops++
			}
		}
		if hops > 2 { // the node and, if at all, the router
			t.Errorf("path to nobody:\n%s", out)
		}
	}
}

func (h *host) configText() string {
	h.t.Helper()
	text, err := os.ReadFile(h.ConfigPath())
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}
