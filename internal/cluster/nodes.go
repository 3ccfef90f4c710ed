package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"fairway/internal/store"
)

// What callers of RemoveNode, Drain and the like branch on.
var (
	ErrAlive     = errors.New("the node is alive")
	ErrNoNode    = errors.New("no such node")
	ErrNoNetwork = errors.New("no such network")
	ErrExists    = errors.New("exists already")
)

// tries is how often a change is tried again after somebody else's came between.
const tries = 10

// again runs a change until nobody's comes between. The change reads the View anew each time.
func (c *Cluster) again(ctx context.Context, change func(v *View) error) error {
	var err error
	for range tries {
		v := c.View()
		if !v.Complete {
			if err := c.unreachable(); err != nil {
				return err
			}
			return fmt.Errorf("the store (%s) was not read yet; try again", c.cfg.Where)
		}
		if err = change(v); !errors.Is(err, store.ErrConflict) {
			return err
		}
		// What was in the way is at a later revision than the cache has.
		c.cache.until(v.Revision+1, ctx.Done())
	}
	return err
}

// Drain asks a node to announce nothing, and to take no new containers if refuse is set. ErrNoNode.
func (c *Cluster) Drain(ctx context.Context, name string, refuse bool) error {
	err := c.again(ctx, func(v *View) error {
		n, ok := v.Nodes[name]
		if !ok {
			return noNode(v, name)
		}
		if err := v.Unread[DrainKey(name)]; err != nil {
			return err
		}
		have, ok := v.Drains[name]
		if ok && have.Value.Refuse == refuse {
			return nil
		}
		d := Drain{Since: c.cfg.Now().UTC().Truncate(time.Second), By: c.Name(), Refuse: refuse}
		if ok {
			d.Since = have.Value.Since
		}
		return c.put(ctx, DrainKey(name), d, have.Revision, store.Compare{Key: NodeKey(name), Created: n.Created})
	})
	return said(err, "drain node %s", name)
}

// Undrain takes the request back. A node that is not drained is no error. ErrNoNode.
func (c *Cluster) Undrain(ctx context.Context, name string) error {
	err := c.again(ctx, func(v *View) error {
		have, ok := v.Drains[name]
		if _, known := v.Nodes[name]; !known && !ok {
			return noNode(v, name)
		}
		if !ok {
			return v.Unread[DrainKey(name)]
		}
		_, err := c.commit(ctx, store.Txn{If: []store.Compare{{Key: DrainKey(name), Revision: have.Revision}}, Delete: []string{DrainKey(name)}})
		return err
	})
	return said(err, "undrain node %s", name)
}

// restoreDrain writes the request to drain this node again, if a store that went back has lost it.
func (c *Cluster) restoreDrain(ctx context.Context, before, after *View) {
	was, drained := before.Drains[c.Name()]
	n, known := after.Nodes[c.Name()]
	if _, still := after.Drains[c.Name()]; !drained || still || !known {
		return
	}
	err := c.put(ctx, DrainKey(c.Name()), was.Value, 0, store.Compare{Key: NodeKey(c.Name()), Created: n.Created})
	if err != nil {
		c.log.Warn("cannot write again that this node is drained", slog.Any("err", err))
	}
}

// put writes one record if it has the revision still, and the compares hold.
func (c *Cluster) put(ctx context.Context, key string, v any, rev uint64, also ...store.Compare) error {
	text, err := Encode(v)
	if err != nil {
		return err
	}
	_, err = c.commit(ctx, store.Txn{If: append(also, store.Compare{Key: key, Revision: rev}), Put: map[string][]byte{key: text}})
	return err
}

func noNode(v *View, name string) error {
	if err := v.Unread[NodeKey(name)]; err != nil {
		return err
	}
	return fmt.Errorf("%w %q: there are %s", ErrNoNode, name, strings.Join(v.NodeNames(), ", "))
}

// said puts before an error what was being done.
func said(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}

// Removal is what a node held that is, or is to be, removed.
type Removal struct {
	Node      Node
	Seen      time.Time // when it was last known to be alive; zero: nobody knows
	Blocks    []Block
	Addresses []Address
	Routes    []Route
	States    []NetworkState
}

// RemoveNode removes a node that is gone for good, and gives back what it held; with dry it only tells what that is. An
// agent that comes back with that node's identity is fenced. A removal that was broken off goes on with the next call.
// ErrAlive when the node's agent is heard of, ErrNoNode.
func (c *Cluster) RemoveNode(ctx context.Context, name string, dry bool) (Removal, error) {
	var r Removal
	err := c.again(ctx, func(v *View) (err error) {
		r, err = c.removal(v, name)
		if err != nil || dry {
			return err
		}
		return c.bury(ctx, v, r.Node)
	})
	if err == nil && !dry {
		// After the tombstone the node can write nothing more, and the cache has all that it wrote before.
		held := r
		if r, err = c.removal(c.View(), name); err == nil {
			err = c.clear(ctx, r)
		} else if errors.Is(err, ErrNoNode) {
			r, err = held, nil
		}
	}
	return r, said(err, "remove node %s", name)
}

// removal is what the node, or one of the name whose removal was broken off, holds.
func (c *Cluster) removal(v *View, name string) (Removal, error) {
	ids := map[string]bool{}
	r := Removal{Seen: v.LastSeen(name)}
	n, known := v.Nodes[name]
	if known {
		if v.Live(name) {
			return r, fmt.Errorf("%w: its agent was heard of at %s; stop it first, or drain the node", ErrAlive, n.Value.Addr4)
		}
		r.Node = n.Value
		ids[n.Value.ID] = true
	}
	for id, t := range v.Tombstones {
		if t.Value.Name == name {
			ids[id] = true
			if !known {
				r.Node = Node{Name: name, ID: id}
			}
		}
	}
	r.collect(v, name, ids, known)
	if !known && len(r.Blocks)+len(r.Addresses)+len(r.Routes)+len(r.States) == 0 {
		return r, noNode(v, name)
	}
	return r, nil
}

func (r *Removal) collect(v *View, name string, ids map[string]bool, known bool) {
	for _, b := range v.Blocks {
		if ids[b.Value.NodeID] {
			r.Blocks = append(r.Blocks, b.Value)
		}
	}
	for _, a := range v.Addresses {
		if ids[a.Value.NodeID] {
			r.Addresses = append(r.Addresses, a.Value)
		}
	}
	slices.SortFunc(r.Blocks, func(a, b Block) int { return a.CIDR.Compare(b.CIDR) })
	slices.SortFunc(r.Addresses, func(a, b Address) int { return a.Addr.Compare(b.Addr) })
	if !known && len(ids) == 0 {
		return
	}
	for k, e := range v.Routes {
		if k.Node == name {
			r.Routes = append(r.Routes, e.Value)
		}
	}
	for k, e := range v.States {
		if k.Node == name {
			r.States = append(r.States, e.Value)
		}
	}
	slices.SortFunc(r.Routes, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
	slices.SortFunc(r.States, func(a, b NetworkState) int { return strings.Compare(a.Network, b.Network) })
}

// bury writes the tombstone and takes the node's record away, if its agent is not heard of.
func (c *Cluster) bury(ctx context.Context, v *View, n Node) error {
	have, known := v.Nodes[n.Name]
	if !known {
		return nil // done already
	}
	text, err := Encode(Tombstone{ID: n.ID, Name: n.Name, At: c.cfg.Now().UTC().Truncate(time.Second), By: c.Name()})
	if err != nil {
		return err
	}
	_, err = c.commit(ctx, store.Txn{
		If:     []store.Compare{{Key: AliveKey(n.Name)}, {Key: NodeKey(n.Name), Revision: have.Revision}},
		Put:    map[string][]byte{TombstoneKey(n.ID): text},
		Delete: []string{NodeKey(n.Name), SeenKey(n.Name), DrainKey(n.Name)},
	})
	if err == nil {
		c.log.Info("removed a node", slog.String("node", n.Name), slog.String("id", n.ID))
	}
	return err
}

// clear gives back what a removed node held, each in a transaction of its own. What somebody else changed meanwhile is
// no longer that node's, and stays.
func (c *Cluster) clear(ctx context.Context, r Removal) error {
	var keys []string
	for _, b := range r.Blocks {
		keys = append(keys, b.Key())
	}
	for _, a := range r.Addresses {
		keys = append(keys, a.Key())
	}
	for _, o := range r.Routes {
		keys = append(keys, o.Key())
	}
	for _, s := range r.States {
		keys = append(keys, s.Key())
	}
	v := c.View()
	var errs []error
	for _, key := range keys {
		rev := v.RevisionOf(key)
		if rev == 0 {
			continue
		}
		_, err := c.commit(ctx, store.Txn{If: []store.Compare{{Key: key, Revision: rev}}, Delete: []string{key}})
		if err != nil && !errors.Is(err, store.ErrConflict) {
			errs = append(errs, fmt.Errorf("give back %s: %w", strings.TrimPrefix(key, root), err))
			break // the others would fail alike; the next call goes on from here
		}
	}
	return errors.Join(errs...)
}

// finishRemovals goes on with removals that this node began and did not finish, and takes away what networks that are
// removed everywhere have left.
func (c *Cluster) finishRemovals(ctx context.Context) error {
	v := c.View()
	for _, id := range slices.Sorted(maps.Keys(v.Tombstones)) {
		t := v.Tombstones[id].Value
		if t.By != c.Name() {
			continue
		}
		if n, known := v.Nodes[t.Name]; known && n.Value.ID != id {
			continue // joined again under the name: what the old one held is that node's to take over
		}
		r, err := c.removal(v, t.Name)
		if err != nil {
			continue // nothing is left of it
		}
		if err := c.clear(ctx, r); err != nil {
			return err
		}
	}
	return c.finishNetworks(ctx, v)
}

// Join makes this node a member again after it was removed, under a new identity. What its containers use is claimed
// again after that, as far as nobody else has it. ErrExists when the node is a member, *NameTakenError when its name is
// another's meanwhile.
func (c *Cluster) Join(ctx context.Context) error {
	v := c.View()
	if err := c.unreachable(); err != nil {
		return fmt.Errorf("join the cluster: %w", err)
	}
	c.mu.Lock()
	old := c.saved
	c.mu.Unlock()
	if have, known := v.Nodes[c.Name()]; known {
		if have.Value.ID == old.ID && old.Fenced == "" {
			return fmt.Errorf("join the cluster: this node is a member, since %s: %w", have.Value.Joined.Format(time.RFC3339), ErrExists)
		}
		if have.Value.ID != old.ID {
			return c.nameTaken(v, have.Value)
		}
	}
	if err := c.forgetNetworks(ctx); err != nil {
		return err
	}
	err := c.save(ctx, func(s *saved) { s.ID, s.Registered, s.Name, s.Fenced = rand.Text(), false, "", "" })
	if err != nil {
		return err
	}
	c.log.Info("joining the cluster again", slog.String("node", c.Name()), slog.String("id", c.ID()))
	wake(c.wakeKeeper)
	wake(c.wakeReconcile)
	c.cfg.Changed()
	return c.registered(ctx)
}

// registered waits until this node's records are written.
func (c *Cluster) registered(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for {
		if _, err := c.guard(); err == nil {
			return nil
		} else if ctx.Err() != nil {
			return err
		}
		c.cache.until(c.View().Revision+1, ctx.Done())
	}
}
