package overview_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"fairway/internal/api"
	"fairway/internal/cluster"
	"fairway/internal/overview"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

func entry[V any](v V) cluster.Entry[V] { return cluster.Entry[V]{Value: v, Revision: 1, Created: 1} }

// three is a cluster of three as host1 sees it: host2 drains, host3 is down.
func three() overview.Cluster {
	pool := prefix("10.9.0.0/16")
	v := &cluster.View{
		Complete: true,
		Nodes: map[string]cluster.Entry[cluster.Node]{
			"host1": entry(cluster.Node{Name: "host1", ID: "one", Addr4: addr("10.77.0.11"), Docker: true}),
			"host2": entry(cluster.Node{Name: "host2", ID: "two", Addr4: addr("10.77.0.12"), RouterID: addr("192.0.2.2"), Docker: true}),
			"host3": entry(cluster.Node{Name: "host3", ID: "three", Addr4: addr("10.77.0.13")}),
		},
		Alive: map[string]cluster.Entry[cluster.Alive]{
			"host1": entry(cluster.Alive{ID: "one", Since: now.Add(-time.Hour), Containers: 4}),
			"host2": entry(cluster.Alive{ID: "two", Since: now.Add(-time.Hour), Containers: 2}),
		},
		Seen:   map[string]cluster.Entry[cluster.Seen]{"host3": entry(cluster.Seen{At: now.Add(-5 * time.Hour)})},
		Drains: map[string]cluster.Entry[cluster.Drain]{"host2": entry(cluster.Drain{Since: now.Add(-time.Minute), By: "host1", Refuse: true})},
		Networks: map[string]cluster.Entry[cluster.Network]{
			"front": entry(cluster.Network{Name: "front", By: "host1", Subnets: []cluster.Subnet{{Prefix: pool}}}),
			"old":   entry(cluster.Network{Name: "old", By: "host1", Removing: now.Add(-time.Minute)}),
			"taken": entry(cluster.Network{Name: "taken", By: "host2"}),
		},
		States: map[cluster.StateKey]cluster.Entry[cluster.NetworkState]{},
		Pools:  map[netip.Prefix]cluster.Entry[cluster.Pool]{pool: entry(cluster.Pool{CIDR: pool, BlockSize: 26, Static: prefix("10.9.192.0/18"), Network: "front"})},
		Blocks: map[cluster.BlockKey]cluster.Entry[cluster.Block]{}, Addresses: map[cluster.AddressKey]cluster.Entry[cluster.Address]{},
	}
	state := func(network, node, state, problem string) {
		v.States[cluster.StateKey{Network: network, Node: node}] = entry(cluster.NetworkState{Network: network, Node: node, State: state, Problem: problem, Docker: "id"})
	}
	state("front", "host1", cluster.StateReady, "")
	state("old", "host1", cluster.StateInUse, "containers web are on it")
	state("taken", "host1", cluster.StateConflict, "a bridge has the name")
	block := func(cidr, node, id string) {
		v.Blocks[cluster.BlockKey{Pool: pool, CIDR: prefix(cidr)}] = entry(cluster.Block{CIDR: prefix(cidr), Pool: pool, Node: node, NodeID: id})
	}
	block("10.9.0.0/26", "host1", "one")
	block("10.9.0.64/26", "host2", "two")
	block("10.9.0.128/26", "host9", "nine")
	v.Addresses[cluster.AddressKey{Pool: pool, Addr: addr("10.9.200.8")}] = entry(cluster.Address{Addr: addr("10.9.200.8"), Pool: pool, Node: "host2", NodeID: "two", Endpoint: "ep"})
	v.Addresses[cluster.AddressKey{Pool: pool, Addr: addr("10.9.200.9")}] = entry(cluster.Address{Addr: addr("10.9.200.9"), Pool: pool, Node: "host1", NodeID: "one"})
	spec := cluster.PoolSpec{CIDR: pool, BlockSize: 26, Network: "front"}
	return overview.Cluster{
		View: v, Health: cluster.Health{Reachable: true, Since: now.Add(-time.Hour), Registered: true}, ID: "one", Self: cluster.Node{Name: "host1"}, Where: "etcd at a",
		Claims: []cluster.Claim{{Pool: spec, Block: prefix("10.9.0.0/26")}, {Pool: spec, Addr: addr("10.9.200.9")}}, Now: now, Up: time.Hour,
	}
}

func states(all []api.Member) string {
	var out []string
	for _, m := range all {
		out = append(out, m.Name+" "+m.State)
	}
	return strings.Join(out, ", ")
}

func TestNodes(t *testing.T) {
	c := three()
	check := func(want string) {
		t.Helper()
		if got := states(c.Nodes()); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	check("host1 alive, host2 drained, host3 down")
	all := c.Nodes()
	if m := all[0]; !m.Self || m.Blocks != 1 || m.Addresses != 1 || m.Containers != 4 || !m.LastSeen.Equal(now) {
		t.Errorf("host1: %+v", m)
	}
	if m := all[2]; m.Self || !m.LastSeen.Equal(now.Add(-5*time.Hour)) {
		t.Errorf("host3: %+v", m)
	}
	c.View.Drains["host2"] = entry(cluster.Drain{Since: now.Add(-time.Second)})
	check("host1 alive, host2 draining, host3 down")
	c.Drain = &api.Drain{State: api.MemberDrained}
	check("host1 drained, host2 draining, host3 down")
	// Without the store nobody knows of the others; of itself a node does.
	c.Health.Reachable, c.Drain = false, nil
	c.View.At = now.Add(-time.Minute)
	check("host1 alive, host2 unknown, host3 unknown")
	if m := c.Nodes()[1]; !m.LastSeen.Equal(now.Add(-time.Minute)) {
		t.Errorf("host2 was last seen %v, want when the store was", m.LastSeen)
	}
	c.Health = cluster.Health{Reachable: true, Fenced: "it was removed"}
	delete(c.View.Nodes, "host1")
	check("host1 fenced, host2 draining, host3 down")
	c.Health = cluster.Health{Reachable: true}
	check("host1 unregistered, host2 draining, host3 down")
}

func TestNetworks(t *testing.T) {
	own := []api.Network{
		{Name: "by-hand", ID: "a", Options: map[string]string{"network": "front"}},
		{Name: "taken", ID: "b"},
		{Name: "mine", ID: "c", Options: map[string]string{"network": "gone"}},
	}
	got := map[string]string{}
	for _, n := range three().Networks(own) {
		text := n.ID
		if n.Cluster != nil {
			ready, all := n.Cluster.Ready()
			text += " " + string(rune('0'+ready)) + "/" + string(rune('0'+all))
			for _, s := range n.Cluster.Nodes {
				text += " " + s.Node + "=" + s.State
			}
		}
		got[n.Name+"/"+n.ID] = text
	}
	for key, want := range map[string]string{
		"by-hand/a": "a 1/2 host1=ready host2=awaited", "taken/b": "b", "taken/": " 0/2 host1=conflict host2=awaited", "mine/c": "c",
		"old/": " 0/2 host1=in use host2=gone",
	} {
		if got[key] != want {
			t.Errorf("%s: got %q, want %q", key, got[key], want)
		}
	}
}

func TestPools(t *testing.T) {
	own := []api.Pool{
		{PoolUsage: api.PoolUsage{CIDR: prefix("10.9.0.0/16"), Held: 3}, Network: "front", List: []api.Block{{CIDR: prefix("10.9.0.0/26"), Node: "host1"}}},
		{PoolUsage: api.PoolUsage{CIDR: prefix("10.8.0.0/15")}}, // of the config
	}
	got := three().Pools(own)
	if len(got) != 1 || got[0].Claimed != 3 || got[0].Most != 768 || len(got[0].List) != 3 {
		t.Fatalf("got %+v", got)
	}
	if b := got[0].List[1]; !b.Away || b.Node != "host2" || b.CIDR != prefix("10.9.0.64/26") {
		t.Errorf("the second block: %+v", b)
	}
	if used, want := got[0].Usage, 3/(766*64.0); used != want {
		t.Errorf("used %v, want %v", used, want)
	}
	if h := three().Holdings(); len(h) != 1 || h[0].Address != addr("10.9.200.8") || h[0].Node != "host2" || h[0].Network != "front" {
		t.Errorf("addresses of others: %+v", h)
	}
}

func TestConditions(t *testing.T) {
	codes := func(c overview.Cluster) string {
		var out []string
		for _, x := range c.Conditions() {
			out = append(out, x.Code)
		}
		slices.Sort(out)
		return strings.Join(slices.Compact(out), " ")
	}
	c := three()
	if got := codes(c); got != "node-down" {
		t.Errorf("got %s", got)
	}
	c.Claims = append(c.Claims, cluster.Claim{Block: prefix("10.9.0.64/26"), Fenced: "node host2 has it"})
	c.Health.Restored, c.Health.NewerSchema = now.Add(-time.Minute), []string{"a", "b", "c", "d"}
	if got := codes(c); got != "newer-schema node-down not-ours store-restored" {
		t.Errorf("got %s", got)
	}
	if n := len(slices.DeleteFunc(c.Conditions(), func(x api.Condition) bool { return x.Code != "newer-schema" })); n != 4 {
		t.Errorf("%d conditions for 4 records of a newer schema, want 3 and one that counts", n)
	}
	c = three()
	c.Bridge = []netip.Prefix{prefix("10.9.0.0/25"), prefix("10.9.200.8/29"), prefix("fd09::/64")}
	if got := codes(c); got != "docker-bridge-overlap node-down" {
		t.Errorf("Docker's bridge over blocks: got %s", got)
	}
	if i := slices.IndexFunc(c.Conditions(), func(x api.Condition) bool {
		return strings.Contains(x.Text, "10.9.0.0/25") && strings.Contains(x.Text, "block 10.9.0.64/26, which node host2 claimed")
	}); i < 0 {
		t.Errorf("the block and its holder are not named: %v", c.Conditions())
	}
	c.Bridge = []netip.Prefix{prefix("10.9.1.0/24")} // in the pool, and nobody has a block of it
	if got := codes(c); got != "node-down" {
		t.Errorf("Docker's bridge over nothing: got %s", got)
	}
	c = three()
	c.Health = cluster.Health{Since: now.Add(-time.Minute), LastError: errors.New("refused").Error()}
	if got := codes(c); got != "store-unreachable" {
		t.Errorf("without the store: got %s", got)
	}
	c.Health = cluster.Health{Reachable: true, Fenced: "removed by host2"}
	if got := codes(c); got != "fenced" {
		t.Errorf("fenced: got %s", got)
	}
	c.Health = cluster.Health{Reachable: true, Since: now}
	if got := codes(c); !strings.Contains(got, "unregistered") {
		t.Errorf("not registered: got %s", got)
	}
}

func TestLeaks(t *testing.T) {
	what := func(c overview.Cluster) string {
		var out []string
		for _, l := range c.Leaks() {
			out = append(out, l.What)
		}
		return strings.Join(out, "; ")
	}
	c := three()
	const gone = "blocks and addresses in the name of node host9, which is not there under that identity: 1"
	if got := what(c); got != gone {
		t.Errorf("got %s", got)
	}
	spec := c.Claims[0].Pool
	c.Claims = []cluster.Claim{
		{Pool: spec, Block: prefix("10.9.0.64/26")}, {Pool: spec, Block: prefix("10.9.1.0/26")}, {Pool: spec, Block: prefix("10.9.0.0/26"), Releasing: true},
	}
	want := "address 10.9.200.9 is this node's by the store, and not used here; block 10.9.0.0/26 is being given back; " +
		"block 10.9.0.64/26 was this node's, and is node host2's by the store; block 10.9.1.0/26 is this node's, and in nobody's name in the store; " + gone
	if got := what(c); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	c.Health.Reachable = false
	if got := what(c); !strings.Contains(got, "were not compared") {
		t.Errorf("without the store: got %s", got)
	}
}

func TestJoined(t *testing.T) {
	c := three()
	c.ID = "new"
	c.View.Blocks[cluster.BlockKey{Pool: prefix("10.9.0.0/16"), CIDR: prefix("10.9.0.0/26")}] = entry(cluster.Block{Node: "host1", NodeID: "new"})
	c.View.Addresses[cluster.AddressKey{Pool: prefix("10.9.0.0/16"), Addr: addr("10.9.200.9")}] = entry(cluster.Address{Node: "host2", NodeID: "two"})
	c.Claims = append(c.Claims, cluster.Claim{Pool: c.Claims[0].Pool, Block: prefix("10.9.0.64/26")}, cluster.Claim{Pool: c.Claims[0].Pool, Block: prefix("10.9.3.0/26")})
	j := c.Joined([]api.Claim{{Prefix: prefix("10.9.0.65/32"), Container: "web"}, {Prefix: prefix("10.9.0.1/32"), Container: "db"}})
	if len(j.Back) != 1 || j.Back[0].Prefix != prefix("10.9.0.0/26") {
		t.Errorf("back: %+v", j.Back)
	}
	if len(j.Lost) != 3 || j.Lost[0].Node != "host2" || j.Lost[2].Container != "web" || j.Lost[2].Node != "host2" {
		t.Errorf("lost: %+v", j.Lost)
	}
	if len(j.Open) != 1 || j.Open[0].Prefix != prefix("10.9.3.0/26") {
		t.Errorf("open: %+v", j.Open)
	}
}

func TestRemoval(t *testing.T) {
	c := three()
	r := c.Removal(cluster.Removal{
		Node: c.View.Nodes["host3"].Value, Seen: now.Add(-4 * time.Hour), Blocks: []cluster.Block{{CIDR: prefix("10.9.5.0/26")}},
		Addresses: []cluster.Address{{Addr: addr("10.9.200.1"), Endpoint: "ep"}}, States: []cluster.NetworkState{{Network: "front"}},
	}, true)
	if !r.Removed || r.Node.State != api.MemberDown || !r.Node.LastSeen.Equal(now.Add(-4*time.Hour)) || len(r.Blocks) != 1 ||
		r.Addresses[0].Prefix != prefix("10.9.200.1/32") || r.Networks[0] != "front" {
		t.Errorf("got %+v", r)
	}
}

func TestNames(t *testing.T) {
	names := three().Names()
	if names[addr("192.0.2.2")] != "host2" || names[addr("10.77.0.13")] != "host3" || names[netip.Addr{}] != "" {
		t.Errorf("got %v", names)
	}
}
