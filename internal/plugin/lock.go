package plugin

import (
	"context"
	"fmt"
	"sync"
)

// locks makes calls for one key wait for each other, first come, first served. The zero value is ready.
type locks struct {
	mu   sync.Mutex
	held map[string]*lock
}

type lock struct {
	users int           // that hold it or wait for it
	slot  chan struct{} // of one place: full while held
}

// take waits for the key until the context ends.
func (l *locks) take(ctx context.Context, key string) (release func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*lock{}
	}
	k := l.held[key]
	if k == nil {
		k = &lock{slot: make(chan struct{}, 1)}
		l.held[key] = k
	}
	k.users++
	l.mu.Unlock()
	select {
	case k.slot <- struct{}{}:
		return func() { <-k.slot; l.drop(key, k) }, nil
	case <-ctx.Done():
		l.drop(key, k)
		return nil, fmt.Errorf("wait for an earlier call: %w", ctx.Err())
	}
}

func (l *locks) drop(key string, k *lock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.users--; k.users == 0 {
		delete(l.held, key)
	}
}
