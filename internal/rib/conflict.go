package rib

import (
	"cmp"
	"net/netip"
	"slices"
)

// holder is who announces a prefix: the node that says so, and for strangers the AS and the next hop.
type holder struct {
	node, via netip.Addr
	link      string
	as        uint32
}

func holderOf(p Path) holder {
	if p.Node.IsValid() {
		return holder{node: p.Node}
	}
	return holder{via: p.NextHop, link: p.Link, as: p.OriginAS}
}

// Conflicts returns the host prefixes that more than one node announces, sorted by prefix, with one path of each holder.
// Paths of one node by several ways are no conflict, and neither is what the config says beside what is announced:
// static paths are not looked at. The result belongs to the table.
func (t *Table) Conflicts() []Conflict {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.checked {
		return t.conflicts
	}
	t.conflicts, t.checked = nil, true
	for src := Store; int(src) < sources; src++ {
		for prefix, paths := range t.heard[src] {
			if len(paths) < 2 || !prefix.IsSingleIP() {
				continue
			}
			if each := oneOfEach(paths); len(each) > 1 {
				t.conflicts = append(t.conflicts, Conflict{Prefix: prefix, Paths: each})
			}
		}
	}
	slices.SortFunc(t.conflicts, func(a, b Conflict) int {
		return cmp.Or(ComparePrefix(a.Prefix, b.Prefix), cmp.Compare(a.Paths[0].Source, b.Paths[0].Source))
	})
	return t.conflicts
}

// oneOfEach returns the first path of each holder.
func oneOfEach(paths []Path) []Path {
	seen := make(map[holder]bool, len(paths))
	var each []Path
	for _, p := range paths {
		if h := holderOf(p); !seen[h] {
			seen[h] = true
			each = append(each, p)
		}
	}
	return each
}
