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

// routeMsg is what an RTM_NEWROUTE says.
type routeMsg struct {
	key      kernel.RouteKey
	typ      byte
	protocol byte
	tos      byte
	table    int
	metric   int
	src      netip.Addr
	hops     []hop
}

// hop is a next hop as the kernel has it.
type hop struct {
	via   netip.Addr
	index int
	dead  bool
}

// clone is a copy that shares nothing.
func (r *routeMsg) clone() *routeMsg {
	out := *r
	out.hops = slices.Clone(r.hops)
	return &out
}

// ours says that the route is in our table: main, with our protocol and metric.
func (r *routeMsg) ours() bool { return r.oursAt(&builder{}) }

// oursAt is ours for a handle with a metric or a table of its own.
func (r *routeMsg) oursAt(w *builder) bool {
	return r.slotAt(w) && r.protocol == kernel.RouteProtocol
}

// ourSlot says that the route stands where one of ours would stand, whoever made it.
func (r *routeMsg) ourSlot() bool { return r.slotAt(&builder{}) }

func (r *routeMsg) slotAt(w *builder) bool {
	return r.table == w.routes() && r.metric == int(w.prio()) && r.tos == 0
}

// parseRoute reads the payload of RTM_NEWROUTE and RTM_DELROUTE.
func parseRoute(p []byte) (routeMsg, bool) {
	var r routeMsg
	ok := r.parse(p)
	return r, ok
}

// parse is parseRoute into a message whose room for next hops is used again.
func (r *routeMsg) parse(p []byte) bool {
	if len(p) < sizeRoute || p[0] != unix.AF_INET && p[0] != unix.AF_INET6 {
		return false
	}
	flags := binary.NativeEndian.Uint32(p[8:])
	if flags&unix.RTM_F_CLONED != 0 {
		return false
	}
	*r = routeMsg{tos: p[3], table: int(p[4]), protocol: p[5], typ: p[7], hops: r.hops[:0]}
	dst := netip.IPv4Unspecified()
	if p[0] == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	one := r.attributes(p[sizeRoute:], &dst)
	one.dead = flags&unix.RTNH_F_DEAD != 0
	r.key = kernel.RouteKey{Dst: netip.PrefixFrom(dst, int(p[1]))}
	switch {
	case r.typ != unix.RTN_UNICAST:
		r.hops = r.hops[:0] // an IPv6 blackhole says that it goes to lo
	case len(r.hops) == 0:
		r.hops = append(r.hops, one)
	}
	return r.key.Dst.IsValid()
}

// attributes reads the attributes of a route, and returns the next hop of one that has one alone.
func (r *routeMsg) attributes(b []byte, dst *netip.Addr) (one hop) {
	for t, v := range attributes(b) {
		switch t {
		case unix.RTA_DST:
			*dst = address(v)
		case unix.RTA_TABLE:
			r.table = number(v)
		case unix.RTA_PRIORITY:
			r.metric = number(v)
		case unix.RTA_PREFSRC:
			r.src = address(v)
		case unix.RTA_OIF:
			one.index = number(v)
		case unix.RTA_GATEWAY:
			one.via = address(v)
		case unix.RTA_VIA:
			one.via = via(v)
		case unix.RTA_MULTIPATH:
			r.hops = appendHops(r.hops, v)
		}
	}
	return one
}

func appendHops(out []hop, b []byte) []hop {
	for len(b) >= sizeNextHop {
		l := int(binary.NativeEndian.Uint16(b))
		if l < sizeNextHop || l > len(b) {
			break
		}
		n := hop{index: number(b[4:]), dead: b[2]&unix.RTNH_F_DEAD != 0}
		for t, v := range attributes(b[sizeNextHop:l]) {
			switch t {
			case unix.RTA_GATEWAY:
				n.via = address(v)
			case unix.RTA_VIA:
				n.via = via(v)
			}
		}
		out = append(out, n)
		b = b[min((l+3)&^3, len(b)):]
	}
	return out
}

// via reads a struct rtvia: family, address.
func via(v []byte) netip.Addr {
	if len(v) < 2 {
		return netip.Addr{}
	}
	return address(v[2:])
}

// route turns the message into a value; false when it names a link that nobody can name.
func (r *routeMsg) route(name func(index int) (string, bool)) (kernel.Route, bool) {
	out := kernel.Route{Type: typeName(r.typ), Src: r.src}
	if len(r.hops) == 0 {
		return out, true
	}
	out.NextHops = make([]kernel.NextHop, len(r.hops))
	for i, n := range r.hops {
		link, ok := name(n.index)
		if !ok {
			return out, false
		}
		out.NextHops[i] = kernel.NextHop{Via: n.via, Link: link}
	}
	out.NextHops = kernel.SortNextHops(out.NextHops)
	return out, true
}

// typeName is a route's type as ip(8) names it.
func typeName(t byte) kernel.RouteType {
	switch t {
	case unix.RTN_UNICAST:
		return kernel.Unicast
	case unix.RTN_BLACKHOLE:
		return kernel.Blackhole
	case unix.RTN_UNREACHABLE:
		return "unreachable"
	case unix.RTN_PROHIBIT:
		return "prohibit"
	case unix.RTN_LOCAL:
		return "local"
	default:
		return kernel.RouteType(fmt.Sprintf("type %d", t))
	}
}

// eachRoute reads the routes of one table (main, or the handle's own) and family, of one protocol or of all (0). The kernel filters where it
// can; older ones send everything. The message is each's during the call only. restart comes before every try.
func eachRoute(ctx context.Context, c *conn, table int, fam, protocol byte, restart func(), each func(*routeMsg)) error {
	var r routeMsg
	err := c.dump(ctx, func(w *builder) { routeDump(w, c.strict, fam, protocol, table) }, restart, func(p []byte) bool {
		if len(p) < sizeRoute || protocol != 0 && p[5] != protocol {
			return true
		}
		if r.parse(p) && r.table == table {
			each(&r)
		}
		return true
	})
	// There is no main table yet, or no IPv6 at all.
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil
	}
	return err
}

// dumpRoutes lists those routes of the main table that keep wants.
func dumpRoutes(ctx context.Context, c *conn, fam, protocol byte, keep func(*routeMsg) bool) ([]routeMsg, error) {
	var out []routeMsg
	err := eachRoute(ctx, c, unix.RT_TABLE_MAIN, fam, protocol, func() { out = out[:0] }, func(r *routeMsg) {
		if keep(r) {
			out = append(out, *r.clone())
		}
	})
	return out, err
}

func routeDump(w *builder, strict bool, fam, protocol byte, table int) {
	var short byte
	if strict && table == unix.RT_TABLE_MAIN {
		short = unix.RT_TABLE_MAIN
	}
	w.begin(unix.RTM_GETROUTE, 0, fam, 0, 0, 0, short, protocol, 0, 0, 0, 0, 0, 0)
	if strict && short == 0 {
		w.u32(unix.RTA_TABLE, uint32(table))
	}
}

// putRoute appends the message that makes or replaces a route of ours. An index is given for each next hop; 0 lets the
// kernel find the link.
func putRoute(w *builder, flags uint16, key kernel.RouteKey, r kernel.Route, indexes []int) {
	typ, scope := byte(unix.RTN_UNICAST), byte(unix.RT_SCOPE_UNIVERSE)
	switch {
	case r.Type == kernel.Blackhole:
		typ = unix.RTN_BLACKHOLE
	case key.Dst.Addr().Is4() && onLink(r):
		scope = unix.RT_SCOPE_LINK
	}
	w.begin(unix.RTM_NEWROUTE, flags, family(key.Dst.Addr()), byte(key.Dst.Bits()), 0, 0,
		w.shortTable(), kernel.RouteProtocol, scope, typ, 0, 0, 0, 0)
	w.putTable()
	w.addr(unix.RTA_DST, key.Dst.Addr())
	w.u32(unix.RTA_PRIORITY, w.prio())
	if r.Src.IsValid() {
		w.addr(unix.RTA_PREFSRC, r.Src)
	}
	switch len(r.NextHops) {
	case 0:
	case 1:
		if indexes[0] != 0 {
			w.u32(unix.RTA_OIF, uint32(indexes[0]))
		}
		putVia(w, key, r.NextHops[0].Via)
	default:
		w.nest(unix.RTA_MULTIPATH, func() {
			for i, n := range r.NextHops {
				at := len(w.b)
				w.b = append(w.b, 0, 0, 0, 0)
				w.b = binary.NativeEndian.AppendUint32(w.b, uint32(indexes[i]))
				putVia(w, key, n.Via)
				binary.NativeEndian.PutUint16(w.b[at:], uint16(len(w.b)-at))
			}
		})
	}
}

// putVia appends a gateway: RTA_GATEWAY, or RTA_VIA for one of the other family (RFC 8950).
func putVia(w *builder, key kernel.RouteKey, a netip.Addr) {
	switch {
	case !a.IsValid():
	case a.Is4() == key.Dst.Addr().Is4():
		w.addr(unix.RTA_GATEWAY, a)
	default:
		w.bytes(unix.RTA_VIA, append(binary.NativeEndian.AppendUint16(nil, uint16(family(a))), a.AsSlice()...))
	}
}

// dropRoute appends the message that deletes a route of ours and, as it names protocol and metric, no other.
func dropRoute(w *builder, key kernel.RouteKey) {
	w.begin(unix.RTM_DELROUTE, 0, family(key.Dst.Addr()), byte(key.Dst.Bits()), 0, 0,
		w.shortTable(), kernel.RouteProtocol, unix.RT_SCOPE_NOWHERE, unix.RTN_UNSPEC, 0, 0, 0, 0)
	w.putTable()
	w.addr(unix.RTA_DST, key.Dst.Addr())
	w.u32(unix.RTA_PRIORITY, w.prio())
}

// onLink says that a route leads to links only, without a gateway.
func onLink(r kernel.Route) bool {
	for _, n := range r.NextHops {
		if n.Via.IsValid() {
			return false
		}
	}
	return r.Type == kernel.Unicast
}
