package rtnl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
)

// Facts reads what is not ours: links and their addresses, and the default routes of lowest metric in the main table.
// A peer of a veth of ours that is still in this namespace is ours.
func (h *Handle) Facts(ctx context.Context) (kernel.Facts, error) {
	var out kernel.Facts
	err := h.with(ctx, func(c *conn) error {
		half := h.fresh.all() // may be without alias in the list, and have it by the time we look
		links, err := dumpLinks(ctx, c)
		if err != nil {
			return fmt.Errorf("list links: %w", err)
		}
		links = slices.DeleteFunc(links, func(l linkMsg) bool {
			return !l.ours() && (half[l.name] || h.fresh.has(l.name))
		})
		addrs, err := dumpAddrs(ctx, c)
		if err != nil {
			return fmt.Errorf("list addresses: %w", err)
		}
		out.Links = factLinks(links, addrs)
		names := make(map[int]string, len(links))
		for _, l := range links {
			names[l.index] = l.name
		}
		out.Default6, err = defaultRoute6(ctx, c, names)
		if err != nil {
			return fmt.Errorf("find IPv6 default route: %w", err)
		}
		out.Default4, err = h.defaultRoute4(names)
		if err != nil {
			return fmt.Errorf("find IPv4 default route: %w", err)
		}
		return nil
	})
	return out, err
}

func factLinks(links []linkMsg, addrs []addrMsg) map[string]kernel.FactLink {
	ours := make(map[int]bool)
	for _, l := range links {
		ours[l.index] = l.ours()
	}
	byIndex := make(map[int][]netip.Prefix)
	for _, a := range addrs {
		byIndex[a.index] = append(byIndex[a.index], a.prefix)
	}
	out := make(map[string]kernel.FactLink)
	for _, l := range links {
		if l.ours() || l.peerNS < 0 && ours[l.peer] {
			continue
		}
		f := l.fact()
		f.Addrs = byIndex[l.index]
		out[l.name] = f
	}
	return out
}

// fact is the message's link as a fact, without addresses.
func (l linkMsg) fact() kernel.FactLink {
	return kernel.FactLink{
		Name: l.name, Index: l.index, MTU: l.mtu, MAC: l.mac, Kind: l.kind, Up: l.up(),
		Carrier: l.oper == operUp || l.oper == operUnknown,
	}
}

// defaultRoute4 reads the main table only as far as its first prefix: the kernel lists IPv4 routes in the order of
// their destinations (fib_table_dump), and a full Internet table may follow.
func (h *Handle) defaultRoute4(names map[int]string) (kernel.NextHop, error) {
	c, err := dial(h.ns)
	if err != nil {
		return kernel.NextHop{}, err
	}
	defer c.close()
	var best defaultRoute
	err = c.dumpOnce(func(w *builder) { routeDump(w, c.strict, unix.AF_INET, 0, unix.RT_TABLE_MAIN) }, func(p []byte) bool {
		r, ok := parseRoute(p)
		if !ok || r.table != unix.RT_TABLE_MAIN {
			return true
		}
		best.consider(r)
		return r.key.Dst.Addr().IsUnspecified()
	})
	if errors.Is(err, unix.ENOENT) {
		err = nil // there is no main table yet
	}
	return best.nextHop(names), err
}

// defaultRoute6 asks where "::" goes, as the kernel lists IPv6's default route last. Only if something else than a
// stranger's default route answers is the table listed.
func defaultRoute6(ctx context.Context, c *conn, names map[int]string) (kernel.NextHop, error) {
	var best defaultRoute
	r, err := matchRoute(c, netip.IPv6Unspecified())
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
		return kernel.NextHop{}, nil
	case err == nil && r.isDefault() && r.table == unix.RT_TABLE_MAIN && !r.ours():
		best.consider(r)
		return best.nextHop(names), nil
	}
	all, err := dumpRoutes(ctx, c, unix.AF_INET6, 0, (*routeMsg).isDefault)
	for _, r := range all {
		best.consider(r)
	}
	return best.nextHop(names), err
}

// isDefault says that the route takes what no other takes.
func (r *routeMsg) isDefault() bool { return r.key.Dst.Bits() == 0 && r.typ == unix.RTN_UNICAST }

// defaultRoute is the best default route seen so far.
type defaultRoute struct {
	route routeMsg
	found bool
}

func (d *defaultRoute) consider(r routeMsg) {
	if !r.isDefault() || r.ours() || r.tos != 0 || len(r.hops) == 0 {
		return
	}
	if !d.found || r.metric < d.route.metric {
		d.route, d.found = r, true
	}
}

// nextHop is the first way of the route that is not dead.
func (d *defaultRoute) nextHop(names map[int]string) kernel.NextHop {
	if !d.found {
		return kernel.NextHop{}
	}
	way := d.route.hops[0]
	for _, n := range d.route.hops {
		if !n.dead {
			way = n
			break
		}
	}
	return kernel.NextHop{Via: way.via, Link: names[way.index]}
}

// RouteGet asks the kernel which way a packet of the node's own to the address takes, and from which source address.
// Via is the zero Addr when the destination is on the link. An address without a route is an error that wraps the
// kernel's (unix.ENETUNREACH and the like).
func (h *Handle) RouteGet(ctx context.Context, a netip.Addr) (kernel.NextHop, netip.Addr, error) {
	var out kernel.NextHop
	var src netip.Addr
	err := h.with(ctx, func(c *conn) error {
		r, err := get(c, func(w *builder) {
			w.begin(unix.RTM_GETROUTE, 0, family(a), byte(a.BitLen()), 0, 0, 0, 0, 0, 0)
			w.b = binary.NativeEndian.AppendUint32(w.b, 0)
			w.addr(unix.RTA_DST, a)
		}, parseAnswer)
		if err != nil {
			return err
		}
		switch r.typ {
		case unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT:
			return fmt.Errorf("%s: %w", typeName(r.typ), unix.ENETUNREACH)
		}
		src = r.src
		if len(r.hops) == 0 {
			return nil
		}
		l, err := getLinkAt(c, r.hops[0].index)
		out = kernel.NextHop{Via: r.hops[0].via, Link: l.name}
		return err
	})
	if err != nil {
		return out, src, fmt.Errorf("find route to %s: %w", a, err)
	}
	return out, src, nil
}

// parseAnswer reads the answer to a question for a route, which unlike a route of a table is marked as cloned, and is
// of type local for an own address.
func parseAnswer(p []byte) (routeMsg, bool) {
	if len(p) < sizeRoute {
		return routeMsg{}, false
	}
	typ := p[7]
	p[7] = unix.RTN_UNICAST
	binary.NativeEndian.PutUint32(p[8:], 0)
	r, ok := parseRoute(p)
	r.typ = typ
	return r, ok
}
