package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// lease is the one to which all live records of this process are tied.
type lease struct {
	granting chan struct{} // holds one token: whoever takes it may ask for a new one
	mu       sync.Mutex
	id       clientv3.LeaseID // 0: none
}

// get returns the lease, and asks for one when there is none.
func (l *lease) get(ctx context.Context, c *clientv3.Client, ttl time.Duration) (clientv3.LeaseID, error) {
	select {
	case l.granting <- struct{}{}:
		defer func() { <-l.granting }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if id := l.current(); id != 0 {
		return id, nil
	}
	resp, err := c.Grant(ctx, int64(ttl/time.Second))
	if err != nil {
		return 0, fmt.Errorf("ask for a lease of %v: %w", ttl, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.id = resp.ID
	return l.id, nil
}

func (l *lease) current() clientv3.LeaseID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

// lost takes in that the lease has run out; the next Commit with live records asks for another.
func (l *lease) lost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.id = 0
}

// keepAlive renews the lease until the store is closed. It does not give up when etcd is away for longer than the
// lease's time: etcd counts from its own start, and a lease that it still knows saves others from taking us for dead.
func (s *Store) keepAlive() {
	every := min(s.cfg.TTL/3, 5*time.Second)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		id := s.lease.current()
		if id == 0 {
			continue
		}
		err := s.do(s.ctx, "renew lease", func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.KeepAliveOnce(ctx, id)
			return err
		})
		switch {
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			s.lease.lost()
			s.log.Warn("the store took this agent for dead: it had not heard of it for too long", slog.Duration("ttl", s.cfg.TTL))
			tick.Reset(every)
		case err != nil:
			tick.Reset(min(every, time.Second))
		default:
			tick.Reset(every)
		}
	}
}
