package rtnl

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
	"fairway/internal/reconcile"
)

// watcher turns messages into events. It keeps what is needed to know whose an object is, and which change is one.
type watcher struct {
	h  *Handle
	fn func(Event)

	links  map[int]linkMsg      // all links by index
	addrs  map[addrMsg]struct{} // of strangers' links
	routes routeMemory          // ours
	facts  bool                 // to be reported
	sysctl bool                 // to be reported
	stale  bool                 // routes may have gone without a word
}

func (w *watcher) unsettled() bool { return w.facts || w.sysctl || w.stale }

// load reads the present state.
func (w *watcher) load(ctx context.Context) error {
	return w.h.with(ctx, func(c *conn) error {
		links, err := dumpLinks(ctx, c)
		if err != nil {
			return fmt.Errorf("list links: %w", err)
		}
		w.links = make(map[int]linkMsg, len(links))
		for _, l := range links {
			w.links[l.index] = l
		}
		addrs, err := dumpAddrs(ctx, c)
		if err != nil {
			return fmt.Errorf("list addresses: %w", err)
		}
		w.addrs = make(map[addrMsg]struct{})
		for _, a := range addrs {
			if !w.links[a.index].ours() {
				w.addrs[a] = struct{}{}
			}
		}
		listed, err := readRoutes(ctx, c)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		w.routes = newRouteMemory()
		for _, l := range listed.routes {
			w.routes.add(l, w.name)
		}
		return nil
	})
}

func (w *watcher) name(index int) (string, bool) {
	l, ok := w.links[index]
	return l.name, ok
}

// flush reports what is collected.
func (w *watcher) flush() {
	if w.facts {
		w.facts = false
		w.fn(Event{Facts: true})
	}
	if w.sysctl {
		w.sysctl = false
		w.fn(Event{Sysctl: true})
	}
}

// settle finds out which routes went without a word: IPv4 drops routes over a link that goes down, or whose last
// address goes, and says nothing of them (fib_flush).
func (w *watcher) settle(ctx context.Context) error {
	if !w.stale {
		return nil
	}
	w.stale = false
	return w.h.with(ctx, func(c *conn) error {
		// The kernel tells of the link or address first and drops the routes then, under one lock. A question that
		// needs the lock is answered afterwards.
		if _, err := getLinkAt(c, 1); err != nil {
			return fmt.Errorf("look up link 1: %w", err)
		}
		listed, err := readRoutes(ctx, c)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		now := newRouteMemory()
		for _, l := range listed.routes {
			now.add(l, w.name)
		}
		was := w.routes
		w.routes = now
		for key := range was.ways {
			if _, ok := now.ways[key]; !ok {
				w.route(key, kernel.Route{}, true)
			}
		}
		for key, way := range now.ways {
			if old := was.ways[key]; old == nil || old.id != way.id {
				w.route(key, way.route, false)
			}
		}
		return nil
	})
}

func (w *watcher) route(key kernel.RouteKey, r kernel.Route, deleted bool) {
	w.fn(Event{Route: &reconcile.Change[kernel.RouteKey, kernel.Route]{Key: key, Val: r, Deleted: deleted}})
}

func (w *watcher) link(name string, l kernel.Link, deleted bool) {
	w.fn(Event{Link: &reconcile.Change[string, kernel.Link]{Key: name, Val: l, Deleted: deleted}})
}

// take takes in one message.
func (w *watcher) take(h header, p []byte) {
	switch h.typ {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		l, ok := parseLink(p)
		switch {
		case !ok || !l.full:
		case h.typ == unix.RTM_NEWLINK:
			w.newLink(l)
		default:
			w.delLink(l)
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if a, ok := parseAddr(p); ok {
			w.addr(a, h.typ == unix.RTM_DELADDR)
		}
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		if n, ok := parseNeigh(p); ok {
			w.neigh(n, h.typ == unix.RTM_DELNEIGH)
		}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if r, ok := parseRoute(p); ok && r.table == unix.RT_TABLE_MAIN {
			w.anyRoute(h, &r)
		}
	case unix.RTM_NEWNETCONF:
		w.netconf(p)
	}
}

func (w *watcher) newLink(l linkMsg) {
	was, known := w.links[l.index]
	w.links[l.index] = l
	if known && w.rekeyed(was, l) {
		w.fn(Event{Lost: true})
	}
	w.stale = w.stale || was.up() && !l.up() && w.routes.uses(l.index)
	switch {
	case l.ours():
		w.h.fresh.drop(l.name)
		w.link(l.name, l.link(w.name), false)
		if peerChanged(was, l) {
			w.fn(Event{Sandbox: l.name})
		}
	case was.ours():
		w.link(was.name, kernel.Link{}, true)
		w.facts = true
	case w.h.fresh.has(l.name):
	default:
		w.facts = w.facts || !known || !sameFact(was, l)
	}
}

// peerChanged says that the other end of a veth went elsewhere, or came up or down. That of a link which was not ours
// before is taken to have been here, and down.
func peerChanged(was, now linkMsg) bool {
	if !was.ours() {
		return now.peerNS >= 0 || now.carrier
	}
	return was.peerNS != now.peerNS || was.peer != now.peer || was.carrier != now.carrier
}

// rekeyed says that a change of a link changes other tables: their keys have its name in them, and what is on it became
// ours or a stranger's.
func (w *watcher) rekeyed(was, now linkMsg) bool {
	if was.name != now.name {
		return was.ours() || now.ours() || w.routes.uses(now.index)
	}
	return was.ours() != now.ours() && !w.h.fresh.has(now.name)
}

func (w *watcher) delLink(l linkMsg) {
	was, known := w.links[l.index]
	if !known {
		return
	}
	delete(w.links, l.index)
	w.stale = w.stale || w.routes.uses(l.index)
	switch {
	case was.ours():
		w.link(was.name, kernel.Link{}, true)
	case w.h.fresh.has(was.name):
		w.h.fresh.drop(was.name)
	default:
		w.facts = true
	}
	if host := w.links[l.peer]; l.moved && l.kind == string(kernel.Veth) && host.ours() {
		w.fn(Event{Sandbox: host.name})
	}
}

func sameFact(a, b linkMsg) bool {
	x, y := a.fact(), b.fact()
	return x.Name == y.Name && x.MTU == y.MTU && x.MAC == y.MAC && x.Kind == y.Kind && x.Up == y.Up && x.Carrier == y.Carrier
}

func (w *watcher) addr(a addrMsg, deleted bool) {
	if deleted && (a.prefix.Addr().Is4() && w.routes.uses(a.index) || w.routes.sources[a.prefix.Addr()] > 0) {
		w.stale = true
	}
	l := w.links[a.index]
	if l.ours() {
		if !a.ignored() {
			w.fn(Event{Addr: &reconcile.Change[kernel.AddrKey, struct{}]{
				Key: kernel.AddrKey{Link: l.name, Prefix: a.prefix}, Deleted: deleted,
			}})
		}
		return
	}
	_, known := w.addrs[a]
	if deleted {
		delete(w.addrs, a)
	} else {
		w.addrs[a] = struct{}{}
	}
	// Lifetimes of advertised addresses are renewed every few seconds: no change.
	if known == deleted && !w.h.fresh.has(l.name) {
		w.facts = true
	}
}

func (w *watcher) neigh(n neighMsg, deleted bool) {
	if l := w.links[n.index]; l.ours() {
		w.fn(Event{Neigh: &reconcile.Change[kernel.NeighKey, kernel.MAC]{
			Key: kernel.NeighKey{Link: l.name, IP: n.ip}, Val: n.mac, Deleted: deleted || !n.permanent,
		}})
	}
}

func (w *watcher) anyRoute(h header, r *routeMsg) {
	if r.key.Dst.Bits() == 0 && !r.ours() {
		w.facts = true
	}
	if h.typ == unix.RTM_NEWROUTE {
		w.newRoute(h, r)
	} else if r.ours() {
		w.delRoute(r)
	}
}

func (w *watcher) newRoute(h header, r *routeMsg) {
	was, known := w.routes.ways[r.key]
	switch {
	case !r.ourSlot():
	case !r.ours():
		if known && h.flags&unix.NLM_F_REPLACE != 0 {
			w.routes.remove(r.key)
			w.route(r.key, kernel.Route{}, true)
			w.stale = true // a second one of ours may be left
		}
	case known && h.flags&unix.NLM_F_REPLACE == 0 && was.id != r.id():
		w.stale = true // it stands beside the other
	default:
		way := w.routes.set(r, w.name)
		if way == nil {
			w.stale = true // over a link unheard of
			return
		}
		w.route(r.key, way.route, false)
	}
}

func (w *watcher) delRoute(r *routeMsg) {
	if was := w.routes.ways[r.key]; was != nil && len(was.hops) > max(len(r.hops), 1) {
		w.stale = true // IPv6 takes single next hops off a route
		return
	}
	w.routes.remove(r.key)
	w.route(r.key, kernel.Route{}, true)
}

// netconf looks for one setting that changed. The message about a new link has them all.
func (w *watcher) netconf(p []byte) {
	const ifindex = 1 // NETCONFA_IFINDEX
	if len(p) < sizeNetconf {
		return
	}
	settings := 0
	for t := range attributes(p[sizeNetconf:]) {
		if t != ifindex {
			settings++
		}
	}
	w.sysctl = w.sysctl || settings == 1
}
