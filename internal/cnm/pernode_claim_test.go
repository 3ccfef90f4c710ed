package cnm_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fairway/internal/cluster"
	"fairway/internal/cnm"
)

// bridges are the options of a network with a subnet per node.
func bridges() map[string]string { return map[string]string{"mode": "subnet"} }

func (m *member) parts() []cnm.Subnet { return m.Snapshot().Networks[0].Parts() }

// Each node claims one subnet of the pool, however many containers start at once, and no second one when it is full.
func TestSubnetOfEachNode(t *testing.T) {
	var off atomic.Bool
	nodes, shared := members(t, &off, "host1", "host2")
	pools := make([]string, len(nodes))
	for i, m := range nodes {
		var err error
		if pools[i], err = m.network(t, "net", "10.20.0.0/16", "", bridges()); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for i, m := range nodes {
		for j := range 20 {
			wg.Go(func() {
				if _, err := m.start(t, "net", pools[i], fmt.Sprint("e", i, j), netip.Addr{}, nil); err != nil {
					t.Errorf("host%d, container %d: %v", i+1, j, err)
				}
			})
		}
	}
	wg.Wait()
	var parts []netip.Prefix
	for _, m := range nodes {
		p := m.parts()
		if len(p) != 1 || p[0].Part.Bits() != 24 || p[0].Gateway != p[0].Part.Addr().Next() || len(m.Snapshot().Blocks) != 1 {
			t.Fatalf("parts %+v, blocks %v", p, m.Snapshot().Blocks)
		}
		parts = append(parts, p[0].Part)
	}
	if parts[0] == parts[1] || len(keysOf(t, shared, "v1/block/")) != 2 {
		t.Errorf("parts %v, store %v", parts, keysOf(t, shared, "v1/block/"))
	}
	eventually(t, "host1 sees the pool", func() bool { return len(nodes[0].cluster.View().Pools) == 1 })
	if p := nodes[0].cluster.View().Pools[pfx("10.20.0.0/16")].Value; p.BlockSize != 24 || p.Static.IsValid() {
		t.Errorf("the pool's record: %+v, want parts of /24 and no static range", p)
	}
	_, err := nodes[0].start(t, "net", pools[0], "x", parts[1].Addr().Next().Next(), nil)
	said(t, err, "not in this node's subnet "+parts[0].String())
	for j := 20; err == nil || j == 20; j++ {
		_, err = nodes[0].start(t, "net", pools[0], fmt.Sprint("e0", j), netip.Addr{}, nil)
	}
	said(t, err, "this one's is "+parts[0].String())
	if n := len(nodes[0].Snapshot().Endpoints); n != 253 {
		t.Errorf("%d containers in a /24, want 253", n)
	}
	if n := len(keysOf(t, shared, "v1/block/")); n != 2 {
		t.Errorf("%d blocks in the store, want 2", n)
	}
}

// Whoever makes the network otherwise than the nodes that have it is told how they have it.
func TestSubnetModeAgreed(t *testing.T) {
	var off atomic.Bool
	nodes, _ := members(t, &off, "host1", "host2")
	a, b := nodes[0], nodes[1]
	for subnet, opts := range map[string]map[string]string{"10.20.0.0/16": bridges(), "10.21.0.0/16": nil} {
		pool, err := a.network(t, "net"+subnet, subnet, "", opts)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.start(t, "net"+subnet, pool, "e"+subnet, netip.Addr{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "host2 sees the pools", func() bool { return len(b.cluster.View().Pools) == 2 })
	for _, c := range []struct {
		subnet string
		opts   map[string]string
		want   []string
	}{
		{"10.20.0.0/16", nil, []string{"mode=routed", "10.20.0.0/16", "/24", "-o mode=subnet"}},
		{"10.21.0.0/16", bridges(), []string{"mode=subnet", "10.21.0.0/16", "/26", "10.21.192.0/18"}},
	} {
		_, err := b.network(t, "n1", c.subnet, "", c.opts)
		said(t, err, c.want...)
		for _, p := range b.Snapshot().Pools {
			if err := b.DropPool(t.Context(), p.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := b.network(t, "n1", "10.20.0.0/16", "", bridges()); err != nil || b.Snapshot().Pools[0].BlockSize != 24 {
		t.Errorf("%+v, %v", b.Snapshot().Pools, err)
	}
}

// An agent that restarts while the store is away has its subnet; an empty one is kept; it goes only when the store says
// that another node has it and no container is in it, and the next container gets another one.
func TestSubnetKept(t *testing.T) {
	var off atomic.Bool
	nodes, shared := members(t, &off, "host1")
	m := nodes[0]
	pool, err := m.network(t, "net", "10.20.0.0/16", "", bridges())
	if err != nil {
		t.Fatal(err)
	}
	first, err := m.start(t, "net", pool, "e1", netip.Addr{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	part := m.parts()[0].Part
	off.Store(true)
	m.stop()
	m.open(t, "host1", cut{shared, &off})
	if p := m.parts(); len(p) != 1 || p[0].Part != part || p[0].Gateway != part.Addr().Next() {
		t.Errorf("restarted without the store: %+v, want %v", p, part)
	}
	if a, err := m.start(t, "net", pool, "e2", netip.Addr{}, nil); err != nil || !part.Contains(a) {
		t.Errorf("a container while the store is away: %v, %v", a, err)
	} else {
		m.end(t, pool, "e2", a)
	}
	off.Store(false)

	// In use, it is fenced at most.
	lost := func() cluster.Claim {
		i := slices.IndexFunc(m.Claims(), func(k cluster.Claim) bool { return k.Block == part })
		if i < 0 {
			t.Fatalf("no claim of %v: %+v", part, m.Claims())
		}
		k := m.Claims()[i]
		k.Fenced = "node host2 has it"
		return k
	}
	m.stop() // the test plays the store
	if k := lost(); !k.InUse {
		t.Errorf("%+v is not in use", k)
	}
	for _, f := range []func() error{
		func() error { return m.Fence(t.Context(), lost()) }, func() error { return m.Forget(t.Context(), lost()) },
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	if s := m.Snapshot(); len(m.parts()) != 1 || !slices.Equal(s.Fenced, []netip.Prefix{part}) {
		t.Errorf("parts %+v, fenced %v", m.parts(), s.Fenced)
	}
	_, err = m.start(t, "net", pool, "e3", netip.Addr{}, nil)
	said(t, err, "fenced", part.String(), "node host2 has it")
	// Another one is not taken in besides, not even one that the store says is this node's.
	if err := m.Adopt(t.Context(), cluster.Block{CIDR: pfx("10.20.250.0/24"), Pool: pfx("10.20.0.0/16")}); err == nil {
		t.Error("a second subnet was taken in")
	}
	m.end(t, pool, "e1", first)
	for range 4 { // empty for long, and kept: it is fenced, and Forget decides
		if err := m.ReturnEmpty(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.skew.Add(int64(3 * time.Minute))
	}
	if len(m.parts()) != 1 {
		t.Error("given back by itself")
	}
	if err := m.Forget(t.Context(), lost()); err != nil {
		t.Fatal(err)
	}
	if len(m.parts()) != 0 {
		t.Errorf("parts %+v, want none", m.parts())
	}
	if err := m.Adopt(t.Context(), cluster.Block{CIDR: pfx("10.20.250.0/24"), Pool: pfx("10.20.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	if a, err := m.start(t, "net", pool, "e4", netip.Addr{}, nil); err != nil || a != ip("10.20.250.2") {
		t.Errorf("%v, %v; want an address of the other subnet", a, err)
	}
	if p := m.parts(); len(p) != 1 || p[0].Gateway != ip("10.20.250.1") {
		t.Errorf("parts %+v", p)
	}
}

// A subnet in which nothing is held is kept, for ever.
func TestSubnetEmptyIsKept(t *testing.T) {
	var off atomic.Bool
	nodes, _ := members(t, &off, "host1")
	m := nodes[0]
	pool, err := m.network(t, "net", "10.20.0.0/16", "", bridges())
	if err != nil {
		t.Fatal(err)
	}
	a, err := m.start(t, "net", pool, "e1", netip.Addr{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	part := m.parts()[0].Part
	m.end(t, pool, "e1", a)
	for range 4 {
		if err := m.ReturnEmpty(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.skew.Add(int64(time.Hour))
	}
	if p := m.parts(); len(p) != 1 || p[0].Part != part {
		t.Errorf("parts %+v, want %v", p, part)
	}
}
