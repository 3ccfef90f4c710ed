package bgp

import (
	"net/netip"
	"slices"
	"sync"

	"fairway/internal/rib"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
)

// learned is what peers told us and GoBGP chose, per prefix. GoBGP reports changes of single paths, so the whole choice of a
// prefix, which the rib wants, is put together here. The rib is told under the lock: a link's loss and an update that was
// heard before it must reach the rib in this order.
type learned struct {
	rib *rib.Table
	own []netip.Addr // next hops that are this node: a way back to ourselves

	mu    sync.Mutex
	paths map[netip.Prefix][]entry
	// blocked peers are taken out of GoBGP but their last updates may still be on the way to us.
	blocked map[netip.Addr]bool
	stale   map[netip.Addr]bool
	heard   map[netip.Addr]int    // paths taken from a peer since heardSince was told to begin anew
	links   map[netip.Addr]string // over which a peer is reached, for link-local next hops
	attrs   attrCache
}

// entry is one path. The peer and the ID that it gave the path (RFC 7911) tell paths of a prefix apart.
type entry struct {
	peer netip.Addr
	id   uint32
	path rib.Path
}

func newLearned(table *rib.Table) *learned {
	return &learned{
		rib: table, paths: map[netip.Prefix][]entry{},
		blocked: map[netip.Addr]bool{}, stale: map[netip.Addr]bool{},
		heard: map[netip.Addr]int{}, links: map[netip.Addr]string{},
	}
}

// merge takes up changes in the order they were reported, and tells the rib once. With several paths to a prefix (multi),
// each change is about one of them; without, about the best one.
func (l *learned) merge(changes []*apiutil.Path, multi bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	touched := map[netip.Prefix]bool{}
	for _, c := range changes {
		peer := c.PeerAddress.Unmap()
		prefix, path, ok := l.attrs.parse(c, l.links[peer])
		if !prefix.IsValid() {
			continue
		}
		local := !c.PeerAddress.IsValid()
		switch {
		case local && multi: // ours; the heard paths it displaces are withdrawn on their own
			continue
		case local || c.Withdrawal || !ok || l.blocked[peer] || slices.Contains(l.own, path.NextHop):
			l.drop(prefix, peer, c.RemoteID, multi)
		default:
			path.Stale = l.stale[peer]
			l.heard[peer]++
			l.put(prefix, entry{peer, c.RemoteID, path}, multi)
		}
		touched[prefix] = true
	}
	l.publish(touched)
}

// heardSince is how many paths were taken from a peer since the count last began; anew begins it.
func (l *learned) heardSince(peer netip.Addr, anew bool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.heard[peer]
	if anew {
		delete(l.heard, peer)
	}
	return n
}

func (l *learned) put(prefix netip.Prefix, e entry, multi bool) {
	all := l.paths[prefix]
	if !multi {
		l.paths[prefix] = append(all[:0], e)
		return
	}
	if i := index(all, e.peer, e.id); i >= 0 {
		all[i] = e
		return
	}
	l.paths[prefix] = append(all, e)
}

func (l *learned) drop(prefix netip.Prefix, peer netip.Addr, id uint32, multi bool) {
	all := l.paths[prefix]
	if !multi {
		delete(l.paths, prefix)
		return
	}
	if i := index(all, peer, id); i >= 0 {
		all = slices.Delete(all, i, i+1)
	}
	l.keep(prefix, all)
}

func (l *learned) keep(prefix netip.Prefix, all []entry) {
	if len(all) == 0 {
		delete(l.paths, prefix)
		return
	}
	l.paths[prefix] = all
}

func index(all []entry, peer netip.Addr, id uint32) int {
	return slices.IndexFunc(all, func(e entry) bool { return e.peer == peer && e.id == id })
}

// block drops all that a peer told, and what may still come of it until unblock.
func (l *learned) block(peer netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.blocked[peer] {
		return
	}
	l.blocked[peer] = true
	delete(l.stale, peer)
	delete(l.heard, peer)
	changes := map[netip.Prefix][]rib.Path{}
	for prefix, all := range l.paths {
		if !slices.ContainsFunc(all, func(e entry) bool { return e.peer == peer }) {
			continue
		}
		all = slices.DeleteFunc(all, func(e entry) bool { return e.peer == peer })
		l.keep(prefix, all)
		changes[prefix] = ribPaths(all)
	}
	if len(changes) > 0 {
		l.rib.Update(rib.BGP, changes)
	}
}

// unblock is called when a new session with the peer is up, before its first path.
func (l *learned) unblock(peer netip.Addr, link string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.blocked, peer)
	l.links[peer] = link
}

// mark says whether what a peer told is kept from before its restart.
func (l *learned) mark(peer netip.Addr, stale bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stale[peer] == stale {
		return
	}
	if stale {
		l.stale[peer] = true
	} else {
		delete(l.stale, peer)
	}
	touched := map[netip.Prefix]bool{}
	for prefix, all := range l.paths {
		for i := range all {
			if all[i].peer == peer {
				all[i].path.Stale = stale
				touched[prefix] = true
			}
		}
	}
	l.publish(touched)
}

func (l *learned) publish(touched map[netip.Prefix]bool) {
	if len(touched) == 0 {
		return
	}
	changes := make(map[netip.Prefix][]rib.Path, len(touched))
	for prefix := range touched {
		changes[prefix] = ribPaths(l.paths[prefix])
	}
	l.rib.Update(rib.BGP, changes)
}

// ribPaths copies paths for the rib, which keeps them.
func ribPaths(all []entry) []rib.Path {
	if len(all) == 0 {
		return nil
	}
	paths := make([]rib.Path, len(all))
	for i, e := range all {
		paths[i] = e.path
	}
	return paths
}
