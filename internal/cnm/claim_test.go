package cnm_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fairway/internal/cluster"
	"fairway/internal/cnm"
	"fairway/internal/ipam"
	"fairway/internal/store"
)

// member is a node of a cluster: a book, and the real claims over a store that is a file here.
type member struct {
	*cnm.Book
	local     *store.Local
	cluster   *cluster.Cluster
	announced sync.Map // netip.Prefix
	refuse    error
	skew      atomic.Int64
	stop      func()
}

// cut is a store that can be out of reach.
type cut struct {
	*store.Local
	off *atomic.Bool
}

func (c cut) Commit(ctx context.Context, t store.Txn) (uint64, error) {
	if c.off.Load() {
		return 0, store.ErrUnreachable
	}
	return c.Local.Commit(ctx, t)
}

func (c cut) Get(ctx context.Context, key string) (store.Record, error) {
	if c.off.Load() {
		return store.Record{}, store.ErrUnreachable
	}
	return c.Local.Get(ctx, key)
}

func (c cut) List(ctx context.Context, prefix string) (store.Listing, error) {
	if c.off.Load() {
		return store.Listing{}, store.ErrUnreachable
	}
	return c.Local.List(ctx, prefix)
}

// members makes nodes that share a store.
func members(t *testing.T, off *atomic.Bool, names ...string) (nodes []*member, shared *store.Local) {
	t.Helper()
	dir := t.TempDir()
	shared, err := store.Open(filepath.Join(dir, "shared.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shared.Close() })
	for _, name := range names {
		m := &member{}
		if m.local, err = store.Open(filepath.Join(dir, name+".db")); err != nil {
			t.Fatal(err)
		}
		m.open(t, name, cut{shared, off})
		t.Cleanup(func() { m.stop(); _ = m.local.Close() })
		nodes = append(nodes, m)
	}
	return nodes, shared
}

func (m *member) open(t *testing.T, name string, s store.Store) {
	t.Helper()
	opts := ipam.Options{Now: func() time.Time { return time.Now().Add(time.Duration(m.skew.Load())) }, Plan: ipam.Plan{
		Shared: true, Pools: []ipam.PoolPlan{{CIDR: pfx("10.210.0.0/16"), Size: 20}, {CIDR: pfx("10.211.0.0/16"), Block: pfx("10.211.1.0/24")}},
	}}
	var err error
	m.Book, err = cnm.Load(t.Context(), m.local, opts, cnm.Node{
		Announced: func(p netip.Prefix) bool { _, ok := m.announced.Load(p); return ok }, Refuse: func() error { return m.refuse },
	})
	if err != nil {
		t.Fatal(err)
	}
	m.cluster = cluster.New(cluster.Config{
		Store: s, Where: "a file", Local: m.local, Self: cluster.Node{Name: name, Docker: true}, Log: slog.New(slog.DiscardHandler), Ledger: m.Book,
	})
	m.Use(m.cluster)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	if err := m.cluster.Start(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- m.cluster.Run(ctx) }()
	m.stop = sync.OnceFunc(func() { cancel(); <-done })
}

// network does what the engine does for docker network create.
func (m *member) network(t *testing.T, id, subnet, own string, opts map[string]string) (pool string, err error) {
	t.Helper()
	req := cnm.PoolRequest{Space: "local"}
	if subnet != "" {
		req.Pool = pfx(subnet)
	}
	if own != "" {
		req.Range = pfx(own)
	}
	pool, cidr, err := m.RequestPool(t.Context(), req)
	if err != nil {
		return "", err
	}
	gw, err := m.RequestAddress(t.Context(), cnm.AddressRequest{Pool: pool, Gateway: true})
	if err != nil {
		return "", err
	}
	return pool, m.CreateNetwork(t.Context(), cnm.NetworkRequest{
		ID: id, Options: opts, IPv4: []cnm.SubnetRequest{{Prefix: cidr, Gateway: gw.Addr(), Space: "local"}},
	})
}

// start does what the engine does for docker run.
func (m *member) start(t *testing.T, network, pool, id string, addr netip.Addr, opts map[string]string) (netip.Addr, error) {
	t.Helper()
	a, err := m.RequestAddress(t.Context(), cnm.AddressRequest{Pool: pool, Addr: addr})
	if err != nil {
		return netip.Addr{}, err
	}
	_, err = m.CreateEndpoint(t.Context(), cnm.EndpointRequest{Network: network, ID: id, Addr4: a, Options: opts})
	return a.Addr(), err
}

// end does what the engine does for docker rm.
func (m *member) end(t *testing.T, pool, id string, addr netip.Addr) {
	t.Helper()
	if err := errors.Join(m.Leave(t.Context(), "net", id), m.DeleteEndpoint(t.Context(), "net", id), m.ReleaseAddress(t.Context(), pool, addr)); err != nil {
		t.Error(err)
	}
}

// eventually waits for what happens in the background.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func said(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func keysOf(t *testing.T, s *store.Local, prefix string) []string {
	t.Helper()
	l, err := s.List(t.Context(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range l.Records {
		out = append(out, r.Key)
	}
	return out
}

func TestBlocksOfNodesAreDifferent(t *testing.T) {
	var off atomic.Bool
	nodes, shared := members(t, &off, "host1", "host2")
	given := map[netip.Addr]string{}
	for i, m := range nodes {
		pool, err := m.network(t, "net", "10.9.0.0/24", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		for j := range 3 {
			a, err := m.start(t, "net", pool, fmt.Sprint("e", i, j), netip.Addr{}, nil)
			if err != nil || given[a] != "" {
				t.Fatalf("%v, %v", a, err)
			}
			given[a] = "x"
		}
	}
	one, two := nodes[0].Snapshot().Blocks, nodes[1].Snapshot().Blocks
	if len(one) != 1 || len(two) != 1 || one[0].CIDR == two[0].CIDR || len(keysOf(t, shared, "v1/block/")) != 2 {
		t.Errorf("blocks %v and %v, store %v", one, two, keysOf(t, shared, "v1/block/"))
	}
	// An address in the other's block is refused, and one in a block of nobody is claimed.
	pool := nodes[0].Snapshot().Pools[0].ID
	eventually(t, "host1 sees host2's block", func() bool { return len(nodes[0].cluster.View().Blocks) == 2 })
	_, err := nodes[0].start(t, "net", pool, "x", two[0].CIDR.Addr().Next().Next(), nil)
	said(t, err, "node host2", two[0].CIDR.String(), "10.9.0.192/26")
	if !errors.Is(err, cluster.ErrHeld) {
		t.Errorf("%v is no ErrHeld", err)
	}
	for _, c := range []string{"10.9.0.0/26", "10.9.0.64/26", "10.9.0.128/26"} {
		if p := pfx(c); p != one[0].CIDR && p != two[0].CIDR {
			if a, err := nodes[0].start(t, "net", pool, "y", p.Addr().Next().Next(), nil); err != nil || !p.Contains(a) {
				t.Errorf("%v, %v", a, err)
			}
		}
	}
	// The pool is full then.
	for i := range 200 {
		if _, err = nodes[1].start(t, "net", pool, fmt.Sprint("z", i), netip.Addr{}, nil); err != nil {
			break
		}
	}
	said(t, err, "no block to claim", "node host1 2", "node host2 1", "node rm")
}

// docker rm on one host and docker run --ip on the other, at once.
func TestAddressMoves(t *testing.T) {
	var off atomic.Bool
	nodes, shared := members(t, &off, "host1", "host2")
	pools := make([]string, 2)
	for i, m := range nodes {
		var err error
		if pools[i], err = m.network(t, "net", "10.9.0.0/24", "", nil); err != nil {
			t.Fatal(err)
		}
	}
	addr, extra := ip("10.9.0.200"), map[string]string{"fairway.addresses": "10.9.0.201"}
	for i := range 20 {
		at, to := i%2, 1-i%2
		if _, err := nodes[at].start(t, "net", pools[at], "e1", addr, extra); err != nil {
			t.Fatalf("move %d: %v", i, err)
		}
		if i == 0 {
			eventually(t, "the store knows the endpoint", func() bool {
				e, ok := nodes[1].cluster.View().AddressHolder(addr)
				return ok && e.Value.Endpoint == "e1"
			})
			_, err := nodes[to].start(t, "net", pools[to], "e2", addr, nil)
			said(t, err, "10.9.0.200", "node host1", "endpoint e1")
			_, err = nodes[to].start(t, "net", pools[to], "e2", ip("10.9.0.202"), extra)
			said(t, err, "10.9.0.201", "node host1")
			nodes[to].end(t, pools[to], "e2", ip("10.9.0.202"))
		}
		nodes[at].end(t, pools[at], "e1", addr)
	}
	eventually(t, "nothing is left", func() bool { return len(keysOf(t, shared, "v1/address/")) == 0 })
	for _, m := range nodes {
		if k := m.Claims(); len(k) != 0 {
			t.Errorf("claims %v", k)
		}
	}
}

func TestRestartOfAContainerWithoutTheStore(t *testing.T) {
	var off atomic.Bool
	nodes, shared := members(t, &off, "host1")
	m := nodes[0]
	pool, err := m.network(t, "net", "10.9.0.0/24", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	addr := ip("10.9.0.200")
	if _, err := m.start(t, "net", pool, "e1", addr, nil); err != nil {
		t.Fatal(err)
	}
	dyn, err := m.start(t, "net", pool, "e2", netip.Addr{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	off.Store(true)
	eventually(t, "the node knows that the store is away", func() bool { return !m.cluster.Health().Reachable })
	m.end(t, pool, "e1", addr)
	if got := m.Snapshot().Releasing; !slices.Contains(got, netip.PrefixFrom(addr, 32)) {
		t.Errorf("releasing %v", got)
	}
	if _, err := m.start(t, "net", pool, "e3", addr, nil); err != nil {
		t.Errorf("its own address again, which the store was not asked to take back: %v", err)
	}
	_, err = m.start(t, "net", pool, "e4", ip("10.9.0.201"), nil)
	said(t, err, "unreachable", "since", "a file")
	if !errors.Is(err, store.ErrUnreachable) {
		t.Error(err)
	}
	if a, err := m.start(t, "net", pool, "e5", netip.Addr{}, nil); err != nil || a == dyn {
		t.Errorf("from its own block: %v, %v", a, err)
	}
	for i := range 100 {
		if _, err = m.start(t, "net", pool, fmt.Sprint("f", i), netip.Addr{}, nil); err != nil {
			break
		}
	}
	said(t, err, "no address is free in this node's blocks of 10.9.0.0/24", "unreachable", "since")
	off.Store(false)
	eventually(t, "the store has what the node has", func() bool {
		_, err := m.start(t, "net", pool, "g", ip("10.9.0.202"), nil)
		return err == nil && len(m.Snapshot().Releasing) == 0 && len(keysOf(t, shared, "v1/address/")) == 2
	})
}

func TestBlockIsGivenBackOnceItIsWithdrawn(t *testing.T) {
	var off atomic.Bool
	nodes, shared := members(t, &off, "host1")
	m := nodes[0]
	pool, err := m.network(t, "net", "10.9.0.0/24", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.start(t, "net", pool, "e1", netip.Addr{}, nil); err != nil {
		t.Fatal(err)
	}
	cidr := m.Snapshot().Blocks[0].CIDR
	m.announced.Store(cidr, true)
	if err := errors.Join(m.DeleteNetwork(t.Context(), "net"), m.ReleasePool(t.Context(), pool)); err != nil {
		t.Fatal(err)
	}
	if len(keysOf(t, shared, "v1/block/")) != 1 || !slices.Equal(m.Snapshot().Releasing, []netip.Prefix{cidr}) {
		t.Errorf("store %v, releasing %v", keysOf(t, shared, "v1/block/"), m.Snapshot().Releasing)
	}
	// The network is made again, and gets its block again.
	if pool, err = m.network(t, "net", "10.9.0.0/24", "", nil); err != nil {
		t.Fatal(err)
	}
	if a, err := m.start(t, "net", pool, "e1", netip.Addr{}, nil); err != nil || !cidr.Contains(a) || len(m.Snapshot().Releasing) != 0 {
		t.Errorf("%v, %v", a, err)
	}
	if err := errors.Join(m.DeleteNetwork(t.Context(), "net"), m.ReleasePool(t.Context(), pool)); err != nil {
		t.Fatal(err)
	}
	m.announced.Delete(cidr)
	eventually(t, "the block is given back", func() bool { return len(keysOf(t, shared, "v1/block/")) == 0 && len(m.Snapshot().Releasing) == 0 })
}

func TestEmptyBlocksGoBack(t *testing.T) {
	var off atomic.Bool
	nodes, shared := members(t, &off, "host1")
	m := nodes[0]
	pool, err := m.network(t, "net", "10.9.0.0/27", "", nil) // of /29
	if err != nil {
		t.Fatal(err)
	}
	var got []netip.Addr
	for i := range 15 {
		a, err := m.start(t, "net", pool, fmt.Sprint("e", i), netip.Addr{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, a)
	}
	eventually(t, "claimed ahead", func() bool { return len(m.Snapshot().Blocks) == 3 })
	for i, a := range got {
		m.end(t, pool, fmt.Sprint("e", i), a)
	}
	for look, want := range []int{3, 3, 1, 1} {
		if err := m.ReturnEmpty(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(m.Snapshot().Blocks); n != want {
			t.Errorf("look %d: %d blocks, want %d", look, n, want)
		}
		m.skew.Add(int64(3 * time.Minute))
	}
	eventually(t, "the store knows", func() bool { return len(keysOf(t, shared, "v1/block/")) == 1 })
}

func TestPoolsOfTheCluster(t *testing.T) {
	var off atomic.Bool
	nodes, _ := members(t, &off, "host1", "host2")
	a, b := nodes[0], nodes[1]
	pool, err := a.network(t, "net", "10.9.0.0/24", "", map[string]string{"staticRange": "10.9.0.0/25"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.start(t, "net", pool, "e1", netip.Addr{}, nil); err != nil {
		t.Fatal(err)
	}
	block := a.Snapshot().Blocks[0].CIDR
	eventually(t, "host2 sees the pool and the block", func() bool { v := b.cluster.View(); return len(v.Pools) == 1 && len(v.Blocks) == 1 })
	_, err = b.network(t, "n1", "10.9.0.0/16", "", nil)
	said(t, err, "10.9.0.0/16", "10.9.0.0/24", "host1")
	_, err = b.network(t, "n1", "10.9.0.0/24", block.String(), nil)
	said(t, err, block.String(), "node host1", "--ip-range")
	if len(b.Snapshot().Pools) != 0 {
		t.Errorf("half made: %v", b.Snapshot().Pools)
	}
	_, err = b.network(t, "n1", "10.9.0.0/24", "", map[string]string{"staticRange": "10.9.0.128/25"})
	said(t, err, "staticRange=10.9.0.128/25", "10.9.0.0/25")
	if err := b.ReleasePool(t.Context(), b.Snapshot().Pools[0].ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.network(t, "n2", "10.9.0.0/24", "", nil); err != nil || b.Snapshot().Pools[0].Static != pfx("10.9.0.0/25") {
		t.Errorf("%v, %v", b.Snapshot().Pools, err)
	}
	if _, err := b.network(t, "n3", "10.211.0.0/16", "", nil); err != nil || len(b.Snapshot().Blocks) != 1 {
		t.Errorf("pools[].block beside a store: %v, %v", b.Snapshot().Blocks, err)
	}
	pool, err = b.network(t, "n4", "10.8.0.0/24", "10.8.0.0/26", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := b.start(t, "n4", pool, "e2", netip.Addr{}, nil); err != nil || got != ip("10.8.0.2") {
		t.Errorf("--ip-range beside a store: %v, %v", got, err)
	}
	// One that chooses its subnet passes over what other nodes have.
	pool, err = a.network(t, "n5", "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.start(t, "n5", pool, "e3", netip.Addr{}, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "host2 sees it", func() bool { return len(b.cluster.View().Pools) == 2 })
	if _, err := b.network(t, "n6", "", "", nil); err != nil {
		t.Fatal(err)
	}
	for _, p := range b.Snapshot().Pools {
		if p.CIDR == pfx("10.210.0.0/20") {
			t.Errorf("host2 chose %v too", p.CIDR)
		}
	}
}

func TestRefusedContainers(t *testing.T) {
	var off atomic.Bool
	nodes, _ := members(t, &off, "host1")
	m := nodes[0]
	pool, err := m.network(t, "net", "10.9.0.0/24", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	m.refuse = errors.New("the node drains")
	_, err = m.start(t, "net", pool, "e1", netip.Addr{}, nil)
	said(t, err, "the node drains")
	if _, err := m.network(t, "net2", "10.8.0.0/24", "", nil); err != nil {
		t.Errorf("a network is no container: %v", err)
	}
}

// The store says that another node has a block in which containers run: the fence is kept, told of, and lifted.
func TestFencedBlockOfTheBook(t *testing.T) {
	var off atomic.Bool
	nodes, _ := members(t, &off, "host1")
	m := nodes[0]
	pool, err := m.network(t, "net", "10.9.0.0/24", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.start(t, "net", pool, "e1", netip.Addr{}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := m.start(t, "net", pool, "e2", ip("10.9.0.200"), nil); err != nil {
		t.Fatal(err)
	}
	m.stop() // the test plays the store
	var want []netip.Prefix
	for _, k := range m.Claims() {
		k.Fenced = "node host2 has it"
		if err := m.Fence(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		if err := m.Forget(t.Context(), k); err != nil {
			t.Errorf("in use, so it stays: %v", err)
		}
	}
	want = append(want, m.Snapshot().Blocks[0].CIDR, pfx("10.9.0.200/32"))
	if got := m.Snapshot().Fenced; !slices.Equal(got, want) {
		t.Errorf("fenced %v, want %v", got, want)
	}
	_, err = m.RequestAddress(t.Context(), cnm.AddressRequest{Pool: pool, Addr: m.Snapshot().Blocks[0].CIDR.Addr().Next().Next().Next()})
	said(t, err, "node host2 has it")
	for _, k := range m.Claims() {
		k.Doubt = true
		if err := m.Fence(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.Snapshot().Fenced; len(got) != 0 {
		t.Errorf("in doubt, and still not announced: %v", got)
	}
	for _, k := range m.Claims() {
		k.Fenced, k.Doubt = "", false
		if err := m.Fence(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	if a, err := m.RequestAddress(t.Context(), cnm.AddressRequest{Pool: pool}); err != nil || !want[0].Contains(a.Addr()) {
		t.Errorf("lifted: %v, %v", a, err)
	}
}
