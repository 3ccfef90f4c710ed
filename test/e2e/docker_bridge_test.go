package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairway/internal/lab"
)

// The range of the default bridges in this test, and a network that no cluster knows.
const (
	bridgePool4, bridgePool6 = "10.211.0.0/16", "fd0b::/48"
	beyond4, beyond6         = "198.51.100.0/24", "2001:db8:51::/64"
)

// withBridge is the lab's config with a subnet for the default bridge.
func withBridge(h lab.HostInfo, standard string) string {
	return standard + fmt.Sprintf("dockerBridge:\n  pool: %s\n  subnet: 10.211.%d.0/24\n  pool6: %s\n  subnet6: fd0b:0:0:%d::/64\n", bridgePool4, h.Number, bridgePool6, h.Number)
}

// bridgeSite is a lab whose engines have what `fairway docker-bridge apply` writes.
func bridgeSite(t *testing.T) *site {
	t.Helper()
	needEngines(t)
	l, err := raise("bridge", lab.Options{AgentConfig: withBridge})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, lab: l}
	for _, h := range l.Hosts() {
		s.hosts = append(s.hosts, newHost(t, h))
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.diagnose()
		}
		if err := lab.Down(context.Background(), l.Dir()); err != nil {
			t.Error(err)
		}
	})
	for _, h := range s.hosts {
		h.applyBridge()
	}
	s.sessionsUp()
	return s
}

// applyBridge goes the whole way on one host: the agent says what is missing, plan shows it, apply writes it, and the
// engine takes it in.
func (h *host) applyBridge() {
	h.t.Helper()
	eventually(h.t, 10*time.Second, func() error {
		if _, out := h.exitCode("fairway", "status"); !strings.Contains(out, "fairway docker-bridge apply") {
			return fmt.Errorf("%s: status does not say what to do: %s", h, out)
		}
		return nil
	})
	version, err := h.EngineVersion(h.ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	before := h.must("cat", "/etc/docker/daemon.json")
	if out := h.fairway("docker-bridge", "plan"); !strings.Contains(out, version) || !strings.Contains(out, "ip-masq") {
		h.t.Errorf("%s: the plan for %s: %s", h, version, out)
	}
	if now := h.must("cat", "/etc/docker/daemon.json"); now != before {
		h.t.Errorf("%s: the plan changed the file: %s", h, now)
	}
	h.t.Logf("%s, Docker %s:\n%s", h, version, h.fairway("docker-bridge", "apply"))
	if out := h.fairway("docker-bridge", "apply"); !strings.Contains(out, "is as it should be") {
		h.t.Errorf("%s: the second time: %s", h, out)
	}
	h.keptRest(before)
	if out := h.must("sh", "-c", "dockerd --help"); strings.Contains(out, "--validate") {
		h.must("dockerd", "--validate", "--config-file", "/etc/docker/daemon.json")
	}
	if err := errors.Join(h.StopEngine(h.ctx), h.StartEngine(h.ctx)); err != nil {
		h.t.Fatalf("%s: the engine does not take the file: %v", h, err)
	}
	eventually(h.t, 20*time.Second, func() error {
		if code, out := h.exitCode("fairway", "status"); code != 0 && strings.Contains(out, "docker0") {
			return fmt.Errorf("%s: %s", h, out)
		}
		return nil
	})
}

// keptRest compares the file with the one before: the keys that were there have what they had.
func (h *host) keptRest(before string) {
	h.t.Helper()
	var was, is map[string]any
	if err := errors.Join(json.Unmarshal([]byte(before), &was), json.Unmarshal([]byte(h.must("cat", "/etc/docker/daemon.json")), &is)); err != nil {
		h.t.Fatal(err)
	}
	for key, val := range was {
		if got := is[key]; key != "bip" && fmt.Sprint(got) != fmt.Sprint(val) {
			h.t.Errorf("%s: key %s was %v and is %v", h, key, val, got)
		}
	}
	if kept := h.must("sh", "-c", "cat /etc/docker/daemon.json.before-fairway-*"); kept != before {
		h.t.Errorf("%s: the file before is kept as %s, it was %s", h, kept, before)
	}
}

// nodeBeyond are a host's addresses on the link to the machine outside.
func nodeBeyond() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:51::1")}
}

// outsider is a machine on a link of the host, in a network that no cluster knows, with the host as its router. It is a
// container without a network, which gets a link of its own.
func (h *host) outsider() *container {
	h.t.Helper()
	h.docker(append([]string{"run", "-d", "--name", "outsider", "--network", "none"}, idle...)...)
	c := h.theOutsider()
	h.must("ip", "link", "add", "beyond0", "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(c.pid))
	h.must("sh", "-c", "ip link set beyond0 up && ip addr add 198.51.100.1/24 dev beyond0 && ip addr add 2001:db8:51::1/64 dev beyond0 nodad")
	c.mustNet("sh", "-c", "sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.eth0.disable_ipv6=0 && ip link set eth0 up && "+
		"ip addr add 198.51.100.2/24 dev eth0 && ip addr add 2001:db8:51::2/64 dev eth0 nodad && ip route add default via 198.51.100.1 && ip -6 route add default via 2001:db8:51::1")
	return c
}

// theOutsider finds it again.
func (h *host) theOutsider() *container {
	h.t.Helper()
	pid, err := strconv.Atoi(h.docker("inspect", "-f", "{{.State.Pid}}", "outsider"))
	if err != nil {
		h.t.Fatal(err)
	}
	return &container{h: h, name: "outsider", pid: pid, v4: netip.MustParseAddr("198.51.100.2"), v6: netip.MustParseAddr("2001:db8:51::2")}
}

// wantSeen connects, and demands the source that the other end sees: IPv4, then IPv6.
func wantSeen(t *testing.T, from, to *container, want ...netip.Addr) {
	t.Helper()
	for i, at := range to.addrs() {
		if err := patiently(10*time.Second, func() error {
			seen, err := from.seenBy(to, at)
			if err == nil && seen != want[i] {
				err = fmt.Errorf("%s at %s sees %s as %s, want %s", to, at, from, seen, want[i])
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	}
}

// The recipe with plain docker run: containers of the default bridges of all hosts, each with another generation of the
// engine, reach each other at their own addresses, and leave the cluster with their node's.
func TestDockerBridge(t *testing.T) {
	s := bridgeSite(t)
	var all []*container
	for _, h := range s.hosts {
		all = append(all, h.run("c"+h.Name)) // no --network
	}
	everyPair(t, all)
	for _, from := range all {
		for _, to := range all {
			if from != to {
				wantSeen(t, from, to, from.addrs()...)
			}
		}
	}
	own := nodeBeyond()
	for i, h := range s.hosts {
		out := h.outsider()
		wantSeen(t, all[i], out, own...)
		// Masqueraded there only, also while that goes on.
		other := all[(i+1)%len(all)]
		wantSeen(t, all[i], other, all[i].addrs()...)
		version, err := h.EngineVersion(h.ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("measured: Docker %s: %s is %v for %s, and %v for a machine outside", version, all[i], all[i].addrs(), other, own)
		// And what is outside reaches the container at its own address.
		wantSeen(t, out, all[i], out.addrs()...)
	}
	t.Run("published port", func(t *testing.T) { publishedPort(t, s.hosts[0], all[1]) })
	t.Run("noMasqueradeTo", func(t *testing.T) { noMasquerade(t, s.hosts[1], all[1]) })
	t.Run("engine restarted", func(t *testing.T) {
		for _, h := range s.hosts {
			if err := errors.Join(h.StopEngine(h.ctx), h.StartEngine(h.ctx)); err != nil {
				t.Fatal(err)
			}
		}
		everyPair(t, all)
	})
	t.Run("agent restarted", func(t *testing.T) {
		h := s.hosts[0]
		before := h.must("nft", "-a", "list", "table", "inet", "fairway")
		if err := h.restartAgent(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if now := h.must("nft", "-a", "list", "table", "inet", "fairway"); now != before {
			t.Errorf("the table was written anew:\n%s\nbefore:\n%s", now, before)
		}
	})
	t.Run("engine upgraded", func(t *testing.T) { upgradedEngine(t, s.hosts[len(s.hosts)-1], all[0]) })
	t.Run("egress of networks", func(t *testing.T) { networksEgress(t, s) })
}

// publishedPort sees to it that Docker's own way to a container, by a port of the host, goes on.
func publishedPort(t *testing.T, h *host, from *container) {
	t.Helper()
	h = h.in(t)
	c := h.run("published", "-p", "8080:8080")
	h.docker("exec", "-d", "published", "sh", "-c", "echo reached | nc -l -p 8080")
	if err := patiently(10*time.Second, func() error {
		out, err := from.net("bash", "-c", "exec 3<>/dev/tcp/"+h.Address().String()+"/8080 && cat <&3")
		if err == nil && !strings.Contains(out, "reached") {
			err = fmt.Errorf("%s says %q", c, out)
		}
		return err
	}); err != nil {
		t.Errorf("%s does not reach %s by a port of %s: %v", from, c, h, err)
	}
	h.docker("rm", "-f", "published")
}

// noMasquerade changes the config while a connection to the outside is open: it is noticed at once.
func noMasquerade(t *testing.T, h *host, c *container) {
	t.Helper()
	h = h.in(t)
	path := h.ConfigPath()
	conf, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	reload := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := h.SignalAgent(h.ctx, syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	out := h.theOutsider()
	reload(string(conf) + "  noMasqueradeTo: [" + beyond4 + ", \"" + beyond6 + "\"]\n")
	wantSeen(t, c, out, c.addrs()...)
	reload(string(conf))
	wantSeen(t, c, out, nodeBeyond()...)
}

// upgradedEngine has what was written for an engine that did not know how to allow direct access: one that drops it is
// noticed, and mended by the same command.
func upgradedEngine(t *testing.T, h *host, from *container) {
	t.Helper()
	h = h.in(t)
	if !strings.Contains(h.must("cat", "/etc/docker/daemon.json"), "allow-direct-routing") {
		t.Skip("this engine drops nothing")
	}
	restart := func() *container {
		t.Helper()
		h.docker("rm", "-f", "upgraded", "c"+h.Name)
		if err := errors.Join(h.StopEngine(h.ctx), h.StartEngine(h.ctx)); err != nil {
			t.Fatal(err)
		}
		return h.run("upgraded")
	}
	h.docker("rm", "-f", "outsider")
	h.must("sed", "-i", "-e", "/allow-direct-routing/d", "-e", "s/fixed-cidr-v6\\(.*\\),$/fixed-cidr-v6\\1/", "/etc/docker/daemon.json")
	h.docker(append([]string{"run", "-d", "--name", "upgraded"}, idle...)...)
	c := restart()
	eventually(t, 20*time.Second, func() error {
		if code, out := h.exitCode("fairway", "status"); code == 0 || !strings.Contains(out, "docker-direct-access") || !strings.Contains(out, c.v4.String()) {
			return fmt.Errorf("status does not say what is wrong: %s", out)
		}
		return nil
	})
	if err := from.ping(c.v4); err == nil {
		t.Errorf("%s reaches %s, and the engine should drop it", from, c)
	}
	t.Log(h.fairway("docker-bridge", "apply"))
	c = restart()
	from.reaches(c.v4)
	from.reaches(c.v6)
	eventually(t, 20*time.Second, h.healthy)
	h.outsiderAgain()
}

// outsiderAgain makes the machine outside anew: its link went with the one before.
func (h *host) outsiderAgain() {
	h.t.Helper()
	eventually(h.t, 10*time.Second, func() error {
		_, err := h.try("sh", "-c", "! ip link show beyond0 2>/dev/null")
		return err
	})
	h.outsider()
}

// networksEgress is the same for networks of ours: what leaves the cluster is masqueraded if the option says so, whatever
// the mode.
func networksEgress(t *testing.T, s *site) {
	t.Helper()
	own := nodeBeyond()
	for _, c := range []struct{ mode, egress string }{{"routed", "masquerade"}, {"subnet", "masquerade"}, {"routed", "route"}} {
		var made []*container
		for _, h := range s.hosts {
			h = h.in(t)
			if err := h.createNetwork("net", "-o", "mode="+c.mode, "-o", "egress="+c.egress); err != nil {
				t.Fatal(err)
			}
			made = append(made, h.run("n"+h.Name, "--network", "net"))
		}
		for i, h := range s.hosts {
			h = h.in(t)
			out, want := h.theOutsider(), own
			if c.egress == "route" {
				want = made[i].addrs()
			}
			wantSeen(t, made[i], out, want...)
			wantSeen(t, made[i], made[(i+1)%len(made)], made[i].addrs()...)
		}
		for _, h := range s.hosts {
			h = h.in(t)
			h.docker("rm", "-f", "n"+h.Name)
			h.docker("network", "rm", "net")
		}
	}
}
