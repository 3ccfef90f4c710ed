package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"fairway/internal/store"
)

// knownPrefix is where a node keeps, on its own disk, the networks that it has made. A network that is there and not in
// the store was lost by the store, since it goes from there before it may go from the store.
const knownPrefix = "cluster/network/"

// known is a network as the node keeps it.
type known struct {
	Network Network `json:"network"`
	Pools   []Pool  `json:"pools"`
}

// RemoveNetwork asks all nodes to remove a network. Its records go once no node has it any more. ErrNoNetwork.
func (c *Cluster) RemoveNetwork(ctx context.Context, name string) error {
	err := c.again(ctx, func(v *View) error {
		have, ok := v.Networks[name]
		switch {
		case v.Unread[NetworkKey(name)] != nil:
			return v.Unread[NetworkKey(name)]
		case !ok:
			return fmt.Errorf("%w; there are: %s", ErrNoNetwork, strings.Join(slices.Sorted(maps.Keys(v.Networks)), ", "))
		case !have.Value.Removing.IsZero():
			return nil
		}
		n := have.Value
		n.Removing = c.cfg.Now().UTC().Truncate(time.Second)
		return c.put(ctx, NetworkKey(name), n, have.Revision)
	})
	return said(err, "remove network %s", name)
}

// finishNetworks takes away the records of networks that are to be removed and that no node has any more. The first of
// the nodes that are alive does so.
func (c *Cluster) finishNetworks(ctx context.Context, v *View) error {
	names := slices.Sorted(maps.Keys(v.Alive))
	if len(names) == 0 || names[0] != c.Name() {
		return nil
	}
	for name, n := range v.Networks {
		if n.Value.Removing.IsZero() || v.Unread[NetworkKey(name)] != nil || v.networkHeld(name) {
			continue
		}
		t := store.Txn{
			If:     []store.Compare{{Key: NetworkKey(name), Revision: n.Revision}, {Key: StatesUnder(name), Under: true}},
			Delete: []string{NetworkKey(name)},
		}
		for _, p := range v.poolsOf(name) {
			t.If = append(t.If,
				store.Compare{Key: PoolKey(p.CIDR), Revision: v.Pools[p.CIDR].Revision},
				store.Compare{Key: BlocksUnder(p.CIDR), Under: true},
				store.Compare{Key: AddressesUnder(p.CIDR), Under: true})
			t.Delete = append(t.Delete, PoolKey(p.CIDR))
		}
		if _, err := c.commit(ctx, t); err != nil && !errors.Is(err, store.ErrConflict) {
			return said(err, "remove the records of network %s", name)
		}
	}
	return nil
}

// networkHeld says whether a node has the network, or something of its pools.
func (v *View) networkHeld(name string) bool {
	for k := range v.States {
		if k.Network == name {
			return true
		}
	}
	for k := range v.Blocks {
		if v.Pools[k.Pool].Value.Network == name {
			return true
		}
	}
	for k := range v.Addresses {
		if v.Pools[k.Pool].Value.Network == name {
			return true
		}
	}
	return false
}

// SetState writes how a network stands on this node. Since is set when the state is another one than before.
func (c *Cluster) SetState(ctx context.Context, s NetworkState) error {
	s.Node = c.Name()
	err := c.again(ctx, func(v *View) error {
		guard, err := c.guard()
		if err != nil {
			return err
		}
		n, ok := v.Networks[s.Network]
		if !ok {
			return ErrNoNetwork
		}
		key := StateKey{s.Network, s.Node}
		if err := v.Unread[key.String()]; err != nil {
			return err
		}
		have, had := v.States[key]
		s.Since = c.cfg.Now().UTC().Truncate(time.Second)
		if had && have.Value.State == s.State {
			s.Since = have.Value.Since
		}
		if had && have.Value == s {
			return nil
		}
		return c.put(ctx, key.String(), s, have.Revision, guard, store.Compare{Key: NetworkKey(s.Network), Created: n.Created})
	})
	return said(err, "write the state of network %s", s.Network)
}

// DeleteState says that this node does not have the network. One that is not there is no error.
func (c *Cluster) DeleteState(ctx context.Context, network string) error {
	key := StateKey{network, c.Name()}
	err := c.again(ctx, func(v *View) error {
		have, ok := v.States[key]
		if !ok {
			return v.Unread[key.String()]
		}
		_, err := c.commit(ctx, store.Txn{If: []store.Compare{{Key: key.String(), Revision: have.Revision}}, Delete: []string{key.String()}})
		return err
	})
	return said(err, "delete the state of network %s", network)
}

// poolsOf are the pools of a network.
func (v *View) poolsOf(network string) []Pool {
	var out []Pool
	for _, p := range v.Pools {
		if p.Value.Network == network {
			out = append(out, p.Value)
		}
	}
	slices.SortFunc(out, func(a, b Pool) int { return a.CIDR.Compare(b.CIDR) })
	return out
}

// NoteNetwork keeps on this node's disk that it has the network as the store has it now, so that its records can be
// written again should the store lose them.
func (c *Cluster) NoteNetwork(ctx context.Context, name string) error {
	v := c.View()
	n, ok := v.Networks[name]
	if !ok || !n.Value.Removing.IsZero() {
		return nil
	}
	text, err := json.Marshal(known{Network: n.Value, Pools: v.poolsOf(name)})
	if err != nil {
		return fmt.Errorf("encode network %s: %w", name, err)
	}
	_, err = c.cfg.Local.Commit(ctx, store.Txn{Put: map[string][]byte{knownPrefix + name: text}})
	return err
}

// ForgetNetwork undoes NoteNetwork; to be called once the node does not have the network, and before DeleteState.
func (c *Cluster) ForgetNetwork(ctx context.Context, name string) error {
	_, err := c.cfg.Local.Commit(ctx, store.Txn{Delete: []string{knownPrefix + name}})
	return err
}

// forgetNetworks undoes all of NoteNetwork: what this node knew was true before it was removed.
func (c *Cluster) forgetNetworks(ctx context.Context) error {
	have, err := c.KnownNetworks(ctx)
	if err != nil {
		return err
	}
	var t store.Txn
	for name := range have {
		t.Delete = append(t.Delete, knownPrefix+name)
	}
	if len(t.Delete) == 0 {
		return nil
	}
	_, err = c.cfg.Local.Commit(ctx, t)
	return err
}

// KnownNetworks are the networks that NoteNetwork kept, by name.
func (c *Cluster) KnownNetworks(ctx context.Context) (map[string]Network, error) {
	all, err := c.known(ctx)
	out := make(map[string]Network, len(all))
	for name, k := range all {
		out[name] = k.Network
	}
	return out, err
}

func (c *Cluster) known(ctx context.Context) (map[string]known, error) {
	l, err := c.cfg.Local.List(ctx, knownPrefix)
	if err != nil {
		return nil, fmt.Errorf("read the networks that this node has: %w", err)
	}
	out := map[string]known{}
	for _, r := range l.Records {
		var k known
		if err := json.Unmarshal(r.Value, &k); err != nil {
			return nil, fmt.Errorf("read record %s of the state file: %w", r.Key, err)
		}
		out[k.Network.Name] = k
	}
	return out, nil
}

// Network is a network's record: as the cache has it, or, when that does not have it, as the store does. While the store
// is unreachable there is none to be had. ErrNoNetwork.
func (c *Cluster) Network(ctx context.Context, name string) (Network, error) {
	if err := c.unreachable(); err != nil {
		return Network{}, err
	}
	v := c.View()
	if err := v.Unread[NetworkKey(name)]; err != nil {
		return Network{}, err
	}
	if n, ok := v.Networks[name]; ok {
		return n.Value, nil
	}
	r, err := c.cfg.Store.Get(ctx, NetworkKey(name))
	if errors.Is(err, store.ErrNotFound) {
		there := strings.Join(slices.Sorted(maps.Keys(v.Networks)), ", ")
		if there == "" {
			there = "none"
		}
		return Network{}, fmt.Errorf("%w in the store; there are: %s; make one with `fairway network create`", ErrNoNetwork, there)
	}
	if err := c.heard(err); err != nil {
		return Network{}, err
	}
	// Whoever asks goes on to use the pools.
	c.cache.until(r.Revision, ctx.Done())
	return Decode[Network](r.Key, r.Value)
}
