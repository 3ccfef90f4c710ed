package e2e_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fairway/internal/api"
)

// mostStarts bounds how many containers a host starts: each has to be removed again.
const mostStarts = 15

// starts runs containers on a host, one after the other, until it is told to stop.
type starts struct {
	h    *host
	stop chan struct{}
	wg   sync.WaitGroup

	list   []*container
	errs   map[string]int // what failed starts said, without the container's own part
	slow   time.Duration
	failed int
}

// keepStarting begins with containers whose names begin so; every third one asks for an address of the static range.
func keepStarting(h *host, prefix, network string) *starts {
	s := &starts{h: h, stop: make(chan struct{}), errs: map[string]int{}}
	s.wg.Go(func() {
		for i := range mostStarts {
			select {
			case <-s.stop:
				return
			default:
			}
			args := []string{"--network", network}
			if i%3 == 2 {
				args = append(args, "--ip", fmt.Sprintf("10.9.2%02d.%d", h.Number, i+1))
			}
			began := time.Now()
			c, err := h.tryRun(fmt.Sprintf("%s%d", prefix, i), args...)
			if err != nil {
				s.failed++
				s.slow = max(s.slow, time.Since(began))
				_, said, _ := strings.Cut(err.Error(), "Error response from daemon: ")
				s.errs[said]++
				continue
			}
			s.list = append(s.list, c)
		}
	})
	return s
}

// end stops it and returns what runs.
func (s *starts) end(t *testing.T) []*container {
	t.Helper()
	close(s.stop)
	s.wg.Wait()
	t.Logf("measured: %s: %d containers started, %d starts failed, the slowest failure after %v", s.h, len(s.list), s.failed, s.slow.Round(10*time.Millisecond))
	for said, n := range s.errs {
		t.Logf("measured: %s: %d times: %s", s.h, n, said)
		if !strings.Contains(said, "the store") || !strings.Contains(said, "unreachable") && !strings.Contains(said, "gone back to an older copy") {
			t.Errorf("%s: a start failed with something else than that the store is away, or an older copy: %s", s.h, said)
		}
	}
	return s.list
}

// settled says what is left of a disturbance: a node that is not as it should be, or does not agree with the store.
func (h *host) settled(nodes int) error {
	if err := h.healthy(); err != nil {
		return err
	}
	all, err := h.api().Nodes(h.ctx)
	if err != nil {
		return within(h.Name, err)
	}
	alive := 0
	for _, m := range all {
		if m.State == api.MemberAlive {
			alive++
		}
	}
	if alive != nodes {
		return fmt.Errorf("%s: %d nodes are alive, want %d: %+v", h, alive, nodes, all)
	}
	st, err := h.api().Status(h.ctx)
	if err != nil {
		return within(h.Name, err)
	}
	if len(st.Store.Unsettled) > 0 {
		return fmt.Errorf("%s: not settled: %v", h, st.Store.Unsettled)
	}
	leaks, err := h.api().IPAMCheck(h.ctx, false)
	if err == nil && len(leaks) > 0 {
		err = fmt.Errorf("%s: leaks %+v", h, leaks)
	}
	return err
}

// etcd is killed and comes back with an older copy of itself, which knows of no network and no block: during traffic and
// during container starts. No packet is lost, no address is given twice, and all is written again.
func TestClusterStoreRestored(t *testing.T) {
	s := newCluster(t)
	store := s.lab.Store()
	old := filepath.Join(t.TempDir(), "old.db")
	if err := store.Snapshot(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	s.agree("--subnet", pool4)
	all := everywhere(t, s.hosts, "cc", "--network", "net")
	everyPair(t, all)
	pings := []*pinger{startPing(t, all[0], all[1].v4), startPing(t, all[1], all[2].v4), startPing(t, all[2], all[0].v4)}
	var running []*starts
	for _, h := range s.hosts {
		running = append(running, keepStarting(h, "s", "net"))
	}
	pings[0].more(200)
	if err := store.Stop(t.Context(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	down := time.Now()
	eventually(t, clusterSlack, func() error { return s.hosts[0].says("store-unreachable") })
	t.Logf("measured: the store is said to be unreachable %v after it was killed", time.Since(down).Round(10*time.Millisecond))
	s.needsStore(s.hosts[0])
	pings[0].more(300)
	if err := store.Restore(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	t.Logf("measured: the store was away for %v", back.Sub(down).Round(10*time.Millisecond))
	pings[0].more(300)
	for _, r := range running {
		all = append(all, r.end(t)...)
	}
	for _, h := range s.hosts {
		eventually(t, time.Minute, func() error { return h.settled(len(s.hosts)) })
	}
	t.Logf("measured: all nodes and the store agree again %v after it was back", time.Since(back).Round(10*time.Millisecond))
	for _, h := range s.hosts {
		if err := h.says("store-restored"); err != nil {
			t.Error(err)
		}
	}
	// What is new has to wait until all have written what they have.
	for _, h := range s.hosts {
		eventually(t, time.Minute, func() error {
			_, err := h.try("docker", "run", "--rm", "--network", "net", "--ip", fmt.Sprintf("10.9.219.%d", h.Number), idle[0], "true")
			return err
		})
	}
	t.Logf("measured: new addresses are claimed again %v after the store was back", time.Since(back).Round(10*time.Millisecond))
	after := everywhere(t, s.hosts, "after", "--network", "net")
	distinct(t, append(all, after...))
	noLoss(t, "etcd killed and restored from an older copy", pings...)
	for _, c := range after {
		s.hosts[0].eventuallyPings(c)
	}
}

// needsStore tries on a host what needs a store that is away: all fails soon, and says so.
func (s *site) needsStore(h *host) {
	s.t.Helper()
	for _, args := range [][]string{
		{"fairway", "network", "create", "other", "--subnet", "10.8.0.0/16"},
		{"fairway", "node", "drain", s.hosts[1].Name},
		{"fairway", "node", "rm", s.hosts[1].Name, "--yes"},
		{"docker", "run", "--rm", "--network", "net", "--ip", "10.9.199.199", idle[0], "true"},
	} {
		began := time.Now()
		said := h.refused(args...)
		took := time.Since(began)
		if !strings.Contains(said, "unreachable since") {
			s.t.Errorf("%v: it does not say that the store is unreachable and since when: %s", args, said)
		}
		s.t.Logf("measured: without the store: %s fails after %v: %s", strings.Join(args[:3], " "), took.Round(time.Millisecond), strings.TrimSpace(said))
		if took > clusterSlack {
			s.t.Errorf("%v: it took %v to fail", args, took)
		}
	}
}

// One host loses the store and its peers, and its containers go on. Both sides give out addresses, and nothing collides
// when the wire is back.
func TestClusterPartition(t *testing.T) {
	s := newCluster(t)
	s.agree("--subnet", pool4)
	cut := s.hosts[2]
	all := everywhere(t, s.hosts, "cc", "--network", "net")
	neighbour := cut.run("nn", "--network", "net")
	everyPair(t, all)
	local := startPing(t, all[2], neighbour.v4)
	far := startPing(t, all[0], all[1].v4)
	if err := cut.silence(true); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	s.hosts[0].becomes(cut.Name, api.MemberDown, leaseTime)
	t.Logf("measured: a host that is cut off is down after %v", time.Since(start).Round(100*time.Millisecond))
	var mine, theirs []*container
	for i := range 4 {
		c, err := cut.tryRun(fmt.Sprintf("p%d", i), "--network", "net")
		if err != nil {
			t.Fatalf("a container on the host that is cut off, from a block that it has: %v", err)
		}
		mine = append(mine, c)
		theirs = append(theirs, s.hosts[i%2].run(fmt.Sprintf("p%d", i), "--network", "net"))
	}
	const contested = "10.9.199.7"
	if said := cut.refused("docker", "run", "--rm", "--network", "net", "--ip", contested, idle[0], "true"); !strings.Contains(said, "unreachable") {
		t.Errorf("an address of the static range on the host that is cut off: %s", said)
	}
	theirs = append(theirs, s.hosts[0].run("contested", "--network", "net", "--ip", contested))
	local.more(100)
	noLoss(t, "partition: within the host that is cut off", local)
	noLoss(t, "partition: among the others", far)
	if err := cut.silence(false); err != nil {
		t.Fatal(err)
	}
	healed := time.Now()
	for _, h := range s.hosts {
		eventually(t, time.Minute, func() error { return h.settled(len(s.hosts)) })
	}
	t.Logf("measured: partition: %d containers started on the host that was cut off, %d on the others; all agree %v after it healed",
		len(mine), len(theirs), time.Since(healed).Round(100*time.Millisecond))
	t.Logf("measured: partition: given out on the host that was cut off: %s; meanwhile on the others: %s", addresses(mine), addresses(theirs))
	all = append(append(append(all, neighbour), mine...), theirs...)
	distinct(t, all)
	for _, c := range all {
		s.hosts[1].eventuallyPings(c)
	}
}

// addresses are those of containers, in words.
func addresses(list []*container) string {
	var out []string
	for _, c := range list {
		out = append(out, c.v4.String())
	}
	return strings.Join(out, ", ")
}

// A node drains and comes back; one that was removed is fenced until it joins again.
func TestClusterNodeLife(t *testing.T) {
	s := newCluster(t)
	s.agree("--subnet", pool4)
	all := everywhere(t, s.hosts, "cc", "--network", "net")
	everyPair(t, all)
	h, boss := s.hosts[2], s.hosts[0]
	block := s.blockOf(h)
	s.drains(h, boss, block)

	if out := boss.refused("fairway", "node", "rm", h.Name, "--yes"); !strings.Contains(out, "is alive") {
		t.Errorf("a node that is alive is removed: %s", out)
	}
	healed := s.cutOff(all[0], all[1])
	if err := h.StopAgent(h.ctx, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	boss.becomes(h.Name, api.MemberDown, leaseTime)
	t.Logf("measured: a node whose agent was killed is down after %v", time.Since(start).Round(100*time.Millisecond))
	healed()
	if out := boss.fairway("node", "rm", h.Name, "--yes"); !strings.Contains(out, block) {
		t.Errorf("node rm does not show block %s: %s", block, out)
	}
	// What it had is to be had.
	other := boss.run("taker", "--network", "net", "--ip", all[2].v4.String())
	if err := h.StartAgent(h.ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, clusterSlack, func() error { return h.says("fenced") })
	if code, out := h.exitCode("fairway", "status"); code != 1 || !strings.Contains(out, "node join") {
		t.Errorf("status of a fenced node: exit code %d: %s", code, out)
	}
	if out := h.refused("docker", "run", "--rm", "--network", "net", idle[0], "true"); !strings.Contains(out, "fenced") {
		t.Errorf("a container on a fenced node: %s", out)
	}
	code, out := h.exitCode("fairway", "node", "join")
	t.Logf("measured: node join says (exit code %d): %s", code, out)
	if code != 1 || !strings.Contains(out, block) || !strings.Contains(out, boss.Name) {
		t.Errorf("join does not say that %s has block %s: exit code %d: %s", boss, block, code, out)
	}
	// The container whose address is another's now gets one when it is made anew.
	h.docker("rm", "-f", "cc")
	again := h.run("cc", "--network", "net")
	distinct(t, []*container{all[0], all[1], other, again})
	boss.eventuallyPings(again)
	boss.becomes(h.Name, api.MemberAlive, leaseTime)
	for _, n := range s.hosts {
		eventually(t, time.Minute, func() error { return n.settled(len(s.hosts)) })
	}
}

// blockOf is the block that a host has.
func (s *site) blockOf(h *host) string {
	s.t.Helper()
	book, err := h.api().IPAM(h.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range book.Pools {
		for _, b := range p.List {
			if b.Node == h.Name && !b.Away {
				return b.CIDR.String()
			}
		}
	}
	s.t.Fatalf("%s has no block: %+v", h, book.Pools)
	return ""
}

// drains drains a node from another one, and ends that.
func (s *site) drains(h, boss *host, block string) {
	t := s.t
	start := time.Now()
	boss.fairway("node", "drain", h.Name, "--refuse")
	t.Logf("measured: node drain took %v", time.Since(start).Round(100*time.Millisecond))
	for _, n := range s.hosts {
		if n != h {
			eventually(t, hearsay, n.hasRoute(block, false))
		}
	}
	if out := h.refused("docker", "run", "--rm", "--network", "net", idle[0], "true"); !strings.Contains(out, "drain") {
		t.Errorf("a container on a node that is drained: %s", out)
	}
	if err := h.restartAgent(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, clusterSlack, func() error { return h.says("drained") })
	boss.becomes(h.Name, api.MemberDrained, clusterSlack)
	boss.fairway("node", "undrain", h.Name)
	for _, n := range s.hosts {
		if n != h {
			eventually(t, 15*time.Second, n.hasRoute(block, true))
		}
	}
}

// cutOff keeps the host of a container from the store, and from nothing else. The function that it returns waits until
// the host's lease is over, looks whether its session, its routes and its containers have noticed, and heals it.
func (s *site) cutOff(near, c *container) (healed func()) {
	t, cut, store := s.t, c.h, s.lab.Store()
	t.Helper()
	session := func() (since time.Time) {
		list, err := near.h.api().Peers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list {
			if p.Node == cut.Name && p.Established() {
				since = p.Since
			}
		}
		return since
	}
	before := session()
	ping := startPing(t, near, c.v4)
	if err := store.Cut(t.Context(), cut.Host); err != nil {
		t.Fatal(err)
	}
	heal := sync.OnceValue(func() error { return store.Heal(context.Background(), cut.Host) })
	t.Cleanup(func() {
		if err := heal(); err != nil {
			t.Error(err)
		}
	})
	return func() {
		near.h.becomes(cut.Name, api.MemberDown, leaseTime)
		if err := cut.says("store-unreachable"); err != nil {
			t.Error(err)
		}
		more := cut.run("more", "--network", "net")
		if err := more.ping(near.v4); err != nil {
			t.Errorf("a container that is started on a host without the store: %v", err)
		}
		if err := heal(); err != nil {
			t.Fatal(err)
		}
		near.h.becomes(cut.Name, api.MemberAlive, leaseTime)
		noLoss(t, "one host cut off from the store past its lease", ping)
		if now := session(); !now.Equal(before) {
			t.Errorf("the session with a host without the store is up since %v, was since %v", now, before)
		}
	}
}
