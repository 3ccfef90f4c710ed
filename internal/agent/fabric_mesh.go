package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"fairway/internal/api"
	"fairway/internal/cluster"
	"fairway/internal/config"
	"fairway/internal/fabric"
	"fairway/internal/fabric/bgp"
	"fairway/internal/fabric/mesh"
	"fairway/internal/store"
)

// mesher is a fabric that has peers besides those of the config.
type mesher interface {
	SetMesh(peers []fabric.MeshPeer) error
}

// The fabric that takes the mesh must be one: a type that does not match would be passed over without a word.
var (
	_ mesher = (*bgp.Fabric)(nil)
	_ mesher = (*deferred)(nil)
)

// meshKey is where the node keeps who it knows, in its own file: an agent that starts while the store is away has its
// sessions all the same.
const meshKey = "mesh/members"

// meshState is what the node knows of the others, for BGP.
type meshState struct {
	local *store.Local

	mu       sync.Mutex
	members  map[string]mesh.Member
	problems []mesh.Problem
	known    bool // there were members when they were looked at last
	reflects bool // one of them is a reflector
	handOver time.Time
}

// handOver is how long a full mesh stays once there are reflectors.
const handOver = time.Minute

// handingOver says whether it does. mark asks for a pass, at the end.
func (m *meshState) handingOver(mark func() uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	reflects := mesh.Reflected(m.members)
	if reflects && !m.reflects && m.known {
		m.handOver = time.Now().Add(handOver)
		time.AfterFunc(handOver, func() { mark() })
	}
	m.reflects, m.known = reflects, len(m.members) > 0
	return time.Now().Before(m.handOver)
}

// load reads who an earlier run knew.
func (m *meshState) load(ctx context.Context, local *store.Local) error {
	l, err := local.List(ctx, meshKey)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.local = local
	for _, r := range l.Records {
		if err := json.Unmarshal(r.Value, &m.members); err != nil {
			return fmt.Errorf("read record %s of the state file: %w", r.Key, err)
		}
	}
	return nil
}

// follow takes in what the store says.
func (m *meshState) follow(ctx context.Context, v *cluster.View) (map[string]mesh.Member, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := mesh.Follow(m.members, v, time.Now())
	if maps.Equal(m.members, next) {
		return next, nil
	}
	m.members = next
	text, err := json.Marshal(next)
	if err == nil {
		_, err = m.local.Commit(ctx, store.Txn{Put: map[string][]byte{meshKey: text}})
	}
	return next, err
}

// meshPeers are the peers that the records of the cluster make; none on a node without a store.
func (a *Agent) meshPeers(cfg *config.Config) []fabric.MeshPeer {
	c := a.clus()
	if c == nil {
		return nil
	}
	v := c.View()
	members, err := a.mesh.follow(context.Background(), v)
	if err != nil {
		a.log.Warn("the nodes known are not saved; an agent that starts without the store will not know them", slog.Any("err", err))
	}
	a.mu.Lock()
	u := a.under
	a.mu.Unlock()
	in := mesh.Input{Cfg: cfg, Self: a.selfNode(cfg, u), Members: members, HandOver: a.mesh.handingOver(a.loop.mark)}
	if v.Complete {
		in.Live = v.Live
	}
	peers, problems := mesh.Peers(in)
	a.mesh.mu.Lock()
	a.mesh.problems = problems
	a.mesh.mu.Unlock()
	return peers
}

// tellMesh lets the fabric peer with the nodes of the cluster.
func (a *Agent) tellMesh(cfg *config.Config) {
	m, ok := a.fabric().(mesher)
	if !ok || a.clus() == nil {
		return
	}
	if err := m.SetMesh(a.meshPeers(cfg)); err != nil {
		a.log.Error("the fabric did not take in the nodes of the cluster", slog.Any("err", err))
	}
}

// clusterPools are the subnets of which routes are taken from peers besides those of this node: a plain router has no
// network, and a block may be heard of before this node has the network.
func (a *Agent) clusterPools() []netip.Prefix {
	c := a.clus()
	if c == nil {
		return nil
	}
	v := c.View()
	pools := slices.Collect(maps.Keys(v.Pools))
	for _, n := range v.Networks {
		for _, s := range n.Value.Subnets {
			pools = append(pools, s.Prefix.Masked())
		}
	}
	return pools
}

// meshProblems are why the mesh is not as it should be.
func (a *Agent) meshProblems() []api.Condition {
	a.mesh.mu.Lock()
	defer a.mesh.mu.Unlock()
	var out []api.Condition
	for _, p := range a.mesh.problems {
		out = append(out, api.Condition{Code: p.Code, Severity: api.SeverityWarning, Text: p.Text, Hint: p.Hint})
	}
	return out
}
