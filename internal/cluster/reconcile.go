package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"fairway/internal/store"
)

const (
	// settleAgain is when a reconcile that could not settle everything runs again.
	settleAgain = time.Second
	// comeRound is how long, after the store has gone back, a record in another node's name is waited for to go: its owner
	// gives back what it does not know.
	comeRound = 30 * time.Second
)

// keepLedger makes store and ledger agree until the context ends: whenever something that concerns them has changed.
func (c *Cluster) keepLedger(ctx context.Context) error {
	if c.cfg.Ledger == nil {
		return nil
	}
	again := time.NewTimer(0)
	defer again.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		case <-c.wakeReconcile:
		}
		left, err := c.reconcile(ctx)
		text := ""
		if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrUnreachable) {
			text = err.Error()
		}
		if text != said && text != "" {
			c.log.Error("store and state file do not agree about blocks and addresses", slog.Any("err", err))
		}
		said = text
		if left || err != nil {
			again.Reset(settleAgain)
		}
	}
}

// reconcile compares what the store says is this node's with what the ledger believes, and settles each difference. Left
// says that something is still to be done, which no change of a record will tell of.
func (c *Cluster) reconcile(ctx context.Context) (left bool, err error) {
	release, err := c.claims.take(ctx)
	if err != nil {
		return false, err
	}
	defer release()
	v := c.View()
	// A node that is fenced, or was removed but does not know it yet, changes nothing: it announces nothing either.
	if c.member(v) != nil || removed(v, c.ID()) {
		return false, nil
	}
	c.layGhosts(v)
	known := map[string]bool{}
	var errs []error
	for _, k := range c.cfg.Ledger.Claims() {
		known[k.Key()] = true
		more, err := c.settle(ctx, k)
		left = left || more
		if errors.Is(err, store.ErrUnreachable) || ctx.Err() != nil {
			return true, err
		}
		errs = append(errs, err)
	}
	for key, e := range v.Blocks {
		if c.mine(e.Value.NodeID) && !known[key.String()] {
			errs = append(errs, c.unknownBlock(ctx, v, e))
		}
	}
	for key, e := range v.Addresses {
		if c.mine(e.Value.NodeID) && !known[key.String()] {
			// Claimed by a run that died before it could give it to anybody, or so late that nobody waited any more.
			errs = append(errs, c.giveBack(ctx, Claim{Pool: PoolSpec{CIDR: key.Pool}, Addr: key.Addr, Releasing: true}))
		}
	}
	c.endPools(ctx)
	return left, errors.Join(errs...)
}

// owner is what the cache says of a claim's record.
type owner struct {
	node, id string
	endpoint string
	since    time.Time
	revision uint64 // 0: there is no record
}

func (v *View) ownerOf(k Claim) owner {
	if k.Addr.IsValid() {
		e := v.Addresses[AddressKey{k.Pool.CIDR, k.Addr}]
		return owner{e.Value.Node, e.Value.NodeID, e.Value.Endpoint, e.Value.Claimed, e.Revision}
	}
	e := v.Blocks[BlockKey{k.Pool.CIDR, k.Block}]
	return owner{e.Value.Node, e.Value.NodeID, "", e.Value.Claimed, e.Revision}
}

// settle makes store and ledger agree about one claim of the ledger.
func (c *Cluster) settle(ctx context.Context, k Claim) (left bool, err error) {
	v := c.View()
	o := v.ownerOf(k)
	mine := o.revision != 0 && c.mine(o.id)
	switch {
	case k.Pending:
		return k.Releasing, nil
	case v.unreadable(k.Key()): // a newer version wrote it, and knows what it means
		return k.Releasing, nil
	case k.Releasing && mine:
		if err := c.giveBack(ctx, k); err != nil {
			return true, err
		}
		return false, c.cfg.Ledger.Forget(ctx, k)
	case k.Releasing:
		return false, c.cfg.Ledger.Forget(ctx, k)
	case o.revision == 0, removed(v, o.id):
		return c.claimAgain(ctx, v, k, o)
	case !mine:
		return c.lost(ctx, v, k, o)
	case k.Addr.IsValid() && k.Endpoint != "" && k.Endpoint != o.endpoint:
		if left, err := c.claimAgain(ctx, v, k, o); left || err != nil {
			return left, err
		}
	}
	return false, c.fence(ctx, k, "", false)
}

func (v *View) unreadable(key string) bool {
	_, ok := v.Unread[key]
	return ok
}

// fence changes the fence of a claim, if it is another.
func (c *Cluster) fence(ctx context.Context, k Claim, why string, doubt bool) error {
	if k.Fenced == why && k.Doubt == doubt {
		return nil
	}
	if why != "" {
		c.log.Warn("nothing new is given out from a claim of this node", slog.String("claim", k.text()), slog.String("why", why))
	} else {
		c.log.Info("a claim is this node's again", slog.String("claim", k.text()))
	}
	k.Fenced, k.Doubt = why, doubt
	return c.cfg.Ledger.Fence(ctx, k)
}

// claimAgain writes the record of what the node has: the store lost it, or never had it, or it is out of date.
func (c *Cluster) claimAgain(ctx context.Context, v *View, k Claim, o owner) (left bool, err error) {
	t := c.claimTxn(v)
	if err := c.addPool(&t, v, k.Pool); err != nil {
		return true, c.fence(ctx, k, err.Error(), false)
	}
	since := c.cfg.Now().UTC()
	if c.mine(o.id) {
		since = o.since
	}
	var rec any = Block{CIDR: k.Block, Pool: k.Pool.CIDR, Node: c.Name(), NodeID: c.ID(), Claimed: since}
	if k.Addr.IsValid() {
		rec = Address{Addr: k.Addr, Pool: k.Pool.CIDR, Node: c.Name(), NodeID: c.ID(), Endpoint: k.Endpoint, Claimed: since}
	}
	_, err = c.write(ctx, v, t, k.Key(), o.revision, rec)
	switch {
	case errors.Is(err, store.ErrConflict):
		return true, nil // the cache will know why
	case err != nil:
		return true, fmt.Errorf("claim %s again: %w", k.text(), err)
	case o.revision == 0:
		c.log.Info("claimed again what this node has", slog.String("claim", k.text()))
	}
	return false, c.fence(ctx, k, "", false)
}

// lost is about a claim that another node has by the store.
func (c *Cluster) lost(ctx context.Context, v *View, k Claim, o owner) (left bool, err error) {
	why := fmt.Sprintf("the store says that node %s has it since %s", o.node, o.since.Format(timeText))
	if restored := c.restoredAt(); !restored.IsZero() && c.cfg.Now().Sub(restored) < comeRound {
		return true, c.fence(ctx, k, why+", in a copy of the store that was put back", true)
	}
	if !k.InUse {
		return false, c.cfg.Ledger.Forget(ctx, Claim{Pool: k.Pool, Block: k.Block, Addr: k.Addr, Fenced: why})
	}
	hint := fmt.Sprintf("stop the containers that have it, or, if node %s is gone for good, `fairway node rm %s`", o.node, o.node)
	if v.Live(o.node) {
		hint = "start the containers that have it anew, so that they get other addresses"
	}
	return true, c.fence(ctx, k, why+": "+hint, false)
}

// unknownBlock is one that the store says is this node's, and the ledger does not know: it was claimed by a run that died
// before it was saved, or so late that nobody waited any more. After the store has gone back it may also be one that was
// given back since then, and that another node has by now.
//
// It may also be one that this run has just given back, while the cache is behind. Only a write to the very record that the
// cache has shows that it is still there.
func (c *Cluster) unknownBlock(ctx context.Context, v *View, e Entry[Block]) error {
	b := e.Value
	restored := c.restoredAt()
	if restored.IsZero() || c.cfg.Now().Sub(restored) >= ghostTime {
		_, err := c.write(ctx, v, c.claimTxn(v), b.Key(), e.Revision, b)
		if errors.Is(err, store.ErrConflict) {
			wake(c.wakeReconcile)
			return nil
		}
		if err != nil {
			return fmt.Errorf("take in block %v: %w", b.CIDR, err)
		}
		err = c.cfg.Ledger.Adopt(ctx, b)
		if err == nil {
			c.log.Info("took in a block that was claimed before", slog.String("block", b.CIDR.String()))
		}
		if !errors.Is(err, ErrNotUsed) {
			return err
		}
	}
	return c.giveBack(ctx, Claim{Pool: PoolSpec{CIDR: b.Pool}, Block: b.CIDR, Releasing: true})
}

// giveBack deletes the record of a claim, if it is this node's, as of the revision seen.
func (c *Cluster) giveBack(ctx context.Context, k Claim) error {
	for range 3 {
		v := c.View()
		o := v.ownerOf(k)
		if o.revision == 0 || !c.mine(o.id) {
			return nil
		}
		t := c.claimTxn(v)
		t.If = append(t.If, store.Compare{Key: k.Key(), Revision: o.revision})
		t.Delete = []string{k.Key()}
		_, err := c.commit(ctx, t)
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
		c.cache.until(v.Revision+1, ctx.Done())
	}
	return fmt.Errorf("give back %s: %w", k.text(), store.ErrConflict)
}

// endPools deletes the records of pools that this node made for networks made by hand, once nobody has anything of them.
// They are made anew when they are needed.
func (c *Cluster) endPools(ctx context.Context) {
	v := c.View()
	used := map[netip.Prefix]bool{}
	for key := range v.Blocks {
		used[key.Pool] = true
	}
	for key := range v.Addresses {
		used[key.Pool] = true
	}
	for cidr, p := range v.Pools {
		if used[cidr] || p.Value.Network != "" || p.Value.By != c.Name() || c.cfg.Now().Sub(p.Value.Created) < ghostTime {
			continue
		}
		v := c.View()
		t := c.claimTxn(v)
		t.If = append(t.If,
			store.Compare{Key: PoolKey(cidr), Created: p.Created},
			store.Compare{Key: BlocksUnder(cidr), Under: true}, store.Compare{Key: AddressesUnder(cidr), Under: true})
		t.Delete = []string{PoolKey(cidr)}
		indexed(&t, v)
		if _, err := c.commit(ctx, t); err != nil && !errors.Is(err, store.ErrConflict) {
			return // another time
		}
	}
}
