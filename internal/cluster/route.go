package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"fairway/internal/store"
)

// routeBatch is how many routes one transaction writes: etcd takes 128 operations, and as many compares.
const routeBatch = 100

// errNotListed says that nothing is known of the store yet.
var errNotListed = errors.New("the store was not read yet")

// SetRoutes makes the routes of this node in the store the whole set; their Node is this one. What goes is deleted before
// anything is written. Each write has compares, so that one that is applied late does no harm: to this node's record, which
// must be the one that this node made, and to the route as the cache has it.
//
// ErrFenced means that this node may not announce anything. After another error some of it may have been done; call again.
func (c *Cluster) SetRoutes(ctx context.Context, want []Route) error {
	v := c.View()
	if !v.Complete {
		return errors.Join(errNotListed, c.unreachable())
	}
	me, ok := v.Nodes[c.Name()]
	if !ok || me.Value.ID != c.ID() {
		return fmt.Errorf("write routes of node %s: its record is not this node's: %w", c.Name(), ErrFenced)
	}
	guard := store.Compare{Key: NodeKey(c.Name()), Created: me.Created}
	txns, err := routeTxns(v, c.Name(), guard, want)
	if err != nil {
		return err
	}
	for _, t := range txns {
		if _, err := c.commit(ctx, t); err != nil {
			return fmt.Errorf("write %d and delete %d routes: %w", len(t.Put), len(t.Delete), err)
		}
	}
	return nil
}

// routeTxns are what makes a node's routes the wanted ones, deletions first.
func routeTxns(v *View, node string, guard store.Compare, want []Route) ([]store.Txn, error) {
	var txns []store.Txn
	batch := func() *store.Txn {
		if n := len(txns); n == 0 || len(txns[n-1].Put)+len(txns[n-1].Delete) == routeBatch {
			txns = append(txns, store.Txn{If: []store.Compare{guard}, Put: map[string][]byte{}})
		}
		return &txns[len(txns)-1]
	}
	wanted := make(map[netip.Prefix]Route, len(want))
	for _, r := range want {
		wanted[r.Prefix] = r
	}
	for key, have := range v.Routes {
		if _, stays := wanted[key.Prefix]; stays || key.Node != node {
			continue
		}
		t := batch()
		t.If = append(t.If, store.Compare{Key: key.String(), Revision: have.Revision})
		t.Delete = append(t.Delete, key.String())
	}
	for prefix, r := range wanted {
		key := RouteKey{Node: node, Prefix: prefix}
		have, ok := v.Routes[key]
		if ok && have.Value == r {
			continue
		}
		text, err := Encode(r)
		if err != nil {
			return nil, err
		}
		t := batch()
		t.If = append(t.If, store.Compare{Key: key.String(), Revision: have.Revision})
		t.Put[key.String()] = text
	}
	return txns, nil
}
