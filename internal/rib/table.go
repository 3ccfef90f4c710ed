package rib

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sync"
)

// The sources are small numbers from Static to BGP; index 0 is unused.
const sources = int(BGP) + 1

// Table holds every path that was heard and the choice among them. It is safe for concurrent use, and its lock is the only
// one in the package.
type Table struct {
	dirty func()

	mu     sync.Mutex
	heard  [sources]map[netip.Prefix][]Path
	best   map[netip.Prefix]Route // what Snapshot hands out
	handed bool                   // best was handed out: it is copied before the next change
	// lengths counts best's prefixes by length, IPv4 first, so that a longest match looks at lengths in use only.
	lengths   [2][129]int
	conflicts []Conflict
	checked   bool // conflicts is what the paths say
}

// New makes an empty table. It calls dirty, if that is not nil, after each change of a route or a path, without holding
// its lock, in the goroutine that made the change; dirty must not block.
func New(dirty func()) *Table {
	t := &Table{dirty: dirty, best: map[netip.Prefix]Route{}}
	for s := range t.heard {
		t.heard[s] = map[netip.Prefix][]Path{}
	}
	return t
}

// Update replaces the paths that a source has to some prefixes; no paths mean that the source has none any more. Prefixes
// are masked. The table keeps the slices: the caller must not touch them again. A source that is not one of the
// constants is ignored.
func (t *Table) Update(src Source, changes map[netip.Prefix][]Path) {
	if src < Static || int(src) >= sources {
		return
	}
	t.mu.Lock()
	changed := false
	for prefix, paths := range changes {
		changed = t.set(src, prefix, paths) || changed
	}
	t.mu.Unlock()
	t.tell(changed)
}

// Replace makes whole all that a source has: prefixes that are not in it are gone. The table keeps the slices.
func (t *Table) Replace(src Source, whole map[netip.Prefix][]Path) {
	if src < Static || int(src) >= sources {
		return
	}
	t.mu.Lock()
	changed := false
	for prefix := range t.heard[src] {
		if len(whole[prefix]) == 0 {
			changed = t.set(src, prefix, nil) || changed
		}
	}
	for prefix, paths := range whole {
		changed = t.set(src, prefix, paths) || changed
	}
	t.mu.Unlock()
	t.tell(changed)
}

// Snapshot returns the best route of each prefix. The map and what is in it belong to the table and never change; the
// caller must not change them either. Without a change since the last call it costs nothing.
func (t *Table) Snapshot() map[netip.Prefix]Route {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.handed = true
	return t.best
}

// Len is the number of prefixes that have a route.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.best)
}

// Covering returns the route with the longest prefix that holds addr, false when there is none. A zone does not matter.
func (t *Table) Covering(addr netip.Addr) (Route, bool) {
	addr = addr.Unmap().WithZone("")
	t.mu.Lock()
	defer t.mu.Unlock()
	lengths := &t.lengths[family(addr)]
	for bits := addr.BitLen(); bits >= 0 && addr.IsValid(); bits-- {
		if lengths[bits] == 0 {
			continue
		}
		if r, ok := t.best[netip.PrefixFrom(addr, bits).Masked()]; ok {
			return r, true
		}
	}
	return Route{}, false
}

// Within returns the routes whose prefix is p or inside p, sorted by prefix.
func (t *Table) Within(p netip.Prefix) []Route {
	p = p.Masked()
	t.mu.Lock()
	defer t.mu.Unlock()
	var in []Route
	for prefix, r := range t.best {
		if prefix.Bits() >= p.Bits() && p.Contains(prefix.Addr()) {
			in = append(in, r)
		}
	}
	slices.SortFunc(in, func(a, b Route) int { return ComparePrefix(a.Prefix, b.Prefix) })
	return in
}

// ComparePrefix orders prefixes for listings: by address, IPv4 first, the shorter first.
func ComparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// set stores what a source has to a prefix and chooses again; it says whether anything changed.
func (t *Table) set(src Source, prefix netip.Prefix, paths []Path) bool {
	prefix = prefix.Masked()
	if !prefix.IsValid() {
		return false
	}
	if len(paths) > 1 {
		slices.SortFunc(paths, comparePath)
	}
	if slices.EqualFunc(t.heard[src][prefix], paths, equalPath) {
		return false
	}
	if len(paths) == 0 {
		delete(t.heard[src], prefix)
	} else {
		t.heard[src][prefix] = paths
	}
	if prefix.IsSingleIP() {
		t.checked = false
	}
	t.choose(prefix)
	return true
}

// choose puts the paths of the best source that has any into best.
func (t *Table) choose(prefix netip.Prefix) {
	if t.handed {
		t.best, t.handed = maps.Clone(t.best), false
	}
	_, had := t.best[prefix]
	count := &t.lengths[family(prefix.Addr())][prefix.Bits()]
	for src := Static; int(src) < sources; src++ {
		paths := t.heard[src][prefix]
		if len(paths) == 0 {
			continue
		}
		t.best[prefix] = Route{Prefix: prefix, Paths: paths}
		if !had {
			*count++
		}
		return
	}
	if had {
		delete(t.best, prefix)
		*count--
	}
}

func (t *Table) tell(changed bool) {
	if changed && t.dirty != nil {
		t.dirty()
	}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// comparePath orders the paths to one prefix. The order means nothing but that it is always the same.
func comparePath(a, b Path) int {
	return cmp.Or(
		a.Node.Compare(b.Node),
		cmp.Compare(a.Peer, b.Peer),
		a.NextHop.Compare(b.NextHop),
		cmp.Compare(a.Link, b.Link),
		cmp.Compare(a.OriginAS, b.OriginAS),
		cmp.Compare(a.MED, b.MED),
		slices.Compare(a.ASPath, b.ASPath),
	)
}

func equalPath(a, b Path) bool {
	return comparePath(a, b) == 0 && a.Source == b.Source && a.Stale == b.Stale
}
