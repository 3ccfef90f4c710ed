package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"fairway/internal/lab/rootfs"
)

// A pool that is used up says so, and the last address that comes back is given out again.
func TestPoolExhausted(t *testing.T) {
	s := newSite(t)
	h := s.hosts[1]
	h.config(func(text string) string { return text + "ipam:\n  holdDown: 0s\n" })
	if err := h.createNetwork("small", "--subnet", "10.45.0.0/16", "--ip-range", "10.45.9.0/29", "-o", "staticRange=10.45.255.0/24"); err != nil {
		t.Fatal(err)
	}
	var names []string
	says := ""
	for i := range 9 {
		name := fmt.Sprintf("small%d", i)
		if _, err := h.tryRun(name, "--network", "small"); err != nil {
			says = err.Error()
			h.docker("rm", "-f", name)
			break
		}
		names = append(names, name)
	}
	if len(names) < 6 || !strings.Contains(says, "10.45.9.0/29") {
		t.Errorf("%d containers fit into a /29, and then: %s", len(names), says)
	}
	last, err := h.inspect(names[len(names)-1])
	if err != nil {
		t.Fatal(err)
	}
	h.docker("rm", "-f", last.name)
	if again := h.run("again", "--network", "small"); again.v4 != last.v4 {
		t.Errorf("the address is %s, want the one that is free: %s", again.v4, last.v4)
	}
}

// Containers that fail to start, or end at once, leave nothing.
func TestShortLives(t *testing.T) {
	s := newSite(t)
	s.network("net")
	allOf(t, s.hosts, func(h *host) error {
		for i, err := range atOnce(8, 4, func(i int) error {
			command := []string{"true"}
			if i%2 == 0 {
				command = []string{"/there/is/no/such/program"}
			}
			args := append([]string{"docker", "run", "--rm", "--network", "net", "--name", fmt.Sprintf("short%d", i), rootfs.ImageName}, command...)
			_, err := h.try(args...)
			if (err != nil) != (i%2 == 0) {
				return fmt.Errorf("%v: %w", command, err)
			}
			return nil
		}) {
			return fmt.Errorf("container %d: %w", i, err)
		}
		return nil
	})
	for _, h := range s.hosts {
		h.run("killed", "--network", "net")
		h.must("sh", "-c", "kill -9 $(docker inspect -f '{{.State.Pid}}' killed)")
		eventually(t, leakLimit, h.noLeaks)
	}
}

// A container that wants no IPv6 starts on a dual-stack network, and has IPv4.
func TestWithoutIPv6(t *testing.T) {
	s := newSite(t)
	s.network("net")
	far := s.hosts[0].run("far", "--network", "net")
	for _, h := range s.hosts {
		t.Run(h.Name, func(t *testing.T) {
			h := h.in(t)
			c := h.run("four", "--network", "net", "--sysctl", "net.ipv6.conf.all.disable_ipv6=1")
			c.reaches(far.v4)
			if out := c.mustNet("ip", "-6", "address", "show", "scope", "global"); out != "" {
				t.Errorf("it has IPv6: %s", out)
			}
		})
	}
}

// With engines that can be told, another network than the first by name is the gateway.
func TestGatewayPriority(t *testing.T) {
	s := newSite(t)
	h := s.hosts[2]
	if _, out := h.exitCode("docker", "network", "connect", "--help"); !strings.Contains(out, "--gw-priority") {
		t.Skipf("the engine of %s has no --gw-priority", h)
	}
	s.network("anet")
	// Of both families, as the other one: the engine takes no gateway away for one that has less.
	if err := h.createNetwork("bnet", "--ipv6", "--subnet", "10.46.0.0/16", "--ip-range", "10.46.1.0/24",
		"--subnet", "fd46::/48", "--ip-range", "fd46:0:0:1::/64"); err != nil {
		t.Fatal(err)
	}
	c := h.run("cc", "--network", "anet")
	h.docker("network", "connect", "--gw-priority", "10", "bnet", "cc")
	if out := c.mustNet("ip", "route", "show", "default"); !strings.Contains(out, "10.46.0.1") {
		t.Errorf("the default route is %s", out)
	}
	far := s.hosts[0].run("far", "--network", "anet")
	far.reaches(c.v4)
	h.docker("network", "disconnect", "bnet", "cc")
	if out := c.mustNet("ip", "route", "show", "default"); !strings.Contains(out, "10.9.0.1") {
		t.Errorf("the default route is %s", out)
	}
	c.reaches(far.v4)
}
