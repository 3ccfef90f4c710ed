package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"fairway/internal/api"
	"fairway/internal/config"
	"fairway/internal/engine"
	"fairway/internal/fabric"
	"fairway/internal/fabric/bgp"
	"fairway/internal/kernel"
	"fairway/internal/kernel/rtnl"
	"fairway/internal/rib"
)

// Config is what a Router needs.
type Config struct {
	Options Options // checked
	Socket  string  // of the engine
	Run     string  // directory of the status socket
	// AgentSocket is where the host's agent serves its API, as seen from here; nobody may be there.
	AgentSocket string
	Log         *slog.Logger
	Version     string
}

// Router is the router of one host and instance.
type Router struct {
	cfg    Config
	opt    Options
	log    *slog.Logger
	eng    *engine.Client
	own    *rtnl.Handle
	host   *hostSide
	rib    *rib.Table
	fab    *bgp.Fabric
	bgp    *config.Config // without peers
	hear   *neighbours
	agent  *hostAgent
	metric uint32
	dirty  chan struct{}
	events chan engine.Event

	// What follows belongs to the loop.
	self      engine.Process
	processes map[string]engine.Process // by container ID, as long as they run
	steered   map[string]bool
	routers   map[string]bool // containers that are routers
	on        map[string]bool // networks that it was on in the last pass
	left      map[string]bool // networks that somebody took this router off
	leaving   map[string]bool // networks that the router leaves itself
	said      map[string]bool // problems of the last pass, which are logged once
	anew      bool            // look at every container in this pass

	mu     sync.Mutex
	status Status
}

// New makes a router that does nothing yet.
func New(cfg Config) *Router {
	r := &Router{
		cfg: cfg, opt: cfg.Options, log: cfg.Log, eng: engine.New(cfg.Socket, hostRoot+"/run/docker.sock"), metric: metricOf(cfg.Options.Instance),
		dirty: make(chan struct{}, 1), events: make(chan engine.Event, 256),
		processes: map[string]engine.Process{}, steered: map[string]bool{}, routers: map[string]bool{},
		on: map[string]bool{}, left: map[string]bool{}, leaving: map[string]bool{},
	}
	link := hostLinkOnHost(cfg.Options.Instance)
	r.agent = &hostAgent{log: cfg.Log, client: api.NewClient(cfg.AgentSocket), name: link, link: link, mark: r.mark}
	return r
}

// mark asks for a pass. It never waits.
func (r *Router) mark() {
	select {
	case r.dirty <- struct{}{}:
	default:
	}
}

// Run works until the context ends, and then takes back every route it gave to containers and to the host.
func (r *Router) Run(ctx context.Context) (err error) {
	if err := r.eng.Ping(ctx); err != nil {
		return fmt.Errorf("%w; mount the engine's socket: -v /var/run/docker.sock:/var/run/docker.sock", err)
	}
	if r.self, err = findSelf(ctx, r.eng); err != nil {
		return err
	}
	switch r.self.NetworkMode {
	case "host", "none":
		return fmt.Errorf("the router's container has --net=%s: it needs a network namespace that can join networks; leave --net out", r.self.NetworkMode)
	}
	if r.own, err = rtnl.Open(rtnl.Config{Log: r.log, Metric: r.metric, Table: r.metric}); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer r.own.Close()
	if r.host, err = openHost(r.log, r.opt.Instance, r.metric); err != nil {
		return err
	}
	defer r.host.close()
	if err := r.forward(ctx); err != nil {
		return err
	}
	if err := r.speaker(); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.serveStatus(gctx) })
	g.Go(func() error { return r.hear.run(gctx) })
	g.Go(func() error { return r.agent.run(gctx) })
	g.Go(func() error { return r.fab.Run(gctx) })
	g.Go(func() error { return r.follow(gctx) })
	g.Go(func() error { return r.own.Watch(gctx, func(rtnl.Event) { r.mark() }) })
	g.Go(func() error { return r.loop(gctx) })
	err = g.Wait()
	if ctx.Err() != nil {
		err = nil
	}
	// The engine waits some seconds before it kills.
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 8*time.Second)
	defer cancel()
	return errors.Join(err, r.undo(undo))
}

// Cleanup takes away what a router of the instance left that was removed without being stopped, of containers and of the
// host, and says how many containers there were. One that runs must not be: it would put all of it back.
func (r *Router) Cleanup(ctx context.Context) (err error) {
	if err := r.eng.Ping(ctx); err != nil {
		return err
	}
	if r.self, err = findSelf(ctx, r.eng); err != nil {
		return err
	}
	if r.own, err = rtnl.Open(rtnl.Config{Log: r.log, Metric: r.metric, Table: r.metric}); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer r.own.Close()
	if r.host, err = openHost(r.log, r.opt.Instance, r.metric); err != nil {
		return err
	}
	defer r.host.close()
	r.rib = rib.New(func() {})
	return r.undo(ctx)
}

// follow turns the engine's events into marks, and lists anew when they were lost.
func (r *Router) follow(ctx context.Context) error {
	const pause = time.Second
	for {
		ch, err := r.eng.Events(ctx, time.Time{})
		if err != nil {
			if ctx.Err() == nil {
				r.log.Warn("the engine is away", slog.Any("err", err))
			}
		} else {
			r.pass(ctx, engine.Event{Action: "resync"})
			for e := range ch {
				r.pass(ctx, e)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func (r *Router) pass(ctx context.Context, e engine.Event) {
	select {
	case r.events <- e:
	case <-ctx.Done():
	}
}

// loop makes one pass after another, when something is said to have changed.
func (r *Router) loop(ctx context.Context) error {
	const gather = 50 * time.Millisecond // so that a burst of events makes one pass
	resync := time.NewTicker(r.opt.Resync)
	defer resync.Stop()
	r.anew = true
	r.mark()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-resync.C:
			r.anew = true
		case e := <-r.events:
			r.heed(e)
		case <-r.dirty:
		}
		timer := time.NewTimer(gather)
		for more := true; more; {
			select {
			case <-ctx.Done():
				more = false
			case e := <-r.events:
				r.heed(e)
			case <-r.dirty:
			case <-timer.C:
				more = false
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		r.once(ctx)
	}
}

// heed forgets what an event makes untrue.
func (r *Router) heed(e engine.Event) {
	switch {
	case e.Action == "resync":
		r.anew = true
		r.processes = map[string]engine.Process{}
	case e.Type == "container":
		delete(r.processes, e.ID)
	}
}

// once is a pass: what there is, what should be, and the difference.
func (r *Router) once(ctx context.Context) {
	v, err := r.view(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.log.Warn("look at networks and containers", slog.Any("err", err))
			r.note(func(s *Status) { s.Problems = []string{err.Error()} })
		}
		return
	}
	w := Decide(v, r.opt)
	problems := slices.Clone(w.Problems)
	problem := func(err error) {
		if err != nil && ctx.Err() == nil {
			problems = append(problems, err.Error())
			if !r.said[err.Error()] {
				r.log.Warn("not all is as it should be", slog.Any("err", err))
			}
		}
	}
	problem(r.memberships(ctx, w))
	if r.opt.HostLink {
		problem(r.host.link(ctx, r.own, r.opt))
	}
	problem(r.host.apply(ctx, r.opt, w))
	if err := r.agent.wants(ctx, w.Reached); err != nil {
		problem(fmt.Errorf("the host's agent does not tell of the networks: %w", err))
	}
	problem(r.quietLinks(ctx, v.Links))
	if _, err := syncTable(ctx, r.own, w.Self); err != nil {
		problem(fmt.Errorf("own routes: %w", err))
	}
	r.steer(ctx, v, w, problem)
	problem(r.tell(ctx, v, w))
	r.anew = false
	r.said = map[string]bool{}
	for _, p := range problems {
		r.said[p] = true
	}
	r.remember(v, w, problems)
}

// memberships joins and leaves networks.
func (r *Router) memberships(ctx context.Context, w Wanted) error {
	var errs []error
	for _, j := range w.Join {
		err := r.eng.Connect(ctx, j.Network, r.self.ID, engine.Attachment{IPv4: j.IPv4, IPv6: j.IPv6})
		if err != nil {
			if a := cmp.Or(j.IPv4, j.IPv6); a.IsValid() {
				err = fmt.Errorf("--ip-offset %d is %s: %w", r.opt.IPOffset, a, err)
			}
			errs = append(errs, fmt.Errorf("join network %s: %w", j.Name, err))
			continue
		}
		r.log.Info("joined network", slog.String("network", j.Name))
		r.mark()
	}
	for _, id := range w.Leave {
		r.leaving[id] = true
		if err := r.eng.Disconnect(ctx, id, r.self.ID, true); err != nil && !engine.IsNotFound(err) {
			delete(r.leaving, id)
			errs = append(errs, fmt.Errorf("leave network %s: %w", id[:min(12, len(id))], err))
			continue
		}
		r.log.Info("left network", slog.String("network", id[:min(12, len(id))]))
		r.mark()
	}
	return errors.Join(errs...)
}

// steer makes the routes of containers agree: of those that are to be steered, those that were, and from time to time of
// all, since a router that was killed took nothing back.
func (r *Router) steer(ctx context.Context, v View, w Wanted, problem func(error)) {
	for _, c := range v.Containers {
		want := w.Steered[c.ID]
		if len(want) == 0 && !r.steered[c.ID] && !r.anew {
			continue
		}
		if err := r.steerContainer(ctx, c, want); err != nil {
			if !errors.Is(err, rtnl.ErrNotReady) { // it has ended
				problem(err)
			}
			delete(r.processes, c.ID)
			continue
		}
		r.steered[c.ID] = len(want) > 0
	}
	for id := range r.steered {
		if !slices.ContainsFunc(v.Containers, func(c Container) bool { return c.ID == id }) {
			delete(r.steered, id)
		}
	}
}

// tell brings other routers up to date.
func (r *Router) tell(ctx context.Context, v View, w Wanted) error {
	facts, err := r.own.Facts(ctx)
	if err != nil {
		return err
	}
	c := *r.bgp
	for _, h := range r.hear.list() {
		c.BGP.Peers = append(c.BGP.Peers, r.peer(h.Addr, h.ASN))
	}
	slices.SortFunc(c.BGP.Peers, func(a, b config.Peer) int { return a.Address.Compare(b.Address) })
	c.BGP.Peers = slices.DeleteFunc(c.BGP.Peers, func(p config.Peer) bool { return linkTo(v.Links, p.Address) == "" })
	if err := r.fab.Update(ctx, &c, facts); err != nil {
		return err
	}
	want := map[netip.Prefix]fabric.Announcement{}
	for _, p := range w.Tell {
		if !slices.ContainsFunc(r.opt.StaticRoutes, func(s netip.Prefix) bool { return s == p }) {
			want[p] = fabric.Announcement{Kind: "network"}
		}
	}
	return r.fab.Announce(ctx, want)
}

func (r *Router) peer(a netip.Addr, asn uint32) config.Peer {
	return config.Peer{Address: a, ASN: asn, Port: 179, HoldTime: r.bgp.BGP.HoldTime, BFD: true}
}

// undo takes back what is not the router's own: containers' routes, and everything on the host.
func (r *Router) undo(ctx context.Context) error {
	var errs []error
	r.anew = true
	v, err := r.view(ctx)
	if err != nil {
		errs = append(errs, fmt.Errorf("take routes back: %w", err))
	}
	none := map[kernel.RouteKey]kernel.Route{}
	for _, c := range v.Containers {
		if err := r.steerContainer(ctx, c, none); err != nil && !errors.Is(err, rtnl.ErrNotReady) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, r.host.undo(ctx, r.own, r.opt))
	r.log.Info("stopped; containers have the routes they had before")
	return errors.Join(errs...)
}
