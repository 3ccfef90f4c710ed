package e2e_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"fairway/internal/api"
)

// A docker run that meets a dead agent waits for it, and succeeds when it is back.
func TestRunWhileAgentIsDown(t *testing.T) {
	s := newSite(t)
	s.network("net")
	for _, h := range s.hosts {
		t.Run(h.Name, func(t *testing.T) {
			t.Parallel()
			h := h.in(t)
			if err := h.StopAgent(h.ctx, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			type outcome struct {
				c   *container
				err error
			}
			started := make(chan outcome, 1)
			go func() {
				c, err := h.tryRun("patient", "--network", "net")
				started <- outcome{c, err}
			}()
			// The engine tries after 1, 3, 7 and 15 seconds.
			select {
			case o := <-started:
				t.Fatalf("docker run ended while the agent was dead: %+v", o)
			case <-time.After(5 * time.Second):
			}
			if err := h.StartAgent(h.ctx); err != nil {
				t.Fatal(err)
			}
			o := <-started
			if o.err != nil {
				t.Fatal(o.err)
			}
			s.hosts[h.Number%len(s.hosts)].eventuallyPings(o.c)
		})
	}
}

// An agent that comes after the engine serves it at once; an engine that started without one, with networks of ours,
// works with it as soon as it is there.
func TestAgentAfterEngine(t *testing.T) {
	s := newSite(t)
	s.network("net", "--subnet", pool4) // one subnet: the engine waits 15 s for the driver of each
	h := s.hosts[2]
	c := h.run("before", "--network", "net")
	if err := h.StopAgent(h.ctx, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := h.StopEngine(h.ctx); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := h.StartEngine(h.ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("measured: %s: dockerd answers %v after its start without the agent", h, time.Since(start).Round(time.Millisecond))
	if err := h.StartAgent(h.ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.ping(h.Address()); err != nil {
		t.Errorf("the container that ran all the time: %v", err)
	}
	later := h.run("after", "--network", "net")
	s.hosts[0].eventuallyPings(later)
	h.docker("restart", "-t", "0", "before")
	again, err := h.inspect("before")
	if err != nil {
		t.Fatal(err)
	}
	s.hosts[0].eventuallyPings(again)
	h.docker("rm", "-f", "before", "after")
	eventually(t, leakLimit, h.noLeaks)
}

// SIGTERM ends the agent within two seconds, and neither its end nor its start nor anything between changes the kernel.
func TestAgentLeavesKernelAlone(t *testing.T) {
	s := newSite(t)
	s.network("net")
	for _, h := range s.hosts[:1] { // its engine is the oldest, and of no weight here
		t.Run(h.Name, func(t *testing.T) {
			h := h.in(t)
			h.run("cc", "--network", "net", "--ip", fmt.Sprintf("10.9.230.%d", h.Number))
			s.waitForBlocks(h)
			before := h.settledKernel()
			for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
				start := time.Now()
				if err := h.StopAgent(h.ctx, sig); err != nil {
					t.Fatal(err)
				}
				took := time.Since(start)
				t.Logf("measured: %s: agent ended %v after %v", h, took.Round(time.Millisecond), sig)
				if took > 2*time.Second {
					t.Errorf("the agent took %v to end", took)
				}
				if err := h.sameKernel(before); err != nil {
					t.Error(err)
				}
				start = time.Now()
				if err := h.StartAgent(h.ctx); err != nil {
					t.Fatal(err)
				}
				t.Logf("measured: %s: agent ready %v after its start", h, time.Since(start).Round(time.Millisecond))
				eventually(t, 30*time.Second, h.healthy)
				if err := patiently(hearsay, func() error { return h.sameKernel(before) }); err != nil {
					t.Error(err)
				}
			}
			h.docker("rm", "-f", "cc")
		})
	}
}

// waitForBlocks waits until a host has heard of the blocks of all others.
func (s *site) waitForBlocks(h *host) {
	s.t.Helper()
	for _, other := range s.hosts {
		if other.Number != h.Number {
			s.holdRoutes([]*host{h}, []string{other.Block4.String(), other.Block6.String()}, true, hearsay)
		}
	}
}

// A reload adds a peer, and the sessions with the others do not notice.
func TestReloadAddsPeer(t *testing.T) {
	s := newSite(t)
	h := s.hosts[0]
	peer := fmt.Sprintf("    - address: %s\n      asn: 64512\n", s.hosts[2].Address())
	h.config(func(text string) string { return strings.Replace(text, peer, "", 1) })
	keeps := s.hosts[1].Address()
	eventually(t, 30*time.Second, func() error { _, err := h.onlyPeers(keeps); return err })
	sessions, err := h.onlyPeers(keeps)
	if err != nil {
		t.Fatal(err)
	}
	since := sessions[keeps].Since

	h.config(func(text string) string { return text + peer })
	added := s.hosts[2].Address()
	eventually(t, 30*time.Second, func() error { sessions, err = h.onlyPeers(keeps, added); return err })
	if now := sessions[keeps].Since; !now.Equal(since) {
		t.Errorf("the session with %s is up since %v, and was since %v before the reload", keeps, now, since)
	}
}

// onlyPeers returns the host's sessions if these are all, and up.
func (h *host) onlyPeers(want ...netip.Addr) (map[netip.Addr]api.Peer, error) {
	list, err := h.api().Peers(h.ctx)
	if err != nil {
		return nil, err
	}
	up := map[netip.Addr]api.Peer{}
	for _, p := range list {
		if p.Established() {
			up[p.Address] = p
		}
	}
	for _, a := range want {
		if _, ok := up[a]; !ok || len(list) != len(want) {
			return nil, fmt.Errorf("%s: peers %+v, want %v", h, list, want)
		}
	}
	return up, nil
}

// A config with a mistake is refused at a reload, and the agent goes on with what it had; a key that needs a restart is
// named.
func TestReloadSays(t *testing.T) {
	s := newSite(t)
	h := s.hosts[0]
	before := h.status().Fabric.Peers
	h.config(func(text string) string { return text + "colour: red\n" })
	eventually(t, hearsay, func() error {
		if log := h.logSince("agent", 50); !strings.Contains(log, "colour") {
			return fmt.Errorf("the log does not name the unknown key: %s", log)
		}
		return nil
	})
	h.config(func(text string) string {
		return strings.Replace(strings.ReplaceAll(text, "colour: red\n", ""), "bgp:\n", "metrics:\n  listen: 127.0.0.1:9478\nbgp:\n", 1)
	})
	eventually(t, hearsay, func() error {
		if log := h.logSince("agent", 50); !strings.Contains(log, "metrics.listen") || !strings.Contains(log, "restart") {
			return fmt.Errorf("the log does not name the key that needs a restart: %s", log)
		}
		return nil
	})
	for i, p := range h.status().Fabric.Peers {
		if !p.Established() || !p.Since.Equal(before[i].Since) {
			t.Errorf("session %+v was %+v before the reloads", p, before[i])
		}
	}
}

// ours are the lines of the kernel's state that `fairway cleanup` has to remove; and what the engine's containers and
// the kernel itself hang on our links.
var ours = regexp.MustCompile(`(?m)^.*\b(fw[0-9a-f]{12}|proto 200|FAIRWAY|fairway)\b.*\n`)

// `fairway cleanup` leaves nothing of ours, and everything else as it was; the next agent makes all of it anew.
func TestCleanup(t *testing.T) {
	s := newSite(t)
	for _, h := range []*host{s.hosts[0], s.hosts[2]} {
		t.Run(h.Name, func(t *testing.T) {
			h := h.in(t)
			// Forwarding stays on, since others may rely on it by now: it is turned on before one compares.
			h.docker("network", "create", "-d", "fairway", "--ipam-driver", "fairway", "--ipv6", "--subnet", pool4, "--subnet", pool6, "first")
			h.run("first", "--network", "first")
			if err := h.empty(); err != nil {
				t.Fatal(err)
			}
			eventually(t, leakLimit, h.leftOver)
			empty := h.settledKernel()
			for _, other := range s.hosts {
				if err := other.createNetwork("net"); err != nil {
					t.Fatal(err)
				}
			}
			c := h.run("cc", "--network", "net")
			far := s.hosts[h.Number%len(s.hosts)].run("far", "--network", "net")
			everyPair(t, []*container{c, far})
			if code, out := h.exitCode("fairway", "cleanup"); code == 0 {
				t.Errorf("cleanup does not mind that an agent runs: %s", out)
			}
			if err := h.StopAgent(h.ctx, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			made := h.settledKernel()
			list := h.fairway("cleanup", "--dry-run")
			if err := h.sameKernel(made); err != nil || !strings.Contains(list, h.Block4.String()) {
				t.Errorf("a dry run (%v) says: %s", err, list)
			}
			h.fairway("cleanup", "--yes")
			// As before anything was made, and without our table and chain.
			want := strings.Split(ours.ReplaceAllString(ourBlocks.ReplaceAllString(empty, ""), ""), "\n")
			now := h.kernel()
			if left := ours.FindAllString(now, -1); len(left) > 0 {
				t.Errorf("left by cleanup: %q", left)
			}
			if diff := lineDiff(want, strings.Split(now, "\n")); diff != "" {
				t.Errorf("not as before:\n%s", diff)
			}
			if err := h.StartAgent(h.ctx); err != nil {
				t.Fatal(err)
			}
			far.reaches(c.v4)
			c.reaches(far.v6)
			for _, other := range s.hosts {
				if err := other.empty(); err != nil {
					t.Fatal(err)
				}
			}
			for _, other := range s.hosts {
				eventually(t, leakLimit, other.leftOver)
			}
		})
	}
}

// ourBlocks are our table and our chain in nft's listing.
var ourBlocks = regexp.MustCompile(`(?ms)^# nftables table,inet,fairway\n.*?^}\n|^\tchain FAIRWAY {\n.*?^\t}\n`)

// lineDiff is what differs between two texts, but for empty lines.
func lineDiff(want, got []string) string {
	count := map[string]int{}
	for _, l := range want {
		count[l]++
	}
	for _, l := range got {
		count[l]--
	}
	var b strings.Builder
	for l, n := range count {
		if n != 0 && strings.TrimSpace(l) != "" {
			fmt.Fprintf(&b, "%+d %s\n", -n, l)
		}
	}
	return b.String()
}

// The status exits with 0 when all is well and with 1 when a peer is away; no line of any table is wider than a terminal.
func TestCommandLine(t *testing.T) {
	s := newSite(t)
	s.network("a-network-with-a-rather-long-name")
	h := s.hosts[0]
	h.run("a-container-with-quite-a-long-name-too", "--network",
		"name=a-network-with-a-rather-long-name,ip=10.9.240.1,driver-opt=fairway.addresses=10.9.240.2 fd09:0:0:c240::2")
	h.run("cc", "--network", "a-network-with-a-rather-long-name")
	s.waitForNetworkName(h)
	if code, out := h.exitCode("fairway", "status"); code != 0 {
		t.Errorf("status exits with %d while all is well:\n%s", code, out)
	}
	for _, words := range []string{
		"status", "ps", "network ls", "network inspect a-network-with-a-rather-long-name", "ipam show", "ipam check", "route ls",
		"peer ls", "config show", "config check /etc/fairway/fairway.yaml", "version", "--help", "agent --help", "lab --help", "ipam --help",
		"status --help", "cleanup --help", "network --help", "config --help", "ipam release --help", "route ls --help",
	} {
		t.Run(words, func(t *testing.T) {
			code, out := h.exitCode(append([]string{"fairway"}, strings.Fields(words)...)...)
			if code != 0 {
				t.Errorf("exits with %d: %s", code, out)
			}
			for line := range strings.Lines(out) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
					t.Errorf("%d columns: %s", n, line)
				}
			}
			if strings.Contains(words, "help") || strings.HasPrefix(words, "config check") {
				return
			}
			if code, out := h.exitCode(append([]string{"fairway"}, strings.Fields(words+" -o json")...)...); code != 0 || !strings.ContainsAny(out[:1], "[{") {
				t.Errorf("-o json exits with %d: %s", code, out)
			}
		})
	}
	if err := s.hosts[1].SetLink(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func() error {
		code, out := h.exitCode("fairway", "status")
		if code != 1 || !strings.Contains(out, s.hosts[1].Address().String()) {
			return fmt.Errorf("status exits with %d while a peer is away: %s", code, out)
		}
		return nil
	})
	if err := s.hosts[1].SetLink(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() error {
		if code, out := h.exitCode("fairway", "status"); code != 0 {
			return fmt.Errorf("status exits with %d: %s", code, out)
		}
		return nil
	})
}

// waitForNetworkName waits until the agent has heard the names from the engine.
func (s *site) waitForNetworkName(h *host) {
	s.t.Helper()
	eventually(s.t, 20*time.Second, func() error {
		list, err := h.api().Containers(h.ctx)
		if err != nil {
			return err
		}
		for _, c := range list {
			if c.Name == "" || c.Network == "" {
				return fmt.Errorf("%s: no names: %+v", h, c)
			}
		}
		return nil
	})
}

// Driver calls are answered while the engine is not: an agent whose engine hangs goes on.
func TestHangingEngine(t *testing.T) {
	s := newSite(t)
	s.network("net")
	h := s.hosts[0]
	c := h.run("cc", "--network", "net")
	h.must("sh", "-c", "kill -STOP $(cat /run/docker.pid)")
	defer h.must("sh", "-c", "kill -CONT $(cat /run/docker.pid)")
	if err := h.restartAgent(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	start := time.Now()
	if err := h.driverCall(ctx, "Plugin.Activate", nil, nil); err != nil {
		t.Error(err)
	}
	var reply struct{ PoolID, Pool, Error string }
	if err := h.driverCall(ctx, "IpamDriver.RequestPool", map[string]any{
		"AddressSpace": "fairway", "Pool": "10.90.0.0/24", "SubPool": "10.90.0.0/26",
	}, &reply); err != nil || reply.Pool != "10.90.0.0/24" {
		t.Errorf("RequestPool: %v %+v", err, reply)
	}
	if err := h.driverCall(ctx, "IpamDriver.ReleasePool", map[string]any{"PoolID": reply.PoolID}, nil); err != nil {
		t.Error(err)
	}
	t.Logf("measured: three driver calls while the engine hangs: %v", time.Since(start).Round(time.Millisecond))
	if err := c.ping(h.Address()); err != nil {
		t.Error(err)
	}
	h.must("sh", "-c", "kill -CONT $(cat /run/docker.pid)")
	eventually(t, 20*time.Second, func() error { _, err := h.EngineVersion(h.ctx); return err })
	if _, err := os.Stat(h.AgentSocket()); err != nil {
		t.Error(err)
	}
}
