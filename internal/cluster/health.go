package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	h.Fenced = c.fencedWhy()
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

// unreachableError says of which store and since when. It wraps store.ErrUnreachable.
type unreachableError struct {
	where string
	since time.Time
	cause error
}

func (e *unreachableError) Error() string {
	s := fmt.Sprintf("the store (%s) is unreachable since %s", e.where, e.since.Format(time.RFC3339))
	if e.cause != nil && !errors.Is(e.cause, store.ErrUnreachable) {
		s += ": " + e.cause.Error()
	}
	return s
}

func (e *unreachableError) Unwrap() []error { return []error{store.ErrUnreachable, e.cause} }

// heard takes in how the store answered, and returns the error as users are to see it.
func (c *Cluster) heard(err error) error {
	now := c.cfg.Now()
	down := errors.Is(err, store.ErrUnreachable)
	if !down && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return err // the caller's doing
	}
	c.mu.Lock()
	changed := c.health.Reachable == down || c.health.Since.IsZero()
	if changed {
		c.health.Reachable, c.health.Since = !down, now
	}
	since := c.health.Since
	c.health.LastError = ""
	if down {
		c.health.LastError = err.Error()
	}
	c.mu.Unlock()
	if changed {
		c.reachabilityChanged(!down, err)
	}
	if !down {
		return err
	}
	return &unreachableError{where: c.cfg.Where, since: since, cause: err}
}

// unreachable is the error for what cannot be done now; nil while the store answers, or was not asked yet.
func (c *Cluster) unreachable() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.health.Reachable || c.health.Since.IsZero() {
		return nil
	}
	return &unreachableError{where: c.cfg.Where, since: c.health.Since, cause: store.ErrUnreachable}
}

// fencedWhy is called with the lock held.
func (c *Cluster) fencedWhy() string { return c.saved.Fenced }

// reachabilityChanged tells who has to know, once each time.
func (c *Cluster) reachabilityChanged(up bool, err error) {
	if up {
		c.log.Info("the store answers", slog.String("store", c.cfg.Where))
	} else {
		c.log.Warn("the store is unreachable; what runs goes on", slog.String("store", c.cfg.Where), slog.Any("err", err))
	}
	c.cfg.Changed()
}
