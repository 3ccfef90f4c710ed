// Package mesh derives a node's BGP peers from the records of the cluster: all other nodes, or, once a node is marked as
// route reflector, the reflectors with everybody and everybody with the reflectors (RFC 4456). It is pure; internal/agent
// tells internal/fabric/bgp what comes of it.
package mesh

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"fairway/internal/cluster"
	"fairway/internal/config"
	"fairway/internal/fabric"
)

const (
	// MaxFull is up to how many nodes a full mesh is fine: each node has a session with every other, and a storm of
	// routes grows with the square of their number.
	MaxFull = 100
	// MaxClients is how many clients a node serves well as a reflector. The library packs each route for each client
	// anew: 1,000 clients took a minute and 6 GiB where FRR and BIRD took seconds.
	MaxClients = 200
	// keep is how long a node stays a peer whose record went without a tombstone: the store was lost or an older copy put
	// in its place, and the node writes its record again when it hears of that.
	keep = 10 * time.Minute
)

// Member is a node that this one knows of.
type Member struct {
	Node cluster.Node `json:"node"`
	Gone time.Time    `json:"gone,omitzero"` // since when there is no record of it; zero: there is one
}

// Follow returns who is known now, from who was known and what the store says. Absence is not removal: only a node with a
// tombstone is gone at once. A View that is not complete says nothing. It returns was itself when nothing changed.
func Follow(was map[string]Member, v *cluster.View, now time.Time) map[string]Member {
	if v == nil || !v.Complete {
		return was
	}
	next := make(map[string]Member, len(v.Nodes))
	same := len(was) > 0
	for name, n := range v.Nodes {
		next[name] = Member{Node: n.Value}
		same = same && was[name] == next[name]
	}
	for name, m := range was {
		if _, known := next[name]; known {
			continue
		}
		if _, removed := v.Tombstones[m.Node.ID]; removed || !m.Gone.IsZero() && now.Sub(m.Gone) > keep {
			same = false
			continue
		}
		if m.Gone.IsZero() {
			m.Gone, same = now, false
		}
		next[name] = m
	}
	if same {
		return was
	}
	return next
}

// Reflected says whether a member is a route reflector.
func Reflected(members map[string]Member) bool {
	for _, m := range members {
		if m.Node.RouteReflector {
			return true
		}
	}
	return false
}

// Problem is why the mesh is not as it should be.
type Problem struct {
	Code string // stable, for programs
	Text string
	Hint string
}

// Input is what decides.
type Input struct {
	Cfg     *config.Config
	Self    cluster.Node // name, addresses, port; the config has the rest
	Members map[string]Member
	// HandOver says that there are reflectors since a moment ago: sessions with the others stay until those with the
	// reflectors surely are up.
	HandOver bool
	// Live says whether a node is alive; nil: nobody knows, and nobody is taken for dead.
	Live func(node string) bool
}

// Peers are the peers that the members make, sorted by name.
func Peers(in Input) ([]fabric.MeshPeer, []Problem) {
	if in.Cfg.Fabric != config.FabricBGP || !in.Cfg.BGP.Mesh {
		return nil, nil
	}
	m := mesher{in: in}
	for name, x := range in.Members {
		if n := x.Node; name != in.Self.Name && n.Fabric == string(config.FabricBGP) && n.ASN != 0 {
			m.others = append(m.others, n)
			m.reflected = m.reflected || n.RouteReflector
		}
	}
	slices.SortFunc(m.others, func(a, b cluster.Node) int { return strings.Compare(a.Name, b.Name) })
	reflector := in.Cfg.BGP.RouteReflector
	m.reflected = m.reflected || reflector
	for _, n := range m.others {
		if m.reflected && !reflector && !n.RouteReflector && !in.HandOver {
			continue
		}
		m.peer(n)
	}
	m.limits()
	return m.peers, m.problems
}

type mesher struct {
	in        Input
	others    []cluster.Node
	reflected bool // somebody is a reflector
	peers     []fabric.MeshPeer
	problems  []Problem
}

// peer makes one peer. One side connects and the other waits, so that two connections never have to be told apart: the
// client of a reflector connects, and else the node whose name comes first.
func (m *mesher) peer(n cluster.Node) {
	cfg, self := m.in.Cfg, m.in.Self
	addr := common(self, n)
	if !addr.IsValid() {
		m.problem("mesh-no-address", "give both nodes an address of one family", "node %s and this one have no address of the same family in their records, so there is no BGP session between them", n.Name)
		return
	}
	passive := cmp.Or(boolCompare(cfg.BGP.RouteReflector, n.RouteReflector), strings.Compare(self.Name, n.Name)) > 0
	switch listens := cfg.BGP.Listen.IsValid(); {
	case !listens && n.BGPPort == 0:
		m.problem("mesh-nobody-listens", "set bgp.listen on one of them", "neither node %s nor this one listens for BGP, so there is no session between them", n.Name)
		return
	case !listens:
		passive = false
	case n.BGPPort == 0:
		passive = true
	}
	m.peers = append(m.peers, fabric.MeshPeer{
		Node: n.Name,
		Peer: config.Peer{
			Address: addr, ASN: n.ASN, Port: cmp.Or(n.BGPPort, bgpPort), HoldTime: cfg.BGP.HoldTime, Passive: passive, BFD: cfg.BGP.MeshBFD,
		},
		Client: cfg.BGP.RouteReflector && !n.RouteReflector && n.ASN == cfg.BGP.ASN,
		Away:   m.in.Live != nil && !m.in.Live(n.Name),
	})
}

// bgpPort stands for the port of a node that does not listen, and is not connected to.
const bgpPort = 179

// common is the address by which the node is reached, IPv4 if both have it.
func common(self, n cluster.Node) netip.Addr {
	switch {
	case self.Addr4.IsValid() && n.Addr4.IsValid():
		return n.Addr4
	case self.Addr6.IsValid() && n.Addr6.IsValid():
		return n.Addr6
	}
	return netip.Addr{}
}

// limits warns of what works and should not be.
func (m *mesher) limits() {
	nodes, clients := len(m.others)+1, 0
	for _, p := range m.peers {
		if p.Client {
			clients++
		}
	}
	switch {
	case !m.reflected && nodes > MaxFull:
		m.problem("mesh-too-large", "set bgp.routeReflector on two or three nodes; the others then peer with these only",
			"%d nodes are in a full BGP mesh, which is meant for %d at most", nodes, MaxFull)
	case clients > MaxClients:
		m.problem("reflector-too-large", "let FRR or BIRD be the reflectors (examples/frr-route-reflector, examples/bird-route-reflector)",
			"this node reflects routes to %d nodes, and can do so for %d at most", clients, MaxClients)
	}
}

func (m *mesher) problem(code, hint, format string, args ...any) {
	m.problems = append(m.problems, Problem{Code: code, Text: fmt.Sprintf(format, args...), Hint: hint})
}

// boolCompare is 1 when only a is true.
func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
