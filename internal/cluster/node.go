package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// NameTakenError says that this node cannot join under its name.
type NameTakenError struct {
	Name   string // of this node
	ID     string // of this node
	Holder Node   // who has the name, or, under another name, the ID
	Live   bool   // the holder's agent is heard of
	Seen   time.Time
	Where  string // the store
}

func (e *NameTakenError) Error() string {
	h := e.Holder
	var b strings.Builder
	addr := h.Addr4
	if !addr.IsValid() {
		addr = h.Addr6
	}
	who := fmt.Sprintf("node %s (address %s, joined %s, %s)", h.Name, addr, h.Joined.Format(time.RFC3339), e.seen())
	switch {
	case h.ID != e.ID:
		fmt.Fprintf(&b, "the name %s is taken in the store (%s): by %s. Give this node another node.name", e.Name, e.Where, who)
		if !e.Live {
			fmt.Fprintf(&b, "; or, if that one is gone for good, remove it on another node: fairway node rm %s (where there is no other: on this one, once it runs under another name)", e.Name)
		}
	case h.Name != e.Name:
		fmt.Fprintf(&b, "this node's identity is that of %s, and node.name is now %s. If this is that machine, set node.name back to %s, or remove that node and join again; "+
			"if it is a copy of it, stop the agent and delete fairway.db in the state directory", who, e.Name, h.Name)
	default:
		fmt.Fprintf(&b, "this node's identity is in use by another agent: %s. If this machine is a copy of that one, delete fairway.db in the state directory and give it another node.name; "+
			"if the state directory was put back from a copy, try again in a minute", who)
	}
	return b.String()
}

func (e *NameTakenError) seen() string {
	switch {
	case e.Live:
		return "alive"
	case e.Seen.IsZero():
		return "not alive"
	}
	return "last seen " + e.Seen.Format(time.RFC3339)
}

func (c *Cluster) nameTaken(v *View, holder Node) error {
	return &NameTakenError{Name: c.Name(), ID: c.ID(), Holder: holder, Live: v.Live(holder.Name), Seen: v.LastSeen(holder.Name), Where: c.cfg.Where}
}

// checkName tells whether this node's name and ID are its own. It is the agent that came later that has to go: the one
// that found the other's session, rather than the one whose session was replaced.
func (c *Cluster) checkName(v *View) error {
	c.mu.Lock()
	me := c.saved
	session := c.session
	c.mu.Unlock()
	for _, n := range v.Nodes {
		if n.Value.ID == me.ID && n.Value.Name != c.Name() {
			return c.nameTaken(v, n.Value)
		}
	}
	have, known := v.Nodes[c.Name()]
	if !known {
		return nil
	}
	if have.Value.ID != me.ID {
		if me.Registered && me.Name == c.Name() {
			return nil // removed meanwhile, and the name given to another: fenced, see checkFence
		}
		return c.nameTaken(v, have.Value)
	}
	a, beats := v.Alive[c.Name()]
	if !beats || a.Value.ID != me.ID || a.Value.Session == session {
		return nil
	}
	return c.checkSession(a)
}

// checkSession tells whether another session's alive record under our ID is only what is left of an earlier run of ours.
func (c *Cluster) checkSession(a Entry[Alive]) error {
	if c.keeper.holding && a.Revision < c.lastAlive() {
		return nil // from before our own: a cache that is behind, or an older copy of the store
	}
	v := c.View()
	have := v.Nodes[c.Name()]
	former := slices.Contains(c.former, a.Value.Session)
	switch {
	case !c.keeper.holding && former:
		return nil // our own run before this one, that cannot be any more: its state file is in our hands
	case !c.keeper.holding, former:
		// A run that is none of ours; or one that we took for our own last one, and that has written again since.
		return c.nameTaken(v, have.Value)
	}
	return c.takeBack()
}

// takeBack is asked before the alive record is written over another session's. It refuses in the long run.
func (c *Cluster) takeBack() error {
	now := c.cfg.Now()
	k := &c.keeper
	k.takeovers = slices.DeleteFunc(k.takeovers, func(t time.Time) bool { return now.Sub(t) > takeoverWindow })
	k.takeovers = append(k.takeovers, now)
	c.log.Warn("another agent runs with this node's identity: a copy of its state directory?", slog.String("node", c.Name()))
	if len(k.takeovers) <= maxTakeovers {
		return nil
	}
	v := c.View()
	return c.nameTaken(v, v.Nodes[c.Name()].Value)
}

// checkFence tells whether the node was removed, and keeps that over restarts.
func (c *Cluster) checkFence(ctx context.Context, v *View) (bool, error) {
	id := c.ID()
	why := ""
	have, known := v.Nodes[c.Name()]
	switch t, dead := v.Tombstones[id]; {
	case v.Unread[TombstoneKey(id)] != nil:
		why = "this node was removed from the cluster; join again with: fairway node join"
	case dead:
		why = fmt.Sprintf("this node was removed from the cluster on %s at %s; join again with: fairway node join", t.Value.By, t.Value.At.Format(time.RFC3339))
	case known && have.Value.ID != id:
		why = fmt.Sprintf("the name %s is now that of another node (address %s, joined %s); give this one another node.name, then join with: fairway node join",
			c.Name(), have.Value.Addr4, have.Value.Joined.Format(time.RFC3339))
	}
	c.mu.Lock()
	was := c.saved.Fenced
	if why != "" {
		c.health.Registered = false
	}
	c.mu.Unlock()
	if why == was {
		return why != "", nil
	}
	if err := c.save(ctx, func(s *saved) { s.Fenced = why }); err != nil {
		return why != "", err
	}
	if why != "" {
		c.log.Error("this node is fenced: it announces nothing and gives nothing out", slog.String("why", why))
	} else {
		c.log.Info("this node is no longer fenced")
	}
	wake(c.wakeReconcile)
	c.cfg.Changed()
	return why != "", nil
}

// fenced is the error for what a fenced node may not do; nil when it is not fenced.
func (c *Cluster) fenced() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.saved.Fenced == "" {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrFenced, c.saved.Fenced)
}

// notRegistered says why this node is not a member yet.
func (c *Cluster) notRegistered(v *View) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.health.Problem != "":
		return fmt.Errorf("this node is not registered in the store (%s): %s", c.cfg.Where, c.health.Problem)
	case c.health.LastError != "":
		return fmt.Errorf("this node is not registered in the store (%s): %s", c.cfg.Where, c.health.LastError)
	case !v.Complete:
		return fmt.Errorf("the store (%s) was not read yet", c.cfg.Where)
	}
	return errors.New("this node is not registered in the store yet; try again")
}
