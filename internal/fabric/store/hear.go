package store

import (
	"log/slog"
	"maps"
	"net/netip"

	"fairway/internal/cluster"
	"fairway/internal/rib"
)

// hear makes the rib agree with the records.
func (f *Fabric) hear() {
	v, h := f.cfg.Cluster.View(), f.cfg.Cluster.Health()
	f.mu.Lock()
	converged := f.converged
	paths, ok := f.learn(v, h)
	turned := f.converged && !converged
	if ok {
		// Under the lock: what an older View said must not come after what a newer one does.
		f.cfg.RIB.Replace(rib.Store, paths)
	}
	f.mu.Unlock()
	if turned {
		f.cfg.Log.Info("converged", slog.Int("routes", len(paths)))
		f.cfg.Changed()
	}
}

// learn returns the whole of what is heard, and false when nothing can be concluded now. f.mu is held.
func (f *Fabric) learn(v *cluster.View, h cluster.Health) (map[netip.Prefix][]rib.Path, bool) {
	now := f.cfg.Now()
	if !h.Reachable {
		f.cutOff = f.cutOff || !h.Since.IsZero()
		return nil, false
	}
	if !v.Complete {
		return nil, false
	}
	if f.cutOff || !f.started {
		f.settles, f.cutOff, f.started = now.Add(grace), false, true
	}
	if h.Restored.After(f.restored) || v.Revision < f.revision {
		f.restored, f.settles = h.Restored, now.Add(rewrite)
		f.vanished = maps.Clone(f.held)
	}
	f.revision = v.Revision
	settling := now.Before(f.settles)
	next, waiting := f.fromRecords(v, settling)
	f.keepVanished(v, next, settling)
	f.held = next
	if !waiting || !settling {
		f.converged = true
	}
	paths := map[netip.Prefix][]rib.Path{}
	for key, x := range next {
		paths[key.Prefix] = append(paths[key.Prefix], x.path)
	}
	yield(v, next, paths)
	return paths, true
}

// fromRecords takes up the routes of nodes that are alive. While things settle, a node that is not is given time: what was
// taken up from it stays, and waiting says that there is such a node.
func (f *Fabric) fromRecords(v *cluster.View, settling bool) (next map[cluster.RouteKey]held, waiting bool) {
	next = make(map[cluster.RouteKey]held, len(v.Routes))
	for key := range v.Routes {
		if key.Node == f.cfg.Node || key.Prefix.Bits() == 0 {
			continue // a default route is nothing that one node decides for all
		}
		was, had := f.held[key]
		if !v.Live(key.Node) {
			waiting = true
			if settling && had {
				next[key] = was
			}
			continue
		}
		n, known := v.Nodes[key.Node]
		hop := nextHop(key.Prefix, n.Value)
		if !known || !hop.IsValid() {
			if settling && had {
				next[key] = was
			}
			continue
		}
		node := n.Value.RouterID
		if !node.IsValid() {
			node = n.Value.Addr4
		}
		next[key] = held{rib.Path{NextHop: hop, Source: rib.Store, Peer: key.Node, Node: node}, n.Value.ID}
	}
	return next, waiting
}

// keepVanished keeps routes whose records went with the store that had them, until their nodes have written them again or
// had the time to: not those of removed nodes, nor those that another node has now.
func (f *Fabric) keepVanished(v *cluster.View, next map[cluster.RouteKey]held, settling bool) {
	if !settling {
		f.vanished = nil
	}
	has := make(map[netip.Prefix]bool, len(next))
	if len(f.vanished) > 0 {
		for key := range next {
			has[key.Prefix] = true
		}
	}
	for key, x := range f.vanished {
		_, removed := v.Tombstones[x.id]
		_, there := v.Routes[key]
		if removed || there || has[key.Prefix] {
			delete(f.vanished, key)
			continue
		}
		next[key] = x
	}
}

// yield takes out the ways over nodes that are being drained, where there is another.
func yield(v *cluster.View, all map[cluster.RouteKey]held, paths map[netip.Prefix][]rib.Path) {
	for node := range v.Drains {
		for prefix, ways := range paths {
			if _, has := all[cluster.RouteKey{Node: node, Prefix: prefix}]; !has || len(ways) < 2 {
				continue
			}
			var others []rib.Path
			for _, p := range ways {
				if p.Peer != node {
					others = append(others, p)
				}
			}
			paths[prefix] = others
		}
	}
}

// nextHop is the node's address of the prefix's family. IPv4 also goes over IPv6 (RFC 8950), not the other way round.
func nextHop(p netip.Prefix, n cluster.Node) netip.Addr {
	if p.Addr().Is4() && n.Addr4.IsValid() {
		return n.Addr4
	}
	return n.Addr6
}
