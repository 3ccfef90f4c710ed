package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"fairway/internal/store"
)

// quietTime is how long nothing new is claimed after the store has gone back. Each node that is alive writes again what it
// has within that time, also what it claimed so shortly before that no other node has heard of it. A connection that is
// dead is given up after 12 s.
const quietTime = 15 * time.Second

// errWentBack is for what was claimed of a store that is another one by now.
var errWentBack = errors.New("the store went back to an older copy meanwhile; try again")

// restoredAt is when the store was last found to have gone back; zero: never.
func (c *Cluster) restoredAt() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.health.Restored
}

// quiet is the error for what may not be claimed so shortly after the store has gone back.
func (c *Cluster) quiet() error {
	at := c.restoredAt()
	if at.IsZero() || c.cfg.Now().Sub(at) >= quietTime {
		return nil
	}
	return fmt.Errorf("the store (%s) had gone back to an older copy at %s: until %s all nodes write again what they have, and nothing new is claimed; try again then",
		c.cfg.Where, at.Format(time.TimeOnly), at.Add(quietTime).Format(time.TimeOnly))
}

// ofOldCopy says that a record in this node's name may be of an older copy of the store, and the block or address another
// node's since: the reconcile gives it back, if the ledger does not know it.
func (c *Cluster) ofOldCopy(claimed time.Time) error {
	at := c.restoredAt()
	if at.IsZero() || c.cfg.Now().Sub(at) >= ghostTime || !claimed.Before(at) {
		return nil
	}
	return errors.New("the record of it is of an older copy of the store, and is given back first; try again")
}

// confirm waits until the cache has what this node wrote, and tells whether the store is still the one from whose records
// the claim was chosen. The watch that tells of the write began before it, or everything was listed again since: then it is
// known whether the store had gone back.
func (c *Cluster) confirm(ctx context.Context, rev uint64, began time.Time, seen func(*View) uint64) error {
	for c.following.Load() {
		v := c.View()
		switch have := seen(v); {
		case !c.restoredAt().Before(began):
			return errWentBack
		case have == rev:
			return nil
		case have > rev:
			return errors.New("somebody else wrote its record meanwhile; try again")
		case v.Revision >= rev:
			return errWentBack
		case ctx.Err() != nil:
			return ctx.Err()
		}
		c.cache.until(rev, ctx.Done())
	}
	return nil
}

// wentBack says whether a listing contradicts what the cache had: it has a record that was written before, and that the
// cache did not have so. A store that only went on has no such record.
func (v *View) wentBack(l store.Listing) bool {
	if !v.Complete {
		return false
	}
	had := v.revisions()
	for _, r := range l.Records {
		if _, unread := v.Unread[r.Key]; unread || r.Revision > v.Revision {
			continue
		}
		if had[r.Key] != r.Revision {
			return true
		}
	}
	return false
}

// revisions are those of all records that can be read.
func (v *View) revisions() map[string]uint64 {
	out := map[string]uint64{PoolIndexKey: v.PoolIndex}
	addAll(out, v.Nodes, NodeKey)
	addAll(out, v.Alive, AliveKey)
	addAll(out, v.Seen, SeenKey)
	addAll(out, v.Drains, DrainKey)
	addAll(out, v.Tombstones, TombstoneKey)
	addAll(out, v.Networks, NetworkKey)
	addAll(out, v.States, StateKey.String)
	addAll(out, v.Pools, PoolKey)
	addAll(out, v.Blocks, BlockKey.String)
	addAll(out, v.Addresses, AddressKey.String)
	addAll(out, v.Routes, RouteKey.String)
	return out
}

func addAll[K comparable, V any](out map[string]uint64, from map[K]Entry[V], key func(K) string) {
	for k, e := range from {
		out[key(k)] = e.Revision
	}
}

// lostClaims says whether records of this node are gone that it still has, and nobody but an operator deletes. It is asked
// with the cache before and after a listing.
func (c *Cluster) lostClaims(before, after *View) bool {
	if c.cfg.Ledger == nil || !before.Complete || removed(after, c.ID()) {
		return false
	}
	for _, k := range c.cfg.Ledger.Claims() {
		was, is := before.ownerOf(k), after.ownerOf(k)
		if !k.Releasing && !k.Pending && was.revision != 0 && c.mine(was.id) && is.revision == 0 {
			return true
		}
	}
	return false
}
