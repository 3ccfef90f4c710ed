package cluster

import (
	"fmt"
	"time"
)

// ghost is a claim of another node that was there before everything was listed again, and is not any more. Nobody told
// of its end: an older copy of the store may have been put in place, and its owner go on using it until it finds that
// out and writes its record again.
type ghost struct {
	node  string
	id    string
	until time.Time
}

// How long a ghost is left alone: until its owner has surely written it again, should it be alive. When the store is not
// known to have gone back, an end that was missed is more likely.
const (
	ghostTime       = 10 * time.Minute
	ghostTimeUnsure = time.Minute
)

// ghostsOf notes what vanished, or became another's, between two listings.
func (c *Cluster) ghostsOf(before, after *View, restored bool) {
	if !before.Complete {
		return
	}
	d := ghostTimeUnsure
	if restored {
		d = ghostTime
	}
	until := c.cfg.Now().Add(d)
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	for key, g := range c.claims.ghosts {
		if restored && g.until.Before(until) {
			g.until = until
			c.claims.ghosts[key] = g
		}
	}
	note := func(key, node, id, now string) {
		if id != now && !c.mine(id) && !removed(after, id) {
			c.claims.ghosts[key] = ghost{node: node, id: id, until: until}
		}
	}
	for key, e := range before.Blocks {
		note(key.String(), e.Value.Node, e.Value.NodeID, after.Blocks[key].Value.NodeID)
	}
	for key, e := range before.Addresses {
		note(key.String(), e.Value.Node, e.Value.NodeID, after.Addresses[key].Value.NodeID)
	}
}

// ghosted says that a key is a ghost's; nil: it is not, or no longer.
func (c *Cluster) ghosted(v *View, key string) error {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	g, ok := c.claims.ghosts[key]
	if !ok {
		return nil
	}
	if removed(v, g.id) || !c.cfg.Now().Before(g.until) {
		delete(c.claims.ghosts, key)
		return nil
	}
	return fmt.Errorf("node %s had it before the store lost the record, and has until %s to write it again, or remove that node with `fairway node rm %s`",
		g.node, g.until.Format(time.TimeOnly), g.node)
}

// layGhosts forgets those whose owners came back.
func (c *Cluster) layGhosts(v *View) {
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	if len(c.claims.ghosts) == 0 {
		return
	}
	back := func(key, id string) {
		if g, ok := c.claims.ghosts[key]; ok && g.id == id {
			delete(c.claims.ghosts, key)
		}
	}
	for key, e := range v.Blocks {
		back(key.String(), e.Value.NodeID)
	}
	for key, e := range v.Addresses {
		back(key.String(), e.Value.NodeID)
	}
}
