package rtnl

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
	"fairway/internal/reconcile"
)

// Routes is the table of our routes: protocol kernel.RouteProtocol, metric kernel.RouteMetric, main table (Config may
// name another metric and table), no TOS. The
// returned value is a reconcile.Batcher too, which programs hundreds of routes with one system call. A route that is
// there is replaced without a gap; a stranger's route of the same prefix and metric is an error and stays.
func (h *Handle) Routes() reconcile.Table[kernel.RouteKey, kernel.Route] { return &routes{h: h} }

type routes struct {
	h     *Handle
	twice bool // List saw two routes of ours side by side
}

var _ reconcile.Batcher[kernel.RouteKey, kernel.Route] = (*routes)(nil)

const (
	// oneByOne is up to how many routes that are there already are asked for one by one; beyond it the whole table is
	// listed, which takes about as long as a few hundred questions.
	oneByOne = 256
	// fewLinks is up to how many links are looked up one by one.
	fewLinks = 32
)

// List implements reconcile.Table.
func (t *routes) List(ctx context.Context) (map[kernel.RouteKey]kernel.Route, error) {
	var out map[kernel.RouteKey]kernel.Route
	err := t.h.with(ctx, func(c *conn) error {
		var err error
		out, t.twice, err = listRoutes(ctx, c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return out, nil
}

// listRoutes lists our routes; twice says that some stand side by side.
func listRoutes(ctx context.Context, c *conn) (out map[kernel.RouteKey]kernel.Route, twice bool, err error) {
	listed, err := readRoutes(ctx, c)
	if err != nil {
		return nil, false, err
	}
	// After the routes: a link that is not there any more has taken its routes along.
	names, err := allNames(ctx, c)
	if err != nil {
		return nil, false, err
	}
	for _, w := range listed.ways {
		w.resolve(func(index int) (string, bool) { name, ok := names[index]; return name, ok })
	}
	out = make(map[kernel.RouteKey]kernel.Route, len(listed.routes))
	count := 0
	for _, l := range listed.routes {
		if l.way.known {
			out[l.key] = l.way.route
			count++
		}
	}
	if len(out) == count {
		return out, false, nil
	}
	// The kernel lets routes of one prefix and metric stand side by side. As one value they differ from what anybody wants,
	// and get replaced.
	clear(out)
	for _, l := range listed.routes {
		if l.way.known {
			r := l.way.route
			r.NextHops = kernel.SortNextHops(slices.Concat(out[l.key].NextHops, r.NextHops))
			out[l.key] = r
		}
	}
	return out, true, nil
}

// routeList is our routes as the kernel lists them. Many go the same way, which is there once.
type routeList struct {
	routes []listedRoute
	ways   map[string]*listedWay // by routeMsg.id
}

type listedRoute struct {
	key kernel.RouteKey
	way *listedWay
}

// listedWay is where routes go, and what that is as a value once it is resolved.
type listedWay struct {
	msg   *routeMsg // without key
	route kernel.Route
	known bool // all links have names
}

func (w *listedWay) resolve(name func(index int) (string, bool)) {
	w.route, w.known = w.msg.route(name)
}

// readRoutes lists our routes of both families.
func readRoutes(ctx context.Context, c *conn) (routeList, error) {
	out := routeList{ways: make(map[string]*listedWay)}
	var id []byte
	for _, fam := range []byte{unix.AF_INET, unix.AF_INET6} {
		begin := len(out.routes)
		err := eachRoute(ctx, c, c.w.routes(), fam, kernel.RouteProtocol, func() { out.routes = out.routes[:begin] }, func(r *routeMsg) {
			if !r.oursAt(&c.w) {
				return
			}
			id = r.appendID(id[:0])
			way := out.ways[string(id)]
			if way == nil {
				way = &listedWay{msg: r.clone()}
				out.ways[string(id)] = way
			}
			out.routes = append(out.routes, listedRoute{r.key, way})
		})
		if err != nil {
			return routeList{}, err
		}
	}
	return out, nil
}

// allNames are the names of all links by index.
func allNames(ctx context.Context, c *conn) (map[int]string, error) {
	all, err := dumpLinks(ctx, c)
	names := make(map[int]string, len(all))
	for _, l := range all {
		names[l.index] = l.name
	}
	return names, err
}

// Set implements reconcile.Table.
func (t *routes) Set(ctx context.Context, key kernel.RouteKey, r kernel.Route) error {
	return t.SetAll(ctx, map[kernel.RouteKey]kernel.Route{key: r})[key]
}

// Delete implements reconcile.Table.
func (t *routes) Delete(ctx context.Context, key kernel.RouteKey) error {
	return t.DeleteAll(ctx, []kernel.RouteKey{key})[key]
}

// DeleteAll implements reconcile.Batcher. Routes through gateways go first, as the others may lead to the gateways.
func (t *routes) DeleteAll(ctx context.Context, del []kernel.RouteKey) map[kernel.RouteKey]error {
	failed := make(map[kernel.RouteKey]error)
	fail := func(i int, err error) {
		if !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT) {
			failed[del[i]] = fmt.Errorf("delete route %s: %w", del[i].Dst, err)
		}
	}
	err := t.h.with(ctx, func(c *conn) error {
		c.pipeline(ctx, len(del), func(w *builder, i int) { dropRoute(w, del[i]) }, fail)
		return nil
	})
	if err != nil {
		failRest(0, len(del), err, fail)
	}
	if t.h.debugging(ctx) {
		for _, k := range del {
			if failed[k] == nil {
				t.h.did(ctx, "ip route del %s proto %d metric %d", k.Dst, kernel.RouteProtocol, kernel.RouteMetric)
			}
		}
	}
	return failed
}

// SetAll implements reconcile.Batcher.
func (t *routes) SetAll(ctx context.Context, set map[kernel.RouteKey]kernel.Route) map[kernel.RouteKey]error {
	failed := make(map[kernel.RouteKey]error)
	err := t.h.with(ctx, func(c *conn) error {
		b := &routeBatch{c: c, failed: failed}
		if err := b.prepare(ctx, set); err != nil {
			return err
		}
		return b.run(ctx, t.twice)
	})
	for k, r := range set {
		switch {
		case err != nil:
			failed[k] = fmt.Errorf("set route %s: %w", kernel.RouteText(k, r), err)
		case failed[k] != nil:
			failed[k] = fmt.Errorf("set route %s: %w", kernel.RouteText(k, r), failed[k])
		case t.h.debugging(ctx):
			t.h.did(ctx, "ip route replace %s proto %d metric %d", kernel.RouteText(k, r), kernel.RouteProtocol, kernel.RouteMetric)
		}
	}
	return failed
}
