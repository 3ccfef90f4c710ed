package cnm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"fairway/internal/cluster"
	"fairway/internal/ipam"
	"fairway/internal/store"
)

// Saver keeps records; store.Local is one.
type Saver interface {
	List(ctx context.Context, prefix string) (store.Listing, error)
	Commit(ctx context.Context, t store.Txn) (uint64, error)
}

// Node is what the book asks about the world around it. Its functions are called with the book locked and must not
// call the book.
type Node struct {
	// Heard says whether a route for the address is heard from another node, and from which.
	Heard ipam.Oracle
	// Taken names what of the node itself lies in the prefix: a connected subnet of a link that is not ours.
	Taken func(netip.Prefix) (what string, taken bool)
	// Link says whether the node has a link of this name that is not ours, and of what kind.
	Link    func(name string) (kind string, foreign bool)
	Changed func() // called after each change, once it is saved
	// Network is the record of a cluster network, or why it is not to be had; nil: this node has no store. It is called
	// with the book unlocked, and may take some seconds.
	Network func(ctx context.Context, name string) (cluster.Network, error)
	// Refuse says why this node takes no new containers; nil, or a nil error: it does.
	Refuse func() error
	// Announced says whether the prefix is still announced; nil: nothing ever is. What is, is not given back yet.
	Announced func(netip.Prefix) bool
}

// Book is what Docker asked this node for. It is safe for concurrent use. Every change is saved before the method
// returns, and a change that cannot be saved has not happened.
type Book struct {
	store Saver
	node  Node
	now   func() time.Time

	mu        sync.Mutex
	alloc     *ipam.Allocator
	networks  map[string]Network
	endpoints map[string]Endpoint
	version   uint64 // grows with each change
	shared    shared
}

// Keys of the records: an allocator's record has its own key.
const (
	networkPrefix  = "network/"
	endpointPrefix = "endpoint/"
	ipamPrefix     = "ipam/"
	releasePrefix  = "release/" // and the key of the record in the store
)

// Load reads the book that an earlier run saved.
func Load(ctx context.Context, s Saver, opts ipam.Options, node Node) (*Book, error) {
	b := &Book{
		store: s, node: node, now: opts.Now, alloc: ipam.New(opts),
		networks: map[string]Network{}, endpoints: map[string]Endpoint{}, shared: newShared(),
	}
	if err := load(ctx, s, releasePrefix, func(r releasing) { r.asked = true; b.shared.releasing[r.key()] = r }); err != nil {
		return nil, err
	}
	if err := load(ctx, s, networkPrefix, func(n Network) { b.networks[n.ID] = n }); err != nil {
		return nil, err
	}
	if err := load(ctx, s, endpointPrefix, func(e Endpoint) { b.endpoints[e.ID] = e }); err != nil {
		return nil, err
	}
	var records []ipam.Record
	if err := load(ctx, s, ipamPrefix, func(r ipam.Record) { records = append(records, r) }); err != nil {
		return nil, err
	}
	if err := b.alloc.Load(records); err != nil {
		return nil, fmt.Errorf("load addresses: %w", err)
	}
	return b, nil
}

func load[V any](ctx context.Context, s Saver, prefix string, each func(V)) error {
	listing, err := s.List(ctx, prefix)
	if err != nil {
		return err
	}
	for _, r := range listing.Records {
		var v V
		if err := json.Unmarshal(r.Value, &v); err != nil {
			return fmt.Errorf("read record %s: %w", r.Key, err)
		}
		each(v)
	}
	return nil
}

// change collects what one method writes, to be saved or undone as a whole.
type change struct {
	txn  store.Txn
	undo []func()
	err  error
}

func newChange() *change { return &change{txn: store.Txn{Put: map[string][]byte{}}} }

func (c *change) put(key string, v any) {
	val, err := json.Marshal(v)
	if err != nil {
		c.err = errors.Join(c.err, fmt.Errorf("encode record %s: %w", key, err))
		return
	}
	c.txn.Delete = slices.DeleteFunc(c.txn.Delete, func(k string) bool { return k == key })
	c.txn.Put[key] = val
}

func (c *change) remove(key string) {
	delete(c.txn.Put, key)
	c.txn.Delete = append(c.txn.Delete, key)
}

// addresses takes in what the allocator did.
func (b *Book) addresses(c *change, d ipam.Delta) {
	c.undo = append(c.undo, func() { b.alloc.Undo(d) })
	for _, r := range d.Put {
		c.put(ipamPrefix+r.Key(), r)
	}
	for _, k := range d.Delete {
		c.remove(ipamPrefix + k)
	}
	b.claims(c, d)
}

// put writes a value into one of the book's maps and its record.
func put[V any](c *change, m map[string]V, prefix, id string, v V) {
	was, had := m[id]
	m[id] = v
	c.undo = append(c.undo, func() { restore(m, id, was, had) })
	c.put(prefix+id, v)
}

// remove takes a value out of one of the book's maps, and its record.
func remove[V any](c *change, m map[string]V, prefix, id string) {
	was, had := m[id]
	delete(m, id)
	c.undo = append(c.undo, func() { restore(m, id, was, had) })
	c.remove(prefix + id)
}

func restore[V any](m map[string]V, key string, was V, had bool) {
	if had {
		m[key] = was
		return
	}
	delete(m, key)
}

// edit runs one method's work under the lock, and saves or undoes what it did.
func (b *Book) edit(ctx context.Context, work func(*change) error) error {
	c := newChange()
	err := b.save(ctx, c, work)
	if err == nil {
		b.giveToStore(ctx, c)
	}
	return err
}

func (b *Book) save(ctx context.Context, c *change, work func(*change) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := work(c)
	if err == nil {
		err = c.err
	}
	if err == nil && len(c.txn.Put)+len(c.txn.Delete) == 0 {
		return nil
	}
	if err == nil {
		_, err = b.store.Commit(ctx, c.txn)
	}
	if err != nil {
		for _, undo := range slices.Backward(c.undo) {
			undo()
		}
		return err
	}
	b.version++
	if b.node.Changed != nil {
		b.node.Changed()
	}
	return nil
}

// Snapshot is the book at one moment, for the plan and for listings. It shares nothing with the book that changes.
type Snapshot struct {
	Version   uint64
	Networks  []Network  // by ID
	Endpoints []Endpoint // by ID
	Blocks    []ipam.Block
	Pools     []ipam.Pool
	// Fenced are blocks and addresses of this node that it must not announce: by the store, another node has them.
	Fenced    []netip.Prefix
	Releasing []netip.Prefix // blocks and addresses on their way back to the store
}

// Snapshot returns the book as it is now.
func (b *Book) Snapshot() Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Snapshot{Version: b.version, Blocks: b.alloc.Blocks(), Pools: b.alloc.Pools()}
	s.Fenced, s.Releasing = b.fenced(), b.shared.leaving()
	for _, n := range b.networks {
		s.Networks = append(s.Networks, b.seen(n))
	}
	for _, e := range b.endpoints {
		s.Endpoints = append(s.Endpoints, e)
	}
	slices.SortFunc(s.Networks, func(a, b Network) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(s.Endpoints, func(a, b Endpoint) int { return strings.Compare(a.ID, b.ID) })
	return s
}

// Endpoint returns one endpoint; false when there is none.
func (b *Book) Endpoint(id string) (Endpoint, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.endpoints[id]
	return e, ok
}

// Holdings are all addresses that are not free.
func (b *Book) Holdings() []ipam.Holding {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.alloc.Holdings()
}

// SetOptions takes in a changed config.
func (b *Book) SetOptions(opts ipam.Options) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.alloc.SetOptions(opts)
}
