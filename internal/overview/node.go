package overview

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"fairway/internal/api"
	"fairway/internal/cluster"
)

// Cluster is what is known at one moment. Its methods only read it.
type Cluster struct {
	View   *cluster.View
	Health cluster.Health
	ID     string          // of this node
	Self   cluster.Node    // this node, as it would be recorded; its Name is used even without a record
	Where  string          // what the store is: "etcd at 10.77.0.5:2379"
	Drain  *api.Drain      // of this node, as it says itself; nil: none
	Claims []cluster.Claim // what this node believes to hold
	Bridge []netip.Prefix  // subnets of Docker's default bridge of this node, which the config gave it
	Now    time.Time
	Up     time.Duration // since when the agent runs
}

// drainTime is how long another node may take for its drain, of which the store has only the beginning.
const drainTime = 6 * time.Second

// Nodes are all nodes, by name; this one also while it has no record.
func (c Cluster) Nodes() []api.Member {
	out := make([]api.Member, 0, len(c.View.Nodes)+1)
	for _, n := range c.View.Nodes {
		out = append(out, c.Member(n.Value))
	}
	if _, known := c.View.Nodes[c.Self.Name]; !known {
		self := c.Self
		self.ID = c.ID
		m := c.Member(self)
		if m.State != api.MemberFenced {
			m.State = api.MemberUnregistered
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(x, y api.Member) int { return strings.Compare(x.Name, y.Name) })
	return out
}

// Member is a node's record with what is known beside it.
func (c Cluster) Member(n cluster.Node) api.Member {
	v := c.View
	m := api.Member{
		Name: n.Name, ID: n.ID, Self: n.Name == c.Self.Name, Address: n.Addr4, Address6: n.Addr6, ASN: n.ASN, RouteReflector: n.RouteReflector,
		Fabric: n.Fabric, Docker: n.Docker, Engine: n.Engine, Version: n.Version, Joined: n.Joined,
		Containers: v.Alive[n.Name].Value.Containers, LastSeen: v.LastSeen(n.Name),
	}
	m.Blocks, m.Addresses = c.held(n.ID)
	switch {
	case !v.Live(n.Name):
	case c.Health.Reachable:
		m.LastSeen = c.Now
	case v.At.After(m.LastSeen): // alive, when the store was last heard
		m.LastSeen = v.At
	}
	switch d, asked := v.Drains[n.Name]; {
	case m.Self:
		m.Drain = c.Drain
	case asked:
		m.Drain = &api.Drain{State: api.MemberDrained, Since: d.Value.Since, By: d.Value.By, Refuse: d.Value.Refuse}
		if c.Now.Sub(d.Value.Since) < drainTime {
			m.Drain.State = api.MemberDraining
		}
	}
	m.State = c.state(m)
	return m
}

// held counts what a node has in the store.
func (c Cluster) held(id string) (blocks, addresses int) {
	for _, b := range c.View.Blocks {
		if b.Value.NodeID == id {
			blocks++
		}
	}
	for _, s := range c.View.Addresses {
		if s.Value.NodeID == id {
			addresses++
		}
	}
	return blocks, addresses
}

// state is how a node is; of its own a node needs not ask the store.
func (c Cluster) state(m api.Member) string {
	switch {
	case m.Self && c.Health.Fenced != "":
		return api.MemberFenced
	case m.Self && m.Drain != nil:
		return m.Drain.State
	case m.Self:
		return api.MemberAlive
	case !c.Health.Reachable:
		return api.MemberUnknown
	case !c.View.Live(m.Name):
		return api.MemberDown
	case m.Drain != nil:
		return m.Drain.State
	}
	return api.MemberAlive
}

// Removal is what a node held, of which c is the overview from before it was removed.
func (c Cluster) Removal(r cluster.Removal, removed bool) api.Removal {
	if n, known := c.View.Nodes[r.Node.Name]; known {
		r.Node = n.Value
	}
	out := api.Removal{Node: c.Member(r.Node), Removed: removed}
	if !r.Seen.IsZero() {
		out.Node.LastSeen = r.Seen
	}
	for _, b := range r.Blocks {
		out.Blocks = append(out.Blocks, b.CIDR)
	}
	for _, s := range r.Addresses {
		out.Addresses = append(out.Addresses, api.Claim{Prefix: single(s.Addr), Endpoint: s.Endpoint})
	}
	for _, o := range r.Routes {
		out.Routes = append(out.Routes, o.Prefix)
	}
	for _, s := range r.States {
		out.Networks = append(out.Networks, s.Network)
	}
	return out
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// Joined sorts what this node believes to hold by what the store says of it. Inside are the addresses here that
// containers use, by themselves.
func (c Cluster) Joined(inside []api.Claim) api.Joined {
	j := api.Joined{ID: c.ID}
	for _, k := range c.Claims {
		if k.Releasing {
			continue
		}
		claim := api.Claim{Prefix: k.Block, Endpoint: k.Endpoint}
		if k.Addr.IsValid() {
			claim.Prefix = single(k.Addr)
		}
		switch node, id := c.holder(k); {
		case id == c.ID && k.Fenced == "":
			j.Back = append(j.Back, claim)
		case id == "" || id == c.ID:
			j.Open = append(j.Open, claim)
		default:
			claim.Node = node
			j.Lost = append(j.Lost, claim)
			for _, in := range inside {
				if !k.Addr.IsValid() && k.Block.Contains(in.Prefix.Addr()) {
					in.Node = node
					j.Lost = append(j.Lost, in)
				}
			}
		}
	}
	return j
}

// holder is the node that the store says has a block or an address; "" when nobody has.
func (c Cluster) holder(k cluster.Claim) (name, id string) {
	if k.Addr.IsValid() {
		s := c.View.Addresses[cluster.AddressKey{Pool: k.Pool.CIDR, Addr: k.Addr}].Value
		return s.Node, s.NodeID
	}
	b := c.View.Blocks[cluster.BlockKey{Pool: k.Pool.CIDR, CIDR: k.Block}].Value
	return b.Node, b.NodeID
}

// claimName is a claim in words.
func claimName(k cluster.Claim) string {
	if k.Addr.IsValid() {
		return fmt.Sprintf("address %s", k.Addr)
	}
	return fmt.Sprintf("block %s", k.Block)
}

// Names are the nodes by the addresses that routes and sessions know them by.
func (c Cluster) Names() map[netip.Addr]string {
	out := map[netip.Addr]string{}
	for name, n := range c.View.Nodes {
		out[n.Value.Addr4], out[n.Value.Addr6], out[n.Value.RouterID] = name, name, name
	}
	delete(out, netip.Addr{})
	return out
}
