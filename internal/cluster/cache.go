package cluster

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"fairway/internal/store"
)

// kind is one kind of record: where its keys are and how one gets into a View.
type kind interface {
	prefix() string
	put(c *cache, t *touched, rest string, r store.Record) error
	drop(c *cache, t *touched, rest string)
	keys
}

// keys is what a View can be asked about a kind.
type keys interface {
	revision(v *View, key string) (rev uint64, ok bool)
	same(a, b *View) bool
}

// touched tells what a change was about. Records that are only written anew are not in it.
type touched struct {
	kinds  map[string]bool // by prefix
	owners map[string]bool // IDs of the nodes whose blocks and addresses these are, or were
}

func (t *touched) note(prefix string, values ...any) {
	if t.kinds == nil {
		t.kinds, t.owners = map[string]bool{}, map[string]bool{}
	}
	t.kinds[prefix] = true
	for _, v := range values {
		switch v := v.(type) {
		case Block:
			t.owners[v.NodeID] = true
		case Address:
			t.owners[v.NodeID] = true
		}
	}
}

// owned tells which maps of a View are the cache's alone. The others are in somebody's hands, and are copied before
// they change.
type owned map[string]bool

// table is the kind of records of type V under keys of type K.
type table[K comparable, V any] struct {
	under string
	parse func(rest string) (K, bool)
	get   func(*View) *map[K]Entry[V]
	equal func(a, b V) bool // differing otherwise is no news
}

func (t table[K, V]) prefix() string { return t.under }

// own makes the map one that may be changed.
func (t table[K, V]) own(c *cache) map[K]Entry[V] {
	m := t.get(&c.now)
	if !c.own[t.under] || *m == nil {
		fresh := maps.Clone(*m)
		if fresh == nil {
			fresh = map[K]Entry[V]{}
		}
		*m, c.own[t.under] = fresh, true
	}
	return *m
}

func (t table[K, V]) put(c *cache, news *touched, rest string, r store.Record) error {
	k, ok := t.parse(rest)
	if !ok {
		return fmt.Errorf("read record %s: its key is none of ours", r.Key)
	}
	val, err := Decode[V](r.Key, r.Value)
	if err != nil {
		return err
	}
	was, had := (*t.get(&c.now))[k]
	if had && was.Revision == r.Revision {
		return nil
	}
	t.own(c)[k] = Entry[V]{Value: val, Revision: r.Revision, Created: r.Created}
	switch {
	case !had:
		news.note(t.under, val)
	case !t.equal(was.Value, val):
		news.note(t.under, was.Value, val)
	}
	return nil
}

func (t table[K, V]) drop(c *cache, news *touched, rest string) {
	k, ok := t.parse(rest)
	if !ok {
		return
	}
	was, had := (*t.get(&c.now))[k]
	if !had {
		return
	}
	delete(t.own(c), k)
	news.note(t.under, was.Value)
}

func (t table[K, V]) revision(v *View, key string) (rev uint64, ok bool) {
	rest, ok := strings.CutPrefix(key, t.under)
	if !ok {
		return 0, false
	}
	k, valid := t.parse(rest)
	if !valid {
		return 0, true
	}
	return (*t.get(v))[k].Revision, true
}

func (t table[K, V]) same(a, b *View) bool {
	return maps.EqualFunc(*t.get(a), *t.get(b), func(x, y Entry[V]) bool { return t.equal(x.Value, y.Value) })
}

// kinds are all kinds of records that a View has.
func kinds() []kind {
	return []kind{
		table[string, Node]{nodePrefix, parseName, func(v *View) *map[string]Entry[Node] { return &v.Nodes }, alike[Node]},
		table[string, Alive]{alivePrefix, parseName, func(v *View) *map[string]Entry[Alive] { return &v.Alive }, sameRun},
		table[string, Seen]{seenPrefix, parseName, func(v *View) *map[string]Entry[Seen] { return &v.Seen }, func(_, _ Seen) bool { return true }},
		table[string, Drain]{drainPrefix, parseName, func(v *View) *map[string]Entry[Drain] { return &v.Drains }, alike[Drain]},
		table[string, Tombstone]{tombstonePrefix, parseName, func(v *View) *map[string]Entry[Tombstone] { return &v.Tombstones }, alike[Tombstone]},
		table[string, Network]{networkPrefix, parseName, func(v *View) *map[string]Entry[Network] { return &v.Networks }, alike[Network]},
		table[StateKey, NetworkState]{statePrefix, parseState, func(v *View) *map[StateKey]Entry[NetworkState] { return &v.States }, alike[NetworkState]},
		table[netip.Prefix, Pool]{poolPrefix, parsePrefix, func(v *View) *map[netip.Prefix]Entry[Pool] { return &v.Pools }, alike[Pool]},
		table[BlockKey, Block]{blockPrefix, parseBlock, func(v *View) *map[BlockKey]Entry[Block] { return &v.Blocks }, alike[Block]},
		table[AddressKey, Address]{addressPrefix, parseAddress, func(v *View) *map[AddressKey]Entry[Address] { return &v.Addresses }, alike[Address]},
		table[RouteKey, Route]{routePrefix, parseRoute, func(v *View) *map[RouteKey]Entry[Route] { return &v.Routes }, alike[Route]},
	}
}

func alike[V any](a, b V) bool { return reflect.DeepEqual(a, b) }

// sameRun leaves out how many containers there are, which nobody acts on.
func sameRun(a, b Alive) bool { return a.ID == b.ID && a.Session == b.Session }

// cache keeps the records as a watch tells of them. It is safe for concurrent use.
type cache struct {
	kinds []kind

	mu     sync.Mutex
	now    View  // changed in place, but for maps that are not owned
	own    owned // by prefix
	grown  chan struct{}
	latest *View // of now; nil when it has changed since
}

func newCache() *cache {
	return &cache{kinds: kinds(), own: owned{}, grown: make(chan struct{})}
}

// view is what the cache holds now.
func (c *cache) view() *View {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.latest == nil {
		v := c.now
		c.latest, c.own = &v, owned{}
	}
	return c.latest
}

// listed is a cache of a whole listing.
func listed(l store.Listing, at time.Time) *cache {
	c := newCache()
	c.now.Complete = true
	var all touched
	for _, r := range l.Records {
		c.put(r, &all)
	}
	c.reached(l.Revision, at)
	return c
}

// replace takes over what another cache has, which is not to be used after that.
func (c *cache) replace(o *cache) touched {
	o.mu.Lock()
	defer o.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.now
	c.now, c.own = o.now, o.own
	c.now.Gone = was.Gone
	var news touched
	for _, k := range c.kinds {
		if !k.same(&was, &c.now) {
			news.note(k.prefix())
		}
	}
	c.reached(c.now.Revision, c.now.At)
	return news
}

// apply takes in a batch of a watch.
func (c *cache) apply(u store.Update, at time.Time) touched {
	c.mu.Lock()
	defer c.mu.Unlock()
	var news touched
	for _, e := range u.Events {
		if e.Deleted {
			c.gone(e.Key, at)
			c.drop(e.Key, &news)
		} else {
			c.put(e.Record, &news)
		}
	}
	c.reached(max(u.Revision, c.now.Revision), at)
	return news
}

// gone notes when a node stopped being alive.
func (c *cache) gone(key string, at time.Time) {
	node, ok := strings.CutPrefix(key, alivePrefix)
	if !ok {
		return
	}
	fresh := maps.Clone(c.now.Gone) // it may be in somebody's hands
	if fresh == nil {
		fresh = map[string]time.Time{}
	}
	fresh[node] = at
	c.now.Gone = fresh
}

// reached notes up to where the cache goes, and wakes who waits for that.
func (c *cache) reached(rev uint64, at time.Time) {
	c.now.Revision, c.now.At, c.latest = rev, at, nil
	close(c.grown)
	c.grown = make(chan struct{})
}

// seen notes that the store was heard of, with nothing new.
func (c *cache) seen(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.At, c.latest = at, nil
}

// kindUnread stands for View.Unread among the owned maps.
const kindUnread = "unread"

func (c *cache) put(r store.Record, news *touched) {
	if r.Key == PoolIndexKey {
		c.now.PoolIndex = r.Revision
		return
	}
	k, rest, ok := c.kindOf(r.Key)
	if !ok {
		c.unread(r.Key, fmt.Errorf("record %s is of a kind that this version does not know", r.Key), news)
		return
	}
	if err := k.put(c, news, rest, r); err != nil {
		// What was there before is no longer so, and what is there now cannot be read.
		k.drop(c, news, rest)
		c.unread(r.Key, err, news)
		return
	}
	c.readable(r.Key, news)
}

func (c *cache) drop(key string, news *touched) {
	if key == PoolIndexKey {
		c.now.PoolIndex = 0
		return
	}
	c.readable(key, news)
	if k, rest, ok := c.kindOf(key); ok {
		k.drop(c, news, rest)
	}
}

// unread notes a record that cannot be read.
func (c *cache) unread(key string, err error, news *touched) {
	if was := c.now.Unread[key]; was != nil && was.Error() == err.Error() {
		return
	}
	c.ownUnread()
	c.now.Unread[key] = err
	news.note(kindUnread)
}

func (c *cache) readable(key string, news *touched) {
	if _, was := c.now.Unread[key]; !was {
		return
	}
	c.ownUnread()
	delete(c.now.Unread, key)
	news.note(kindUnread)
}

func (c *cache) ownUnread() {
	if !c.own[kindUnread] {
		fresh := maps.Clone(c.now.Unread)
		if fresh == nil {
			fresh = map[string]error{}
		}
		c.now.Unread, c.own[kindUnread] = fresh, true
	}
}

func (c *cache) kindOf(key string) (k kind, rest string, ok bool) {
	for _, k := range c.kinds {
		if rest, ok := strings.CutPrefix(key, k.prefix()); ok {
			return k, rest, true
		}
	}
	return nil, "", false
}

// until waits for the cache to reach a revision, for at most catchUp.
func (c *cache) until(rev uint64, done <-chan struct{}) {
	timer := time.NewTimer(catchUp)
	defer timer.Stop()
	for {
		c.mu.Lock()
		have, grown := c.now.Revision, c.grown
		c.mu.Unlock()
		if have >= rev {
			return
		}
		select {
		case <-grown:
		case <-timer.C:
			return
		case <-done:
			return
		}
	}
}

// newer lists the records of a newer schema, in words.
func (v *View) newer() []string {
	var out []string
	for _, err := range v.Unread {
		if n, ok := errors.AsType[*NewerError](err); ok {
			out = append(out, n.Error())
		}
	}
	slices.Sort(out)
	return out
}
