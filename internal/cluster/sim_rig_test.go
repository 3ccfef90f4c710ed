package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fairway/internal/cluster"
	"fairway/internal/cnm"
	"fairway/internal/ipam"
	"fairway/internal/store"
	"fairway/internal/store/etcd"
)

var (
	errDead = errors.New("this agent is dead")
	errLost = errors.New("the answer was lost")
)

// faults says how often what goes wrong, in thousandths of the writes.
type faults struct {
	crash atomic.Int64 // the agent dies just before a write, or just after it: of the store's, and of its own disk's
	lost  atomic.Int64 // the answer is lost; the write is done now, later, or never
}

// tally counts.
type tally struct {
	claims, conflicts, releases, reads    atomic.Int64 // of blocks and addresses, in the store
	crashes, lost, late, answers, refused atomic.Int64
}

// world is a cluster of simulated nodes: the agent's real book, allocator and cluster code, over one real etcd.
type world struct {
	t      *testing.T
	stores []*etcd.Store
	faults faults
	tally  tally
	late   sync.WaitGroup // writes that are applied later
	pool   netip.Prefix
	static netip.Prefix
	nodes  []*node

	mu   sync.Mutex
	took []time.Duration       // of claims of a block, with the entry in the book
	held map[netip.Addr]string // address -> node that a container of ours has it on
}

// node is one machine.
type node struct {
	w    *world
	name string
	path string
	rng  *rand.Rand  // of the goroutine that drives it
	off  atomic.Bool // cut off from the store

	dead    *atomic.Bool // of the run; each has its own
	writes  *sync.WaitGroup
	local   *store.Local
	book    *cnm.Book
	cluster *cluster.Cluster
	cancel  context.CancelFunc
	done    chan error
	skew    atomic.Int64 // of the node's clock, in nanoseconds
}

func newWorld(t *testing.T, endpoint string, nodes int, pool, static string) *world {
	t.Helper()
	w := &world{t: t, pool: netip.MustParsePrefix(pool), static: netip.MustParsePrefix(static), held: map[netip.Addr]string{}}
	for range min(nodes, 8) { // connections; the agents of one are still strangers to each other
		s, err := etcd.Open(etcd.Config{Endpoints: []string{endpoint}, Prefix: "/fairway"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		w.stores = append(w.stores, s)
	}
	dir := t.TempDir()
	for i := range nodes {
		n := &node{w: w, name: fmt.Sprintf("node%03d", i), path: filepath.Join(dir, fmt.Sprintf("%03d.db", i)), rng: rand.New(rand.NewPCG(uint64(i), 7))}
		w.nodes = append(w.nodes, n)
	}
	w.each(func(n *node) { n.start(t.Context()) })
	t.Cleanup(func() { w.each(func(n *node) { n.stop() }) })
	return w
}

// each does something on all nodes at once.
func (w *world) each(do func(*node)) {
	var wg sync.WaitGroup
	for _, n := range w.nodes {
		wg.Go(func() { do(n) })
	}
	wg.Wait()
}

// start starts the node's agent, with what an earlier one left on its disk.
func (n *node) start(ctx context.Context) {
	t := n.w.t
	local, err := store.Open(n.path)
	if err != nil {
		t.Error(err)
		return
	}
	n.local, n.dead, n.writes = local, &atomic.Bool{}, &sync.WaitGroup{}
	disk := &disk{Local: local, n: n, dead: n.dead}
	n.book, err = cnm.Load(ctx, disk, ipam.Options{Now: n.now, HoldDown: time.Second, Plan: ipam.Plan{
		Shared: true, Pools: []ipam.PoolPlan{{CIDR: n.w.pool, BlockSize: 30}},
	}}, cnm.Node{})
	if err != nil {
		t.Error(err)
		return
	}
	n.cluster = cluster.New(cluster.Config{
		Store: &shaky{Store: n.w.stores[n.rng.IntN(len(n.w.stores))], n: n, dead: n.dead, writes: n.writes}, Where: "etcd of the test",
		Local: local, Self: cluster.Node{Name: n.name, Fabric: "none", Docker: true, Version: "test"},
		Log: slog.New(slog.DiscardHandler), Ledger: n.book,
	})
	n.book.Use(&timed{Cluster: n.cluster, w: n.w})
	ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	n.done = make(chan error, 1)
	if err := n.cluster.Start(ctx); err != nil && !n.dead.Load() {
		t.Errorf("%s: %v", n.name, err)
	}
	c, done := n.cluster, n.done
	go func() { done <- c.Run(ctx) }()
}

func (n *node) now() time.Time { return time.Now().Add(time.Duration(n.skew.Load())) }

// stop ends the agent as kill -9 does: nothing that it began goes on.
func (n *node) stop() {
	if n.local == nil {
		return
	}
	n.dead.Store(true)
	n.cancel()
	if err := <-n.done; err != nil && !errors.Is(err, errDead) && !errors.Is(err, context.Canceled) {
		n.w.t.Errorf("%s: %v", n.name, err)
	}
	n.writes.Wait() // what is on its way to etcd when an agent dies; see lose for what comes late
	if err := n.local.Close(); err != nil {
		n.w.t.Error(err)
	}
	n.local = nil
}

// revive starts the agent again if it died.
func (n *node) revive(ctx context.Context) {
	for (n.local == nil || n.dead.Load()) && !n.w.t.Failed() {
		n.stop()
		n.start(ctx)
		n.w.tidy(ctx, n)
	}
}

// dies says whether the agent dies here.
func (n *node) dies(dead *atomic.Bool) bool {
	if dead.Load() {
		return true
	}
	if rand.Int64N(1000) < n.w.faults.crash.Load() && dead.CompareAndSwap(false, true) {
		n.w.tally.crashes.Add(1)
		return true
	}
	return false
}

// disk is the state file of an agent that may die at each write.
type disk struct {
	*store.Local
	n    *node
	dead *atomic.Bool
}

func (d *disk) Commit(ctx context.Context, t store.Txn) (uint64, error) {
	if d.n.dies(d.dead) {
		return 0, errDead
	}
	rev, err := d.Local.Commit(ctx, t)
	if d.n.dies(d.dead) {
		return 0, errDead
	}
	return rev, err
}

// timed measures how long claims of blocks take.
type timed struct {
	*cluster.Cluster
	w *world
}

func (c *timed) ClaimBlock(ctx context.Context, spec cluster.PoolSpec, covering netip.Addr) (cluster.Block, error) {
	start := time.Now()
	b, err := c.Cluster.ClaimBlock(ctx, spec, covering)
	if err == nil {
		c.w.mu.Lock()
		c.w.took = append(c.w.took, time.Since(start))
		c.w.mu.Unlock()
	}
	return b, err
}

// shaky is the store as one agent sees it.
type shaky struct {
	store.Store
	n      *node
	dead   *atomic.Bool
	writes *sync.WaitGroup
}

// gone says why the agent does not reach the store.
func (s *shaky) gone() error {
	switch {
	case s.dead.Load():
		return errDead
	case s.n.off.Load():
		return fmt.Errorf("cut off: %w", store.ErrUnreachable)
	}
	return nil
}

func (s *shaky) Get(ctx context.Context, key string) (store.Record, error) {
	if err := s.gone(); err != nil {
		return store.Record{}, err
	}
	s.n.w.tally.reads.Add(1)
	return s.Store.Get(ctx, key)
}

func (s *shaky) List(ctx context.Context, prefix string) (store.Listing, error) {
	if err := s.gone(); err != nil {
		return store.Listing{}, err
	}
	return s.Store.List(ctx, prefix)
}

// Watch ends when the node is cut off, as a connection that broke.
func (s *shaky) Watch(ctx context.Context, prefix string, after uint64) <-chan store.Update {
	ctx, cancel := context.WithCancel(ctx)
	in, out := s.Store.Watch(ctx, prefix, after), make(chan store.Update)
	go func() {
		defer close(out)
		defer cancel()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			var u store.Update
			select {
			case got, ok := <-in:
				if !ok {
					return
				}
				u = got
			case <-tick.C:
			}
			if err := s.gone(); err != nil {
				u = store.Update{Err: err}
			}
			if u.Err == nil && len(u.Events) == 0 {
				continue
			}
			select {
			case out <- u:
			case <-ctx.Done():
				return
			}
			if u.Err != nil {
				return
			}
		}
	}()
	return out
}

func (s *shaky) Commit(ctx context.Context, t store.Txn) (uint64, error) {
	s.writes.Add(1)
	defer s.writes.Done()
	if err := s.gone(); err != nil {
		return 0, err
	}
	w, claim, release := s.n.w, false, false
	for key := range t.Put {
		claim = claim || strings.HasPrefix(key, "v1/block/") || strings.HasPrefix(key, "v1/address/")
	}
	for _, key := range t.Delete {
		release = release || strings.HasPrefix(key, "v1/block/") || strings.HasPrefix(key, "v1/address/")
	}
	if !claim && !release {
		return s.Store.Commit(ctx, t)
	}
	if s.n.dies(s.dead) {
		return 0, errDead
	}
	if rand.Int64N(1000) < w.faults.lost.Load() {
		return 0, s.lose(ctx, t)
	}
	rev, err := s.Store.Commit(ctx, t)
	switch {
	case errors.Is(err, store.ErrConflict):
		w.tally.conflicts.Add(1)
	case claim:
		w.tally.claims.Add(1)
	default:
		w.tally.releases.Add(1)
	}
	if s.n.dies(s.dead) {
		return 0, errDead
	}
	return rev, err
}

// lose does the write now, some time later, when nobody waits for it any more, or never.
func (s *shaky) lose(ctx context.Context, t store.Txn) error {
	w := s.n.w
	w.tally.lost.Add(1)
	switch rand.IntN(3) {
	case 0:
		_, _ = s.Store.Commit(ctx, t) // nobody will know
	case 1:
		ctx = context.WithoutCancel(ctx)
		w.late.Go(func() {
			<-time.After(time.Duration(rand.Int64N(int64(2 * time.Second))))
			if _, err := s.Store.Commit(ctx, t); err == nil {
				w.tally.late.Add(1)
			}
		})
	}
	return errLost
}
