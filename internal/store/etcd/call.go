package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"fairway/internal/store"
)

// Get returns one record, or store.ErrNotFound.
func (s *Store) Get(ctx context.Context, key string) (r store.Record, err error) {
	err = s.do(ctx, "read record "+key, func(ctx context.Context, c *clientv3.Client) error {
		floor := s.floor()
		resp, err := c.Get(ctx, s.prefix+key)
		if err != nil {
			return err
		}
		s.observe(floor, resp.Header)
		if len(resp.Kvs) == 0 {
			return store.ErrNotFound
		}
		r = s.record(resp.Kvs[0])
		return nil
	})
	return r, err
}

// List returns all records whose key has the prefix, by key.
func (s *Store) List(ctx context.Context, prefix string) (l store.Listing, err error) {
	err = s.do(ctx, fmt.Sprintf("list records %q", prefix), func(ctx context.Context, c *clientv3.Client) error {
		floor := s.floor()
		resp, err := c.Get(ctx, s.prefix+prefix, clientv3.WithPrefix())
		if err != nil {
			return err
		}
		s.observe(floor, resp.Header)
		l = store.Listing{Revision: uint64(resp.Header.Revision), StoreID: strconv.FormatUint(resp.Header.ClusterId, 16)}
		for _, kv := range resp.Kvs {
			l.Records = append(l.Records, s.record(kv))
		}
		return nil
	})
	return l, err
}

// record takes a key and value over; the client made them for us.
func (s *Store) record(kv *mvccpb.KeyValue) store.Record {
	return store.Record{
		Key:      strings.TrimPrefix(string(kv.Key), s.prefix),
		Value:    kv.Value,
		Revision: uint64(kv.ModRevision),
		Created:  uint64(kv.CreateRevision),
	}
}

// Commit writes a transaction. store.ErrConflict (wrapped, naming the key) means that nothing was written, as do
// store.ErrDenied and a transaction that is too large.
func (s *Store) Commit(ctx context.Context, t store.Txn) (rev uint64, err error) {
	if err := check(t); err != nil {
		return 0, fmt.Errorf("write records: %w", err)
	}
	err = s.do(ctx, "write "+subject(t), func(ctx context.Context, c *clientv3.Client) error {
		rev, err = s.commit(ctx, c, t)
		if len(t.Live) != 0 && errors.Is(err, rpctypes.ErrLeaseNotFound) {
			// It ran out before we noticed, and nothing was written: once more with a new one.
			s.lease.lost()
			rev, err = s.commit(ctx, c, t)
		}
		return err
	})
	return rev, err
}

func check(t store.Txn) error {
	if err := t.Check(); err != nil {
		return err
	}
	if n := len(t.Put) + len(t.Live) + len(t.Delete); n > store.MaxTxn || len(t.If) > store.MaxTxn {
		return fmt.Errorf("a transaction of %d changes with %d compares, but %d of each is the most that etcd takes",
			n, len(t.If), store.MaxTxn)
	}
	return nil
}

// subject names what a transaction writes, or else compares, for errors.
func subject(t store.Txn) string {
	keys := slices.Concat(slices.Collect(maps.Keys(t.Put)), slices.Collect(maps.Keys(t.Live)), t.Delete)
	for _, c := range t.If {
		if len(keys) == 0 {
			keys = append(keys, c.Key)
		}
	}
	slices.Sort(keys)
	switch len(keys) {
	case 0:
		return "no record"
	case 1:
		return "record " + keys[0]
	}
	return fmt.Sprintf("record %s and %d more", keys[0], len(keys)-1)
}

func (s *Store) commit(ctx context.Context, c *clientv3.Client, t store.Txn) (uint64, error) {
	var lease clientv3.LeaseID
	if len(t.Live) != 0 {
		var err error
		if lease, err = s.lease.get(ctx, c, s.cfg.TTL); err != nil {
			return 0, err
		}
	}
	floor := s.floor()
	resp, err := c.Txn(ctx).If(s.compares(t)...).Then(s.changes(t, lease)...).Else(s.looks(t)...).Commit()
	if err != nil {
		return 0, err
	}
	s.observe(floor, resp.Header)
	if !resp.Succeeded {
		return 0, fmt.Errorf("record %s: %w", culprit(t, resp), store.ErrConflict)
	}
	return uint64(resp.Header.Revision), nil
}

func (s *Store) compares(t store.Txn) []clientv3.Cmp {
	var out []clientv3.Cmp
	for _, c := range t.If {
		key := s.prefix + c.Key
		switch {
		case c.Under: // of no record at all etcd holds that it was created at 0
			out = append(out, clientv3.Compare(clientv3.CreateRevision(key).WithPrefix(), "=", 0))
		case c.Created != 0:
			out = append(out, clientv3.Compare(clientv3.CreateRevision(key), "=", int64(c.Created)))
		default:
			out = append(out, clientv3.Compare(clientv3.ModRevision(key), "=", int64(c.Revision)))
		}
	}
	return out
}

func (s *Store) changes(t store.Txn, lease clientv3.LeaseID) []clientv3.Op {
	var out []clientv3.Op
	for _, k := range slices.Compact(slices.Sorted(slices.Values(t.Delete))) {
		out = append(out, clientv3.OpDelete(s.prefix+k))
	}
	for _, k := range slices.Sorted(maps.Keys(t.Put)) {
		out = append(out, clientv3.OpPut(s.prefix+k, string(t.Put[k])))
	}
	for _, k := range slices.Sorted(maps.Keys(t.Live)) {
		out = append(out, clientv3.OpPut(s.prefix+k, string(t.Live[k]), clientv3.WithLease(lease)))
	}
	return out
}

// looks reads, when a compare does not hold, what culprit needs to tell which one.
func (s *Store) looks(t store.Txn) []clientv3.Op {
	var out []clientv3.Op
	for _, c := range t.If {
		opts := []clientv3.OpOption{clientv3.WithKeysOnly(), clientv3.WithLimit(1)}
		if c.Under {
			opts = append(opts, clientv3.WithPrefix())
		}
		out = append(out, clientv3.OpGet(s.prefix+c.Key, opts...))
	}
	return out
}

// culprit is the key of the first compare that did not hold.
func culprit(t store.Txn, resp *clientv3.TxnResponse) string {
	for i, c := range t.If {
		if i >= len(resp.Responses) {
			break
		}
		var kv mvccpb.KeyValue
		if found := resp.Responses[i].GetResponseRange().GetKvs(); len(found) != 0 {
			kv.ModRevision, kv.CreateRevision = found[0].ModRevision, found[0].CreateRevision
		}
		holds := kv.ModRevision == int64(c.Revision)
		switch {
		case c.Under:
			holds = kv.CreateRevision == 0
		case c.Created != 0:
			holds = kv.CreateRevision == int64(c.Created)
		}
		if !holds {
			return c.Key
		}
	}
	return subject(t)
}

// history is what is known of the store's past: as long as it is one and the same, it only grows.
type history struct {
	cluster  uint64 // 0: not known yet
	revision int64
}

// floor is what the answer to a call made now must not fall behind.
func (s *Store) floor() history {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// observe takes in the header of an answer that was linearizable, and ends all watches when it is not of the store that
// they began at.
func (s *Store) observe(floor history, h *etcdserverpb.ResponseHeader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if floor.cluster != 0 && (h.ClusterId != floor.cluster || h.Revision < floor.revision) {
		s.seen = history{h.ClusterId, h.Revision}
		s.endWatches(store.ErrReplaced)
		return
	}
	s.seen = history{h.ClusterId, max(s.seen.revision, h.Revision)}
}
