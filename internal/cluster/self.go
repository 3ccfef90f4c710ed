package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"fairway/internal/store"
)

// selfKey is where the node keeps what it knows of itself.
const selfKey = "cluster/self"

// saved is what the node knows of itself over restarts.
type saved struct {
	ID         string `json:"id"`
	Name       string `json:"name,omitempty"` // under which it was registered last; "": never
	Registered bool   `json:"registered,omitempty"`
	// Sessions are those of this run and of the runs before it whose records may still be in the store.
	Sessions []string `json:"sessions"`
	Fenced   string   `json:"fenced,omitempty"`
	Revision uint64   `json:"revision,omitempty"` // of the store, the highest seen
	StoreID  string   `json:"store_id,omitempty"`
}

// maxSessions bounds saved.Sessions: of runs that never reached the store, only the last are of interest.
const maxSessions = 16

// load reads what an earlier run saved, or makes the node's ID.
func (c *Cluster) load(ctx context.Context) (saved, error) {
	l, err := c.cfg.Local.List(ctx, selfKey)
	if err != nil {
		return saved{}, err
	}
	var s saved
	for _, r := range l.Records {
		if err := json.Unmarshal(r.Value, &s); err != nil {
			return saved{}, fmt.Errorf("read record %s of the state file: %w", r.Key, err)
		}
	}
	if s.ID == "" {
		s.ID = rand.Text()
	}
	return s, nil
}

// begin makes this run's session, and saves it before anybody else can see it: so a session that is not among the saved
// ones is another machine's.
func (c *Cluster) begin(ctx context.Context) error {
	was, err := c.load(ctx)
	if err != nil {
		return fmt.Errorf("read this node's identity: %w", err)
	}
	c.mu.Lock()
	c.former = was.Sessions
	c.session, c.since = rand.Text(), c.cfg.Now().UTC().Truncate(time.Second)
	session := c.session
	c.mu.Unlock()
	return c.save(ctx, func(s *saved) {
		*s = was
		s.Sessions = append(slices.Clone(was.Sessions[max(0, len(was.Sessions)-maxSessions+1):]), session)
	})
}

// saveRevision keeps how far the store was.
func (c *Cluster) saveRevision(ctx context.Context) error {
	return c.save(ctx, func(s *saved) {
		if v := c.View(); v.Complete {
			s.Revision = v.Revision // as it is under the lock: a listing may have found the store gone back
		}
	})
}

// save changes what is kept over restarts.
func (c *Cluster) save(ctx context.Context, change func(*saved)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.saved
	change(&next)
	if reflect.DeepEqual(next, c.saved) {
		return nil
	}
	text, err := json.Marshal(next)
	if err == nil {
		_, err = c.cfg.Local.Commit(ctx, store.Txn{Put: map[string][]byte{selfKey: text}})
	}
	if err != nil {
		return fmt.Errorf("save this node's identity: %w", err)
	}
	c.saved = next
	return nil
}
