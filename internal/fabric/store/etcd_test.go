package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"fairway/internal/cluster"
	"fairway/internal/config"
	"fairway/internal/fabric"
	"fairway/internal/fabric/store"
	"fairway/internal/kernel"
	"fairway/internal/rib"
	local "fairway/internal/store"
	"fairway/internal/store/etcd"
	"fairway/internal/store/etcdtest"
)

// ttl is after how long a node whose agent was killed is not alive.
const ttl = 3 * time.Second

// member is a node's part in a real cluster: its cluster, its fabric, its rib.
type member struct {
	t       *testing.T
	name    string
	cluster *cluster.Cluster
	fabric  *store.Fabric
	table   *rib.Table
	ahead   atomic.Int64 // of the fabric's clock before the real one, in nanoseconds
	stop    func()
}

func join(t *testing.T, srv *etcdtest.Server, i int) *member {
	t.Helper()
	m := &member{t: t, name: fmt.Sprintf("h%d", i), table: rib.New(nil)}
	disk, err := local.Open(filepath.Join(t.TempDir(), "fairway.db"))
	if err != nil {
		t.Fatal(err)
	}
	remote, err := etcd.Open(etcd.Config{Endpoints: []string{srv.Endpoint()}, Prefix: "/fairway", TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil)).With(slog.String("node", m.name))
	m.cluster = cluster.New(cluster.Config{
		Store: remote, Where: remote.Where(), Local: disk, Log: log, Changed: func() { m.hear() },
		Self: cluster.Node{Name: m.name, Addr4: adr(fmt.Sprintf("10.77.0.1%d", i)), Fabric: "store", Version: "test"},
	})
	m.fabric = store.New(store.Config{
		Node: m.name, Cluster: m.cluster, RIB: m.table, Log: log,
		Now: func() time.Time { return time.Now().Add(time.Duration(m.ahead.Load())) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	if err := m.cluster.Start(ctx); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- m.cluster.Run(ctx) }()
	go func() { ended <- m.fabric.Run(ctx) }()
	stopped := false
	m.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-ended, <-ended, remote.Close(), disk.Close()); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(m.stop)
	return m
}

// hear is what the agent's loop does when the cluster has changed.
func (m *member) hear() {
	if m.fabric == nil {
		return
	}
	if err := m.fabric.Update(context.Background(), config.Default(), kernel.Facts{}); err != nil {
		m.t.Error(err)
	}
}

func (m *member) announce(prefixes ...string) {
	m.t.Helper()
	want := map[netip.Prefix]fabric.Announcement{}
	for _, p := range prefixes {
		want[pfx(p)] = fabric.Announcement{Kind: "block"}
	}
	if err := m.fabric.Announce(context.Background(), want); err != nil {
		m.t.Fatal(err)
	}
}

// knows is a condition: the routes and the nodes that have them, "10.9.2.0/26 h2" each, are all there is.
func (m *member) knows(want map[string]string) func() error {
	return func() error {
		got := map[string]string{}
		for prefix, r := range m.table.Snapshot() {
			for _, p := range r.Paths {
				got[prefix.String()] += p.Peer
			}
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("%s knows %v, want %v", m.name, got, want)
		}
		return nil
	}
}

// holds checks that a condition stays true for a while.
func holds(t *testing.T, span time.Duration, what string, cond func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(span); time.Now().Before(end); <-tick.C {
		if err := cond(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// Three nodes and a real etcd: an address moves, etcd is away for longer than the leases, a node dies.
func TestEtcd(t *testing.T) {
	srv := etcdtest.Start(t)
	a, b, c := join(t, srv, 1), join(t, srv, 2), join(t, srv, 3)
	a.announce("10.9.1.0/26", "10.9.200.7/32")
	b.announce("10.9.2.0/26")
	c.announce("10.9.3.0/26")
	of := func(lines ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(lines); i += 2 {
			m[lines[i]] = lines[i+1]
		}
		return m
	}
	eventually(t, "all", c.knows(of("10.9.1.0/26", "h1", "10.9.2.0/26", "h2", "10.9.200.7/32", "h1")))
	eventually(t, "all", a.knows(of("10.9.2.0/26", "h2", "10.9.3.0/26", "h3")))

	// Withdrawn is withdrawn when Announce comes back, so what is announced next is alone.
	start := time.Now()
	a.announce("10.9.1.0/26")
	b.announce("10.9.2.0/26", "10.9.200.7/32")
	moved := c.knows(of("10.9.1.0/26", "h1", "10.9.2.0/26", "h2", "10.9.200.7/32", "h2"))
	eventually(t, "moved", moved)
	t.Logf("an address moved in %v", time.Since(start))

	srv.Kill()
	holds(t, 2*ttl, "etcd is away", moved)
	start = time.Now()
	a.announce("10.9.1.0/26", "10.9.1.64/26")
	b.announce("10.9.2.0/26")
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the two waited %v for etcd", took)
	}
	srv.Start()
	start = time.Now()
	eventually(t, "what changed meanwhile", func() error {
		return c.knows(of("10.9.1.0/26", "h1", "10.9.1.64/26", "h1", "10.9.2.0/26", "h2"))()
	})
	t.Logf("caught up %v after etcd was back", time.Since(start))

	for _, m := range []*member{a, b, c} {
		m.ahead.Store(int64(time.Hour)) // long after all that
	}
	holds(t, ttl, "all are alive", c.knows(of("10.9.1.0/26", "h1", "10.9.1.64/26", "h1", "10.9.2.0/26", "h2")))
	b.stop()
	start = time.Now()
	eventually(t, "a dead node", c.knows(of("10.9.1.0/26", "h1", "10.9.1.64/26", "h1")))
	t.Logf("gone %v after its agent, with leases of %v", time.Since(start), ttl)
}

// An older copy in etcd's place takes no route away, and all are written again.
func TestEtcdRestored(t *testing.T) {
	srv := etcdtest.Start(t)
	a, b := join(t, srv, 1), join(t, srv, 2)
	a.announce("10.9.1.0/26")
	eventually(t, "first", b.knows(map[string]string{"10.9.1.0/26": "h1"}))
	old := srv.Snapshot()
	a.announce("10.9.1.0/26", "10.9.1.64/26")
	both := b.knows(map[string]string{"10.9.1.0/26": "h1", "10.9.1.64/26": "h1"})
	eventually(t, "second", both)
	srv.Restore(old, "")
	eventually(t, "written again", func() error {
		if err := both(); err != nil {
			t.Fatalf("lost: %v", err)
		}
		v := b.cluster.View()
		if _, ok := v.Routes[cluster.RouteKey{Node: "h1", Prefix: pfx("10.9.1.64/26")}]; !ok || b.cluster.Health().Restored.IsZero() {
			return fmt.Errorf("routes %v", v.Routes)
		}
		return nil
	})
	holds(t, time.Second, "kept", both)
}

// A node that was removed writes nothing.
func TestRemovedWritesNothing(t *testing.T) {
	srv := etcdtest.Start(t)
	a, b := join(t, srv, 1), join(t, srv, 2)
	b.announce("10.9.2.0/26")
	eventually(t, "there", a.knows(map[string]string{"10.9.2.0/26": "h2"}))
	b.stop()
	eventually(t, "removed", func() error {
		_, err := a.cluster.RemoveNode(t.Context(), "h2", false)
		return err
	})
	eventually(t, "gone", a.knows(map[string]string{}))
	err := b.cluster.SetRoutes(t.Context(), []cluster.Route{{Prefix: pfx("10.9.2.64/26"), Node: "h2", Kind: "block"}})
	if err == nil {
		t.Error("a removed node wrote a route")
	}
}
