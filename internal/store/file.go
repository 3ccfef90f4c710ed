package store

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"go.etcd.io/bbolt"
)

// schema is the layout of the file. A file with a newer one is refused rather than misread; one with an older is taken
// over as it is opened.
//
//	1  records: key -> revision, value; meta: schema
//	2  records: key -> revision, created, value; live: keys of Txn.Live; meta: schema, id
const schema = 2

// names of the buckets and keys of the file
func recordsBucket() []byte { return []byte("records") }
func liveBucket() []byte    { return []byte("live") }
func metaBucket() []byte    { return []byte("meta") }
func schemaKey() []byte     { return []byte("schema") }
func idKey() []byte         { return []byte("id") }

// prepare makes the file what this version writes, in one transaction.
func (l *Local) prepare(tx *bbolt.Tx) error {
	for _, name := range [][]byte{recordsBucket(), liveBucket(), metaBucket()} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	meta := tx.Bucket(metaBucket())
	if v := meta.Get(schemaKey()); len(v) == 8 {
		have := binary.BigEndian.Uint64(v)
		if have > schema {
			return fmt.Errorf("written by a newer version (schema %d, this one knows %d); start that version again", have, schema)
		}
		if have < schema {
			if err := addCreated(tx.Bucket(recordsBucket())); err != nil {
				return fmt.Errorf("take over schema %d: %w", have, err)
			}
		}
	}
	if err := meta.Put(schemaKey(), binary.BigEndian.AppendUint64(nil, schema)); err != nil {
		return err
	}
	if err := buryDead(tx); err != nil {
		return err
	}
	return l.identify(meta)
}

// addCreated gives each record of schema 1 a revision of its creation: that of its last write, the oldest one known.
func addCreated(b *bbolt.Bucket) error {
	grown := map[string][]byte{} // a bucket must not change while one walks through it
	err := b.ForEach(func(k, v []byte) error {
		if len(v) < 8 {
			return fmt.Errorf("record %s: %d bytes are too few to be one", k, len(v))
		}
		revision := binary.BigEndian.Uint64(v)
		grown[string(k)] = encode(Record{Value: v[8:], Revision: revision, Created: revision})
		return nil
	})
	if err != nil {
		return err
	}
	for k, v := range grown {
		if err := b.Put([]byte(k), v); err != nil {
			return fmt.Errorf("write record %s: %w", k, err)
		}
	}
	return nil
}

// buryDead deletes the records of Txn.Live of the process that had the file before.
func buryDead(tx *bbolt.Tx) error {
	var dead []string
	err := tx.Bucket(liveBucket()).ForEach(func(k, _ []byte) error {
		dead = append(dead, string(k))
		return nil
	})
	if err != nil {
		return err
	}
	_, err = change(tx, Txn{Delete: dead})
	return err
}

// identify reads the store's ID, or makes it.
func (l *Local) identify(meta *bbolt.Bucket) error {
	if id := meta.Get(idKey()); id != nil {
		l.id = string(id)
		return nil
	}
	raw := make([]byte, 8)
	_, _ = rand.Read(raw) // never fails
	l.id = hex.EncodeToString(raw)
	return meta.Put(idKey(), []byte(l.id))
}
