package router

import (
	"context"
	"fmt"
	"log/slog"

	"fairway/internal/kernel"
	"fairway/internal/kernel/rtnl"
	"fairway/internal/reconcile"
)

// metricOf keeps the routes of several instances apart, in the namespaces of containers that are on networks of both.
// The agent's own is kernel.RouteMetric; none of these is.
func metricOf(instance string) uint32 {
	const base, span = 1000, 50000
	h := uint32(2166136261) // FNV-1a, 32 bit
	for i := range len(instance) {
		h = (h ^ uint32(instance[i])) * 16777619
	}
	return base + h%span
}

// changes counts what a pass over one namespace did.
type changes struct{ set, deleted int }

// syncRoutes makes our routes in the handle's namespace agree with the whole set; nobody else's are touched.
func syncRoutes(ctx context.Context, h *rtnl.Handle, want map[kernel.RouteKey]kernel.Route) (changes, error) {
	s := &reconcile.Sync[kernel.RouteKey, kernel.Route]{
		Name: "routes", Table: h.Routes(), Desired: want, Equal: kernel.RouteEqual,
		Text: func(k kernel.RouteKey) string { return k.Dst.String() },
	}
	r := reconcile.Run(ctx, []reconcile.Stage{s})[0]
	return changes{r.Set, r.Deleted}, r.Err()
}

// steerContainer makes the router's routes in a container's namespace agree. It leaves no thread there, and holds the
// namespace no longer than that takes.
func (r *Router) steerContainer(ctx context.Context, c Container, want map[kernel.RouteKey]kernel.Route) error {
	h, err := rtnl.OpenAt(c.Namespace, rtnl.Config{Log: r.log, Metric: r.metric})
	if err != nil {
		return fmt.Errorf("container %s: %w", c.Name, err)
	}
	defer h.Close()
	did, err := syncRoutes(ctx, h, want)
	if did.set+did.deleted > 0 {
		r.log.Info("changed routes of a container", slog.String("container", c.Name), slog.String("namespace", c.Namespace),
			slog.Int("set", did.set), slog.Int("deleted", did.deleted), slog.Int("routes", len(want)))
	}
	if err != nil {
		return fmt.Errorf("container %s: %w", c.Name, err)
	}
	return nil
}
