package main

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"fairway/internal/api"
	"fairway/internal/config"
	"fairway/internal/export"
)

// nodesOfConfig are the nodes of a config, and the node itself with its blocks, its part of Docker's default bridge and the
// routes that it announces.
func nodesOfConfig(cfg *config.Config, self string) []export.Node {
	own := export.Node{Name: self, Address: cfg.Node.Address, Address6: cfg.Node.Address6}
	for _, p := range cfg.Pools {
		if p.Block.IsValid() {
			own.Prefixes = append(own.Prefixes, p.Block)
		}
	}
	own.Prefixes = append(own.Prefixes, cfg.DockerBridge.Subnets()...)
	for _, r := range cfg.Routes {
		if r.Announce {
			own.Prefixes = append(own.Prefixes, r.To)
		}
	}
	var nodes []export.Node
	listed := false
	for _, n := range cfg.Nodes {
		node := export.Node{Name: n.Name, Address: n.Address, Address6: n.Address6, Prefixes: slices.Clone(n.Subnets)}
		if !listed && (n.Name == own.Name || same(n.Address, own.Address) || same(n.Address6, own.Address6)) {
			listed = true
			for _, p := range own.Prefixes {
				if !slices.Contains(node.Prefixes, p) {
					node.Prefixes = append(node.Prefixes, p)
				}
			}
		}
		nodes = append(nodes, node)
	}
	if !listed && len(own.Prefixes) > 0 {
		nodes = append(nodes, own)
	}
	return nodes
}

func same(a, b netip.Addr) bool { return a.IsValid() && a == b }

// nodesOfAgent are the node itself, with what it announces, and the others as its agent knows them: with a store, each
// node with what it has by the records, and each next hop with further prefixes that are reached by it, if a node has
// them or they are inside a pool. note is told what may be amiss.
func nodesOfAgent(ctx context.Context, c *api.Client, note func(string)) ([]export.Node, error) {
	st, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	routes, err := c.Routes(ctx)
	if err != nil {
		return nil, err
	}
	own := export.Node{Name: st.Node.Name, Address: st.Underlay.Address, Address6: st.Underlay.Address6}
	for _, a := range st.Fabric.Prefixes {
		own.Prefixes = append(own.Prefixes, a.Prefix)
	}
	nodes, recorded := []export.Node{own}, map[netip.Prefix]bool{}
	if st.Store != nil {
		members, err := c.Nodes(ctx)
		if err != nil {
			return nil, err
		}
		ipam, err := c.IPAM(ctx)
		if err != nil {
			return nil, err
		}
		if !st.Store.Reachable {
			note("the store (" + st.Store.Where + ") is unreachable since " + st.Store.Since.Format(time.DateTime) + "; these are the routes as of then")
		}
		nodes, recorded = nodesOfStore(own, members, ipam)
	}
	for _, r := range routes {
		if r.Via.IsValid() && r.Best && !recorded[r.Prefix] && (ofNode(r) || inPools(st.Pools, r.Prefix)) {
			nodes = reachedBy(nodes, r)
		}
	}
	return nodes, nil
}

// nodesOfStore are the node itself and the others of the cluster, each with its blocks, and with its addresses outside of
// them. Recorded are the prefixes that the store has in somebody's name.
func nodesOfStore(own export.Node, members []api.Member, ipam api.IPAM) (nodes []export.Node, recorded map[netip.Prefix]bool) {
	nodes, recorded = []export.Node{own}, map[netip.Prefix]bool{}
	for _, m := range members {
		if m.Name != own.Name {
			nodes = append(nodes, export.Node{Name: m.Name, Address: m.Address, Address6: m.Address6})
		}
	}
	has := func(name string, p netip.Prefix) {
		i := slices.IndexFunc(nodes, func(n export.Node) bool { return n.Name == name })
		if i < 0 { // its record is gone, and so nobody knows its address
			i = len(nodes)
			nodes = append(nodes, export.Node{Name: name})
		}
		nodes[i].Prefixes = append(nodes[i].Prefixes, p)
		recorded[p] = true
	}
	for _, pool := range ipam.Pools {
		for _, b := range pool.List {
			switch {
			case b.Away:
				has(b.Node, b.CIDR)
			case b.Problem == "" && !slices.Contains(own.Prefixes, b.CIDR): // drained, or about to be announced
				has(own.Name, b.CIDR)
			}
		}
	}
	for _, h := range ipam.Holdings {
		if h.Away {
			has(h.Node, netip.PrefixFrom(h.Address, h.Address.BitLen()))
		}
	}
	// What another node has by the store is not this one's, also while it is still announced here.
	nodes[0].Prefixes = slices.DeleteFunc(nodes[0].Prefixes, func(p netip.Prefix) bool {
		return slices.ContainsFunc(nodes[1:], func(n export.Node) bool { return slices.Contains(n.Prefixes, p) })
	})
	return nodes, recorded
}

// ofNode says whether a node has the prefix, and not a stranger, who may announce anything.
func ofNode(r api.Route) bool { return r.Node != "" && !strings.HasPrefix(r.Node, "AS ") }

func inPools(pools []api.PoolUsage, p netip.Prefix) bool {
	return slices.ContainsFunc(pools, func(pool api.PoolUsage) bool {
		return pool.CIDR.Bits() <= p.Bits() && pool.CIDR.Contains(p.Addr())
	})
}

// reachedBy adds a route to the node with its next hop. A node has one of each family; one that is reached by more ways is
// listed once for each.
func reachedBy(nodes []export.Node, r api.Route) []export.Node {
	name := r.Node
	if name == "" {
		name = r.Via.String()
	}
	hop := func(n *export.Node) *netip.Addr {
		if r.Via.Is4() {
			return &n.Address
		}
		return &n.Address6
	}
	for i := range nodes {
		if n := &nodes[i]; n.Name == name && (*hop(n) == r.Via || !hop(n).IsValid()) {
			*hop(n) = r.Via
			n.Prefixes = append(n.Prefixes, r.Prefix)
			return nodes
		}
	}
	n := export.Node{Name: name, Prefixes: []netip.Prefix{r.Prefix}}
	*hop(&n) = r.Via
	return append(nodes, n)
}
