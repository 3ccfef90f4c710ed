// Package store keeps records under keys, with transactions that compare before they write. Local is one node's own
// file; what a cluster agrees on is to come behind the same calls.
package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// schema is the layout of the keys and values. A file with a newer one is refused rather than misread.
const schema = 1

// lockTimeout bounds the wait for a file that another agent holds open.
const lockTimeout = 2 * time.Second

// Local is a store in a file of this node. It is safe for concurrent use; every write is on disk when it returns.
type Local struct {
	db *bbolt.DB
}

// names of the buckets and keys of the file
func recordsBucket() []byte { return []byte("records") }
func metaBucket() []byte    { return []byte("meta") }
func schemaKey() []byte     { return []byte("schema") }

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
	if err := l.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("state file %s: %w", path, err), db.Close())
	}
	return l, nil
}

func (l *Local) prepare() error {
	return l.db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists(recordsBucket()); err != nil {
			return err
		}
		meta, err := tx.CreateBucketIfNotExists(metaBucket())
		if err != nil {
			return err
		}
		if v := meta.Get(schemaKey()); len(v) == 8 {
			if have := binary.BigEndian.Uint64(v); have > schema {
				return fmt.Errorf("written by a newer version (schema %d, this one knows %d); start that version again", have, schema)
			}
		}
		return meta.Put(schemaKey(), binary.BigEndian.AppendUint64(nil, schema))
	})
}

// Close closes the file; what was committed is on disk already.
func (l *Local) Close() error { return l.db.Close() }

// List returns all records whose key has the prefix, by key.
func (l *Local) List(ctx context.Context, prefix string) (Listing, error) {
	if err := ctx.Err(); err != nil {
		return Listing{}, err
	}
	var out Listing
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

// Commit writes a transaction. ErrConflict (wrapped, naming the key) means that nothing was written.
func (l *Local) Commit(ctx context.Context, t Txn) (rev uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	err = l.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(recordsBucket())
		for _, c := range t.If {
			var have uint64
			if v := b.Get([]byte(c.Key)); len(v) >= 8 {
				have = binary.BigEndian.Uint64(v)
			}
			if have != c.Revision {
				return fmt.Errorf("record %s: %w", c.Key, ErrConflict)
			}
		}
		if rev, err = b.NextSequence(); err != nil {
			return err
		}
		for _, k := range t.Delete {
			if err := b.Delete([]byte(k)); err != nil {
				return fmt.Errorf("delete record %s: %w", k, err)
			}
		}
		for k, v := range t.Put {
			if err := b.Put([]byte(k), append(binary.BigEndian.AppendUint64(nil, rev), v...)); err != nil {
				return fmt.Errorf("write record %s: %w", k, err)
			}
		}
		return nil
	})
	return rev, err
}

// decode copies, since the file's pages are not ours after the transaction.
func decode(k, v []byte) (Record, error) {
	if len(v) < 8 {
		return Record{}, fmt.Errorf("record %s: %d bytes are too few to be one", k, len(v))
	}
	return Record{Key: string(k), Value: append([]byte(nil), v[8:]...), Revision: binary.BigEndian.Uint64(v)}, nil
}
