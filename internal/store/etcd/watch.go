package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"

	"fairway/internal/store"
)

var errConnectionLost = errors.New("the connection was lost")

// Watch tells every change of the records with the prefix after the revision. It ends with store.ErrUnreachable when the
// connection is lost, with store.ErrReplaced when the store is found to be another or older one, with store.ErrCompacted
// or store.ErrDenied when etcd says so.
func (s *Store) Watch(ctx context.Context, prefix string, after uint64) <-chan store.Update {
	out := make(chan store.Update)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		close(out)
		return out
	}
	s.spawn(func() {
		defer close(out)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.ctx, cancel)()
		err := s.watch(ctx, prefix, after, out)
		if err == nil || ctx.Err() != nil {
			return
		}
		select {
		case out <- store.Update{Err: fmt.Errorf("watch records %q after revision %d: %w", prefix, after, err)}:
		case <-ctx.Done():
		}
	})
	return out
}

// watch sends until the context ends or there is an error.
func (s *Store) watch(ctx context.Context, prefix string, after uint64, out chan<- store.Update) error {
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer s.register(cancel)()
	var c *clientv3.Client
	var now int64
	// This call makes sure that there is a connection, and that the revision is one of the past.
	err := s.do(ctx, "look at the store's revision", func(ctx context.Context, client *clientv3.Client) error {
		c = client
		floor := s.floor()
		resp, err := client.Get(ctx, s.prefix+prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			return err
		}
		now = resp.Header.Revision
		s.observe(floor, resp.Header)
		return nil
	})
	switch {
	case err != nil:
		return err
	case uint64(now) < after:
		return fmt.Errorf("it is at revision %d: %w", now, store.ErrReplaced)
	}
	changes := c.Watch(clientv3.WithRequireLeader(running), s.prefix+prefix, clientv3.WithPrefix(), clientv3.WithRev(int64(after)+1))
	for {
		select {
		case resp, open := <-changes:
			if err := s.ended(running, c, resp, open); err != nil {
				return err
			}
			u := s.update(resp)
			if len(u.Events) == 0 {
				continue
			}
			select {
			case out <- u:
			case <-running.Done():
			}
		case <-running.Done():
			return s.ended(running, c, clientv3.WatchResponse{}, false)
		}
	}
}

// ended is why a watch is over; nil when it is not.
func (s *Store) ended(running context.Context, c *clientv3.Client, resp clientv3.WatchResponse, open bool) error {
	if cause := context.Cause(running); errors.Is(cause, errConnectionLost) {
		return &store.UnreachableError{Where: s.Where(), Since: s.lastDown(), Cause: cause}
	} else if cause != nil {
		return cause
	}
	err := resp.Err()
	switch {
	case err == nil && open:
		return nil
	case err == nil, unanswered(err):
		return &store.UnreachableError{Where: s.Where(), Since: s.lastDown(), Cause: errors.Join(errConnectionLost, err)}
	case errors.Is(err, rpctypes.ErrCompacted):
		return fmt.Errorf("%w (the oldest is %d)", store.ErrCompacted, resp.CompactRevision)
	}
	return s.refused(c, err)
}

func (s *Store) update(resp clientv3.WatchResponse) store.Update {
	var u store.Update
	for _, e := range resp.Events {
		r := s.record(e.Kv)
		if e.Type == mvccpb.DELETE {
			r = store.Record{Key: r.Key, Revision: r.Revision}
		}
		u.Events = append(u.Events, store.Event{Record: r, Deleted: e.Type == mvccpb.DELETE})
		u.Revision = r.Revision
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen.cluster == resp.Header.ClusterId {
		s.seen.revision = max(s.seen.revision, int64(u.Revision))
	}
	return u
}

// register enters a watch among those that endWatches ends.
func (s *Store) register(cancel context.CancelCauseFunc) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.serial
	s.serial++
	s.watches[id] = cancel
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watches, id)
	}
}

// endWatches needs the lock.
func (s *Store) endWatches(why error) {
	for _, cancel := range s.watches {
		cancel(why)
	}
}

// followConnection ends all watches each time that the connection is lost. With several endpoints it is lost when none
// is left; an older copy can only be put in the place of all of them.
func (s *Store) followConnection(c *clientv3.Client) {
	conn := c.ActiveConnection()
	for state := conn.GetState(); state != connectivity.Shutdown; state = conn.GetState() {
		if !conn.WaitForStateChange(s.ctx, state) {
			return
		}
		if state == connectivity.Ready {
			s.mu.Lock()
			s.endWatches(errConnectionLost)
			s.mu.Unlock()
		}
	}
}
