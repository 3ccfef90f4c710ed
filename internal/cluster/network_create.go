package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"fairway/internal/store"
)

// CreateNetwork records a network and its pools, for all nodes. Options and subnets are the caller's to check. ErrExists
// when there is one of the name; an error that names the network or pool in the way when a pool overlaps another.
func (c *Cluster) CreateNetwork(ctx context.Context, n Network, pools []Pool) error {
	err := c.again(ctx, func(v *View) error {
		guard, err := c.guard()
		if err != nil {
			return err
		}
		if err := v.Unread[NetworkKey(n.Name)]; err != nil {
			return err
		}
		if have, ok := v.Networks[n.Name]; ok {
			return networkThere(have.Value)
		}
		n.Created, n.By, n.Removing = c.cfg.Now().UTC().Truncate(time.Second), c.Name(), time.Time{}
		t := store.Txn{If: []store.Compare{guard, {Key: NetworkKey(n.Name)}}, Put: map[string][]byte{}}
		return c.writeNetwork(ctx, t, v, n, pools)
	})
	return said(err, "create network %s", n.Name)
}

func networkThere(n Network) error {
	if !n.Removing.IsZero() {
		return fmt.Errorf("%w, and is being removed since %s: wait until no node has it", ErrExists, n.Removing.Format(time.RFC3339))
	}
	return fmt.Errorf("%w: made on node %s at %s", ErrExists, n.By, n.Created.Format(time.RFC3339))
}

// writeNetwork writes a network's record and those of its pools with a transaction.
func (c *Cluster) writeNetwork(ctx context.Context, t store.Txn, v *View, n Network, pools []Pool) error {
	for i := range pools {
		pools[i].Network, pools[i].Created, pools[i].By = n.Name, n.Created, n.By
	}
	if err := addPools(&t, v, pools); err != nil {
		return err
	}
	text, err := Encode(n)
	if err != nil {
		return err
	}
	t.Put[NetworkKey(n.Name)] = text
	_, err = c.commit(ctx, t)
	return err
}

// RestoreNetworks writes the records of networks again that this node has and the store has lost. It returns which.
func (c *Cluster) RestoreNetworks(ctx context.Context) (written []string, err error) {
	all, err := c.known(ctx)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(all)) {
		k, wrote := all[name], false
		err := c.again(ctx, func(v *View) error {
			guard, err := c.guard()
			if err != nil || v.Has(NetworkKey(name)) {
				return err
			}
			pools := slices.DeleteFunc(slices.Clone(k.Pools), func(p Pool) bool {
				have, ok := v.Pools[p.CIDR]
				return ok && have.Value.Network == name
			})
			t := store.Txn{If: []store.Compare{guard, {Key: NetworkKey(name)}}, Put: map[string][]byte{}}
			err = c.writeNetwork(ctx, t, v, k.Network, pools)
			wrote = err == nil
			return err
		})
		if err != nil {
			errs = append(errs, said(err, "write the record of network %s again", name))
		}
		if wrote {
			written = append(written, name)
		}
	}
	return written, errors.Join(errs...)
}
