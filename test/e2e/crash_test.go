package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"fairway/internal/api"
)

// full says that tests are to be run at their full size.
func full() bool { return os.Getenv("FAIRWAY_TEST_FULL") == "1" }

// leakLimit is how long the agent may take to end a leak by itself: it looks twice, and lets a young one be.
const leakLimit = 100 * time.Second

// noLeaks says what the book holds for nobody, or what is left in the kernel, on a host whose containers are all gone.
func (h *host) noLeaks() error {
	out, err := h.try("fairway", "ipam", "check", "-o", "json")
	var leaks []api.Leak
	if jsonErr := json.Unmarshal([]byte(out), &leaks); jsonErr != nil {
		return fmt.Errorf("%s: read ipam check: %w (%w)", h, jsonErr, err)
	}
	if len(leaks) > 0 {
		return fmt.Errorf("%s: leaks: %+v", h, leaks)
	}
	if err != nil {
		return err
	}
	left, err := h.try("sh", "-c", "ip -o link show | grep -E ' f[wv][0-9a-f]{6}'; "+
		"ip route show proto 200 scope link; ip -6 route show proto 200 | grep ' dev f[wv]'; ip neighbour show nud permanent; true")
	if err != nil || left != "" {
		return fmt.Errorf("%s: left in the kernel (%w):\n%s", h, err, left)
	}
	book, err := h.api().IPAM(h.ctx)
	if err != nil {
		return err
	}
	for _, a := range book.Holdings {
		if a.State == "held" && a.Kind != "gateway" {
			return fmt.Errorf("%s: %s is held: %+v", h, a.Address, a)
		}
	}
	return nil
}

// An agent that is killed while containers come and go leaves nothing behind, and neither do containers that go while it
// is dead.
func TestKilledInTheMiddle(t *testing.T) {
	s := newSite(t)
	s.network("net")
	dead := s.hosts[1]
	for i := range 3 {
		dead.run(fmt.Sprintf("gone%d", i), "--network", "net", "--ip", fmt.Sprintf("10.9.205.%d", i+1))
	}
	if err := dead.StopAgent(dead.ctx, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// The engine tries each of its calls for 15 s, gives up, and never asks again: a minute for each container. Meanwhile
	// the other hosts are at work.
	removed := make(chan error, 1)
	go func() {
		start := time.Now()
		_, err := dead.try("docker", "rm", "-f", "gone0", "gone1", "gone2")
		if err == nil && time.Since(start) < 15*time.Second {
			err = fmt.Errorf("containers were removed in %v though the agent is dead", time.Since(start))
		}
		removed <- err
	}()
	for _, h := range []*host{s.hosts[0], s.hosts[2]} {
		killInTheMiddle(t, s, h)
	}
	if err := <-removed; err != nil {
		t.Log(err) // the client may have given up before the engine
	}
	if err := dead.StartAgent(dead.ctx); err != nil {
		t.Fatal(err)
	}
	took := eventually(t, leakLimit, dead.noLeaks)
	t.Logf("measured: containers removed while the agent was dead: all reconciled %v after it was back", took.Round(time.Second))
	for i := range 3 {
		again := dead.run(fmt.Sprintf("again%d", i), "--network", "net", "--ip", fmt.Sprintf("10.9.205.%d", i+1))
		s.hosts[0].eventuallyPings(again)
	}
}

// eventuallyPings waits until the host reaches a container.
func (h *host) eventuallyPings(c *container) {
	h.t.Helper()
	for _, a := range c.addrs() {
		eventually(h.t, 15*time.Second, func() error {
			_, err := h.try("ping", "-n", "-c", "1", "-W", "1", a.String())
			return err
		})
	}
}

func killInTheMiddle(t *testing.T, s *site, h *host) {
	t.Helper()
	n := 25
	if full() {
		n = 50
	}
	name := func(kind string, i int) string { return fmt.Sprintf("%s%d", kind, i) }
	ip := func(i int) string { return fmt.Sprintf("10.9.%d.%d", 205+h.Number, i+1) }
	for i, err := range atOnce(n, 10, func(i int) error { _, err := h.tryRun(name("old", i), "--network", "net"); return err }) {
		t.Fatalf("start container %d: %v", i, err)
	}
	// Half of them run, half of them rm, all at once; the agent is killed when a fifth is done.
	var done atomic.Int64
	finished := make(chan map[int]error, 1)
	go func() {
		finished <- atOnce(2*n, 2*n, func(i int) error {
			defer done.Add(1)
			if i%2 == 0 {
				_, err := h.try("docker", "rm", "-f", name("old", i/2))
				return err
			}
			_, err := h.tryRun(name("new", i/2), "--network", "net", "--ip", ip(i/2))
			return err
		})
	}()
	eventually(t, time.Minute, func() error {
		if d := done.Load(); d < int64(2*n/5) {
			return fmt.Errorf("%d of %d are done", d, 2*n)
		}
		return nil
	})
	if err := h.StopAgent(h.ctx, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	at := done.Load()
	if err := h.StartAgent(h.ctx); err != nil {
		t.Fatal(err)
	}
	failed := <-finished
	t.Logf("measured: %s: agent killed when %d of %d parallel docker run and docker rm were done; %d of them failed", h, at, 2*n, len(failed))
	for _, err := range failed {
		t.Logf("%s: one that failed: %v", h, err)
		break
	}
	if at >= int64(2*n) {
		t.Errorf("%s: all were done before the agent was killed: this tried nothing", h)
	}
	duplicates(t, h)
	h.must("sh", "-c", `c=$(docker ps -aq); [ -z "$c" ] || docker rm -f $c >/dev/null`)
	took := eventually(t, leakLimit, h.noLeaks)
	t.Logf("measured: %s: nothing left of it %v after the last docker rm", h, took.Round(time.Millisecond))
	for i := range 3 {
		s.hosts[0].eventuallyPings(h.run(name("again", i), "--network", "net", "--ip", ip(i)))
	}
}

// duplicates fails the test when two running containers of a host have one address.
func duplicates(t *testing.T, h *host) {
	t.Helper()
	out := h.must("sh", "-c", `c=$(docker ps -q); [ -z "$c" ] || docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}' $c`)
	all := strings.Fields(out)
	slices.Sort(all)
	if unique := slices.Compact(slices.Clone(all)); len(unique) != len(all) {
		t.Errorf("%s: addresses are given out twice: %v", h, all)
	}
}

// An engine that is killed, without live-restore, brings its containers back, each with an address of its own.
func TestKilledEngine(t *testing.T) {
	s := newSite(t)
	s.network("net")
	for _, h := range s.hosts {
		t.Run(h.Name, func(t *testing.T) {
			t.Parallel()
			h := h.in(t)
			h.liveRestore(t, false)
			const n = 5
			for i := range n {
				h.run(fmt.Sprintf("always%d", i), "--init", "--restart", "always", "--network", "net")
			}
			h.run("mortal", "--init", "--network", "net")
			if err := h.KillEngine(h.ctx); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if err := h.StartEngine(h.ctx); err != nil {
				t.Fatal(err)
			}
			var all []*container
			eventually(t, time.Minute, func() error {
				all = nil
				for i := range n {
					c, err := h.inspect(fmt.Sprintf("always%d", i))
					if err != nil {
						return err
					}
					all = append(all, c)
				}
				return nil
			})
			t.Logf("measured: %s: dockerd killed: %d containers back after %v", h, n, time.Since(start).Round(time.Millisecond))
			duplicates(t, h)
			for _, c := range all {
				s.hosts[h.Number%len(s.hosts)].eventuallyPings(c)
			}
			// Of the endpoints from before the crash none is left.
			eventually(t, leakLimit, func() error {
				list, err := h.api().Containers(h.ctx)
				if err == nil && len(list) != n {
					err = fmt.Errorf("%s: the book has %d endpoints, want %d: %+v", h, len(list), n, list)
				}
				return err
			})
			if err := h.empty(); err != nil {
				t.Fatal(err)
			}
			eventually(t, leakLimit, h.noLeaks)
		})
	}
}

// liveRestore sets it in the engine's configuration, from its next start on, until the test ends.
func (h *host) liveRestore(t *testing.T, on bool) {
	t.Helper()
	path := h.Path("/etc/docker/daemon.json")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(before, &config); err != nil {
		t.Fatal(err)
	}
	config["live-restore"] = on
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, before, 0o644); err != nil {
			t.Error(err)
		}
		h.ctx = context.Background() // the test's has ended
		h.must("sh", "-c", "kill -HUP $(cat /run/docker.pid)")
	})
	h.must("sh", "-c", "kill -HUP $(cat /run/docker.pid)")
}
