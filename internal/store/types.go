package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Store keeps records that several processes, or several nodes, agree on. It is safe for concurrent use. No method
// waits longer than a few seconds for an answer, whatever the context allows, but for a Watch.
//
// An error that wraps none of the errors of this package says nothing about whether a write happened: after such a
// Commit, look before acting. The write may even be applied later, which its compares must make harmless.
type Store interface {
	// Get returns one record, or ErrNotFound.
	Get(ctx context.Context, key string) (Record, error)
	// List returns all records whose key has the prefix, by key.
	List(ctx context.Context, prefix string) (Listing, error)
	// Watch tells every change of the records with the prefix after the revision, in order and without a gap. The
	// channel is closed when the context ends, or after an Update with an Err: then list again and watch from there.
	Watch(ctx context.Context, prefix string, after uint64) <-chan Update
	// Commit writes a transaction and returns its revision. ErrConflict means that nothing was written.
	Commit(ctx context.Context, t Txn) (uint64, error)
}

// Record is one value under its key. Revision is that of the transaction that wrote it last, Created that of the one
// that made it; both grow over all keys, and are never 0. Nobody changes a Value after it was handed over.
type Record struct {
	Key      string
	Value    []byte
	Revision uint64
	Created  uint64
}

// Listing is what List found, as of Revision.
type Listing struct {
	Records  []Record
	Revision uint64 // of the store; it never falls, unless an older copy of the store was put in its place
	StoreID  string // of the store as a whole; another one is another store
}

// Update is a batch of changes, of one transaction or of several in a row.
type Update struct {
	Events   []Event
	Revision uint64 // of the last of them
	Err      error  // ErrCompacted, ErrReplaced, ErrUnreachable, or why else the watch ended
}

// Event is one change. Deleted records have a key and the revision of their end, and nothing else.
type Event struct {
	Record
	Deleted bool
}

// MaxTxn is how many compares, and how many changes, a transaction may have in a store of a cluster.
const MaxTxn = 128

// Txn is written as a whole or not at all: only if each compare holds. One that changes nothing leaves the store's
// revision as it is. No key may be in it twice, but for several compares of one.
type Txn struct {
	If     []Compare
	Put    map[string][]byte
	Live   map[string][]byte // written as Put, and gone some seconds after this process is no longer heard of
	Delete []string          // an absent key is no error
}

// Check refuses a transaction that writes one key in two ways.
func (t Txn) Check() error {
	for k := range t.Live {
		if _, twice := t.Put[k]; twice {
			return fmt.Errorf("record %s: it is both in Put and in Live of a transaction", k)
		}
	}
	for _, k := range t.Delete {
		_, put := t.Put[k]
		_, live := t.Live[k]
		if put || live {
			return fmt.Errorf("record %s: it is both written and deleted by a transaction", k)
		}
	}
	return nil
}

// Compare is a condition of a transaction. With Created set it holds when the key's record was created at that
// revision; with Under set when there is no record with the key as prefix; otherwise when the record has Revision, of
// which 0 means that there is none.
type Compare struct {
	Key      string
	Revision uint64
	Created  uint64
	Under    bool
}

// What callers branch on.
var (
	// ErrConflict says that a compare of a transaction did not hold, and nothing was written.
	ErrConflict = errors.New("a record has changed meanwhile")
	// ErrNotFound says that there is no such record.
	ErrNotFound = errors.New("no such record")
	// ErrCompacted says that the store no longer has the changes that a watch asked for.
	ErrCompacted = errors.New("the store has forgotten the changes asked for")
	// ErrReplaced says that the store is another one, or an older copy of itself, than before.
	ErrReplaced = errors.New("the store was replaced by another one, or by an older copy")
	// ErrUnreachable says that the store did not answer in time. A Commit may have been applied, or may be later.
	ErrUnreachable = errors.New("the store is unreachable")
	// ErrDenied says that the store does not let this agent in, or not at these records. Nothing was written.
	ErrDenied = errors.New("the store denies access")
)

// UnreachableError is an ErrUnreachable that says where and since when.
type UnreachableError struct {
	Where string    // such as "etcd at 192.0.2.1:2379"
	Since time.Time // the beginning of the first call that was not answered
	Cause error     // of the last one
}

// Error reads as part of a sentence for the operator.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("the store (%s) is unreachable since %s: %v", e.Where, e.Since.Format(time.DateTime), e.Cause)
}

// Is makes it an ErrUnreachable.
func (e *UnreachableError) Is(target error) bool { return target == ErrUnreachable }

// Unwrap is the cause.
func (e *UnreachableError) Unwrap() error { return e.Cause }
