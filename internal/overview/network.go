package overview

import (
	"cmp"
	"maps"
	"slices"

	"fairway/internal/api"
	"fairway/internal/cluster"
	"fairway/internal/cnm"
)

// Networks adds to this node's networks how those of the cluster stand, and those that it does not have.
func (c Cluster) Networks(own []api.Network) []api.Network {
	v, have := c.View, map[string]bool{}
	for i := range own {
		name := own[i].Options[cnm.OptNetwork]
		if n, ok := v.Networks[name]; ok {
			own[i].Cluster, own[i].Name = c.nodesOf(n.Value), cmp.Or(own[i].Name, name)
			have[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.Networks)) {
		if have[name] {
			continue
		}
		n := v.Networks[name].Value
		absent := api.Network{Name: name, Mode: string(cnm.Routed), Internal: n.Internal, Options: n.Options, Created: n.Created, Cluster: c.nodesOf(n)}
		if mode := n.Options[cnm.OptMode]; mode != "" {
			absent.Mode = mode
		}
		for _, s := range n.Subnets {
			absent.Subnets = append(absent.Subnets, api.Subnet{Prefix: s.Prefix, Gateway: s.Gateway})
		}
		own = append(own, absent)
	}
	return own
}

// nodesOf is how a network stands on each node that has it or should.
func (c Cluster) nodesOf(n cluster.Network) *api.NetworkCluster {
	names := map[string]bool{}
	for name, node := range c.View.Nodes {
		if node.Value.Docker {
			names[name] = true
		}
	}
	for k := range c.View.States {
		if k.Network == n.Name {
			names[k.Node] = true
		}
	}
	out := &api.NetworkCluster{Name: n.Name, By: n.By, Removing: n.Removing}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		out.Nodes = append(out.Nodes, c.networkOn(n, name))
	}
	return out
}

func (c Cluster) networkOn(n cluster.Network, node string) api.NetworkNode {
	s, said := c.View.States[cluster.StateKey{Network: n.Name, Node: node}]
	out := api.NetworkNode{Node: node, Alive: c.View.Live(node), State: s.Value.State, ID: s.Value.Docker, Problem: s.Value.Problem, Since: s.Value.Since}
	switch {
	case said:
	case n.Removing.IsZero():
		out.State = api.NetworkAwaited
	default:
		out.State = api.NetworkGone
	}
	return out
}
