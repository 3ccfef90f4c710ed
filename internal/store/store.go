// Package store keeps records under keys, with transactions that compare before they write and a watch of the changes.
// Local is one node's own file; store/etcd has what a cluster agrees on, behind the same calls.
package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// lockTimeout bounds the wait for a file that another agent holds open.
const lockTimeout = 2 * time.Second

// Local is a store in a file of this node. It is safe for concurrent use; every write is on disk when it returns.
// Its records of Txn.Live live until the file is opened again.
type Local struct {
	db *bbolt.DB
	id string // the store's

	write   sync.Mutex // held over a commit and its place in the history, so that both have one order
	history history
}

// Open opens or makes the file. Its directory is made if it is missing. One process at a time has it.
func Open(path string) (*Local, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open state file %s: another agent has it open; stop that one first, or give this one its own `state` directory", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open state file %s: %w", path, err)
	}
	l := &Local{db: db}
	err = db.Update(func(tx *bbolt.Tx) error {
		if err := l.prepare(tx); err != nil {
			return err
		}
		l.history.begin(tx.Bucket(recordsBucket()).Sequence())
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("state file %s: %w", path, err), db.Close())
	}
	return l, nil
}

// Close closes the file; what was committed is on disk already. Watches end.
func (l *Local) Close() error {
	l.history.close()
	return l.db.Close()
}

// Get returns one record, or ErrNotFound.
func (l *Local) Get(ctx context.Context, key string) (r Record, err error) {
	if err := ctx.Err(); err != nil {
		return Record{}, err
	}
	err = l.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(recordsBucket()).Get([]byte(key))
		if v == nil {
			return ErrNotFound
		}
		r, err = decode([]byte(key), v)
		return err
	})
	if err != nil {
		return Record{}, fmt.Errorf("read record %s: %w", key, err)
	}
	return r, nil
}

// List returns all records whose key has the prefix, by key.
func (l *Local) List(ctx context.Context, prefix string) (Listing, error) {
	if err := ctx.Err(); err != nil {
		return Listing{}, err
	}
	out := Listing{StoreID: l.id}
	err := l.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(recordsBucket())
		out.Revision = b.Sequence()
		c := b.Cursor()
		for k, v := c.Seek([]byte(prefix)); k != nil && strings.HasPrefix(string(k), prefix); k, v = c.Next() {
			r, err := decode(k, v)
			if err != nil {
				return err
			}
			out.Records = append(out.Records, r)
		}
		return nil
	})
	if err != nil {
		return Listing{}, fmt.Errorf("list records %q: %w", prefix, err)
	}
	return out, nil
}

// Watch tells the changes of this process, of which it remembers some thousand; for older ones it ends with
// ErrCompacted.
func (l *Local) Watch(ctx context.Context, prefix string, after uint64) <-chan Update {
	out := make(chan Update)
	go l.history.watch(ctx, prefix, after, out)
	return out
}

// Commit writes a transaction. ErrConflict (wrapped, naming the key) means that nothing was written.
func (l *Local) Commit(ctx context.Context, t Txn) (rev uint64, err error) {
	if err := errors.Join(ctx.Err(), t.Check()); err != nil {
		return 0, err
	}
	l.write.Lock()
	defer l.write.Unlock()
	var events []Event
	err = l.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(recordsBucket())
		for _, c := range t.If {
			if !holds(b, c) {
				return fmt.Errorf("record %s: %w", c.Key, ErrConflict)
			}
		}
		events, err = change(tx, t)
		rev = b.Sequence()
		return err
	})
	if err != nil {
		return 0, err
	}
	l.history.add(rev, events)
	return rev, nil
}

// holds tells whether a compare is true.
func holds(b *bbolt.Bucket, c Compare) bool {
	if c.Under {
		k, _ := b.Cursor().Seek([]byte(c.Key))
		return k == nil || !strings.HasPrefix(string(k), c.Key)
	}
	revision, created := revisions(b.Get([]byte(c.Key)))
	if c.Created != 0 {
		return created == c.Created
	}
	return revision == c.Revision
}

// change writes what a transaction is to write, and returns it as events.
func change(tx *bbolt.Tx, t Txn) (events []Event, err error) {
	b, live := tx.Bucket(recordsBucket()), tx.Bucket(liveBucket())
	rev := b.Sequence() + 1
	for _, k := range t.Delete {
		if b.Get([]byte(k)) == nil {
			continue
		}
		if err := errors.Join(b.Delete([]byte(k)), live.Delete([]byte(k))); err != nil {
			return nil, fmt.Errorf("delete record %s: %w", k, err)
		}
		events = append(events, Event{Record: Record{Key: k, Revision: rev}, Deleted: true})
	}
	put := func(k string, v []byte, mark func(key []byte) error) error {
		r := Record{Key: k, Value: append([]byte(nil), v...), Revision: rev, Created: rev}
		if _, created := revisions(b.Get([]byte(k))); created != 0 {
			r.Created = created
		}
		events = append(events, Event{Record: r})
		if err := errors.Join(b.Put([]byte(k), encode(r)), mark([]byte(k))); err != nil {
			return fmt.Errorf("write record %s: %w", k, err)
		}
		return nil
	}
	for _, k := range slices.Sorted(maps.Keys(t.Put)) {
		if err := put(k, t.Put[k], live.Delete); err != nil {
			return nil, err
		}
	}
	for _, k := range slices.Sorted(maps.Keys(t.Live)) {
		if err := put(k, t.Live[k], func(key []byte) error { return live.Put(key, nil) }); err != nil {
			return nil, err
		}
	}
	if len(events) == 0 {
		return nil, nil
	}
	return events, b.SetSequence(rev)
}

// A value begins with two big-endian numbers of 8 bytes: the revisions of the record's last write and of its first.
const headSize = 16

func encode(r Record) []byte {
	v := make([]byte, 0, headSize+len(r.Value))
	v = binary.BigEndian.AppendUint64(v, r.Revision)
	v = binary.BigEndian.AppendUint64(v, r.Created)
	return append(v, r.Value...)
}

// revisions are 0 for a record that is not there.
func revisions(v []byte) (revision, created uint64) {
	if len(v) < headSize {
		return 0, 0
	}
	return binary.BigEndian.Uint64(v), binary.BigEndian.Uint64(v[8:])
}

// decode copies, since the file's pages are not ours after the transaction.
func decode(k, v []byte) (Record, error) {
	if len(v) < headSize {
		return Record{}, fmt.Errorf("record %s: %d bytes are too few to be one", k, len(v))
	}
	revision, created := revisions(v)
	return Record{Key: string(k), Value: append([]byte(nil), v[headSize:]...), Revision: revision, Created: created}, nil
}
