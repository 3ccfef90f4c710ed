package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fairway/internal/api"
	"fairway/internal/lab"
)

// leaseTime is how long a node that is gone is taken for alive, with some more for a slow machine.
const leaseTime = 40 * time.Second

// agreed is the lab of hosts that agree in etcd, made for the first test that needs it.
var agreed = sync.OnceValues(func() (*lab.Lab, error) { return raise("cluster", lab.Options{Store: lab.StoreEtcd}) })

// newCluster gives a test the lab with a store, every node alive and every session up.
func newCluster(t *testing.T) *site {
	t.Helper()
	needStore(t)
	l, err := agreed()
	if err != nil {
		t.Fatal(err)
	}
	return enter(t, l)
}

func needStore(t *testing.T) {
	t.Helper()
	needEngines(t)
	if _, err := exec.LookPath("etcd"); err != nil {
		cannot(t, "%v: install etcd-server and etcd-client", err)
	}
}

// agree makes the network "net" once, for every host, and ends it with the test.
func (s *site) agree(args ...string) {
	s.t.Helper()
	s.ends()
	s.hosts[0].fairway(append([]string{"network", "create", "net"}, args...)...)
}

// ends removes the network "net" of the cluster with the test, and all containers. It is to be called before the
// network is made.
func (s *site) ends() {
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		for _, h := range s.hosts {
			h.ctx = ctx
			if err := h.repair(); err != nil {
				s.t.Errorf("%s: put back what the test broke: %v", h.Name, err)
			}
		}
		for i, err := range atOnce(len(s.hosts), len(s.hosts), func(i int) error {
			_, err := s.hosts[i].try("sh", "-c", `c=$(docker ps -aq); [ -z "$c" ] || docker rm -f $c >/dev/null`)
			return err
		}) {
			s.t.Errorf("%s: remove containers: %v", s.hosts[i], err)
		}
		if _, err := s.hosts[0].try("fairway", "network", "rm", "net"); err != nil && !strings.Contains(err.Error(), "no such network") {
			s.t.Errorf("remove the network: %v", err)
		}
	})
}

// member is a node of the cluster as the host sees it.
func (h *host) member(name string) (api.Member, error) {
	all, err := h.api().Nodes(h.ctx)
	if err != nil {
		return api.Member{}, within(h.Name, err)
	}
	i := slices.IndexFunc(all, func(m api.Member) bool { return m.Name == name })
	if i < 0 {
		return api.Member{}, fmt.Errorf("%s: no node %s in %+v", h, name, all)
	}
	return all[i], nil
}

// becomes waits until the host sees a node in a state.
func (h *host) becomes(name, state string, limit time.Duration) {
	h.t.Helper()
	eventually(h.t, limit, func() error {
		m, err := h.member(name)
		if err == nil && m.State != state {
			err = fmt.Errorf("%s: node %s is %s, want %s", h, name, m.State, state)
		}
		return err
	})
}

// everywhere runs a container on each of the hosts at once, and returns them.
func everywhere(t *testing.T, hosts []*host, name string, args ...string) []*container {
	t.Helper()
	list := make([]*container, len(hosts))
	for i, err := range atOnce(len(hosts), len(hosts), func(i int) (err error) {
		list[i], err = hosts[i].tryRun(name, args...)
		return err
	}) {
		t.Fatalf("%s: %v", hosts[i], err)
	}
	return list
}

// distinct fails the test if two containers have one address.
func distinct(t *testing.T, list []*container) {
	t.Helper()
	have := map[netip.Addr]*container{}
	for _, c := range list {
		for _, a := range c.addrs() {
			if other, twice := have[a]; twice {
				t.Errorf("%s and %s both have %s", other, c, a)
			}
			have[a] = c
		}
	}
}

// A network is made once, every host has it, and so does one that joins later; the sessions of the others do not notice.
func TestClusterNetwork(t *testing.T) {
	s := newCluster(t)
	s.ends()
	start := time.Now()
	s.hosts[0].fairway("network", "create", "net", "--subnet", pool4, "--subnet", pool6)
	made := time.Since(start)
	all := everywhere(t, s.hosts, "cc", "--network", "net")
	t.Logf("measured: network made once and ready on %d hosts after %v, containers on all of them %v after the command began",
		len(s.hosts), made.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
	everyPair(t, all)
	t.Logf("measured: each reaches each %v after the command began", time.Since(start).Round(time.Millisecond))
	distinct(t, all)

	before := s.sessions()
	start = time.Now()
	l, err := s.lab.AddHost(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	up := time.Since(start)
	late := newHost(t, l)
	s.hosts = append(s.hosts, late)
	took := eventually(t, 15*time.Second, func() error {
		_, err := late.try("docker", "network", "inspect", "net")
		return err
	})
	c := late.run("cc", "--network", "net")
	everyPair(t, append(all, c))
	t.Logf("measured: a further host: up after %v, has the network %v after that", up.Round(time.Millisecond), took.Round(time.Millisecond))
	for key, since := range before {
		if now, ok := s.sessions()[key]; !ok || !now.Equal(since) {
			t.Errorf("session %s is up since %v, and was since %v before a host joined", key, now, since)
		}
	}

	// It stays as long as somebody uses it, and says who.
	code, out := s.hosts[1].exitCode("fairway", "network", "rm", "net")
	if code != 1 || !strings.Contains(out, "cc") || !strings.Contains(out, "in use") {
		t.Errorf("network rm while it is used: exit code %d: %s", code, out)
	}
	allOf(t, s.hosts, func(h *host) error { _, err := h.try("docker", "rm", "-f", "cc"); return err })
	start = time.Now()
	for _, h := range s.hosts {
		eventually(t, 20*time.Second, func() error {
			if out := h.docker("network", "ls", "-q", "--filter", "name=^net$"); out != "" {
				return fmt.Errorf("%s still has the network", h)
			}
			return nil
		})
	}
	t.Logf("measured: a network to be removed goes everywhere %v after its last container", time.Since(start).Round(time.Millisecond))
}

// sessions are since when each host has each of its sessions.
func (s *site) sessions() map[string]time.Time {
	s.t.Helper()
	out := map[string]time.Time{}
	for _, h := range s.hosts {
		list, err := h.api().Peers(h.ctx)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, p := range list {
			if p.Established() {
				out[h.Name+" "+p.Node] = p.Since
			}
		}
	}
	return out
}

// A container that moves with its address is reached where it is, and what is said of the address is true meanwhile.
func TestClusterMove(t *testing.T) {
	s := newCluster(t)
	s.agree("--subnet", pool4)
	from, to, other := s.hosts[0], s.hosts[1], s.hosts[2]
	const address = "10.9.200.77"
	watcher := other.run("watcher", "--network", "net")
	from.run("moving", "--network", "net", "--ip", address)
	watcher.reaches(netip.MustParseAddr(address))

	// Held elsewhere, it is refused, and the holder is named.
	if out := to.refused("docker", "run", "--rm", "--network", "net", "--ip", address, idle[0], "true"); !strings.Contains(out, from.Name) {
		t.Errorf("the address of a container on %s is refused without naming it: %s", from, out)
	}
	for i := range 3 {
		target := []*host{to, from}[i%2]
		origin := []*host{from, to}[i%2]
		target.docker(append([]string{"create", "--name", "moving", "--network", "net", "--ip", address}, idle...)...)
		ping := startPing(t, watcher, netip.MustParseAddr(address))
		ping.more(50)
		began := time.Now()
		origin.docker("rm", "-f", "moving")
		gone := time.Since(began)
		target.docker("start", "moving")
		started := time.Now()
		ping.more(50)
		sent, lost, err := ping.stop()
		if err != nil {
			t.Fatal(err)
		}
		interval := ping.end.Sub(ping.start) / time.Duration(max(sent, 1))
		gap := time.Duration(len(lost)) * interval
		after := gap - started.Sub(began)
		t.Logf("measured: moved from %s to %s: gap %v (docker rm took %v, docker start %v), of which after docker start had returned: %v",
			origin, target, gap.Round(time.Millisecond), gone.Round(time.Millisecond), started.Sub(began.Add(gone)).Round(time.Millisecond), max(0, after).Round(time.Millisecond))
		if after > time.Second {
			t.Errorf("reached only %v after docker start", after)
		}
		// The old host attracts nothing any more.
		eventually(t, hearsay, func() error {
			list, err := other.route(address + "/32")
			if err == nil && (len(list) != 1 || list[0].Gateway != target.Address().String()) {
				err = fmt.Errorf("routes %+v, want one to %s", list, target)
			}
			return err
		})
	}
}

// Two agents of one name cannot be: the second does not start, and says who has it.
func TestClusterNameTaken(t *testing.T) {
	s := newCluster(t)
	h, first := s.hosts[2], s.hosts[0]
	if err := h.StopAgent(h.ctx, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(h.ConfigPath())
	if err != nil {
		t.Fatal(err)
	}
	renamed := strings.Replace(string(text), "name: "+h.Name, "name: "+first.Name, 1)
	for config, want := range map[string]string{
		"state: /var/lib/fairway-other\n" + renamed: first.Address().String(), // another machine of the name
		renamed: "identity is that of node " + h.Name,
	} {
		if err := os.WriteFile(h.ConfigPath(), []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
		h.logs["agent"] = fileSize(h.Log("agent"))
		if err := h.StartAgent(h.ctx); err == nil {
			t.Error("an agent started with another one's name")
		}
		log := h.logSince("agent", 5)
		t.Logf("measured: the agent says: %s", log)
		if !strings.Contains(log, first.Name) || !strings.Contains(log, want) {
			t.Errorf("the agent does not say who has the name, want %q: %s", want, log)
		}
	}
	if err := os.WriteFile(h.ConfigPath(), text, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := h.StartAgent(h.ctx); err != nil {
		t.Fatal(err)
	}
	first.becomes(h.Name, api.MemberAlive, leaseTime)
}

// Routes from the store alone, without a session: hosts on one segment.
func TestClusterFabricStore(t *testing.T) {
	needStore(t)
	l, err := raise("fabric", lab.Options{Store: lab.StoreEtcd, Fabric: "store", Hosts: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Down(context.Background(), l.Dir()); err != nil {
			t.Error(err)
		}
	})
	s := enter(t, l)
	s.agree("--subnet", pool4, "--subnet", pool6)
	all := everywhere(t, s.hosts, "cc", "--network", "net")
	static := s.hosts[1].run("static", "--network", "net", "--ip", "10.9.200.5")
	everyPair(t, append(all, static))
	if peers, err := s.hosts[0].api().Peers(t.Context()); err != nil || len(peers) != 0 {
		t.Errorf("sessions %+v, %v; want none", peers, err)
	}
	ping := startPing(t, all[0], all[1].v4)
	ping.more(50)
	if err := l.Store().Stop(t.Context(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, hearsay+clusterSlack, func() error { return s.hosts[0].says("store-unreachable") })
	ping.more(400)
	if err := l.Store().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.sessionsUp()
	ping.more(50)
	noLoss(t, "fabric store: the store killed and started", ping)
	s.hosts[1].docker("rm", "-f", "static")
	took := eventually(t, hearsay, s.hosts[0].hasRoute("10.9.200.5/32", false))
	t.Logf("measured: fabric store: the route of a container that is gone is gone after %v", took.Round(time.Millisecond))
	// A host that is gone for good: its routes go with its lease.
	if err := s.hosts[1].StopAgent(t.Context(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	took = eventually(t, leaseTime, func() error {
		r, err := s.hosts[0].try("ip", "-json", "route", "get", all[1].v4.String())
		if err == nil && strings.Contains(r, s.hosts[1].Address().String()) {
			return errors.New("still routed to the dead host: " + r)
		}
		return nil
	})
	t.Logf("measured: fabric store: routes of a host whose agent was killed go after %v", took.Round(time.Millisecond))
}

// clusterSlack is what a request to a store that is away may take.
const clusterSlack = 5 * time.Second

// says finds a condition in the host's status.
func (h *host) says(code string) error {
	st, err := h.api().Status(h.ctx)
	if err != nil {
		return within(h.Name, err)
	}
	if !slices.ContainsFunc(st.Conditions, func(c api.Condition) bool { return c.Code == code }) {
		return fmt.Errorf("%s: no condition %s in %+v", h, code, st.Conditions)
	}
	return nil
}
