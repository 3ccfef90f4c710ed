package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"fairway/internal/store"
)

// claims is what claiming needs to remember. It is safe for concurrent use.
type claims struct {
	turn   chan struct{} // of one place, full while something is claimed, given back or compared
	mu     sync.Mutex
	ghosts map[string]ghost // by key
}

func newClaims() *claims {
	return &claims{turn: make(chan struct{}, 1), ghosts: map[string]ghost{}}
}

// take waits for its turn: what is claimed, given back and compared with the ledger must not meet.
func (c *claims) take(ctx context.Context) (release func(), err error) {
	select {
	case c.turn <- struct{}{}:
		return func() { <-c.turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for an earlier claim: %w", ctx.Err())
	}
}

// ErrNoBlock says that no block of the pool is left, or that this node has its share.
var ErrNoBlock = errors.New("no block to claim")

// HeldError says which node has what was asked for.
type HeldError struct {
	What     string // "address 10.9.192.1", or the block that it is in
	Node     string
	Endpoint string // "": unknown
	Since    time.Time
	Alive    bool         // the node is heard of
	Seen     time.Time    // when it was last; zero: unknown
	Static   netip.Prefix // where an address works on any node; zero when there is none, or it is in there
}

func (e *HeldError) Error() string {
	s := fmt.Sprintf("%s is held by node %s since %s", e.What, e.Node, e.Since.Format(time.DateTime))
	if e.Endpoint != "" {
		s += fmt.Sprintf(" (endpoint %.12s)", e.Endpoint)
	}
	if !e.Alive {
		s += ", which is not alive"
		if !e.Seen.IsZero() {
			s += " (last seen " + e.Seen.Format(time.DateTime) + ")"
		}
		s += fmt.Sprintf(": if it is gone for good, give back what it holds with `fairway node rm %s`", e.Node)
	}
	if e.Static.IsValid() {
		s += fmt.Sprintf("; addresses that work on any node are in the static range %v", e.Static)
	}
	return s
}

// ErrHeld is what every HeldError wraps.
var ErrHeld = errors.New("held by another node")

// Unwrap makes a HeldError an ErrHeld.
func (e *HeldError) Unwrap() error { return ErrHeld }

func (c *Cluster) heldBlock(v *View, spec PoolSpec, b Block, addr netip.Addr) *HeldError {
	return &HeldError{
		What: fmt.Sprintf("block %v with address %v", b.CIDR, addr), Node: b.Node, Since: b.Claimed, Alive: v.Live(b.Node),
		Seen: v.LastSeen(b.Node), Static: spec.Static,
	}
}

// member says why this node cannot write any claims now.
func (c *Cluster) member(v *View) error {
	if err := c.unreachable(); err != nil {
		return err
	}
	if err := c.fenced(); err != nil {
		return err
	}
	if !v.Complete {
		return fmt.Errorf("the store (%s) was not read yet: %w", c.cfg.Where, store.ErrUnreachable)
	}
	if n, ok := v.Nodes[c.Name()]; !ok || !c.mine(n.Value.ID) {
		return fmt.Errorf("node %s is not registered in the store yet; try again", c.Name())
	}
	return nil
}

// Refuse says why this node may take no new containers at all; nil: it may.
func (c *Cluster) Refuse() error { return c.fenced() }

// claimTxn is a transaction that only does something as long as this node is the one that was registered.
func (c *Cluster) claimTxn(v *View) store.Txn {
	return store.Txn{
		If:  []store.Compare{{Key: NodeKey(c.Name()), Created: v.Nodes[c.Name()].Created}},
		Put: map[string][]byte{},
	}
}

// late explains an error that comes of the caller's deadline: the store did not answer.
func (c *Cluster) late(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || errors.Is(err, store.ErrUnreachable) || !errors.Is(err, ctx.Err()) {
		return err
	}
	return fmt.Errorf("the store (%s) did not answer in time, so it is as good as unreachable: %w (%w)", c.cfg.Where, store.ErrUnreachable, err)
}

// ClaimBlock claims a block of the pool for this node, or the one with an address in it, and enters it in the ledger. It
// returns ErrNoBlock, a *HeldError, ErrFenced or store.ErrUnreachable, each wrapped, when that cannot be.
func (c *Cluster) ClaimBlock(ctx context.Context, spec PoolSpec, covering netip.Addr) (Block, error) {
	b, err := c.claimBlock(ctx, spec, covering)
	if err != nil {
		return Block{}, fmt.Errorf("claim a block of %v: %w", spec.CIDR, c.late(ctx, err))
	}
	return b, nil
}

func (c *Cluster) claimBlock(ctx context.Context, spec PoolSpec, covering netip.Addr) (Block, error) {
	release, err := c.claims.take(ctx)
	if err != nil {
		return Block{}, err
	}
	defer release()
	for try := 0; ctx.Err() == nil; try++ {
		v, began := c.View(), c.cfg.Now()
		if err := c.member(v); err != nil {
			return Block{}, err
		}
		t := c.claimTxn(v)
		if err := c.addPool(&t, v, spec); err != nil {
			return Block{}, err
		}
		if err := c.underLimit(v, spec); err != nil {
			return Block{}, err
		}
		var cidr netip.Prefix
		var seen uint64
		if covering.IsValid() {
			cidr, seen, err = c.blockWith(ctx, v, spec, covering)
		} else {
			cidr, err = c.freeBlock(v, spec, c.firstChoice(spec), try > 0)
		}
		if err == nil {
			err = c.quiet()
		}
		if err != nil {
			return Block{}, err
		}
		b := Block{CIDR: cidr, Pool: spec.CIDR, Node: c.Name(), NodeID: c.ID(), Claimed: c.cfg.Now().UTC()}
		rev, err := c.write(ctx, v, t, b.Key(), seen, b)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err == nil {
			err = c.confirm(ctx, rev, began, func(v *View) uint64 { return v.Blocks[BlockKey{b.Pool, b.CIDR}].Revision })
		}
		if err != nil {
			return Block{}, err
		}
		return b, c.enter(ctx, b)
	}
	return Block{}, ctx.Err()
}

// enter puts a claimed block into the ledger. Whoever waits for it may have gone; the block is there.
func (c *Cluster) enter(ctx context.Context, b Block) error {
	ctx = context.WithoutCancel(ctx)
	err := c.cfg.Ledger.Adopt(ctx, b)
	if errors.Is(err, ErrNotUsed) {
		if _, ok := c.View().Blocks[BlockKey{b.Pool, b.CIDR}]; ok {
			wake(c.wakeReconcile) // which gives it back
		}
	}
	return err
}

// write adds a record to a transaction that compares the revision seen of it, and commits. After a conflict it waits
// until the cache has moved: what was in the way is in there.
func (c *Cluster) write(ctx context.Context, v *View, t store.Txn, key string, seen uint64, rec any) (uint64, error) {
	text, err := Encode(rec)
	if err != nil {
		return 0, err
	}
	t.If = append(t.If, store.Compare{Key: key, Revision: seen})
	t.Put[key] = text
	rev, err := c.commit(ctx, t)
	if errors.Is(err, store.ErrConflict) {
		c.cache.until(v.Revision+1, ctx.Done())
	}
	return rev, err
}

// blockWith is the block with the address, if it is nobody's, or this node's in the store: then it is written again, so
// that a release that is still on its way does nothing.
func (c *Cluster) blockWith(ctx context.Context, v *View, spec PoolSpec, addr netip.Addr) (netip.Prefix, uint64, error) {
	cidr, err := addr.Prefix(spec.BlockSize)
	if err != nil {
		return netip.Prefix{}, 0, err
	}
	if !spec.CIDR.Contains(addr) || spec.Static.Overlaps(cidr) {
		return netip.Prefix{}, 0, fmt.Errorf("address %v is in no block of %v", addr, spec.CIDR)
	}
	key := BlockKey{spec.CIDR, cidr}
	e, err := current(ctx, c, key.String(), v.Blocks[key], func(b Block) bool { return c.mine(b.NodeID) })
	switch {
	case err != nil:
		return netip.Prefix{}, 0, err
	case e.Revision != 0 && !c.mine(e.Value.NodeID) && !removed(v, e.Value.NodeID):
		return netip.Prefix{}, 0, c.heldBlock(v, spec, e.Value, addr)
	case e.Revision != 0:
		return cidr, e.Revision, c.oldClaim(v, key.String(), e.Value.Claimed)
	}
	if err := c.notOurs(v, key.String(), cidr, spec); err != nil {
		return netip.Prefix{}, 0, fmt.Errorf("address %v: %w", addr, err)
	}
	return cidr, 0, nil
}

// oldClaim says why what the store says is this node's may be another's all the same.
func (c *Cluster) oldClaim(v *View, key string, claimed time.Time) error {
	if err := c.ghosted(v, key); err != nil {
		return err
	}
	return c.ofOldCopy(claimed)
}

// removed says that the node with the ID was removed by hand: what is left of it is nobody's.
func removed(v *View, id string) bool {
	_, ok := v.Tombstones[id]
	return ok
}

// current is the record as the cache has it, or, when that would be a refusal, as the store has it: the cache may be some
// milliseconds behind a container that just moved. A zero entry says that there is none.
func current[V any](ctx context.Context, c *Cluster, key string, cached Entry[V], ours func(V) bool) (Entry[V], error) {
	if cached.Revision == 0 || ours(cached.Value) {
		return cached, nil
	}
	r, err := c.cfg.Store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return Entry[V]{}, nil
	}
	if err := c.heard(err); err != nil {
		return Entry[V]{}, err
	}
	val, err := Decode[V](key, r.Value)
	return Entry[V]{Value: val, Revision: r.Revision, Created: r.Created}, err
}

// ClaimAddress claims an address of the pool's static range for this node. Endpoint may be "". One that the store gave
// this node before is claimed anew. It returns a *HeldError, ErrFenced or store.ErrUnreachable, each wrapped, when that
// cannot be.
func (c *Cluster) ClaimAddress(ctx context.Context, spec PoolSpec, addr netip.Addr, endpoint string) (Address, error) {
	a, err := c.claimAddress(ctx, spec, addr, endpoint)
	if err != nil {
		return Address{}, fmt.Errorf("claim address %v: %w", addr, c.late(ctx, err))
	}
	return a, nil
}

func (c *Cluster) claimAddress(ctx context.Context, spec PoolSpec, addr netip.Addr, endpoint string) (Address, error) {
	if !spec.Static.Contains(addr) {
		return Address{}, fmt.Errorf("it is not in the static range %v of %v", spec.Static, spec.CIDR)
	}
	release, err := c.claims.take(ctx)
	if err != nil {
		return Address{}, err
	}
	defer release()
	a := Address{Addr: addr, Pool: spec.CIDR, Node: c.Name(), NodeID: c.ID(), Endpoint: endpoint, Claimed: c.cfg.Now().UTC()}
	for ctx.Err() == nil {
		v, began := c.View(), c.cfg.Now()
		if err := c.member(v); err != nil {
			return Address{}, err
		}
		t := c.claimTxn(v)
		if err := c.addPool(&t, v, spec); err != nil {
			return Address{}, err
		}
		seen, err := c.addressToClaim(ctx, v, a)
		if err != nil {
			return Address{}, err
		}
		rev, err := c.write(ctx, v, t, a.Key(), seen, a)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err == nil {
			err = c.confirm(ctx, rev, began, func(v *View) uint64 { return v.Addresses[AddressKey{a.Pool, a.Addr}].Revision })
		}
		return a, err
	}
	return Address{}, ctx.Err()
}

// addressToClaim is the revision of the address's record, 0 when there is none, if this node may have it.
func (c *Cluster) addressToClaim(ctx context.Context, v *View, a Address) (uint64, error) {
	e, err := current(ctx, c, a.Key(), v.Addresses[AddressKey{a.Pool, a.Addr}], func(a Address) bool { return c.mine(a.NodeID) })
	switch {
	case err != nil:
	case e.Revision != 0 && !c.mine(e.Value.NodeID) && !removed(v, e.Value.NodeID):
		return 0, &HeldError{
			What: "it", Node: e.Value.Node, Endpoint: e.Value.Endpoint, Since: e.Value.Claimed,
			Alive: v.Live(e.Value.Node), Seen: v.LastSeen(e.Value.Node),
		}
	case e.Revision == 0:
		err = c.ghosted(v, a.Key())
	default:
		err = c.oldClaim(v, a.Key(), e.Value.Claimed)
	}
	if err == nil {
		err = c.quiet()
	}
	return e.Revision, err
}

// ReleaseAddress gives an address back. One that this node does not have is no error.
func (c *Cluster) ReleaseAddress(ctx context.Context, pool netip.Prefix, addr netip.Addr) error {
	release, err := c.claims.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	k := Claim{Pool: PoolSpec{CIDR: pool}, Addr: addr, Releasing: true}
	if err := c.giveBack(ctx, k); err != nil {
		return fmt.Errorf("release address %v: %w", addr, c.late(ctx, err))
	}
	return nil
}

// Release gives back, as long as the context lets it, the addresses that the ledger says are being released, and has the
// blocks follow in the background. What cannot be done now is done when the store is back.
func (c *Cluster) Release(ctx context.Context) error {
	defer wake(c.wakeReconcile)
	if err := c.unreachable(); err != nil {
		return err
	}
	release, err := c.claims.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	for _, k := range c.cfg.Ledger.Claims() {
		if !k.Releasing || !k.Addr.IsValid() {
			continue
		}
		if err := c.giveBack(ctx, k); err != nil {
			return fmt.Errorf("release %s: %w", k.text(), c.late(ctx, err))
		}
		if err := c.cfg.Ledger.Forget(context.WithoutCancel(ctx), k); err != nil {
			return err
		}
	}
	return nil
}
