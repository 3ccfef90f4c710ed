package rtnl

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"fairway/internal/kernel"
)

// routeMemory is what the kernel said of our routes. Many routes go the same way, so that a way is kept once.
type routeMemory struct {
	ways    map[kernel.RouteKey]*way
	shared  map[string]*way
	links   map[int]int        // how many ways use the link, by index
	sources map[netip.Addr]int // how many ways have the address as their source
}

// way is the value of routes, and its next hops with the indexes of their links.
type way struct {
	id    string
	route kernel.Route
	hops  []hop
	users int // routes that go this way
}

func newRouteMemory() routeMemory {
	return routeMemory{
		ways: map[kernel.RouteKey]*way{}, shared: map[string]*way{},
		links: map[int]int{}, sources: map[netip.Addr]int{},
	}
}

// id tells ways apart.
func (r *routeMsg) id() string { return string(r.appendID(nil)) }

func (r *routeMsg) appendID(b []byte) []byte {
	b = append(b, r.typ)
	b = append(b, r.src.AsSlice()...)
	for _, n := range r.hops {
		b = binary.NativeEndian.AppendUint32(append(b, '|'), uint32(n.index))
		b = append(b, n.via.AsSlice()...)
	}
	return b
}

func (m *routeMemory) uses(index int) bool { return m.links[index] > 0 }

// set remembers a route, and returns nil when it leads over a link that nobody can name.
func (m *routeMemory) set(r *routeMsg, name func(int) (string, bool)) *way {
	var scratch [128]byte
	id := r.appendID(scratch[:0])
	w := m.shared[string(id)]
	if w == nil {
		route, ok := r.route(name)
		if !ok {
			return nil
		}
		w = &way{id: string(id), route: route, hops: r.hops}
		for _, n := range r.hops {
			m.links[n.index]++
		}
		if r.src.IsValid() {
			m.sources[r.src]++
		}
		m.shared[w.id] = w
	}
	w.users++
	m.remove(r.key)
	m.ways[r.key] = w
	return w
}

// add is set for a listed route: one that stands beside another of the same key adds its next hops.
func (m *routeMemory) add(l listedRoute, name func(int) (string, bool)) {
	r := *l.way.msg
	r.key = l.key
	if was := m.ways[r.key]; was != nil {
		r.hops = append(slices.Clone(was.hops), r.hops...)
	}
	m.set(&r, name)
}

// remove forgets a route.
func (m *routeMemory) remove(key kernel.RouteKey) {
	w := m.ways[key]
	if w == nil {
		return
	}
	delete(m.ways, key)
	if w.users--; w.users > 0 {
		return
	}
	delete(m.shared, w.id)
	for _, n := range w.hops {
		if m.links[n.index]--; m.links[n.index] == 0 {
			delete(m.links, n.index)
		}
	}
	if w.route.Src.IsValid() {
		if m.sources[w.route.Src]--; m.sources[w.route.Src] == 0 {
			delete(m.sources, w.route.Src)
		}
	}
}
