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
	put(v *View, own *owned, rest string, r store.Record) (changed bool, err error)
	drop(v *View, own *owned, rest string) (changed bool)
	has(v *View, key string) (has, ok bool)
}

// owned tells which maps of a View are the cache's alone. The others are in somebody's hands, and are copied before
// they change.
type owned map[string]bool

// table is the kind of records of type V under keys of type K.
type table[K comparable, V any] struct {
	under string
	parse func(rest string) (K, bool)
	get   func(*View) *map[K]Entry[V]
}

func (t table[K, V]) prefix() string { return t.under }

// own makes the map one that may be changed.
func (t table[K, V]) own(v *View, own *owned) map[K]Entry[V] {
	m := t.get(v)
	if !(*own)[t.under] || *m == nil {
		fresh := maps.Clone(*m)
		if fresh == nil {
			fresh = map[K]Entry[V]{}
		}
		*m, (*own)[t.under] = fresh, true
	}
	return *m
}

func (t table[K, V]) put(v *View, own *owned, rest string, r store.Record) (bool, error) {
	k, ok := t.parse(rest)
	if !ok {
		return false, fmt.Errorf("read record %s: its key is none of ours", r.Key)
	}
	val, err := Decode[V](r.Key, r.Value)
	if err != nil {
		return false, err
	}
	was, had := (*t.get(v))[k]
	if had && was.Revision == r.Revision {
		return false, nil
	}
	t.own(v, own)[k] = Entry[V]{Value: val, Revision: r.Revision, Created: r.Created}
	return !had || !reflect.DeepEqual(was.Value, val), nil
}

func (t table[K, V]) drop(v *View, own *owned, rest string) bool {
	k, ok := t.parse(rest)
	if !ok {
		return false
	}
	if _, ok := (*t.get(v))[k]; !ok {
		return false
	}
	delete(t.own(v, own), k)
	return true
}

func (t table[K, V]) has(v *View, key string) (has, ok bool) {
	rest, ok := strings.CutPrefix(key, t.under)
	if !ok {
		return false, false
	}
	k, valid := t.parse(rest)
	if !valid {
		return false, true
	}
	_, has = (*t.get(v))[k]
	return has, true
}

// kinds are all kinds of records that a View has.
func kinds() []kind {
	return []kind{
		table[string, Node]{nodePrefix, parseName, func(v *View) *map[string]Entry[Node] { return &v.Nodes }},
		table[string, Alive]{alivePrefix, parseName, func(v *View) *map[string]Entry[Alive] { return &v.Alive }},
		table[string, Seen]{seenPrefix, parseName, func(v *View) *map[string]Entry[Seen] { return &v.Seen }},
		table[string, Drain]{drainPrefix, parseName, func(v *View) *map[string]Entry[Drain] { return &v.Drains }},
		table[string, Tombstone]{tombstonePrefix, parseName, func(v *View) *map[string]Entry[Tombstone] { return &v.Tombstones }},
		table[string, Network]{networkPrefix, parseName, func(v *View) *map[string]Entry[Network] { return &v.Networks }},
		table[StateKey, NetworkState]{statePrefix, parseState, func(v *View) *map[StateKey]Entry[NetworkState] { return &v.States }},
		table[netip.Prefix, Pool]{poolPrefix, parsePrefix, func(v *View) *map[netip.Prefix]Entry[Pool] { return &v.Pools }},
		table[BlockKey, Block]{blockPrefix, parseBlock, func(v *View) *map[BlockKey]Entry[Block] { return &v.Blocks }},
		table[AddressKey, Address]{addressPrefix, parseAddress, func(v *View) *map[AddressKey]Entry[Address] { return &v.Addresses }},
		table[RouteKey, Route]{routePrefix, parseRoute, func(v *View) *map[RouteKey]Entry[Route] { return &v.Routes }},
	}
}

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

// touched tells what a change was about: prefixes of the kinds whose records are now others.
type touched map[string]bool

// replace takes in a whole listing.
func (c *cache) replace(l store.Listing, at time.Time) touched {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.now
	c.now, c.own = View{Unread: map[string]error{}}, owned{kindUnread: true}
	for _, r := range l.Records {
		c.put(r)
	}
	t := touched{}
	for _, k := range c.kinds {
		if !sameValues(k, &was, &c.now) {
			t[k.prefix()] = true
		}
	}
	c.now.Complete = true
	c.reached(l.Revision, at)
	return t
}

// sameValues says whether two Views have the same records of a kind, whatever their revisions.
func sameValues(k kind, a, b *View) bool {
	same, ok := k.(interface{ same(a, b *View) bool })
	return ok && same.same(a, b)
}

func (t table[K, V]) same(a, b *View) bool {
	return maps.EqualFunc(*t.get(a), *t.get(b), func(x, y Entry[V]) bool { return reflect.DeepEqual(x.Value, y.Value) })
}

// apply takes in a batch of a watch.
func (c *cache) apply(u store.Update, at time.Time) touched {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := touched{}
	for _, e := range u.Events {
		prefix, changed := "", false
		if e.Deleted {
			prefix, changed = c.drop(e.Key)
		} else {
			prefix, changed = c.put(e.Record)
		}
		if changed {
			t[prefix] = true
		}
	}
	c.reached(max(u.Revision, c.now.Revision), at)
	return t
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

func (c *cache) put(r store.Record) (prefix string, changed bool) {
	if r.Key == PoolIndexKey {
		c.now.PoolIndex = r.Revision
		return PoolIndexKey, true
	}
	k, rest, ok := c.kindOf(r.Key)
	if !ok {
		return "", c.unread(r.Key, fmt.Errorf("record %s is of a kind that this version does not know", r.Key))
	}
	changed, err := k.put(&c.now, &c.own, rest, r)
	if err != nil {
		// What was there before is no longer so, and what is there now cannot be read.
		dropped := k.drop(&c.now, &c.own, rest)
		return k.prefix(), c.unread(r.Key, err) || dropped
	}
	return k.prefix(), c.readable(r.Key) || changed
}

func (c *cache) drop(key string) (prefix string, changed bool) {
	if key == PoolIndexKey {
		c.now.PoolIndex = 0
		return PoolIndexKey, true
	}
	k, rest, ok := c.kindOf(key)
	if !ok {
		return "", c.readable(key)
	}
	dropped := k.drop(&c.now, &c.own, rest)
	return k.prefix(), c.readable(key) || dropped
}

// unread notes a record that cannot be read; true when that is news.
func (c *cache) unread(key string, err error) bool {
	if was := c.now.Unread[key]; was != nil && was.Error() == err.Error() {
		return false
	}
	c.ownUnread()
	c.now.Unread[key] = err
	return true
}

func (c *cache) readable(key string) bool {
	if _, was := c.now.Unread[key]; !was {
		return false
	}
	c.ownUnread()
	delete(c.now.Unread, key)
	return true
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

// until waits for the cache to reach a revision, for at most d.
func (c *cache) until(rev uint64, d time.Duration, done <-chan struct{}) {
	timer := time.NewTimer(d)
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
		var n *NewerError
		if errors.As(err, &n) {
			out = append(out, n.Error())
		}
	}
	slices.Sort(out)
	return out
}
