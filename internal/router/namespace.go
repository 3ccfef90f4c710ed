package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"fairway/internal/kernel"
	"fairway/internal/kernel/rtnl"
	"fairway/internal/reconcile"
)

// metricOf keeps the routes of several instances apart, in the namespaces of containers that are on networks of both.
// It is the number of the table that these routes are in, and of the first of the two rules that lead there, so it is
// below the rules that every namespace has (32766). The agent's own is kernel.RouteMetric; none of these is.
func metricOf(instance string) uint32 {
	const base, span = 1000, 15000
	h := uint32(2166136261) // FNV-1a, 32 bit
	for i := range len(instance) {
		h = (h ^ uint32(instance[i])) * 16777619
	}
	return base + 2*(h%span)
}

// changes counts what a pass over one namespace did.
type changes struct{ set, deleted, rules int }

func (c changes) any() bool { return c.set+c.deleted+c.rules > 0 }

// open opens the network namespace at a path, for routes in a table of our own. Docker's routes are not touched: engines
// fail when the default route that they made is not there, and older ones give a container no further network whose
// subnet a route in the main table covers.
func (r *Router) open(path string) (*rtnl.Handle, error) {
	return rtnl.OpenAt(path, rtnl.Config{Log: r.log, Metric: r.metric, Table: r.metric})
}

// syncTable makes the routes in a table of our own agree, and lookups come to it while there are any: after what Docker
// put into the main table, but for its default routes.
func syncTable(ctx context.Context, h *rtnl.Handle, want map[kernel.RouteKey]kernel.Route) (changes, error) {
	var v4, v6 bool
	for k := range want {
		v4, v6 = v4 || k.Dst.Addr().Is4(), v6 || k.Dst.Addr().Is6()
	}
	did, err := syncRoutes(ctx, h, want)
	rules, lead := h.Lead(ctx, v4, v6)
	did.rules = rules
	return did, errors.Join(err, lead)
}

// syncRoutes makes our routes in the handle's namespace agree with the whole set; nobody else's are touched.
func syncRoutes(ctx context.Context, h *rtnl.Handle, want map[kernel.RouteKey]kernel.Route) (changes, error) {
	s := &reconcile.Sync[kernel.RouteKey, kernel.Route]{
		Name: "routes", Table: h.Routes(), Desired: want, Equal: kernel.RouteEqual,
		Text: func(k kernel.RouteKey) string { return k.Dst.String() },
	}
	r := reconcile.Run(ctx, []reconcile.Stage{s})[0]
	return changes{set: r.Set, deleted: r.Deleted}, r.Err()
}

// steerContainer makes the router's routes in a container's namespace agree. It leaves no thread there, and holds the
// namespace no longer than that takes.
func (r *Router) steerContainer(ctx context.Context, c Container, want map[kernel.RouteKey]kernel.Route) error {
	h, err := r.open(c.Namespace)
	if err != nil {
		return fmt.Errorf("container %s: %w", c.Name, err)
	}
	defer h.Close()
	did, err := syncTable(ctx, h, want)
	if did.any() {
		r.log.Info("changed routes of a container", slog.String("container", c.Name), slog.String("namespace", c.Namespace),
			slog.Int("set", did.set), slog.Int("deleted", did.deleted), slog.Int("rules", did.rules), slog.Int("routes", len(want)),
			slog.Uint64("table", uint64(r.metric)))
	}
	if err != nil {
		return fmt.Errorf("container %s: %w", c.Name, err)
	}
	return nil
}
