package e2e_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A host off the wire is noticed: by the hold time, or with BFD long before it; and it comes back by itself.
func TestHostOffTheWire(t *testing.T) {
	for _, c := range []struct {
		name  string
		bfd   bool
		seen  bool // the host itself sees its link go
		off   func(h *host, off bool) error
		limit time.Duration // for the others to drop its routes
	}{
		// The hold time is 9 s. What is measured is logged; the limits leave room for a busy machine.
		{"link down", false, true, (*host).unplug, 15 * time.Second},
		{"silent", false, false, (*host).silence, 15 * time.Second},
		{"link down, BFD", true, true, (*host).unplug, 5 * time.Second},
		{"silent, BFD", true, false, (*host).silence, 5 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			if c.bfd {
				s.withBFD()
			}
			s.network("net")
			lost := s.hosts[2]
			fixed := lost.run("fixed", "--network", "net", "--ip", "10.9.220.3", "--ip6", "fd09:0:0:c220::3")
			plain := lost.run("plain", "--network", "net")
			near := s.hosts[0].run("near", "--network", "net")
			prefixes := []string{lost.Block4.String(), lost.Block6.String(), "10.9.220.3/32", "fd09:0:0:c220::3/128"}
			everyPair(t, []*container{fixed, near})
			s.holdRoutes(s.hosts[:2], prefixes, true, hearsay)
			pids := s.agents()

			start := time.Now()
			if err := c.off(lost, true); err != nil {
				t.Fatal(err)
			}
			far := []string{s.hosts[0].Block4.String(), s.hosts[0].Block6.String()}
			if c.seen { // it need not wait for anything
				s.holdRoutes([]*host{lost}, far, false, 3*time.Second)
				t.Logf("measured: %s: the others' routes gone at the host itself after %v", c.name, time.Since(start).Round(10*time.Millisecond))
			}
			s.holdRoutes(s.hosts[:2], prefixes, false, c.limit)
			t.Logf("measured: %s: routes gone at the others after %v", c.name, time.Since(start).Round(10*time.Millisecond))
			s.holdRoutes([]*host{lost}, far, false, c.limit)
			for _, h := range s.hosts {
				if code, out := h.exitCode("fairway", "status"); code != 1 || !strings.Contains(out, "10.77.0.1") {
					t.Errorf("%s: fairway status exits with %d while a peer is away:\n%s", h, code, out)
				}
			}
			// What is on the host itself goes on.
			if err := fixed.ping(plain.v4); err != nil {
				t.Error(err)
			}

			start = time.Now()
			if err := c.off(lost, false); err != nil {
				t.Fatal(err)
			}
			s.holdRoutes(s.hosts[:2], prefixes, true, 30*time.Second)
			near.reaches(fixed.v4)
			near.reaches(plain.v6)
			t.Logf("measured: %s: routes back %v after the host was", c.name, time.Since(start).Round(10*time.Millisecond))
			s.sessionsUp()
			if now := s.agents(); now != pids {
				t.Errorf("agents were restarted: processes %s, now %s", pids, now)
			}
		})
	}
}

func (h *host) unplug(off bool) error  { return h.SetLink(h.ctx, !off) }
func (h *host) silence(off bool) error { return h.Silence(h.ctx, off) }

// holdRoutes waits until each of the hosts has, or does not have, a route to each of the prefixes.
func (s *site) holdRoutes(hosts []*host, prefixes []string, want bool, limit time.Duration) {
	s.t.Helper()
	eventually(s.t, limit, func() error {
		for _, h := range hosts {
			for _, p := range prefixes {
				if err := h.hasRoute(p, want)(); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// agents are the agents' process IDs, as a text to be compared.
func (s *site) agents() string {
	s.t.Helper()
	var list []string
	for _, h := range s.hosts {
		pid, err := h.AgentPID(h.ctx)
		if err != nil || pid == 0 {
			s.t.Fatalf("%s: agent's process %d (%v)", h, pid, err)
		}
		list = append(list, fmt.Sprint(pid))
	}
	return strings.Join(list, " ")
}

// config changes the config of a host's agent, which then reads it again, until the test ends.
func (h *host) config(change func(text string) string) {
	h.t.Helper()
	before, err := os.ReadFile(h.ConfigPath())
	if err != nil {
		h.t.Fatal(err)
	}
	h.writeConfig(change(string(before)))
	h.t.Cleanup(func() {
		h.ctx = context.Background() // the test's has ended
		h.writeConfig(string(before))
	})
}

// writeConfig writes a config and lets the agent read it.
func (h *host) writeConfig(text string) {
	h.t.Helper()
	if err := os.WriteFile(h.ConfigPath(), []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
	if err := h.SignalAgent(h.ctx, syscall.SIGHUP); err != nil {
		h.t.Fatal(err)
	}
}

// withBFD turns BFD on between all hosts, and waits until it is up everywhere.
func (s *site) withBFD() {
	s.t.Helper()
	for _, h := range s.hosts {
		h.config(func(text string) string {
			return strings.ReplaceAll(text, "      asn: 64512\n", "      asn: 64512\n      bfd: true\n")
		})
	}
	for _, h := range s.hosts {
		eventually(s.t, 30*time.Second, func() error {
			peers, err := h.api().Peers(h.ctx)
			if err != nil {
				return err
			}
			for _, p := range peers {
				if !p.Established() || p.BFD != "up" {
					return fmt.Errorf("%s: peer %+v", h, p)
				}
			}
			return nil
		})
	}
}
