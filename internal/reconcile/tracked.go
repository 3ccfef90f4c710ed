package reconcile

import (
	"context"
	"maps"
	"sync"
)

// Change is what the kernel said of one object: its new value, or that it is gone.
type Change[K comparable, V any] struct {
	Key     K
	Val     V
	Deleted bool
}

// Tracked keeps what a table listed last together with what was changed through it since, so that a pass need not list
// everything again. What the kernel tells of its objects (Observe) is compared with that: the first word that does not
// agree makes the next List go to the kernel. It is safe for concurrent use.
type Tracked[K comparable, V any] struct {
	table Table[K, V]
	equal func(want, have V) bool

	mu    sync.Mutex
	known map[K]V
	valid bool
	epoch uint64 // grows with each Invalidate; a list that began before it is not trusted
}

// Track returns a table that remembers.
func Track[K comparable, V any](t Table[K, V], equal func(want, have V) bool) *Tracked[K, V] {
	return &Tracked[K, V]{table: t, equal: equal}
}

// List returns what is there, from memory when nothing contradicted it. The caller owns the map.
func (t *Tracked[K, V]) List(ctx context.Context) (map[K]V, error) {
	t.mu.Lock()
	if t.valid {
		defer t.mu.Unlock()
		return maps.Clone(t.known), nil
	}
	epoch := t.epoch
	t.mu.Unlock()
	listed, err := t.table.List(ctx)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known, t.valid = maps.Clone(listed), t.epoch == epoch
	return listed, nil
}

// Observe takes in what the kernel said. It returns true when that contradicts memory: somebody else was at work.
func (t *Tracked[K, V]) Observe(c Change[K, V]) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.valid {
		return true
	}
	have, ok := t.known[c.Key]
	if c.Deleted && !ok || !c.Deleted && ok && t.equal(have, c.Val) {
		return false
	}
	t.valid = false
	t.epoch++
	return true
}

// Invalidate makes the next List go to the kernel.
func (t *Tracked[K, V]) Invalidate() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.valid = false
	t.epoch++
}

// Set sets one object and remembers it; after a failure the table is listed again.
func (t *Tracked[K, V]) Set(ctx context.Context, key K, val V) error {
	return t.SetAll(ctx, map[K]V{key: val})[key]
}

// Delete deletes one object and forgets it; after a failure the table is listed again.
func (t *Tracked[K, V]) Delete(ctx context.Context, key K) error {
	return t.DeleteAll(ctx, []K{key})[key]
}

// SetAll sets objects, at once where the table can.
func (t *Tracked[K, V]) SetAll(ctx context.Context, set map[K]V) map[K]error {
	t.remember(set) // before: the kernel's own word of it comes while we wait
	failed := setAll(ctx, t.table, set)
	if len(failed) > 0 {
		t.Invalidate()
	}
	return failed
}

// DeleteAll deletes objects, at once where the table can.
func (t *Tracked[K, V]) DeleteAll(ctx context.Context, del []K) map[K]error {
	t.mu.Lock()
	for _, k := range del {
		delete(t.known, k)
	}
	t.mu.Unlock()
	failed := deleteAll(ctx, t.table, del)
	if len(failed) > 0 {
		t.Invalidate()
	}
	return failed
}

func (t *Tracked[K, V]) remember(set map[K]V) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil {
		t.known = make(map[K]V, len(set))
	}
	maps.Copy(t.known, set)
}

func setAll[K comparable, V any](ctx context.Context, t Table[K, V], set map[K]V) map[K]error {
	if b, ok := t.(Batcher[K, V]); ok {
		return b.SetAll(ctx, set)
	}
	failed := make(map[K]error)
	for k, v := range set {
		if err := t.Set(ctx, k, v); err != nil {
			failed[k] = err
		}
	}
	return failed
}

func deleteAll[K comparable, V any](ctx context.Context, t Table[K, V], del []K) map[K]error {
	if b, ok := t.(Batcher[K, V]); ok {
		return b.DeleteAll(ctx, del)
	}
	failed := make(map[K]error)
	for _, k := range del {
		if err := t.Delete(ctx, k); err != nil {
			failed[k] = err
		}
	}
	return failed
}
