package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"fairway/internal/cluster"
	"fairway/internal/plan"
	"fairway/internal/store"
)

// drainKey is where the node keeps in its own file that it is drained: for a node without a store, and for an agent that
// starts while the store is away.
const drainKey = "drain/self"

// parting is how long routes are announced as about to go before they are withdrawn: others find other ways meanwhile.
const parting = 5 * time.Second

// tellInterval is how often a store that was away is tried for what it has to hear.
const tellInterval = time.Second

// errDrained is why a container gets nothing here.
var errDrained = errors.New("this node is drained and takes no new containers; `fairway node undrain` ends it")

// drained is a request to drain this node.
type drained struct {
	Since  time.Time `json:"since,omitzero"` // of the request; zero: there is none
	Refuse bool      `json:"refuse,omitempty"`
	// Untold: it was asked for here, or taken back, while the store was away, which is to hear of it.
	Untold bool `json:"untold,omitempty"`
}

// drainKeeper knows how far this node is with it.
type drainKeeper struct {
	mark func() // asks for a pass

	mu    sync.Mutex
	local *store.Local
	now   drained
	began time.Time // when this run of the agent took it up; zero: an earlier one did
}

// load reads what an earlier run saved. What was withdrawn then is not announced for a moment now.
func (d *drainKeeper) load(ctx context.Context, local *store.Local) error {
	l, err := local.List(ctx, drainKey)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.local = local
	for _, r := range l.Records {
		if err := json.Unmarshal(r.Value, &d.now); err != nil {
			return fmt.Errorf("read record %s of the state file: %w", r.Key, err)
		}
	}
	return nil
}

// take takes up what is asked for, once it is saved.
func (d *drainKeeper) take(ctx context.Context, next drained) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.now.Refuse == next.Refuse && d.now.Untold == next.Untold && d.now.Since.Equal(next.Since) {
		return nil
	}
	if d.local == nil {
		return errors.New("the agent is still starting; try again")
	}
	text, err := json.Marshal(next)
	if err == nil {
		_, err = d.local.Commit(ctx, store.Txn{Put: map[string][]byte{drainKey: text}})
	}
	if err != nil {
		return fmt.Errorf("save that this node is drained: %w", err)
	}
	if d.now.Since.IsZero() && !next.Since.IsZero() {
		d.began = time.Now()
		time.AfterFunc(parting, d.mark)
	}
	d.now = next
	d.mark()
	return nil
}

// told notes that the store knows of the request, unless there is another one by now.
func (d *drainKeeper) told(ctx context.Context, asked drained) error {
	if _, now := d.state(); now != asked {
		return nil
	}
	asked.Untold = false
	return d.take(ctx, asked)
}

// phase is how far it is.
func (d *drainKeeper) phase() plan.Drain {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.now.Since.IsZero():
		return plan.NotDrained
	case time.Since(d.began) < parting:
		return plan.Draining
	}
	return plan.Drained
}

// state is for listings: "", "draining" or "drained".
func (d *drainKeeper) state() (string, drained) {
	phase := d.phase()
	d.mu.Lock()
	defer d.mu.Unlock()
	return map[plan.Drain]string{plan.Draining: "draining", plan.Drained: "drained"}[phase], d.now
}

// drainPhase takes in what the store asks of this node, and returns how far this node is with withdrawing itself. A node
// that is fenced announces nothing. A store that has lost the node's record says nothing about it.
func (a *Agent) drainPhase(ctx context.Context) plan.Drain {
	c := a.clus()
	if c == nil {
		return a.drain.phase()
	}
	v := c.View()
	n, known := v.Nodes[c.Name()]
	known = known && n.Value.ID == c.ID()
	if _, now := a.drain.state(); v.Complete && !now.Untold && (known || c.Health().Fenced != "") {
		var next drained
		if e, asked := v.Drains[c.Name()]; asked {
			next = drained{Since: e.Value.Since, Refuse: e.Value.Refuse}
		}
		if err := a.drain.take(ctx, next); err != nil {
			a.log.Error("the request to drain this node is not taken up", slog.Any("err", err))
		}
	}
	if c.Health().Fenced != "" {
		return plan.Drained
	}
	return a.drain.phase()
}

// drainSelf drains this node, also one without a store, and one whose store is away.
func (a *Agent) drainSelf(ctx context.Context, refuse bool) error {
	_, was := a.drain.state()
	next := drained{Since: cmp.Or(was.Since, time.Now().UTC().Truncate(time.Second)), Refuse: refuse}
	return a.changeDrain(ctx, next)
}

// undrainSelf ends it.
func (a *Agent) undrainSelf(ctx context.Context) error {
	return a.changeDrain(ctx, drained{})
}

// changeDrain has the store know first: what it says of this node counts. While it is away this node's own disk does.
func (a *Agent) changeDrain(ctx context.Context, next drained) error {
	if a.clus() != nil {
		err := a.writeDrain(ctx, next)
		if !errors.Is(err, store.ErrUnreachable) {
			return err
		}
		next.Untold = true
		a.log.Info("the store is away: it hears later whether this node is drained", slog.Bool("drained", !next.Since.IsZero()))
	}
	// The store may have used up all the time of the request.
	return a.drain.take(context.WithoutCancel(ctx), next)
}

// writeDrain tells the store.
func (a *Agent) writeDrain(ctx context.Context, d drained) error {
	c := a.clus()
	if d.Since.IsZero() {
		return c.Undrain(ctx, c.Name())
	}
	return c.Drain(ctx, c.Name(), d.Refuse)
}

// tellDrain tells the store what was asked for here while it was away, until the context ends.
func (a *Agent) tellDrain(ctx context.Context) error {
	tick := time.NewTicker(tellInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		_, now := a.drain.state()
		if h := a.clus().Health(); !now.Untold || !h.Registered || !h.Reachable {
			continue
		}
		write, cancel := context.WithTimeout(ctx, clusterTime)
		err := a.writeDrain(write, now)
		cancel()
		if err == nil {
			err = a.drain.told(ctx, now)
		}
		if err != nil && ctx.Err() == nil {
			a.log.Warn("cannot tell the store whether this node is drained; trying again", slog.Any("err", err))
		}
	}
}

// drainKept is the request to drain this node that its disk knows of.
func (a *Agent) drainKept() (cluster.Drain, bool) {
	_, d := a.drain.state()
	return cluster.Drain{Since: d.Since, By: a.nodeName(), Refuse: d.Refuse}, !d.Since.IsZero()
}

// drainState is "", "draining" or "drained", since when it was asked for, and whether new containers are refused.
func (a *Agent) drainState() (state string, since time.Time, refuse bool) {
	state, d := a.drain.state()
	return state, d.Since, d.Refuse
}

// drainRefuses says why a new container gets nothing here.
func (a *Agent) drainRefuses() error {
	if _, d := a.drain.state(); d.Refuse {
		return errDrained
	}
	return nil
}
