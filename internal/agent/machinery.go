package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"fairway/internal/kernel"
	"fairway/internal/kernel/nft"
	"fairway/internal/kernel/rtnl"
	"fairway/internal/reconcile"
)

// machinery is the kernel's tables, with what the kernel said of them last.
type machinery struct {
	log    *slog.Logger
	rt     *rtnl.Handle
	fw     *nft.Handle
	links  *reconcile.Tracked[string, kernel.Link]
	addrs  *reconcile.Tracked[kernel.AddrKey, struct{}]
	neighs *reconcile.Tracked[kernel.NeighKey, kernel.MAC]
	routes *reconcile.Tracked[kernel.RouteKey, kernel.Route]
	// adopting is true in the first pass of an agent: the engine cannot ask for anything yet, so a link that is made belongs
	// to a container that ran before, and went while no agent ran.
	adopting bool

	mu        sync.Mutex
	want      kernel.State // of the last pass
	sysctls   map[string]string
	sandboxes map[kernel.SandboxKey]kernel.Sandbox // seen as wanted
	firewall  bool                                 // seen as wanted
	facts     *kernel.Facts                        // nil: to be read
	since     map[kernel.RouteKey]time.Time        // of routes set by this run; for listings
	// masquerade is what was in force last, with all flows on their right sides; nil: not known.
	masquerade *kernel.Masquerade
	unswept    *sides // of a sweep that failed
}

func newMachinery(log *slog.Logger, rt *rtnl.Handle, fw *nft.Handle) *machinery {
	return &machinery{
		log: log, rt: rt, fw: fw, since: map[kernel.RouteKey]time.Time{},
		links:  reconcile.Track(rt.Links(), kernel.LinkEqual),
		addrs:  reconcile.Track(rt.Addrs(), func(_, _ struct{}) bool { return true }),
		neighs: reconcile.Track(rt.Neighs(), func(a, b kernel.MAC) bool { return a == b }),
		routes: reconcile.Track(rt.Routes(), kernel.RouteEqual),
	}
}

// invalidate forgets everything that the kernel said.
func (m *machinery) invalidate() {
	m.links.Invalidate()
	m.onLinks()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sysctls, m.sandboxes, m.firewall, m.facts = nil, nil, false, nil
}

// onLinks forgets what goes with a link: the kernel drops addresses, neighbours and IPv4 routes of a link that goes
// down or away, and does not tell of all of them (net/ipv4/fib_trie.c, fib_table_flush).
func (m *machinery) onLinks() {
	m.addrs.Invalidate()
	m.neighs.Invalidate()
	m.routes.Invalidate()
}

// observe takes in one word of the kernel, and returns whether a pass is needed.
func (m *machinery) observe(e rtnl.Event) bool {
	switch {
	case e.Lost:
		m.invalidate()
		return true
	case e.Facts:
		m.mu.Lock()
		m.facts = nil
		m.mu.Unlock()
		m.onLinks()
		return true
	case e.Sysctl:
		m.mu.Lock()
		defer m.mu.Unlock()
		m.sysctls = nil
		return true
	case e.Sandbox != "":
		return m.sandboxMoved(e.Sandbox)
	case e.Link != nil:
		if !m.links.Observe(*e.Link) {
			return false
		}
		m.onLinks()
		return true
	case e.Addr != nil:
		return m.addrs.Observe(*e.Addr)
	case e.Neigh != nil:
		return m.neighs.Observe(*e.Neigh)
	case e.Route != nil:
		return m.routes.Observe(*e.Route)
	}
	return false
}

// sandboxMoved looks again at what the sandbox at the other end of a veth should have.
func (m *machinery) sandboxMoved(link string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.want.Links[link]
	if !ok {
		return false
	}
	for key := range m.want.Sandbox {
		if key.MAC == l.Peer.MAC {
			delete(m.sandboxes, key)
			return true
		}
	}
	return false
}

// drifted looks at what the kernel does not tell of reliably: sysctls and the firewall. It is called a few times a
// second, and writes nothing.
func (m *machinery) drifted(ctx context.Context) bool {
	m.mu.Lock()
	want := m.want
	m.mu.Unlock()
	have, err := m.rt.Sysctls().Read(ctx, globalSysctls(want.Sysctls))
	if err != nil {
		return true
	}
	drift := false
	for k, v := range have {
		drift = drift || want.Sysctls[k] != v
	}
	ok, _, err := m.fw.Check(ctx, want.Firewall)
	m.mu.Lock()
	defer m.mu.Unlock()
	if drift {
		m.sysctls = nil
	}
	if !ok || err != nil {
		m.firewall = false
		drift = true
	}
	return drift
}

// globalSysctls are those that are not of one of our links.
func globalSysctls(all map[string]string) []string {
	var keys []string
	for k := range all {
		if k == sysctlForward4 || k == sysctlForward6 {
			keys = append(keys, k)
		}
	}
	return keys
}

// readFacts returns what is known of strangers' links, from memory unless something changed.
func (m *machinery) readFacts(ctx context.Context) (kernel.Facts, error) {
	m.mu.Lock()
	known := m.facts
	m.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	f, err := m.rt.Facts(ctx)
	if err != nil {
		return kernel.Facts{}, fmt.Errorf("read links and addresses: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.facts = &f
	return f, nil
}

// apply makes the kernel agree with the whole set. Learned routes that nobody wants are left alone until every source
// has reported (prune): they may be an earlier run's, about to be learned again.
func (m *machinery) apply(ctx context.Context, want kernel.State, prune bool) ([]reconcile.Report, failedRoutes, map[string]error) {
	if !prune {
		want.Firewall.Masquerade = m.stillKnown(ctx, want.Firewall.Masquerade)
	}
	m.mu.Lock()
	before := m.want
	m.want = want
	m.mu.Unlock()
	links := &reconcile.Sync[string, kernel.Link]{
		Name: "links", Table: m.links, Desired: existing(ctx, m.links, want.Links), Before: before.Links,
		Equal: kernel.LinkEqual, Text: func(k string) string { return k },
	}
	addrs := &reconcile.Sync[kernel.AddrKey, struct{}]{
		Name: "addresses", Table: m.addrs, Desired: want.Addrs, Before: before.Addrs,
		Equal: func(_, _ struct{}) bool { return true },
		Text:  func(k kernel.AddrKey) string { return fmt.Sprintf("%s on %s", k.Prefix, k.Link) },
	}
	neighs := &reconcile.Sync[kernel.NeighKey, kernel.MAC]{
		Name: "neighbours", Table: m.neighs, Desired: want.Neighs, Before: before.Neighs,
		Equal: func(a, b kernel.MAC) bool { return a == b },
		Text:  func(k kernel.NeighKey) string { return fmt.Sprintf("%s on %s", k.IP, k.Link) },
	}
	routes := &reconcile.Sync[kernel.RouteKey, kernel.Route]{
		Name: "routes", Table: m.routes, Desired: want.Routes, Before: before.Routes, Equal: kernel.RouteEqual,
		Text: func(k kernel.RouteKey) string { return k.Dst.String() },
		Keep: func(_ kernel.RouteKey, have kernel.Route) bool { return !prune && learned(have) },
	}
	stages := []reconcile.Stage{
		links, &sysctlStage{m: m, want: want.Sysctls, before: before.Sysctls}, addrs, neighs,
		&firewallStage{m: m, want: want.Firewall, before: before.Firewall}, routes, &sandboxStage{m: m, want: want.Sandbox, links: want.Links},
	}
	reports := reconcile.Run(ctx, stages)
	var made []string
	for _, name := range links.Made() {
		if _, before := before.Links[name]; before || m.adopting {
			made = append(made, name)
		}
	}
	m.adopting = false
	m.replug(ctx, made, want)
	now := time.Now()
	m.mu.Lock()
	routes.Changed(func(k kernel.RouteKey) { m.since[k] = now }, func(k kernel.RouteKey) { delete(m.since, k) })
	m.mu.Unlock()
	return reports, routes.Errors(), byLinkErrors(links, addrs, neighs, routes)
}

// routesSince returns since when each route has stood as it is; those of an earlier run are not in it.
func (m *machinery) routesSince() map[kernel.RouteKey]time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.since)
}

// learned says that a route leads to another node.
func learned(r kernel.Route) bool {
	for _, h := range r.NextHops {
		if h.Via.IsValid() {
			return true
		}
	}
	return false
}

// existing drops links that are only to be kept from the desired set where they are gone.
func existing(ctx context.Context, t reconcile.Table[string, kernel.Link], want map[string]kernel.Link) map[string]kernel.Link {
	var have map[string]kernel.Link
	out := want
	for name, l := range want {
		if !l.Existing {
			continue
		}
		if have == nil {
			var err error
			if have, err = t.List(ctx); err != nil {
				return want // the stage meets the same error and reports it
			}
			out = maps.Clone(want)
		}
		if _, ok := have[name]; !ok {
			delete(out, name)
		}
	}
	return out
}

// byLinkErrors sorts failures by the link that they keep from working.
func byLinkErrors(links *reconcile.Sync[string, kernel.Link], addrs *reconcile.Sync[kernel.AddrKey, struct{}],
	neighs *reconcile.Sync[kernel.NeighKey, kernel.MAC], routes *reconcile.Sync[kernel.RouteKey, kernel.Route],
) map[string]error {
	out := map[string]error{}
	add := func(link string, err error) {
		if link != "" {
			out[link] = errors.Join(out[link], err)
		}
	}
	for k, err := range links.Errors() {
		add(k, fmt.Errorf("link %s: %w", k, err))
	}
	for k, err := range addrs.Errors() {
		add(k.Link, fmt.Errorf("address %s on %s: %w", k.Prefix, k.Link, err))
	}
	for k, err := range neighs.Errors() {
		add(k.Link, fmt.Errorf("neighbour %s on %s: %w", k.IP, k.Link, err))
	}
	defer ofBridge(out, links.Desired)
	for k, err := range routes.Errors() {
		for _, h := range routes.Desired[k].NextHops {
			if !h.Via.IsValid() {
				add(h.Link, fmt.Errorf("route %s: %w", k.Dst, err))
			}
		}
	}
	return out
}

// replug brings veths that somebody had deleted, and that this pass made anew, back into their containers. The engine
// does not know that they were gone.
func (m *machinery) replug(ctx context.Context, made []string, want kernel.State) {
	for _, name := range made {
		link := want.Links[name]
		for key := range want.Sandbox {
			if key.MAC != link.Peer.MAC {
				continue
			}
			err := m.rt.Plug(ctx, key, link.Peer.Name, link.Peer.Plug)
			m.log.Warn("put a deleted veth back into its container", slog.String("link", name), slog.Any("err", err))
			m.mu.Lock()
			delete(m.sandboxes, key)
			m.mu.Unlock()
		}
	}
}
