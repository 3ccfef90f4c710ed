package store

import (
	"context"
	"errors"
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
// that made it; both grow over all keys, and are never 0.
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
	Err      error  // ErrCompacted, or why else the watch ended
}

// Event is one change. Deleted records have a key and the revision of their end, and nothing else.
type Event struct {
	Record
	Deleted bool
}

// Txn is written as a whole or not at all: only if each compare holds.
type Txn struct {
	If     []Compare
	Put    map[string][]byte
	Live   map[string][]byte // written as Put, and gone some seconds after this process is no longer heard of
	Delete []string          // an absent key is no error
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
	// ErrUnreachable says that the store did not answer in time. A Commit may have been applied, or may be later.
	ErrUnreachable = errors.New("the store is unreachable")
)
