package mesh_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/cluster"
	"fairway/internal/config"
	"fairway/internal/fabric/mesh"
)

func adr(s string) netip.Addr { return netip.MustParseAddr(s) }

// node is a node of AS 64512 named hN, where N is the last byte of its address.
func node(n int) cluster.Node {
	return cluster.Node{
		Name: fmt.Sprintf("h%03d", n), ID: fmt.Sprintf("id%d", n), Addr4: adr(fmt.Sprintf("10.77.%d.%d", n/250, n%250+1)),
		ASN: 64512, BGPPort: 179, Fabric: "bgp",
	}
}

func members(nodes ...cluster.Node) map[string]mesh.Member {
	m := map[string]mesh.Member{}
	for _, n := range nodes {
		m[n.Name] = mesh.Member{Node: n}
	}
	return m
}

// text has a peer on each line: its node, and who connects, then the problems.
func text(in mesh.Input) string {
	peers, problems := mesh.Peers(in)
	var b strings.Builder
	for _, p := range peers {
		fmt.Fprintf(&b, "%s %s as %d port %d", p.Node, p.Peer.Address, p.Peer.ASN, p.Peer.Port)
		for _, f := range []struct {
			name string
			is   bool
		}{{"passive", p.Peer.Passive}, {"client", p.Client}, {"away", p.Away}, {"bfd", p.Peer.BFD}} {
			if f.is {
				b.WriteString(" " + f.name)
			}
		}
		b.WriteString("\n")
	}
	for _, p := range problems {
		fmt.Fprintf(&b, "%s: %s\n", p.Code, p.Text)
	}
	return b.String()
}

func TestPeers(t *testing.T) {
	with := func(n cluster.Node, change func(*cluster.Node)) cluster.Node {
		change(&n)
		return n
	}
	reflector := func(n *cluster.Node) { n.RouteReflector = true }
	tests := []struct {
		name string
		self cluster.Node
		cfg  func(*config.Config)
		all  []cluster.Node
		want string
	}{
		{"alone", node(1), nil, []cluster.Node{node(1)}, ""},
		{
			"full mesh", node(2), nil,
			[]cluster.Node{node(1), node(2), node(3)},
			"h001 10.77.0.2 as 64512 port 179 passive\nh003 10.77.0.4 as 64512 port 179\n",
		},
		{"turned off", node(2), func(c *config.Config) { c.BGP.Mesh = false }, []cluster.Node{node(1), node(2)}, ""},
		{"BFD", node(1), func(c *config.Config) { c.BGP.MeshBFD = true }, []cluster.Node{node(2)}, "h002 10.77.0.3 as 64512 port 179 bfd\n"},
		{
			"another AS and port, another fabric, no BGP", node(1), nil,
			[]cluster.Node{
				with(node(2), func(n *cluster.Node) { n.ASN, n.BGPPort = 65001, 1179 }),
				with(node(3), func(n *cluster.Node) { n.Fabric = "store" }),
				with(node(4), func(n *cluster.Node) { n.ASN = 0 }),
			},
			"h002 10.77.0.3 as 65001 port 1179\n",
		},
		{
			"a client peers with reflectors", node(3), nil,
			[]cluster.Node{with(node(1), reflector), node(2), node(4), with(node(5), reflector)},
			"h001 10.77.0.2 as 64512 port 179\nh005 10.77.0.6 as 64512 port 179\n",
		},
		{
			"a reflector peers with all, and reflects not to its like", with(node(3), reflector),
			func(c *config.Config) { c.BGP.RouteReflector = true },
			[]cluster.Node{with(node(1), reflector), node(2), with(node(4), func(n *cluster.Node) { n.ASN = 65001 })},
			"h001 10.77.0.2 as 64512 port 179 passive\nh002 10.77.0.3 as 64512 port 179 passive client\nh004 10.77.0.5 as 65001 port 179 passive\n",
		},
		{
			"who does not listen connects", node(2), nil,
			[]cluster.Node{with(node(3), func(n *cluster.Node) { n.BGPPort = 0 })},
			"h003 10.77.0.4 as 64512 port 179 passive\n",
		},
		{
			"we do not listen", node(2), func(c *config.Config) { c.BGP.Listen = netip.AddrPort{} },
			[]cluster.Node{node(1), with(node(3), func(n *cluster.Node) { n.BGPPort = 0 })},
			"h001 10.77.0.2 as 64512 port 179\nmesh-nobody-listens: neither node h003 nor this one listens for BGP, so there is no session between them\n",
		},
		{
			"IPv6 only", with(node(1), func(n *cluster.Node) { n.Addr4, n.Addr6 = netip.Addr{}, adr("fd77::1") }), nil,
			[]cluster.Node{with(node(2), func(n *cluster.Node) { n.Addr6 = adr("fd77::2") }), node(3)},
			"h002 fd77::2 as 64512 port 179\nmesh-no-address: node h003 and this one have no address of the same family in their records, so there is no BGP session between them\n",
		},
		{"dead", node(1), nil, []cluster.Node{node(7)}, "h007 10.77.0.8 as 64512 port 179 away\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config.Default()
			if tt.cfg != nil {
				tt.cfg(cfg)
			}
			in := mesh.Input{Cfg: cfg, Self: tt.self, Members: members(tt.all...), Live: func(n string) bool { return n != "h007" }}
			if d := cmp.Diff(tt.want, text(in)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// What one side waits for, the other does.
func TestOneSideConnects(t *testing.T) {
	for _, a := range []bool{false, true} {
		for _, b := range []bool{false, true} {
			x, y := node(1), node(2)
			x.RouteReflector, y.RouteReflector = a, b
			passive := func(self, other cluster.Node) bool {
				cfg := config.Default()
				cfg.BGP.RouteReflector = self.RouteReflector
				peers, _ := mesh.Peers(mesh.Input{Cfg: cfg, Self: self, Members: members(other)})
				return peers[0].Peer.Passive
			}
			if passive(x, y) == passive(y, x) {
				t.Errorf("reflectors %v, %v: both or neither connect", a, b)
			}
		}
	}
}

// The number of nodes decides about who should be in the middle.
func TestLimits(t *testing.T) {
	var all []cluster.Node
	for i := range 250 {
		all = append(all, node(i))
	}
	problem := func(cfg *config.Config, nodes []cluster.Node) string {
		_, problems := mesh.Peers(mesh.Input{Cfg: cfg, Self: nodes[0], Members: members(nodes...)})
		if len(problems) != 1 {
			return ""
		}
		return problems[0].Code
	}
	marked := node(2)
	marked.RouteReflector = true
	in := mesh.Input{Cfg: config.Default(), Self: all[0], Members: members(all[1], marked), HandOver: true}
	if peers, _ := mesh.Peers(in); len(peers) != 2 || !mesh.Reflected(in.Members) || mesh.Reflected(members(all...)) {
		t.Errorf("while it is handed over to reflectors: %+v", peers)
	}
	cfg, reflector := config.Default(), config.Default()
	reflector.BGP.RouteReflector = true
	for _, tt := range []struct {
		cfg   *config.Config
		nodes int
		want  string
	}{{cfg, 100, ""}, {cfg, 101, "mesh-too-large"}, {reflector, 201, ""}, {reflector, 202, "reflector-too-large"}} {
		if got := problem(tt.cfg, all[:tt.nodes]); got != tt.want {
			t.Errorf("%d nodes, reflector %v: %q, want %q", tt.nodes, tt.cfg.BGP.RouteReflector, got, tt.want)
		}
	}
}

func view(complete bool, nodes ...cluster.Node) *cluster.View {
	v := &cluster.View{Complete: complete, Nodes: map[string]cluster.Entry[cluster.Node]{}, Tombstones: map[string]cluster.Entry[cluster.Tombstone]{}}
	for _, n := range nodes {
		v.Nodes[n.Name] = cluster.Entry[cluster.Node]{Value: n}
	}
	return v
}

// Absence is not removal.
func TestFollow(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	names := func(m map[string]mesh.Member) string {
		var s []string
		for _, n := range []int{1, 2, 3} {
			if x, ok := m[node(n).Name]; ok {
				s = append(s, fmt.Sprintf("%d%v", n, map[bool]string{true: "", false: " gone"}[x.Gone.IsZero()]))
			}
		}
		return strings.Join(s, ", ")
	}
	known := mesh.Follow(nil, view(true, node(1), node(2)), now)
	for _, v := range []*cluster.View{nil, view(false), view(true, node(1), node(2))} {
		if got := names(mesh.Follow(known, v, now)); got != "1, 2" {
			t.Errorf("after view %+v: %s", v, got)
		}
	}
	lost := mesh.Follow(known, view(true, node(3)), now)
	if got := names(lost); got != "1 gone, 2 gone, 3" {
		t.Errorf("another store: %s", got)
	}
	if got := names(mesh.Follow(lost, view(true, node(3), node(1)), now.Add(time.Minute))); got != "1, 2 gone, 3" {
		t.Errorf("one has written its record again: %s", got)
	}
	if got := names(mesh.Follow(lost, view(true, node(3)), now.Add(11*time.Minute))); got != "3" {
		t.Errorf("after a while: %s", got)
	}
	removed := view(true, node(1))
	removed.Tombstones["id2"] = cluster.Entry[cluster.Tombstone]{Value: cluster.Tombstone{ID: "id2", Name: "h002"}}
	if got := names(mesh.Follow(known, removed, now)); got != "1" {
		t.Errorf("removed: %s", got)
	}
}
