package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fairway/internal/image"
	"fairway/internal/lab"
)

// routerLab is the lab of the distributed router, apart from the shared one: its networks are none of ours.
var routerLab = sync.OnceValues(func() (*lab.Lab, error) { return raise("router", lab.Options{AgentConfig: withGuests}) })

// withGuests lets agents take prefixes that are in no pool: those of routers' networks.
func withGuests(_ lab.HostInfo, standard string) string {
	return strings.Replace(standard, "\nbgp:\n", "\nbgp:\n  import:\n    prefixes: [10.71.0.0/16]\n", 1)
}

// routerRights stand for --privileged, which an engine inside of a sandbox cannot give.
var routerRights = strings.Fields("--pid=host --cap-add NET_ADMIN --cap-add SYS_ADMIN --cap-add SYS_PTRACE " +
	"--security-opt systempaths=unconfined --security-opt apparmor=unconfined --security-opt seccomp=unconfined " +
	"-v /var/run/docker.sock:/var/run/docker.sock")

const routerName = "fairway-router"

// newRouterSite is newSite for tests of the distributed router.
func newRouterSite(t *testing.T) *site {
	t.Helper()
	needEngines(t)
	l, err := routerLab()
	if err != nil {
		t.Fatal(err)
	}
	s := enter(t, l)
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	allOf(t, s.hosts, func(h *host) error {
		archive := filepath.Join(t.TempDir(), h.Name+".tar")
		if err := image.Write(archive, "fairway:latest", runtime.GOARCH, bin); err != nil {
			return err
		}
		f, err := os.Open(archive)
		if err != nil {
			return err
		}
		defer f.Close()
		cmd := h.Command(h.ctx, "docker", "load")
		cmd.Stdin = f
		_, err = output(cmd, h.Name, []string{"docker", "load"})
		return err
	})
	return s
}

func (h *host) routerLog() string {
	out, err := h.Command(context.WithoutCancel(h.t.Context()), "docker", "logs", "--tail", "40", routerName).CombinedOutput()
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// router starts the router; it is stopped and removed with the test.
func (h *host) router(flags ...string) {
	h.t.Helper()
	t := h.t
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s: router %v: %s", h, flags, h.routerLog())
		}
		script := "docker stop -t 10 " + routerName + "; docker rm -f " + routerName
		if out, err := h.Command(context.WithoutCancel(t.Context()), "sh", "-c", script).CombinedOutput(); err != nil {
			t.Errorf("%s: remove router: %v %s", h, err, out)
		}
	})
	h.docker(slices.Concat([]string{"run", "-d", "--name", routerName}, routerRights, []string{"fairway", "router"}, flags)...)
}

// otherNetwork makes a network of another driver, that goes with the test's containers.
func (h *host) otherNetwork(name string, args ...string) {
	h.t.Helper()
	h.docker(slices.Concat([]string{"network", "create"}, args, []string{name})...)
	h.t.Cleanup(func() {
		script := `docker rm -f $(docker ps -aq) >/dev/null 2>&1; docker network rm ` + name
		cmd := h.Command(context.WithoutCancel(h.t.Context()), "sh", "-c", script)
		if out, err := cmd.CombinedOutput(); err != nil {
			h.t.Logf("%s: remove network %s: %v %s", h, name, err, out)
		}
	})
}

// segment makes a segment that all hosts share, for a macvlan, which takes a parent of its own: the option that names it.
func (h *host) segment(n int) string {
	h.t.Helper()
	link := fmt.Sprintf("seg%d", n)
	h.must("sh", "-c", fmt.Sprintf("ip link show %s >/dev/null 2>&1 || ip link add %s up type vxlan id %d group 239.1.1.%d dev eth0 dstport 4789", link, link, n, n))
	h.t.Cleanup(func() {
		cmd := h.Command(context.WithoutCancel(h.t.Context()), "ip", "link", "del", link)
		if out, err := cmd.CombinedOutput(); err != nil {
			h.t.Logf("%s: remove segment: %v %s", h, err, out)
		}
	})
	return "parent=" + link
}

// routerStatus is what is read of `fairway router status -o json`.
type routerStatus struct {
	Networks []struct {
		Name, State string
		Addresses   []netip.Addr
	}
	Containers []struct {
		Name string
		Via  netip.Addr
	}
	Routes, Host []struct {
		Prefix netip.Prefix
		Via    []netip.Addr
	}
	Peers []struct {
		Address    netip.Addr
		State, BFD string
	}
	Problems []string
}

func (h *host) routerStatus() (routerStatus, error) {
	var s routerStatus
	out, err := h.try("docker", "exec", routerName, "/fairway", "router", "status", "-o", "json")
	if json.Unmarshal([]byte(out), &s) != nil {
		return s, fmt.Errorf("router status: %q: %w", out, err)
	}
	return s, nil
}

// routerOn waits until the router has joined just these networks.
func (h *host) routerOn(names ...string) {
	h.t.Helper()
	eventually(h.t, 30*time.Second, func() error {
		s, err := h.routerStatus()
		if err != nil {
			return err
		}
		var on []string
		for _, n := range s.Networks {
			if n.State == "joined" {
				on = append(on, n.Name)
			}
		}
		slices.Sort(on)
		slices.Sort(names)
		if !slices.Equal(on, names) {
			return fmt.Errorf("%s: the router is on %v, want %v: %v", h, on, names, s.Problems)
		}
		return nil
	})
}

// routes are everything that decides where a container's packets go.
func (c *container) routes() string {
	return c.mustNet("sh", "-c", "ip rule; ip -6 rule; ip route; ip -6 route; ip route show table all proto 200; ip -6 route show table all proto 200")
}

// led waits until the routes that the container has of the router contain each text, or lack it with "!" before it.
func (c *container) led(want ...string) {
	c.h.t.Helper()
	eventually(c.h.t, 20*time.Second, func() error {
		out, err := c.net("sh", "-c", "ip route show table all proto 200; ip -6 route show table all proto 200")
		return within(c.String(), contains(out, err, want))
	})
}

// contains finds each text, or that it is not there when it begins with "!".
func contains(out string, err error, want []string) error {
	for _, w := range want {
		if absent, no := strings.CutPrefix(w, "!"); err == nil && strings.Contains(out, absent) == no {
			err = fmt.Errorf("want %q:\n%s", w, out)
		}
	}
	return err
}

// itself is the host as an end of connections.
func (h *host) itself() *container {
	return &container{h: h, name: "host", pid: 1, v4: h.Address(), v6: h.Address6()}
}

// Three networks that Docker keeps apart, on one host: with the router all reach each other, and when it has stopped
// everything is as before.
func TestRouterOnOneHost(t *testing.T) {
	s := newRouterSite(t)
	for _, h := range []*host{s.hosts[0], s.hosts[1]} {
		version, err := h.EngineVersion(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Run(version, func(t *testing.T) { routerOnOneHost(t, h.in(t)) })
	}
}

func routerOnOneHost(t *testing.T, h *host) {
	t.Helper()
	h.otherNetwork("blue", "-o", "fairway.router=true")
	h.otherNetwork("green", "-o", "drouter=true", "--ipv6", "--subnet", "10.66.1.0/24", "--subnet", "fd66:1::/64")
	h.otherNetwork("mac", "-d", "macvlan", "--label", "fairway.router=true", "--subnet", "10.66.2.0/24", "-o", h.segment(66))
	h.otherNetwork("apart")
	all := []*container{h.run("c1", "--network", "blue"), h.run("c2", "--network", "green"), h.run("c3", "--network", "mac")}
	apart := h.run("c4", "--network", "apart")
	var before []string
	for _, c := range append(all, apart) {
		before = append(before, c.routes())
	}
	hostBefore := h.must("ip", "route")
	for i, c := range all {
		if err := c.ping(all[(i+1)%3].v4); err == nil {
			t.Errorf("%s reaches %s without a router", c, all[(i+1)%3])
		}
	}
	h.router()
	h.routerOn("blue", "green", "mac")
	// One that comes later is treated alike.
	all = append(all, h.run("c5", "--network", "blue"))
	for _, from := range all {
		for _, to := range all {
			if from == to {
				continue
			}
			from.reaches(to.v4)
			if seen, err := from.seenBy(to, to.v4); err != nil || seen != from.v4 {
				t.Errorf("%s is seen by %s as %v: %v", from, to, seen, err)
			}
		}
	}
	if err := apart.ping(all[0].v4); err == nil {
		t.Error("a container of a network that is not marked reaches one that is")
	}
	path, err := all[2].path(all[0].v4)
	if err != nil || len(path) != 2 || path[1] != all[0].v4.String() {
		t.Errorf("path %v: %v", path, err)
	}
	t.Logf("measured: path of %s to %s: %s", all[2], all[0], strings.Join(path, " > "))

	h.docker("restart", "-t", "0", "c1") // gets its routes again
	c1, err := h.inspect("c1")
	if err != nil {
		t.Fatal(err)
	}
	c1.reaches(all[1].v4)

	h.docker("stop", "-t", "10", routerName)
	h.docker("restart", "-t", "0", "c1")
	if all[0], err = h.inspect("c1"); err != nil {
		t.Fatal(err)
	}
	for i, c := range []*container{all[0], all[1], all[2], apart} {
		if now := c.routes(); now != before[i] {
			t.Errorf("%s has other routes after the router stopped:\n%s\nbefore:\n%s", c, now, before[i])
		}
	}
	if now := h.must("ip", "route"); now != hostBefore {
		t.Errorf("%s has other routes after the router stopped:\n%s\nbefore:\n%s", h, now, hostBefore)
	}
	if rules := h.must("sh", "-c", "iptables -S; iptables -t raw -S; nft list ruleset | grep fairway-frouter; true"); strings.Contains(rules, "fairway-router") {
		t.Errorf("rules are left:\n%s", rules)
	}
}
