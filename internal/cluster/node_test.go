package cluster_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/cluster"
	"fairway/internal/store"
	"fairway/internal/store/etcdtest"
)

func TestNodesFindEachOther(t *testing.T) {
	srv := etcdtest.Start(t)
	a := mustBoot(t, newMachine(t, srv, "a", "192.0.2.1"))
	b := mustBoot(t, newMachine(t, srv, "b", "192.0.2.2"))
	for _, n := range []*agent{a, b} {
		n.registered()
		n.sees("both nodes", func(v *cluster.View) bool { return v.Live("a") && v.Live("b") && len(v.Nodes) == 2 && len(v.Seen) == 2 })
	}
	b.UpdateSelf(func(n *cluster.Node) {
		n.Addr4, n.Engine, n.Name = netip.MustParseAddr("192.0.2.22"), "docker 28.5", "other"
	})
	a.sees("the new address", func(v *cluster.View) bool {
		n := v.Nodes["b"].Value
		return n.Addr4 == netip.MustParseAddr("192.0.2.22") && n.Engine == "docker 28.5" && n.ID == b.ID()
	})
	b.SetContainers(7)
	a.sees("the number of containers", func(v *cluster.View) bool { return v.Alive["b"].Value.Containers == 7 })
	rev := a.View().Revision
	b.kill()
	a.sees("that b is no longer alive", func(v *cluster.View) bool { return !v.Live("b") })
	if _, still := a.View().Nodes["b"]; !still {
		t.Error("the record of a node went with its life")
	}
	if a.View().LastSeen("b").IsZero() {
		t.Error("nobody knows when b was last alive")
	}
	// Nothing is written for nothing: besides b's end, at most a number of containers and a time.
	if now := a.View().Revision; now > rev+5 {
		t.Errorf("%d writes while nothing happened", now-rev)
	}
}

func TestNameTaken(t *testing.T) {
	srv := etcdtest.Start(t)
	first := newMachine(t, srv, "a", "192.0.2.1")
	a := mustBoot(t, first)
	second := newMachine(t, srv, "a", "192.0.2.2")
	_, err := boot(t, second)
	wants(t, err, "name a is taken", "192.0.2.1", "alive", "node.name")
	if strings.Contains(err.Error(), "node rm") {
		t.Errorf("a node that is alive is not to be removed: %v", err)
	}
	a.kill()
	await(t, "a hint to remove the dead one", func() bool {
		_, err := boot(t, second)
		return err != nil && strings.Contains(err.Error(), "last seen") && strings.Contains(err.Error(), "fairway node rm a")
	})
	mustBoot(t, first).registered()
}

func wants(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q lacks %q", err, text)
		}
	}
}

func TestOwnRunBefore(t *testing.T) {
	srv := etcdtest.Start(t)
	m := newMachine(t, srv, "a", "192.0.2.1")
	a := mustBoot(t, m)
	a.registered()
	id, session := a.ID(), a.View().Alive["a"].Value.Session
	for range 3 {
		a.kill()
		a = mustBoot(t, m)
		if !a.Health().Registered {
			t.Fatal("Start returned and the node is not registered")
		}
		now := a.View().Alive["a"].Value
		if a.ID() != id || now.ID != id || now.Session == session {
			t.Errorf("node %s with session %s, was %s with %s", a.ID(), now.Session, id, session)
		}
		session = now.Session
	}
	// The lease of the first run ends, and takes nothing with it.
	deadline := time.Now().Add(ttl + 2*time.Second)
	await(t, "some seconds", func() bool {
		if !a.View().Live("a") {
			t.Fatal("an earlier run's lease ended this one's life")
		}
		return time.Now().After(deadline)
	})
}

func TestCloneIsRefused(t *testing.T) {
	srv := etcdtest.Start(t)
	m := newMachine(t, srv, "a", "192.0.2.1")
	old := newMachine(t, srv, "a", "192.0.2.9")
	renamed := newMachine(t, srv, "z", "192.0.2.9")
	fresh := newMachine(t, srv, "a", "192.0.2.9")
	mustBoot(t, m).kill()
	copyState(t, m, old)
	copyState(t, m, renamed)
	a := mustBoot(t, m)
	a.registered()
	_, err := boot(t, old)
	wants(t, err, "identity is in use", "192.0.2.1", "fairway.db")
	_, err = boot(t, renamed)
	wants(t, err, "identity is that of node a", "node.name is now z")

	// A copy made of the running node knows its session, and looks like that node's next run until the node objects.
	copyState(t, m, fresh)
	c, err := boot(t, fresh)
	if err == nil {
		select {
		case err = <-c.ended:
			c.ended <- err
		case <-time.After(patience):
			t.Fatal("a copy of a running node goes on")
		}
	}
	wants(t, err, "identity is in use")
	a.sees("that the node itself goes on", func(v *cluster.View) bool { return v.Nodes["a"].Value.Addr4 == netip.MustParseAddr("192.0.2.1") })
	if h := a.Health(); h.Fenced != "" || !h.Registered {
		t.Errorf("the node itself: %+v", h)
	}
}

func TestRemoveFenceJoin(t *testing.T) {
	srv := etcdtest.Start(t)
	m := newMachine(t, srv, "b", "192.0.2.2")
	a, b := mustBoot(t, newMachine(t, srv, "a", "192.0.2.1")), mustBoot(t, m)
	b.registered()
	n, pools := network("lan", "10.9.0.0/16")
	if err := b.CreateNetwork(t.Context(), n, pools); err != nil {
		t.Fatal(err)
	}
	self := b.View().Nodes["b"].Value
	held := b.hold(self, "10.9.1.0/26")
	addr := cluster.Address{Addr: netip.MustParseAddr("10.9.200.1"), Pool: held.Pool, Node: "b", NodeID: self.ID, Endpoint: "e"}
	b.write(addr.Key(), addr)
	route := cluster.Route{Prefix: held.CIDR, Node: "b", Kind: "block"}
	b.write(route.Key(), route)
	if err := b.SetState(t.Context(), cluster.NetworkState{Network: "lan", State: cluster.StateReady, Docker: "d"}); err != nil {
		t.Fatal(err)
	}
	if err := a.Drain(t.Context(), "b", true); err != nil {
		t.Fatal(err)
	}
	other := a.hold(a.View().Nodes["a"].Value, "10.9.1.64/26")

	if _, err := a.RemoveNode(t.Context(), "b", false); !errors.Is(err, cluster.ErrAlive) {
		t.Fatalf("remove a node that is alive: %v", err)
	}
	if _, err := a.RemoveNode(t.Context(), "c", true); !errors.Is(err, cluster.ErrNoNode) {
		t.Fatalf("remove an unknown node: %v", err)
	}
	id := b.ID()
	b.kill()
	a.sees("that b is gone", func(v *cluster.View) bool { return !v.Live("b") })
	before := a.View().Revision
	dry, err := a.RemoveNode(t.Context(), "b", true)
	if err != nil || a.View().Revision != before {
		t.Fatalf("dry run: %v, %d writes", err, a.View().Revision-before)
	}
	want := cluster.Removal{Node: self, Seen: dry.Seen, Blocks: []cluster.Block{held}, Addresses: []cluster.Address{addr}, Routes: []cluster.Route{route}, States: dry.States}
	if d := cmp.Diff(want, dry, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" || len(dry.States) != 1 || dry.Seen.IsZero() {
		t.Errorf("dry run: %s", d)
	}
	if _, err := a.RemoveNode(t.Context(), "b", false); err != nil {
		t.Fatal(err)
	}
	a.sees("that b left nothing", func(v *cluster.View) bool { return len(v.States) == 0 && len(v.Drains) == 0 && len(v.Nodes) == 1 })
	v := a.View()
	if len(v.Blocks) != 1 || len(v.Addresses) != 0 || len(v.Routes) != 0 || len(v.States) != 0 || len(v.Drains) != 0 || len(v.Nodes) != 1 {
		t.Errorf("left behind: %v %v %v %v %v %v", v.Blocks, v.Addresses, v.Routes, v.States, v.Drains, v.NodeNames())
	}
	if _, ok := v.Blocks[cluster.BlockKey{Pool: other.Pool, CIDR: other.CIDR}]; !ok {
		t.Error("another node's block went too")
	}
	if v.Tombstones[id].Value.Name != "b" || v.Tombstones[id].Value.By != "a" {
		t.Errorf("tombstone: %+v", v.Tombstones)
	}
	fencedAndBack(t, srv, m, id)
}

// fencedAndBack starts the agent of a removed node again, with and without a store, and has it join.
func fencedAndBack(t *testing.T, srv *etcdtest.Server, m machine, id string) {
	t.Helper()
	b := mustBoot(t, m)
	fenced := func() bool { return strings.Contains(b.Health().Fenced, "fairway node join") }
	await(t, "b is fenced", fenced)
	if _, there := b.View().Nodes["b"]; there || b.Health().Registered {
		t.Error("a fenced node has registered")
	}
	lan, pools := network("other", "10.10.0.0/16")
	if err := b.CreateNetwork(t.Context(), lan, pools); !errors.Is(err, cluster.ErrFenced) {
		t.Errorf("a fenced node makes networks: %v", err)
	}
	b.kill()
	srv.Kill()
	b = mustBoot(t, m)
	if !fenced() {
		t.Error("without the store the node has forgotten that it was removed")
	}
	srv.Start()
	await(t, "the store is back", func() bool { return b.Health().Reachable && b.View().Complete })
	if err := b.Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b.ID() == id || b.Health().Fenced != "" || b.View().Nodes["b"].Value.ID != b.ID() {
		t.Errorf("after joining: ID %s, was %s; %+v", b.ID(), id, b.Health())
	}
	if err := b.Join(t.Context()); !errors.Is(err, cluster.ErrExists) {
		t.Errorf("join twice: %v", err)
	}
	b.kill()
	if b = mustBoot(t, m); b.Health().Fenced != "" || !b.Health().Registered {
		t.Errorf("the next run: %+v", b.Health())
	}
}

// TestRemovalGoesOn breaks a removal off after each of its writes.
func TestRemovalGoesOn(t *testing.T) {
	srv := etcdtest.Start(t)
	mb := newMachine(t, srv, "b", "192.0.2.2")
	ma := newMachine(t, srv, "a", "192.0.2.1")
	limit := &limited{}
	ma.wrap = func(s store.Store) store.Store { limit.Store = s; return limit }
	a := mustBoot(t, ma)
	a.registered()
	for writes := range 5 {
		b := mustBoot(t, mb)
		await(t, "b is there", func() bool { return b.View().Complete })
		if b.Health().Fenced != "" {
			if err := b.Join(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		b.registered()
		self := b.View().Nodes["b"].Value
		for _, cidr := range []string{"10.9.1.0/26", "10.9.1.64/26", "10.9.1.128/26"} {
			b.hold(self, cidr)
		}
		b.kill()
		a.sees("that b is gone", func(v *cluster.View) bool { return !v.Live("b") && len(v.Blocks) == 3 })
		limit.allow(writes)
		_, err := a.RemoveNode(t.Context(), "b", false)
		limit.allow(-1)
		if writes < 4 && err == nil {
			t.Errorf("with %d writes: no error", writes)
		}
		if writes == 2 {
			// Nobody calls again: the node that gave the command goes on with it, in its next run too.
			a.kill()
			a = mustBoot(t, ma)
		} else if _, err := a.RemoveNode(t.Context(), "b", false); err != nil && !errors.Is(err, cluster.ErrNoNode) {
			t.Fatal(err)
		}
		a.sees("that nothing is left", func(v *cluster.View) bool { return len(v.Blocks) == 0 && len(v.Nodes) == 1 })
	}
}

func TestDrainRecords(t *testing.T) {
	srv := etcdtest.Start(t)
	a, b := mustBoot(t, newMachine(t, srv, "a", "192.0.2.1")), mustBoot(t, newMachine(t, srv, "b", "192.0.2.2"))
	b.registered()
	for _, refuse := range []bool{false, true} {
		if err := b.Drain(t.Context(), "a", refuse); err != nil {
			t.Fatal(err)
		}
		a.sees("that it is drained", func(v *cluster.View) bool {
			d, ok := v.Drains["a"]
			return ok && d.Value.By == "b" && d.Value.Refuse == refuse
		})
	}
	if err := b.Drain(t.Context(), "c", false); !errors.Is(err, cluster.ErrNoNode) {
		t.Errorf("drain an unknown node: %v", err)
	}
	for range 2 {
		if err := a.Undrain(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	b.sees("that it no longer is", func(v *cluster.View) bool { return len(v.Drains) == 0 })
}
