package rtnl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
)

// routeBatch programs a set of routes.
//
// The kernel's replace takes away whatever route has the same prefix, TOS and metric, whoever made it (fib_table_insert,
// fib6_add_rt2node). So a route is created first, which fails if the place is taken, and replaced only when the one
// that is there is known to be ours.
type routeBatch struct {
	c      *conn
	todo   []routeTask
	failed map[kernel.RouteKey]error
}

type routeTask struct {
	key     kernel.RouteKey
	route   kernel.Route
	indexes []int
	replace bool
}

// prepare checks routes and finds their links. Routes without a gateway come first: others may lead over them.
func (b *routeBatch) prepare(ctx context.Context, set map[kernel.RouteKey]kernel.Route) error {
	index, err := b.links(ctx, set)
	if err != nil {
		return err
	}
	b.todo = make([]routeTask, 0, len(set))
	var later []routeTask
	ids := make([]int, 0, len(set))
	for k, r := range set {
		at := len(ids)
		for _, n := range r.NextHops {
			ids = append(ids, index[n.Link])
		}
		if err := check(k, r, index); err != nil {
			b.failed[k] = err
			continue
		}
		task := routeTask{key: k, route: r, indexes: ids[at:len(ids):len(ids)]}
		if onLink(r) {
			b.todo = append(b.todo, task)
		} else {
			later = append(later, task)
		}
	}
	b.todo = append(b.todo, later...)
	return nil
}

// links finds the indexes of the links that next hops name. They are looked up afresh each time, as a link that is made
// anew under its name has another index.
func (b *routeBatch) links(ctx context.Context, set map[kernel.RouteKey]kernel.Route) (map[string]int, error) {
	index := make(map[string]int)
	for _, r := range set {
		for _, n := range r.NextHops {
			index[n.Link] = 0
		}
	}
	delete(index, "")
	if len(index) > fewLinks {
		all, err := dumpLinks(ctx, b.c)
		for _, l := range all {
			index[l.name] = l.index
		}
		return index, err
	}
	for name := range index {
		l, _, err := getLink(b.c, name)
		if err != nil {
			return nil, fmt.Errorf("look up link %q: %w", name, err)
		}
		index[name] = l.index
	}
	return index, nil
}

// check finds what the kernel would refuse with less to say, or take in another sense.
func check(k kernel.RouteKey, r kernel.Route, index map[string]int) error {
	switch {
	case !k.Dst.IsValid() || k.Dst != k.Dst.Masked():
		return errors.New("destination is not a masked prefix")
	case r.Type == kernel.Blackhole && len(r.NextHops) > 0:
		return errors.New("a blackhole has no next hops")
	case r.Type == kernel.Unicast && len(r.NextHops) == 0:
		return errors.New("a unicast route needs a next hop")
	case r.Type != kernel.Blackhole && r.Type != kernel.Unicast:
		return fmt.Errorf("type %q is not one of: %s, %s", r.Type, kernel.Unicast, kernel.Blackhole)
	}
	for _, n := range r.NextHops {
		if err := checkHop(k, n, index); err != nil {
			return err
		}
	}
	return nil
}

func checkHop(k kernel.RouteKey, n kernel.NextHop, index map[string]int) error {
	switch {
	case n.Link == "" && !n.Via.IsValid():
		return errors.New("a next hop names neither gateway nor link")
	case n.Link == "" && n.Via.IsLinkLocalUnicast():
		return fmt.Errorf("next hop %s is link-local and needs a link", n.Via)
	case n.Link != "" && index[n.Link] == 0:
		return fmt.Errorf("link %q: %w", n.Link, unix.ENODEV)
	case n.Via.Is4() && k.Dst.Addr().Is6():
		return fmt.Errorf("next hop %s: Linux sends IPv6 through no IPv4 gateway", n.Via)
	}
	return nil
}

// run creates the routes, and replaces those that are there and ours. unsure says that a question for one route may not
// tell all that stands in its place.
func (b *routeBatch) run(ctx context.Context, unsure bool) error {
	todo := b.todo
	if len(todo) > oneByOne {
		// Cheaper than to try each and fail.
		var err error
		if todo, err = b.compare(ctx, todo); err != nil {
			return err
		}
	}
	unknown := b.put(ctx, todo)
	if len(unknown) == 0 {
		return nil
	}
	var mine []routeTask
	if len(unknown) <= oneByOne && !unsure {
		mine, unknown = b.ask(unknown)
	}
	if len(unknown) > 0 {
		more, err := b.compare(ctx, unknown)
		if err != nil {
			return err
		}
		mine = append(mine, more...)
	}
	for _, task := range b.put(ctx, mine) {
		b.failed[task.key] = unix.EEXIST // made by somebody since we looked
	}
	return nil
}

// put sends the tasks, and returns those whose place is taken.
func (b *routeBatch) put(ctx context.Context, tasks []routeTask) (taken []routeTask) {
	b.c.pipeline(ctx, len(tasks), func(w *builder, i int) {
		flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
		if tasks[i].replace {
			flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
		}
		putRoute(w, flags, tasks[i].key, tasks[i].route, tasks[i].indexes)
	}, func(i int, err error) {
		if errors.Is(err, unix.EEXIST) {
			taken = append(taken, tasks[i])
			return
		}
		b.failed[tasks[i].key] = err
	})
	return taken
}

// ask asks the kernel for each task what it has there. It answers with the most specific and most preferred route, so
// that some stay unknown.
func (b *routeBatch) ask(tasks []routeTask) (mine, unknown []routeTask) {
	for _, task := range tasks {
		have, err := matchRoute(b.c, task.key.Dst.Addr())
		if err == nil && have.key == task.key && have.oursAt(&b.c.w) {
			task.replace = true
			mine = append(mine, task)
		} else {
			unknown = append(unknown, task)
		}
	}
	return mine, unknown
}

// matchRoute asks for the route, not its outcome, that the address takes.
func matchRoute(c *conn, a netip.Addr) (routeMsg, error) {
	return get(c, func(w *builder) {
		w.begin(unix.RTM_GETROUTE, 0, family(a), byte(a.BitLen()), 0, 0, 0, 0, 0, 0)
		w.b = binary.NativeEndian.AppendUint32(w.b, unix.RTM_F_FIB_MATCH|unix.RTM_F_LOOKUP_TABLE)
		w.addr(unix.RTA_DST, a)
	}, parseRoute)
}

// compare lists the routes that are there and sorts the tasks by what is there: nothing, one of ours (replace), or a stranger's
// (an error, and the task is left out). Second routes of ours in the same place are deleted.
func (b *routeBatch) compare(ctx context.Context, tasks []routeTask) (out []routeTask, err error) {
	at := make(map[kernel.RouteKey]int, len(tasks))
	for i, task := range tasks {
		at[task.key] = i
	}
	var all []takenRoute
	for _, fam := range []byte{unix.AF_INET, unix.AF_INET6} {
		begin := len(all)
		err := eachRoute(ctx, b.c, b.c.w.routes(), fam, 0, func() { all = all[:begin] }, func(r *routeMsg) {
			if i, ok := at[r.key]; ok && r.slotAt(&b.c.w) {
				all = append(all, takenRoute{i, r.protocol})
			}
		})
		if err != nil {
			return nil, err
		}
	}
	var second []kernel.RouteKey
	for _, taken := range all {
		task := &tasks[taken.task]
		switch {
		case taken.protocol != kernel.RouteProtocol:
			b.failed[task.key] = fmt.Errorf("a route of protocol %d has the same prefix and metric %d; "+
				"give it another metric, or remove it with \"ip route del %s proto %d metric %d\"",
				taken.protocol, b.c.w.prio(), task.key.Dst, taken.protocol, b.c.w.prio())
		case task.replace:
			second = append(second, task.key)
		default:
			task.replace = true
		}
	}
	b.c.pipeline(ctx, len(second), func(w *builder, i int) { dropRoute(w, second[i]) }, func(i int, err error) {
		b.failed[second[i]] = fmt.Errorf("delete a second route: %w", err)
	})
	for _, task := range tasks {
		if b.failed[task.key] == nil {
			out = append(out, task)
		}
	}
	return out, nil
}

// takenRoute is a route that stands in the place of a task.
type takenRoute struct {
	task     int
	protocol byte
}
