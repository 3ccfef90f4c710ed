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

// routed is the lab of the distributed router, apart from the shared one: its networks are none of ours.
var routed = sync.OnceValues(func() (*lab.Lab, error) { return raise("router", lab.Options{}) })

// routerRights stand for --privileged, which an engine inside of a sandbox cannot give.
var routerRights = strings.Fields("--pid=host --cap-add NET_ADMIN --cap-add SYS_ADMIN --cap-add SYS_PTRACE " +
	"--security-opt systempaths=unconfined --security-opt apparmor=unconfined --security-opt seccomp=unconfined " +
	"-v /var/run/docker.sock:/var/run/docker.sock")

const routerName = "fairway-router"

// newRouterSite is newSite for tests of the distributed router.
func newRouterSite(t *testing.T) *site {
	t.Helper()
	needEngines(t)
	l, err := routed()
	if err != nil {
		t.Fatal(err)
	}
	s := enter(t, l)
	t.Cleanup(func() { // before restore
		for _, h := range s.hosts {
			if t.Failed() {
				t.Logf("%s: router: %s", h, h.routerLog())
			}
		}
	})
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

// router starts the router; it is removed with the test.
func (h *host) router(flags ...string) {
	h.t.Helper()
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
		Address netip.Addr
		State   string
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

// routes are the routes of a container's namespace, and of its host's with c zero.
func (c *container) routes() string {
	return c.mustNet("ip", "route") + "\n" + c.mustNet("ip", "-6", "route")
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

// What each flag does, on an old engine and a new one.
func TestRouterFlags(t *testing.T) {
	s := newRouterSite(t)
	for _, h := range []*host{s.hosts[0], s.hosts[1]} {
		version, err := h.EngineVersion(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Run(version, func(t *testing.T) { routerFlags(t, h.in(t)) })
	}
}

func routerFlags(t *testing.T, h *host) {
	h.otherNetwork("blue", "-o", "fairway.router=true", "--subnet", "10.67.1.0/24")
	h.otherNetwork("green", "-o", "fairway.router=true", "--subnet", "10.67.2.0/24")
	h.otherNetwork("named", "-o", "fairway.router=lab", "--subnet", "10.67.3.0/24")
	h.otherNetwork("transit", "-d", "macvlan", "--subnet", "10.67.4.0/24", "--gateway", "10.67.4.1", "-o", h.segment(67))
	blue, named := h.run("inblue", "--network", "blue"), h.run("innamed", "--network", "named")
	has := func(c *container, want ...string) func() error {
		return func() error {
			out, err := c.net("ip", "route")
			for _, w := range want {
				if absent, no := strings.CutPrefix(w, "!"); err == nil && strings.Contains(out, absent) == no {
					err = fmt.Errorf("%s: routes want %q:\n%s", c, w, out)
				}
			}
			return err
		}
	}
	onHost := func(want ...string) func() error {
		return func() error {
			out, err := h.try("ip", "route")
			for _, w := range want {
				if absent, no := strings.CutPrefix(w, "!"); err == nil && strings.Contains(out, absent) == no {
					err = fmt.Errorf("routes want %q:\n%s", w, out)
				}
			}
			return err
		}
	}
	inRouter := func(want ...string) func() error {
		return func() error {
			s, err := h.routerStatus()
			text := fmt.Sprintf("%+v", s)
			for _, w := range want {
				if err == nil && !strings.Contains(text, w) {
					err = fmt.Errorf("router wants %q: %s", w, text)
				}
			}
			return err
		}
	}
	tests := []struct {
		flags string
		on    []string
		check []func() error
	}{
		{"--ip-offset -1", []string{"blue", "green"}, []func() error{has(blue, "0.0.0.0/1 via 10.67.1.254", "128.0.0.0/1 via 10.67.1.254")}},
		{"--drouter-instance lab", []string{"named"}, []func() error{has(blue, "!0.0.0.0/1"), has(named, "0.0.0.0/1 via 10.67.3.")}},
		{"--no-aggressive --transit-net transit", []string{"blue", "transit"}, []func() error{inRouter("0.0.0.0/1 Via:[10.67.4.1]")}},
		{"--container-gateway=false --static-route 10.99.0.0/16", []string{"blue", "green"}, []func() error{
			has(blue, "!0.0.0.0/1", "10.99.0.0/16 via 10.67.1.", "10.67.2.0/24 via 10.67.1."),
		}},
		{"--host-shortcut --p2p-net 10.67.200.0/30 -d", []string{"blue", "green"}, []func() error{
			onHost("10.67.2.0/24 via 10.67.200.2 dev frouter", "10.67.200.0/30 dev frouter"),
		}},
		{"--host-gateway", []string{"blue", "green"}, []func() error{inRouter("0.0.0.0/1 Via:[172.29.255.253]"), onHost("10.67.1.0/24 via 172.29.255.254")}},
		{"--masquerade", []string{"blue", "green"}, []func() error{
			inRouter("0.0.0.0/1 Via:[172.29.255.253]"),
			func() error {
				out, err := h.try("nft", "list", "ruleset")
				if err == nil && !strings.Contains(out, "masquerade") {
					err = fmt.Errorf("no masquerade:\n%s", out)
				}
				return err
			},
		}},
		{"--disable-p2p", []string{"blue", "green"}, []func() error{
			func() error {
				out, err := h.try("sh", "-c", "ip link show frouter 2>&1; true")
				if err == nil && !strings.Contains(out, "does not exist") {
					err = fmt.Errorf("there is a link to the host: %s", out)
				}
				return err
			},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.flags, func(t *testing.T) {
			h := h.in(t)
			h.router(strings.Fields(tt.flags)...)
			h.routerOn(tt.on...)
			for _, f := range tt.check {
				eventually(t, 20*time.Second, f)
			}
			if tt.flags == "--no-aggressive --transit-net transit" {
				g := h.run("ingreen", "--network", "green")
				h.routerOn("blue", "green", "transit")
				h.docker("rm", "-f", g.name)
				h.routerOn("blue", "transit")
			}
			h.docker("stop", "-t", "10", routerName)
			h.docker("rm", routerName)
		})
	}
	for flags, want := range map[string]string{
		"--no-p2p --masquerade": "--no-p2p with --masquerade", "--static-route 10.0.0.1/8": "did you mean 10.0.0.0/8", "--p2p-net 10.0.0.0/31": "no two usable",
	} {
		words := slices.Concat([]string{"docker", "run", "--rm"}, routerRights, []string{"fairway", "router"}, strings.Fields(flags))
		if said := h.refused(words...); !strings.Contains(said, want) {
			t.Errorf("router %s says %q, want %q", flags, said, want)
		}
	}
	if said := h.refused(slices.Concat([]string{"docker", "run", "--rm", "--net=host"}, routerRights, []string{"fairway", "router"})...); !strings.Contains(said, "--net=host") {
		t.Errorf("router with the host's network says %q", said)
	}
}

// Networks of three hosts: some shared between two of them, some of one alone, and one that all have for transit.
func TestRouterOnThreeHosts(t *testing.T) {
	s := newRouterSite(t)
	var all []*container
	for i, h := range s.hosts {
		h.otherNetwork("transit", "-d", "macvlan", "--subnet", "10.68.0.0/24", "--ip-range", fmt.Sprintf("10.68.0.%d/27", 32*(i+1)), "-o", h.segment(68))
		own := fmt.Sprintf("own%d", i)
		h.otherNetwork(own, "-o", "fairway.router=true", "--subnet", fmt.Sprintf("10.68.%d.0/24", 10+i))
		all = append(all, h.run("own", "--network", own))
	}
	for i, h := range s.hosts[1:] { // shared by the second and third
		h.otherNetwork("shared", "-d", "macvlan", "--label", "fairway.router=true", "--subnet", "10.68.5.0/24",
			"--ip-range", fmt.Sprintf("10.68.5.%d/26", 64*(i+1)), "-o", h.segment(69))
		all = append(all, h.run("shared", "--network", "shared"))
	}
	for _, h := range s.hosts {
		h.router("--transit-net", "transit")
	}
	for _, from := range all {
		for _, to := range all {
			if from != to {
				from.reaches(to.v4)
			}
		}
	}
	for _, h := range s.hosts {
		eventually(t, 30*time.Second, func() error {
			st, err := h.routerStatus()
			up := 0
			for _, p := range st.Peers {
				if p.State == "established" {
					up++
				}
			}
			if err == nil && up < 2 {
				err = fmt.Errorf("%s: %d sessions", h, up)
			}
			return err
		})
	}
	for _, from := range all {
		for _, to := range all {
			path, err := from.path(to.v4)
			// The routers of both ends, or one when it is on both networks.
			most := 3
			if from.h == to.h || from.name == "shared" && to.name == "shared" {
				most = 2
			}
			if from != to && (err != nil || len(path) == 0 || len(path) > most || path[len(path)-1] != to.v4.String()) {
				t.Errorf("path of %s to %s: %v, %v; want at most %d steps", from, to, path, err, most)
			}
			if from != to {
				t.Logf("measured: path of %s to %s: %s", from, to, strings.Join(path, " > "))
			}
		}
	}
	// The first host reaches the shared network through the routers of the other two; one of them dies.
	ping := startPing(t, all[0], all[4].v4) // on the third host
	ping.more(50)
	s.hosts[1].docker("kill", routerName)
	ping.more(300)
	sent, lost, err := ping.stop()
	if err != nil {
		t.Fatal(err)
	}
	every := ping.end.Sub(ping.start) / time.Duration(max(sent, 1))
	t.Logf("measured: a router was killed: %d of %d packets lost, a gap of %v", len(lost), sent, time.Duration(len(lost))*every)
	if len(lost) > sent/2 {
		t.Errorf("the dead router is not routed around: %d of %d packets lost", len(lost), sent)
	}
	all[0].reaches(all[3].v4) // the second host's own container on the shared network, through the third
}

// Containers come and go while the router is killed and started again: none is left with a wrong way.
func TestRouterChurn(t *testing.T) {
	s := newRouterSite(t)
	h := s.hosts[0]
	h.otherNetwork("blue", "-o", "fairway.router=true", "--subnet", "10.69.1.0/24")
	h.otherNetwork("green", "-o", "fairway.router=true", "--subnet", "10.69.2.0/24")
	h.router()
	h.routerOn("blue", "green")
	const n = 100
	stop := make(chan struct{})
	killed := make(chan int)
	go func() {
		count := 0
		for {
			select {
			case <-stop:
				killed <- count
				return
			default:
			}
			_, err := h.try("docker", "kill", routerName)
			_, again := h.try("docker", "start", routerName)
			if err == nil && again == nil {
				count++
			}
		}
	}()
	errs := atOnce(n, 4, func(i int) error {
		name, network := fmt.Sprintf("k%d", i), []string{"blue", "green"}[i%2]
		if _, err := h.tryRun(name, "--network", network); err != nil {
			return err
		}
		if i%2 == 0 && i < n-20 {
			_, err := h.try("docker", "rm", "-f", name)
			return err
		}
		return nil
	})
	close(stop)
	t.Logf("measured: router killed and started %d times while %d containers came, %d of which went", <-killed, n, (n-20)/2)
	for i, err := range errs {
		t.Errorf("container %d: %v", i, err)
	}
	h.routerOn("blue", "green")
	st, err := h.routerStatus()
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]string{}
	for _, net := range st.Networks {
		at[net.Name] = net.Addresses[0].String()
	}
	left := strings.Fields(h.docker("ps", "--format", "{{.Names}}", "--filter", "name=^k"))
	took := eventually(t, 60*time.Second, func() error {
		for _, name := range left {
			var i int
			if _, err := fmt.Sscanf(name, "k%d", &i); err != nil {
				return err
			}
			c, err := h.inspect(name)
			if err != nil {
				return err
			}
			out, err := c.net("ip", "route")
			want := "0.0.0.0/1 via " + at[[]string{"blue", "green"}[i%2]]
			if err != nil || !strings.Contains(out, want+" ") || strings.Count(out, " metric ") != 2 {
				return fmt.Errorf("%s: want %q: %w\n%s", name, want, err, out)
			}
		}
		return nil
	})
	t.Logf("measured: %d containers are led the right way %v after the last kill", len(left), took.Round(time.Millisecond))
}
