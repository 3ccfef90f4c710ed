package overview

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"fairway/internal/api"
)

// Store is how the store stands.
func (c Cluster) Store() *api.Store {
	h := c.Health
	s := &api.Store{
		Where: c.Where, Reachable: h.Reachable, Since: h.Since, LastError: h.LastError, Fenced: h.Fenced, Restored: h.Restored,
		Nodes: len(c.View.Nodes), Alive: len(c.View.Alive), Networks: len(c.View.Networks), Newer: h.NewerSchema,
	}
	s.Blocks, s.Addresses = c.held(c.ID)
	for _, k := range c.Claims {
		if k.Fenced != "" {
			s.Unsettled = append(s.Unsettled, claimName(k)+": "+k.Fenced)
		}
	}
	slices.Sort(s.Unsettled)
	return s
}

// Unreachable is the error for what cannot be known while the store is away.
func (c Cluster) Unreachable() error {
	err := fmt.Errorf("the store (%s) is unreachable since %s", c.Where, c.Health.Since.Format(time.DateTime))
	if c.Health.LastError != "" {
		err = fmt.Errorf("%w: %s", err, c.Health.LastError)
	}
	return err
}

// How long what has happened, or is about to be well, is told; how many alike; and when a pool is nearly full.
const (
	restoredShown = 10 * time.Minute
	registerGrace = 10 * time.Second
	examples      = 3
	nearlyFull    = 0.9
)

type findings []api.Condition

func (f *findings) add(code string, sev api.Severity, hint, format string, args ...any) {
	*f = append(*f, api.Condition{Code: code, Severity: sev, Text: fmt.Sprintf(format, args...), Hint: hint})
}

// some adds a few of many alike.
func (f *findings) some(code string, hint string, all []string) {
	for i, text := range all {
		if i == examples {
			f.add(code, api.SeverityError, hint, "and %d more", len(all)-i)
			return
		}
		f.add(code, api.SeverityError, hint, "%s", text)
	}
}

// Conditions are the faults of the cluster that this node sees, without since when.
func (c Cluster) Conditions() []api.Condition {
	var f findings
	f.store(c)
	if !c.Health.Reachable || c.Health.Fenced != "" {
		return f
	}
	var down []string
	for _, name := range c.View.NodeNames() {
		if !c.View.Live(name) && name != c.Self.Name {
			down = append(down, name)
		}
	}
	if len(down) > 0 {
		f.add("node-down", api.SeverityWarning, "start its agent; or, when the node is gone for good, `fairway node rm` gives back what it held",
			"not heard of: %s", strings.Join(down, ", "))
	}
	for _, p := range c.View.Pools {
		claimed, most := c.blockCount(p.Value)
		if claimed > 1 && float64(claimed) > nearlyFull*most {
			f.add("pool-nearly-claimed", api.SeverityWarning, "`fairway node rm` gives back the blocks of nodes that are gone for good; else make a network with a larger subnet",
				"pool %s: %d of %.0f blocks are claimed", p.Value.CIDR, claimed, most)
		}
	}
	f.some("docker-bridge-overlap", "give dockerBridge another subnet, outside of the cluster's networks, then `fairway docker-bridge apply`, and restart Docker", c.underBridge())
	slices.SortStableFunc(f, func(x, y api.Condition) int { return strings.Compare(x.Code+x.Text, y.Code+y.Text) })
	return f
}

// underBridge are the blocks and addresses that the store gave away, and Docker's default bridge of this node has too.
func (c Cluster) underBridge() []string {
	var out []string
	for _, bridge := range c.Bridge {
		for k, b := range c.View.Blocks {
			if k.CIDR.Overlaps(bridge) {
				out = append(out, fmt.Sprintf("subnet %s of the default bridge (dockerBridge) overlaps block %s, which node %s claimed: two containers may have one address", bridge, k.CIDR, b.Value.Node))
			}
		}
		for k, a := range c.View.Addresses {
			if bridge.Contains(k.Addr) {
				out = append(out, fmt.Sprintf("subnet %s of the default bridge (dockerBridge) holds address %s, which node %s claimed: two containers may have one address", bridge, k.Addr, a.Value.Node))
			}
		}
	}
	slices.Sort(out)
	return out
}

// store finds what is wrong with the store, and with this node's place in the cluster.
func (f *findings) store(c Cluster) {
	h := c.Health
	if !h.Reachable && !h.Since.IsZero() {
		f.add("store-unreachable", api.SeverityError,
			"containers, routes and sessions go on, and new containers start from blocks held here; new blocks, explicit addresses and the cluster's commands wait. Is the store up, and open from here?",
			"%v", c.Unreachable())
		(*f)[len(*f)-1].Since = h.Since
	}
	switch {
	case h.Fenced != "":
		f.add("fenced", api.SeverityError, "nothing is announced or given out from here; `fairway node join` makes this node a member again", "%s", h.Fenced)
	case h.Problem != "":
		f.add("unregistered", api.SeverityError, "the agent tries again", "this node's records cannot be written in the store: %s", h.Problem)
	case h.Reachable && !h.Registered && c.Up > registerGrace:
		f.add("unregistered", api.SeverityError, "the agent tries again; its log has the details", "this node is not registered in the store")
	case h.Reachable && h.LastError != "":
		f.add("store-error", api.SeverityError, "check user, password and rights in etcd", "the store (%s) refuses: %s", c.Where, h.LastError)
	}
	if !h.Restored.IsZero() && c.Now.Sub(h.Restored) < restoredShown {
		f.add("store-restored", api.SeverityWarning, "each node writes what it holds again; `fairway node ls` shows which have",
			"at %s the store was found lost, or an older copy in its place", h.Restored.Format(time.RFC3339))
	}
	f.some("newer-schema", "upgrade fairway here", h.NewerSchema)
	f.some("unreadable-record", "it is left alone, and what it names is not used", h.Unreadable)
	f.some("not-ours", "nothing new is given out from it; start the containers that use it anew (`fairway ipam show` lists them)", c.Store().Unsettled)
}
