package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"fairway/internal/cluster"
	"fairway/internal/store"
	"fairway/internal/store/etcdtest"
)

var errLimit = errors.New("no more writes in this test")

// limited lets only so many writes through.
type limited struct {
	store.Store
	mu   sync.Mutex
	left int  // meaning something only while on
	on   bool // there is a limit
}

func (l *limited) allow(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left, l.on = n, n >= 0
}

func (l *limited) Commit(ctx context.Context, t store.Txn) (uint64, error) {
	l.mu.Lock()
	refuse := l.on && l.left == 0
	if l.on && l.left > 0 {
		l.left--
	}
	l.mu.Unlock()
	if refuse {
		return 0, errLimit
	}
	return l.Store.Commit(ctx, t)
}

// broken ends watches with an error, and counts listings of everything.
type broken struct {
	store.Store
	mu    sync.Mutex
	end   chan error
	lists int
}

func (b *broken) List(ctx context.Context, prefix string) (store.Listing, error) {
	if strings.HasSuffix(prefix, "v1/") {
		b.mu.Lock()
		b.lists++
		b.mu.Unlock()
	}
	return b.Store.List(ctx, prefix)
}

func (b *broken) listings() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lists
}

func (b *broken) Watch(ctx context.Context, _ string, _ uint64) <-chan store.Update {
	out := make(chan store.Update)
	go func() {
		defer close(out)
		select {
		case err := <-b.end:
			out <- store.Update{Err: err}
		case <-ctx.Done():
		}
	}()
	return out
}

// TestCompacted has a watch that tells nothing but its end: what there is comes by listing.
func TestCompacted(t *testing.T) {
	srv := etcdtest.Start(t)
	b := &broken{end: make(chan error)}
	m := newMachine(t, srv, "a", "192.0.2.1")
	m.wrap = func(s store.Store) store.Store { b.Store = s; return b }
	a := mustBoot(t, m)
	for i := range 3 {
		a.writeText(fmt.Sprintf("v1/network/n%d", i), fmt.Sprintf(`{"schema":1,"name":"n%d"}`, i))
		before := b.listings()
		b.end <- fmt.Errorf("watch: %w", store.ErrCompacted)
		a.sees("the record that no watch told of", func(v *cluster.View) bool { return len(v.Networks) == i+1 })
		await(t, "another listing", func() bool { return b.listings() > before })
	}
	if h := a.Health(); !h.Restored.IsZero() || !h.Reachable {
		t.Errorf("after a compaction: %+v", h)
	}
}

func TestStoreAway(t *testing.T) {
	srv := etcdtest.Start(t)
	m := newMachine(t, srv, "a", "192.0.2.1")
	a := mustBoot(t, m)
	a.registered()
	rev := a.View().Revision
	srv.Kill()
	start := time.Now()
	n, pools := network("lan", "10.9.0.0/16")
	err := a.CreateNetwork(t.Context(), n, pools)
	took := time.Since(start)
	wants(t, err, "create network lan: ", "the store (etcd at "+srv.Endpoint()+") is unreachable since ")
	if !errors.Is(err, store.ErrUnreachable) || took > 3*time.Second {
		t.Errorf("after %v: %v", took, err)
	}
	await(t, "health", func() bool {
		h := a.Health()
		return !h.Reachable && h.LastError != "" && time.Since(h.Since) < time.Minute
	})
	start = time.Now()
	if _, err = a.Network(t.Context(), "lan"); !errors.Is(err, store.ErrUnreachable) || time.Since(start) > time.Second {
		t.Errorf("a record, after %v: %v", time.Since(start), err)
	}
	if v := a.View(); v.Revision < rev || len(v.Nodes) != 1 {
		t.Error("the cache was forgotten")
	}
	a.kill()
	start = time.Now()
	a = mustBoot(t, m)
	if time.Since(start) > 3*time.Second {
		t.Errorf("a start without the store took %v", time.Since(start))
	}
	srv.Start()
	a.registered()
	if err := a.CreateNetwork(t.Context(), n, pools); err != nil {
		t.Error(err)
	}
	if h := a.Health(); !h.Restored.IsZero() || h.LastError != "" {
		t.Errorf("the same store came back: %+v", h)
	}
}

// A store that lost the node's record hears that the node is drained together with that record, never after it.
func TestDrainOfALostNode(t *testing.T) {
	srv := etcdtest.Start(t)
	file := srv.Snapshot()
	m := newMachine(t, srv, "a", "192.0.2.1")
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m.drained = func() (cluster.Drain, bool) { return cluster.Drain{Since: since, By: "a", Refuse: true}, true }
	a := mustBoot(t, m)
	a.registered()
	if err := a.Undrain(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	a.sees("the drain taken back", func(v *cluster.View) bool { return len(v.Drains) == 0 })
	a.kill()
	a = mustBoot(t, m)
	a.registered()
	if v := a.View(); len(v.Drains) != 0 {
		t.Errorf("a store that knows the node was told again: %v", v.Drains)
	}
	srv.Kill()
	srv.Restore(file, "")
	a.sees("the drain with the node", func(v *cluster.View) bool {
		return v.Drains["a"].Value.Refuse && v.Drains["a"].Value.Since.Equal(since)
	})
	v := a.View()
	if n, d := v.Nodes["a"], v.Drains["a"]; n.Created == 0 || n.Created != d.Created {
		t.Errorf("the node was written at %d, its drain at %d", n.Created, d.Created)
	}
}

// A restored store is one that has gone back: all nodes write again what is theirs.
func TestRecordsAfterRestore(t *testing.T) {
	for _, token := range []string{"", "another"} {
		t.Run("token "+token, func(t *testing.T) {
			srv := etcdtest.Start(t)
			m := newMachine(t, srv, "c", "192.0.2.3")
			a := mustBoot(t, newMachine(t, srv, "a", "192.0.2.1"))
			c := mustBoot(t, m)
			c.registered()
			a.sees("c", func(v *cluster.View) bool { return v.Live("c") })
			file := srv.Snapshot()
			// After the snapshot: another node, a network that a has, and a drain of a.
			b := mustBoot(t, newMachine(t, srv, "b", "192.0.2.2"))
			b.registered()
			n, pools := network("lan", "10.9.0.0/16", "fd09::/64")
			if err := b.CreateNetwork(t.Context(), n, pools[:1]); err != nil {
				t.Fatal(err)
			}
			a.sees("the network", func(v *cluster.View) bool { return len(v.Networks) == 1 })
			if err := errors.Join(a.NoteNetwork(t.Context(), "lan"), b.Drain(t.Context(), "a", true)); err != nil {
				t.Fatal(err)
			}
			a.sees("the drain", func(v *cluster.View) bool { return len(v.Drains) == 1 })
			c.kill()
			srv.Kill()
			srv.Restore(file, token)
			for _, n := range []*agent{a, b} {
				await(t, "what happened is noticed", func() bool { return !n.Health().Restored.IsZero() })
			}
			a.sees("b and the drain again", func(v *cluster.View) bool {
				return v.Live("a") && v.Live("b") && v.Nodes["b"].Value.ID == b.ID() && v.Drains["a"].Value.Refuse
			})
			written, err := a.RestoreNetworks(t.Context())
			if err != nil || len(written) != 1 {
				t.Fatalf("networks written: %v %v", written, err)
			}
			b.sees("the network and its pool", func(v *cluster.View) bool { return v.Networks["lan"].Value.By == "b" && len(v.Pools) == 1 })
			if again, err := a.RestoreNetworks(t.Context()); err != nil || len(again) != 0 {
				t.Errorf("once more: %v %v", again, err)
			}
			// Who was away meanwhile finds out too, unless the store looks the same and has come as far again.
			c = mustBoot(t, m)
			if token != "" && c.Health().Restored.IsZero() {
				t.Error("a node that was away takes the older store for the one it knew")
			}
			c.registered()
		})
	}
}

// TestNewerRecords has records of a version that is not out yet.
func TestNewerRecords(t *testing.T) {
	srv := etcdtest.Start(t)
	a := mustBoot(t, newMachine(t, srv, "a", "192.0.2.1"))
	a.registered()
	newer := map[string]string{
		"v1/network/next":        `{"schema":2,"name":["what","may","come"]}`,
		"v1/node/next":           `{"schema":3,"name":"next","id":"x"}`,
		"v1/pool/10.20.0.0-16":   `{"schema":2,"cidr":"10.20.0.0/16"}`,
		"v1/state/lan/a":         `{"schema":2}`,
		"v1/drain/a":             `{"schema":2}`,
		"v1/nonesuch/1":          `{"schema":1}`,
		"v1/network/damaged":     `{"schema":1,"name":`,
		"v1/node/without-schema": `{"name":"x"}`,
	}
	for key, text := range newer {
		a.writeText(key, text)
	}
	a.sees("all of them", func(v *cluster.View) bool { return len(v.Unread) == len(newer) })
	h := a.Health()
	if len(h.NewerSchema) != 5 || len(h.Unreadable) != 3 || !strings.Contains(strings.Join(h.NewerSchema, "\n"), "schema 3, this one knows 1") {
		t.Errorf("health: %q %q", h.NewerSchema, h.Unreadable)
	}
	lan, pools := network("lan", "10.9.0.0/16")
	if err := a.CreateNetwork(t.Context(), lan, pools); err != nil {
		t.Fatal(err)
	}
	next, _ := network("next", "10.10.0.0/16")
	over, overPools := network("over", "10.20.3.0/24")
	for what, err := range map[string]error{
		"network":      a.CreateNetwork(t.Context(), next, nil),
		"its removal":  a.RemoveNetwork(t.Context(), "next"),
		"one pool":     a.CreateNetwork(t.Context(), over, overPools),
		"state":        a.SetState(t.Context(), cluster.NetworkState{Network: "lan", State: cluster.StateReady}),
		"end of state": a.DeleteState(t.Context(), "lan"),
		"drain":        a.Drain(t.Context(), "a", true),
		"its end":      a.Undrain(t.Context(), "a"),
		"node":         a.Drain(t.Context(), "next", true),
	} {
		if !errors.As(err, new(*cluster.NewerError)) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for key, text := range newer {
		if r, err := a.remote.Get(t.Context(), key); err != nil || string(r.Value) != text {
			t.Errorf("%s: %s %v", key, r.Value, err)
		}
	}
	// The node's own record: it does not go on as if there were none.
	a.writeText("v1/node/a", `{"schema":2,"name":"a"}`)
	await(t, "a problem", func() bool { return strings.Contains(a.Health().Problem, "newer fairway") })
	if err := a.RemoveNetwork(t.Context(), "lan"); err != nil {
		t.Error(err)
	}
	other, pools := network("other", "10.11.0.0/16")
	if err := a.CreateNetwork(t.Context(), other, pools); err == nil {
		t.Error("a node whose record is newer makes networks")
	}
}
