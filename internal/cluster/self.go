package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"

	"fairway/internal/store"
)

// selfKey is where the node keeps what it knows of itself.
const selfKey = "cluster/self"

// saved is what the node knows of itself over restarts.
type saved struct {
	ID         string `json:"id"`
	Name       string `json:"name"`    // under which it was registered last; "": never
	Session    string `json:"session"` // of this run, or of the last one before Start
	Fenced     string `json:"fenced,omitempty"`
	Revision   uint64 `json:"revision,omitempty"` // of the store, the highest seen
	StoreID    string `json:"store_id,omitempty"`
	Registered bool   `json:"registered,omitempty"`
}

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

// save changes what is kept over restarts.
func (c *Cluster) save(ctx context.Context, change func(*saved)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.saved
	change(&next)
	if next == c.saved {
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
