package cluster

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"fairway/internal/store"
)

// Times of this node's own records.
const (
	keepInterval      = time.Second     // own records are looked at, apart from when something changes
	seenInterval      = time.Minute     // the record Seen is written
	containerInterval = 5 * time.Second // the number of containers is written at most this often
	// maxTakeovers is how many times in takeoverWindow the alive record is written again over another session's with the
	// same ID. More means that a copy of this node runs elsewhere and does the same.
	maxTakeovers   = 3
	takeoverWindow = time.Minute
)

// keeper holds what the goroutine of keep remembers. Nobody else reads it.
type keeper struct {
	holding   bool // this run's session was written as alive
	takeovers []time.Time
	counted   time.Time // when the number of containers was written
}

// keep writes this node's own records whenever the store has others, until the context ends. It returns a *NameTakenError
// when the name, or the ID, is another agent's that was there first.
func (c *Cluster) keep(ctx context.Context) error {
	tick := time.NewTicker(keepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wakeKeeper:
		case <-tick.C:
		}
		if err := c.keepOnce(ctx); err != nil {
			return err
		}
	}
}

// keepOnce compares this node's records with what they should be, and writes what differs. Its error is a
// *NameTakenError; what else goes wrong is tried again, and in Health.
func (c *Cluster) keepOnce(ctx context.Context) error {
	v := c.View()
	if !v.Complete || c.away() {
		return nil
	}
	if err := c.checkName(v); err != nil {
		return err
	}
	fenced, err := c.checkFence(ctx, v)
	if err == nil && !fenced {
		err = c.register(ctx, v)
	}
	if err == nil && !fenced {
		err = c.writeSeen(ctx)
	}
	if err == nil {
		err = c.finishRemovals(ctx)
	}
	switch {
	case err == nil:
		c.unregistered("")
	case errors.Is(err, store.ErrConflict): // somebody was faster; the watch tells what there is now
	case ctx.Err() == nil:
		c.unregistered(err.Error())
	}
	return nil
}

// unregistered notes why this node's records cannot be written; "" when they can.
func (c *Cluster) unregistered(why string) {
	c.mu.Lock()
	changed := c.health.Problem != why
	c.health.Problem = why
	c.mu.Unlock()
	if changed && why != "" {
		c.log.Warn("cannot write this node's records in the store; trying again", slog.String("err", why))
	}
}

// register writes the node's record and that it is alive, if they are not as they should be.
func (c *Cluster) register(ctx context.Context, v *View) error {
	node, alive := NodeKey(c.Name()), AliveKey(c.Name())
	for _, key := range []string{node, alive} {
		if err := v.Unread[key]; err != nil {
			return err
		}
	}
	have, known := v.Nodes[c.Name()]
	was, beats := v.Alive[c.Name()]
	want, beat := c.wanted(have, was)
	sameNode := known && want == have.Value
	// A record of this run that is older than what it wrote last is one of an older copy of the store: it will not stay.
	if sameNode && beats && beat == was.Value && was.Revision >= c.lastAlive() {
		c.noteAlive(ctx, was.Revision)
		return nil
	}
	t := store.Txn{If: []store.Compare{
		{Key: node, Revision: have.Revision},
		{Key: alive, Revision: was.Revision},
		{Key: TombstoneKey(want.ID)},
	}}
	if !sameNode {
		text, err := Encode(want)
		if err != nil {
			return err
		}
		t.Put = map[string][]byte{node: text}
	}
	if err := c.addDrain(v, &t, known); err != nil {
		return err
	}
	text, err := Encode(beat)
	if err != nil {
		return err
	}
	t.Live = map[string][]byte{alive: text}
	rev, err := c.commit(ctx, t)
	if err != nil {
		return err
	}
	c.keeper.counted = c.cfg.Now()
	c.noteAlive(ctx, rev)
	if !known {
		c.log.Info("joined the cluster", slog.String("node", want.Name), slog.String("store", c.cfg.Where))
	}
	return nil
}

// addDrain has the request to drain this node written together with its record, when the store has neither: in between
// the node would take it for taken back.
func (c *Cluster) addDrain(v *View, t *store.Txn, known bool) error {
	key := DrainKey(c.Name())
	if _, asked := v.Drains[c.Name()]; known || asked || v.Unread[key] != nil || c.cfg.Drained == nil {
		return nil
	}
	d, ok := c.cfg.Drained()
	if !ok {
		return nil
	}
	text, err := Encode(d)
	if err != nil {
		return err
	}
	t.If = append(t.If, store.Compare{Key: key})
	t.Put[key] = text
	return nil
}

// wanted are the node's records as they should be, given what is there.
func (c *Cluster) wanted(have Entry[Node], was Entry[Alive]) (Node, Alive) {
	now := c.cfg.Now().UTC().Truncate(time.Second)
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.self
	n.ID, n.Joined = c.saved.ID, now
	if have.Value.ID == n.ID {
		n.Joined = have.Value.Joined
	}
	a := Alive{ID: n.ID, Session: c.session, Since: c.since, Containers: c.containers}
	if was.Value.Session == a.Session && now.Sub(c.keeper.counted) < containerInterval {
		a.Containers = was.Value.Containers
	}
	return n, a
}

func (c *Cluster) lastAlive() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.aliveAt
}

// noteAlive takes in that the store has this run's records, of which the last was written at the revision.
func (c *Cluster) noteAlive(ctx context.Context, rev uint64) {
	c.mu.Lock()
	c.aliveAt = rev
	news := !c.health.Registered
	c.health.Registered = true
	session := c.session
	c.mu.Unlock()
	c.keeper.holding = true
	err := c.save(ctx, func(s *saved) { s.Registered, s.Name, s.Sessions = true, c.Name(), []string{session} })
	if err != nil {
		c.log.Error("cannot save that this node is registered", slog.Any("err", err))
	}
	if news {
		wake(c.wakeReconcile)
		c.cfg.Changed()
	}
}

// writeSeen writes now and then when the node was last alive.
func (c *Cluster) writeSeen(ctx context.Context) error {
	v := c.View()
	now := c.cfg.Now()
	have := v.Seen[c.Name()]
	if now.Sub(have.Value.At) < seenInterval && now.After(have.Value.At.Add(-seenInterval)) {
		return nil
	}
	node, ok := v.Nodes[c.Name()]
	if _, unread := v.Unread[SeenKey(c.Name())]; unread || !ok {
		return nil
	}
	text, err := Encode(Seen{At: now.UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	_, err = c.commit(ctx, store.Txn{
		If:  []store.Compare{{Key: NodeKey(c.Name()), Created: node.Created}, {Key: SeenKey(c.Name()), Revision: have.Revision}},
		Put: map[string][]byte{SeenKey(c.Name()): text},
	})
	if err == nil {
		err = c.saveRevision(ctx)
	}
	return err
}

// UpdateSelf changes this node's record: its addresses, engine, version and the like. Name, ID and Joined stay.
func (c *Cluster) UpdateSelf(change func(*Node)) {
	c.mu.Lock()
	name := c.self.Name
	was := c.self
	change(&c.self)
	c.self.Name = name
	changed := c.self != was
	c.mu.Unlock()
	if changed {
		wake(c.wakeKeeper)
	}
}

// SetContainers tells how many containers of ours the node has, for listings. It is written after some seconds.
func (c *Cluster) SetContainers(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.containers = n
}

// guard is the compare by which a transaction of this node holds only while the node is a member, or the reason why it is
// none.
func (c *Cluster) guard() (store.Compare, error) {
	if err := c.fenced(); err != nil {
		return store.Compare{}, err
	}
	if err := c.unreachable(); err != nil {
		return store.Compare{}, err
	}
	v := c.View()
	n, ok := v.Nodes[c.Name()]
	if !ok || n.Value.ID != c.ID() {
		return store.Compare{}, c.notRegistered(v)
	}
	return store.Compare{Key: NodeKey(c.Name()), Created: n.Created}, nil
}
