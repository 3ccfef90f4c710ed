package cluster

import (
	"context"
	"errors"
	"time"

	"fairway/internal/store"
)

// Health is how the cluster stands as this node sees it.
type Health struct {
	Reachable bool      // the store answered last time
	Since     time.Time // of Reachable being as it is
	LastError string    // why it does not answer; "" while it does
	// Fenced says why this node must announce nothing and give nothing out; "" when it may.
	Fenced string
	// Restored is when the store was last found to have been lost, or an older copy put in its place, in this run of the
	// agent; zero: never.
	Restored    time.Time
	Registered  bool     // this node's records were written by this run of the agent
	Problem     string   // why they cannot be written; "" when they can
	NewerSchema []string // records of a newer schema, in words
	Unreadable  []string // records that are damaged, or of a kind unknown here, in words
}

// Health is how it stands now.
func (c *Cluster) Health() Health {
	v := c.View()
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.health
	h.Fenced = c.saved.Fenced
	h.NewerSchema = v.newer()
	for _, err := range v.Unread {
		if n := (*NewerError)(nil); !errors.As(err, &n) {
			h.Unreadable = append(h.Unreadable, err.Error())
		}
	}
	return h
}

// ErrFenced says that this node was removed from the cluster, or that its name is another's: it may neither announce nor
// give anything out until it has joined again.
var ErrFenced = errors.New("this node is fenced")

// cause is why a store does not answer, without where it is and since when.
func cause(err error) string {
	var e *store.UnreachableError
	if errors.As(err, &e) && e.Cause != nil {
		return e.Cause.Error()
	}
	return err.Error()
}

// heard takes in how the store answered, and returns the error as users are to see it.
func (c *Cluster) heard(err error) error {
	now := c.cfg.Now()
	down := errors.Is(err, store.ErrUnreachable)
	if !down && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return err // the caller's doing
	}
	c.mu.Lock()
	first := c.health.Since.IsZero()
	changed := c.health.Reachable == down || first
	if changed {
		c.health.Reachable, c.health.Since = !down, now
	}
	since := c.health.Since
	c.health.LastError = ""
	if down {
		c.health.LastError = cause(err)
	}
	c.mu.Unlock()
	if changed {
		if !down && !first {
			c.askRelist(relisting{why: "the store answers"})
		}
		c.cfg.Changed()
	}
	var known *store.UnreachableError
	if !down || errors.As(err, &known) {
		return err
	}
	return &store.UnreachableError{Where: c.cfg.Where, Since: since, Cause: err}
}

// away says that the store is known not to answer.
func (c *Cluster) away() bool { return c.unreachable() != nil }

// unreachable is the error for what cannot be done now; nil while the store answers, or was not asked yet.
func (c *Cluster) unreachable() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.health.Reachable || c.health.Since.IsZero() {
		return nil
	}
	return &store.UnreachableError{Where: c.cfg.Where, Since: c.health.Since, Cause: errors.New(c.health.LastError)}
}
