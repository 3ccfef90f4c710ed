package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fairway/internal/lab"
)

// rebootLimit is how long a host may take until its containers reach others again. Most of it is the other side's hold
// time, which has to run out before a session that nobody closed is made anew.
const rebootLimit = 40 * time.Second

// alwaysUp starts a container that the engine brings back.
func (h *host) alwaysUp(name, network string) *container {
	h.t.Helper()
	return h.run(name, "--init", "--restart", "always", "--network", network)
}

// A host whose power is cut comes back by itself: forwarding, bridges, routes and rules before the engine starts its
// containers, and these with a network each. That is so for a routed network, for one with a subnet per node, and for
// one of Docker's own that is announced.
func TestReboot(t *testing.T) {
	needEngines(t)
	l, err := raise("reboot", lab.Options{Hosts: len(sharedSuites), Disk: true, DaemonJSON: map[string]any{"live-restore": false}})
	if err != nil {
		t.Fatal(err)
	}
	s := enter(t, l)
	s.network("routed")
	names := []string{"routed", "bridged", "dockers"}
	for _, h := range s.hosts {
		n := h.Number
		h.must("docker", "network", "create", "-d", "fairway", "--ipam-driver", "fairway", "-o", "mode=subnet",
			"--subnet", "10.8.0.0/16", "--ip-range", fmt.Sprintf("10.8.%d.0/24", n), "bridged")
		// Inside of the pool, so that the others take the route.
		args := []string{"docker", "network", "create", "--label", "fairway.announce=true", "--subnet", fmt.Sprintf("10.9.%d.0/24", 100+n)}
		if h.shields() {
			args = append(args, "-o", "com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected")
		}
		h.must(append(args, "dockers")...)
		for _, name := range names {
			h.alwaysUp(name+"c", name)
		}
	}
	s.removeDockers("dockers")
	containers := func(h *host) []*container {
		t.Helper()
		var list []*container
		for _, name := range names {
			var c *container
			eventually(t, rebootLimit, func() (err error) {
				c, err = h.inspect(name + "c")
				return err
			})
			list = append(list, c)
		}
		return list
	}
	for i, h := range s.hosts {
		other := s.hosts[(i+1)%len(s.hosts)]
		far := containers(other)
		for j, c := range containers(h) {
			c.reaches(far[j].v4)
			far[j].reaches(c.v4)
		}
		before := h.must("cat", "/proc/sys/kernel/random/boot_id")
		h.must("sh", "-c", `sed -i 's/"live-restore": false/"live-restore":  false/' /etc/docker/daemon.json`) // an edit of the operator's
		start := time.Now()
		if err := h.Reboot(h.ctx); err != nil {
			t.Fatal(err)
		}
		answers := time.Since(start)
		if after := h.must("cat", "/proc/sys/kernel/random/boot_id"); after == before {
			t.Errorf("%s: the boot ID is as before", h)
		}
		if out := h.must("cat", "/etc/docker/daemon.json"); !strings.Contains(out, `"live-restore":  false`) {
			t.Errorf("%s: after the reboot the engine's config is another:\n%s", h, out)
		}
		back := containers(h)
		started := time.Since(start)
		for j, c := range back {
			for _, pair := range [][2]*container{{c, far[j]}, {far[j], c}} {
				if err := patiently(rebootLimit, func() error { return within(pair[0].String(), pair[0].ping(pair[1].v4)) }); err != nil {
					t.Error(err)
				}
			}
		}
		t.Logf("measured: %s: power cut: engine answers after %v, containers run after %v, all three networks reach the other host after %v",
			h, answers.Round(10*time.Millisecond), started.Round(10*time.Millisecond), time.Since(start).Round(10*time.Millisecond))
		// Each kind reaches each other kind, too, and its neighbours on the host.
		all := slices.Concat(back[:2], far[:2])
		for _, from := range all {
			for _, to := range all {
				if from != to {
					from.reaches(to.v4)
				}
			}
		}
		back[0].reaches(far[0].v6)
		eventually(t, leakLimit, h.healthy)
		if list, err := h.api().Containers(h.ctx); err != nil || len(list) != 2 {
			t.Errorf("%s: the book has %+v (%v), want the two that run", h, list, err)
		}
		for j, c := range back {
			if seen, err := c.seenBy(far[j], far[j].v4); err != nil || seen != c.v4 {
				t.Errorf("%s sees %v (%v), want %v", far[j], seen, err, c.v4)
			}
		}
		if out := h.must("sh", "-c", "sysctl -n net.ipv4.ip_forward; nft list tables"); !strings.HasPrefix(out, "1") || !strings.Contains(out, "bridge fairway") {
			t.Errorf("%s: after the reboot: %s", h, out)
		}
	}
}
