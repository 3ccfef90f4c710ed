package overview

import (
	"fmt"
	"slices"
	"strings"

	"fairway/internal/api"
)

// Leaks are where this node and the store do not agree on who holds what, and what is in the name of a node that is not
// there.
func (c Cluster) Leaks() []api.Leak {
	if !c.Health.Reachable || !c.View.Complete {
		return []api.Leak{{
			Kind: "store", ByHand: true, SeenSince: c.Health.Since, What: fmt.Sprintf("the store (%s) does not answer, so blocks and addresses were not compared with it", c.Where),
			Action: "check again once it is reachable",
		}}
	}
	out := append(c.believed(), c.unknown()...)
	slices.SortFunc(out, func(x, y api.Leak) int { return strings.Compare(x.What, y.What) })
	out = append(out, c.ownerless()...)
	for i := range out {
		out[i].ByHand = true
	}
	return out
}

// settles is what there is to do about what the agent does by itself.
const settles = "nothing: the agent settles it, within seconds or at its next look (5 min)"

// believed finds what this node believes to hold, and does not by the store.
func (c Cluster) believed() []api.Leak {
	var out []api.Leak
	for _, k := range c.Claims {
		leak := api.Leak{Kind: "block", Network: k.Pool.Network, Endpoint: k.Endpoint, Address: k.Addr, SeenSince: c.Now, Action: settles}
		if k.Addr.IsValid() {
			leak.Kind = "claim"
		}
		node, id := c.holder(k)
		switch {
		case k.Releasing && id == c.ID:
			leak.What = claimName(k) + " is being given back"
		case k.Releasing:
			continue
		case k.Fenced != "":
			leak.What, leak.Action = claimName(k)+" is not this node's: "+k.Fenced, "start the containers that use it anew; it is given up with the last one"
		case id == "":
			leak.What = claimName(k) + " is this node's, and in nobody's name in the store"
		case id != c.ID:
			leak.What = claimName(k) + " was this node's, and is node " + node + "'s by the store"
		default:
			continue
		}
		out = append(out, leak)
	}
	return out
}

// unknown finds what is this node's by the store, and of which it knows nothing.
func (c Cluster) unknown() []api.Leak {
	here := map[string]bool{}
	for _, k := range c.Claims {
		here[k.Key()] = true
	}
	var out []api.Leak
	for k, b := range c.View.Blocks {
		if b.Value.NodeID == c.ID && !here[k.String()] {
			out = append(out, api.Leak{Kind: "block", SeenSince: c.Now, What: fmt.Sprintf("block %s is this node's by the store, and not used here", k.CIDR), Action: settles})
		}
	}
	for k, s := range c.View.Addresses {
		if s.Value.NodeID == c.ID && !here[k.String()] {
			out = append(out, api.Leak{Kind: "claim", Address: k.Addr, SeenSince: c.Now, What: fmt.Sprintf("address %s is this node's by the store, and not used here", k.Addr), Action: settles})
		}
	}
	return out
}

// ownerless finds what is in the name of nodes that are not there.
func (c Cluster) ownerless() []api.Leak {
	count := map[string]int{}
	note := func(node, id string) {
		if _, ok := c.View.NodeByID(id); !ok && id != c.ID {
			count[node]++
		}
	}
	for _, b := range c.View.Blocks {
		note(b.Value.Node, b.Value.NodeID)
	}
	for _, s := range c.View.Addresses {
		note(s.Value.Node, s.Value.NodeID)
	}
	var out []api.Leak
	for node, n := range count {
		out = append(out, api.Leak{
			Kind: "node", SeenSince: c.Now, What: fmt.Sprintf("blocks and addresses in the name of node %s, which is not there under that identity: %d", node, n),
			Action: "unless it is about to come back: fairway node rm " + node,
		})
	}
	slices.SortFunc(out, func(x, y api.Leak) int { return strings.Compare(x.What, y.What) })
	return out
}
