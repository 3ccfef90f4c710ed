// Package store is the fabric that carries routes as records of the cluster: what this node has it writes, what the other
// nodes have it reads from the cache that a watch keeps. It is for nodes of one segment, since the next hop of a route is
// the address of the node that has it, and it knows a dead node by its lease.
//
// What is heard stays as it is while the store is away: silence of the store says nothing about a node. It never waits for
// the store where the agent's loop would wait with it.
package store

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"fairway/internal/cluster"
	"fairway/internal/config"
	"fairway/internal/fabric"
	"fairway/internal/kernel"
	"fairway/internal/rib"
)

const (
	// grace is how long, after this node was cut off, others have to be heard of again: they may have been cut off as well,
	// and their leases have run out. It is longer than a lease.
	grace = 20 * time.Second
	// rewrite is how long, after an older copy was put in the store's place, the nodes have to write their routes again.
	rewrite = 30 * time.Second
	// withdrawal is how long Announce waits for routes that go to be gone from the store.
	withdrawal = 250 * time.Millisecond
	// attempt bounds one writing of our routes.
	attempt = 5 * time.Second
)

// Cluster is what the fabric needs of *cluster.Cluster.
type Cluster interface {
	View() *cluster.View
	Health() cluster.Health
	// SetRoutes makes the routes of this node in the store the whole set; it does nothing when they are.
	SetRoutes(ctx context.Context, want []cluster.Route) error
}

// Config is what a Fabric needs. All fields up to Log are required.
type Config struct {
	Node    string // this node's name
	Cluster Cluster
	RIB     *rib.Table
	Log     *slog.Logger
	// Changed, if set, is called when Converged turns true. It must not block.
	Changed func()
	Now     func() time.Time // nil is time.Now
}

// Fabric is the fabric of one node. It is safe for concurrent use.
type Fabric struct {
	cfg  Config
	wake chan struct{} // there may be something to write, or to hear

	mu        sync.Mutex
	want      map[netip.Prefix]fabric.Announcement
	told      bool          // Announce was called: before, want says nothing
	version   uint64        // of want
	written   uint64        // the version that the store last had
	wrote     chan struct{} // closed, and made anew, when written changes
	held      map[cluster.RouteKey]held
	vanished  map[cluster.RouteKey]held // of held, whose records went with the store that had them
	started   bool                      // a complete View was seen
	cutOff    bool                      // the store was away since the last one
	settles   time.Time                 // until then others may have yet to be heard of again
	restored  time.Time                 // as Health says, when it was last looked at
	revision  uint64                    // of the last View
	converged bool
	failing   string // why our routes are not in the store; "" when they are
}

// held is a route that was taken up.
type held struct {
	path rib.Path
	id   string // of its node
}

// New makes a Fabric. Work is done by Run, and by Update, which hears.
func New(c Config) *Fabric {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Changed == nil {
		c.Changed = func() {}
	}
	return &Fabric{
		cfg: c, wake: make(chan struct{}, 1), wrote: make(chan struct{}),
		want: map[netip.Prefix]fabric.Announcement{}, held: map[cluster.RouteKey]held{},
	}
}

// Run writes our routes until the context ends; they stay in the store then.
func (f *Fabric) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		case <-tick.C:
		}
		f.hear()
		f.write(ctx)
	}
}

// Announce makes the store have the whole set. It waits a moment for what goes to be gone, as long as the store answers;
// what it cannot write now is written when it can be.
func (f *Fabric) Announce(ctx context.Context, want map[netip.Prefix]fabric.Announcement) error {
	f.mu.Lock()
	if f.told && maps.Equal(f.want, want) {
		f.mu.Unlock()
		return nil
	}
	goes := false
	for p := range f.want {
		if _, stays := want[p]; !stays {
			goes = true
		}
	}
	f.want, f.told = maps.Clone(want), true
	f.version++
	version := f.version
	f.mu.Unlock()
	f.poke()
	if goes && f.cfg.Cluster.Health().Reachable {
		f.await(ctx, version)
	}
	return nil
}

// await waits for a version to be in the store.
func (f *Fabric) await(ctx context.Context, version uint64) {
	timer := time.NewTimer(withdrawal)
	defer timer.Stop()
	for {
		f.mu.Lock()
		done, wrote := f.written >= version, f.wrote
		f.mu.Unlock()
		if done {
			return
		}
		select {
		case <-wrote:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// Update takes in what the cache has now.
func (f *Fabric) Update(context.Context, *config.Config, kernel.Facts) error {
	f.hear()
	f.poke()
	return nil
}

// Status is converged once the records were read and whoever has routes is alive, or had the time to be.
func (f *Fabric) Status() fabric.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fabric.Status{Name: string(config.FabricStore), Converged: f.converged, Announced: maps.Clone(f.want)}
}

func (f *Fabric) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// write makes the store agree with what is wanted. What fails is tried again at the next tick.
func (f *Fabric) write(ctx context.Context) {
	f.mu.Lock()
	version, told := f.version, f.told
	routes := make([]cluster.Route, 0, len(f.want))
	for p, a := range f.want {
		routes = append(routes, cluster.Route{Prefix: p.Masked(), Node: f.cfg.Node, Kind: a.Kind})
	}
	f.mu.Unlock()
	if h := f.cfg.Cluster.Health(); !told || !h.Reachable || h.Fenced != "" || !f.cfg.Cluster.View().Complete {
		return
	}
	slices.SortFunc(routes, func(a, b cluster.Route) int { return rib.ComparePrefix(a.Prefix, b.Prefix) })
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	err := f.cfg.Cluster.SetRoutes(ctx, routes)
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.failing
	f.failing = ""
	if err != nil {
		f.failing = err.Error()
		if f.failing != was {
			f.cfg.Log.Warn("write routes to the store; trying again", slog.Int("routes", len(routes)), slog.Any("err", err))
		}
		return
	}
	if was != "" {
		f.cfg.Log.Info("routes are in the store again", slog.Int("routes", len(routes)))
	}
	if version != f.written {
		f.written = version
		close(f.wrote)
		f.wrote = make(chan struct{})
	}
}
