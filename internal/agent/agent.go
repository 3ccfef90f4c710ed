// Package agent owns the goroutines of a node: it opens the rooms, passes values between them, and runs the one loop that
// changes the kernel. It decides nothing that another room decides: intent is internal/cnm's, the kernel's state is
// internal/plan's, what is heard is internal/fabric's.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"fairway/internal/api"
	"fairway/internal/cluster"
	"fairway/internal/cnm"
	"fairway/internal/config"
	"fairway/internal/engine"
	"fairway/internal/fabric"
	"fairway/internal/fabric/static"
	"fairway/internal/ipam"
	"fairway/internal/kernel/nft"
	"fairway/internal/kernel/rtnl"
	"fairway/internal/plugin"
	"fairway/internal/rib"
	"fairway/internal/store"
)

// stateFile holds the book, in the state directory.
const stateFile = "fairway.db"

// Options of an agent.
type Options struct {
	Config  *config.Config
	Load    func() (*config.Config, error) // reads the config again
	Level   *slog.LevelVar                 // of Log; changed by a reload
	Log     *slog.Logger
	Version string
	// Notify tells the service manager ("READY=1", "STOPPING=1"); nil: nobody.
	Notify func(string)
}

// Agent is a node's agent.
type Agent struct {
	opt     Options
	log     *slog.Logger
	started time.Time

	loop    *loop
	rib     *rib.Table
	docker  dockerNetworks
	metrics *api.Metrics
	plug    *plugin.Server
	mesh    meshState
	drain   drainKeeper
	guests  guests
	// networks is always there, and runs on nodes with a store and an engine.
	networks *networks

	mu         sync.Mutex
	cfg        *config.Config
	book       *cnm.Book
	kern       *machinery
	fab        fabric.Fabric
	eng        *engineView
	cluster    *cluster.Cluster // nil: no store
	under      underlay
	pools      []netip.Prefix // that the fabric was told of
	waitingFor string         // why the agent is not ready
	conditions map[string]api.Condition
}

// New makes an agent that does nothing yet.
func New(opt Options) *Agent {
	a := &Agent{
		opt: opt, log: opt.Log, started: time.Now(), cfg: opt.Config, metrics: api.NewMetrics(opt.Version),
		fab: fabric.NewSilent("starting"), waitingFor: "starting", conditions: map[string]api.Condition{},
	}
	a.networks = newNetworks(a)
	a.drain.mark = func() { a.loop.mark() }
	a.guests.mark = a.drain.mark
	a.loop = newLoop(opt.Log)
	a.loop.fab = a.fabric
	a.loop.input = a.input
	a.loop.passed = a.passed
	a.rib = rib.New(func() { a.loop.mark() })
	return a
}

func (a *Agent) fabric() fabric.Fabric {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.fab
}

func (a *Agent) config() *config.Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cfg
}

// engine is the view of the engine; nil while starting, and on a node without one.
func (a *Agent) engine() *engineView {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.eng
}

func (a *Agent) waiting(why string) {
	if a.plug != nil {
		a.plug.Waiting(why)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waitingFor = why
}

// Ready implements api.Controller.
func (a *Agent) Ready() (ready bool, reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waitingFor == "", a.waitingFor
}

// Run serves until the context ends, and then leaves the kernel as it is.
func (a *Agent) Run(ctx context.Context) (err error) {
	cfg := a.config()
	local, err := store.Open(filepath.Join(cfg.State, stateFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, local.Close()) }()
	rt, err := rtnl.Open(rtnl.Config{Log: a.log})
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer rt.Close()
	fw, err := nft.Open(nft.Config{Log: a.log})
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	defer fw.Close()
	a.kern = newMachinery(a.log, rt, fw)
	a.loop.kern = a.kern

	g, ctx := errgroup.WithContext(ctx)
	server := api.NewServer(api.ServerConfig{
		Socket: filepath.Join(cfg.Run, api.SocketName), Metrics: a.metrics, Listen: cfg.Metrics.Listen, Backend: a, Log: a.log,
	})
	if err := server.Open(ctx); err != nil {
		return err
	}
	g.Go(func() error { return server.Run(ctx) })
	if cfg.Docker.Enabled {
		// Before anything slow: an engine that starts meanwhile gets its handshake at once.
		a.plug = plugin.New(plugin.Config{Name: cfg.Docker.Name, Dir: cfg.Docker.Plugins, Log: a.log, Observe: a.metrics.ObserveRequest})
		if err := a.plug.Listen(); err != nil {
			return errors.Join(err, shutdown(g))
		}
		g.Go(func() error { return a.plug.Serve(ctx) })
	}
	g.Go(func() error { return rt.Watch(ctx, a.kernelSaid) })
	g.Go(func() error { return a.open(ctx, g, local) })
	err = g.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil
	}
	if err == nil {
		a.log.Info("stopped; the kernel is as it was")
	}
	return err
}

// shutdown is for a start that failed half way: what runs already ends with the context of the group.
func shutdown(g *errgroup.Group) error {
	g.Go(func() error { return errAbort })
	if err := g.Wait(); !errors.Is(err, errAbort) {
		return err
	}
	return nil
}

var errAbort = errors.New("start aborted")

// open brings up, in order, what needs the one before: the book, the node's address, the fabric, the loop, the engine.
func (a *Agent) open(ctx context.Context, g *errgroup.Group, local *store.Local) error {
	a.waiting("reading the state file")
	book, err := cnm.Load(ctx, local, a.ipamOptions(a.config()), a.bookNode())
	if err != nil {
		return fmt.Errorf("state file in %s: %w", a.config().State, err)
	}
	if err := a.docker.load(ctx, local); err != nil {
		return err
	}
	restarted, err := a.sameBoot(ctx, local, book)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.book = book
	a.mu.Unlock()
	if err := errors.Join(a.drain.load(ctx, local), a.mesh.load(ctx, local)); err != nil {
		return err
	}
	if err := a.findUnderlay(ctx); err != nil {
		return err
	}
	if err := a.openCluster(ctx, g, local); err != nil {
		return err
	}
	if err := a.startFabric(ctx, g, restarted); err != nil {
		return err
	}
	a.waiting("setting the kernel")
	a.kern.adopting = true
	g.Go(func() error { return a.loop.run(ctx) })
	g.Go(func() error { return a.watchDrift(ctx) })
	g.Go(func() error { return a.kern.fw.Watch(ctx, func() { a.checkDrift(ctx) }) })
	if _, err := a.loop.wait(ctx); err != nil {
		return err
	}
	if a.plug != nil {
		a.plug.Open(book, a.loop)
		view := newEngineView(a, engine.New(a.config().Docker.Socket))
		a.mu.Lock()
		a.eng = view
		a.mu.Unlock()
		g.Go(func() error { return view.run(ctx) })
		if a.clus() != nil {
			g.Go(func() error { return a.networks.run(ctx, view.client) })
		}
	}
	a.waiting("")
	a.notify("READY=1")
	a.log.Info("ready", slog.String("node", a.nodeName()), slog.Int("networks", len(book.Snapshot().Networks)))
	<-ctx.Done()
	a.notify("STOPPING=1")
	return nil
}

func (a *Agent) notify(s string) {
	if a.opt.Notify != nil {
		a.opt.Notify(s)
	}
}

// sameBoot says whether an earlier agent ran since the machine booted. After a boot no sandbox of the book exists any
// more: its endpoints are left, and the engine, or the check against it, deletes them.
func (a *Agent) sameBoot(ctx context.Context, local *store.Local, book *cnm.Book) (bool, error) {
	const key, file = "meta/boot", "/proc/sys/kernel/random/boot_id"
	id, err := os.ReadFile(file)
	if err != nil {
		a.log.Warn("cannot tell a boot from a restart", slog.Any("err", err))
		return false, nil
	}
	was, err := local.List(ctx, key)
	if err != nil {
		return false, err
	}
	if len(was.Records) == 1 && string(was.Records[0].Value) == string(id) {
		return true, nil
	}
	if len(was.Records) == 1 {
		if err := book.LeaveAll(ctx); err != nil {
			return false, fmt.Errorf("take in that the machine was booted: %w", err)
		}
	}
	_, err = local.Commit(ctx, store.Txn{Put: map[string][]byte{key: id}})
	return false, err
}

// findUnderlay waits until the node has the address by which others reach it: at boot the network may be late.
func (a *Agent) findUnderlay(ctx context.Context) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	said := ""
	for {
		facts, err := a.kern.readFacts(ctx)
		if err == nil {
			var u underlay
			if u, err = chooseUnderlay(a.config().Node, facts); err == nil {
				a.mu.Lock()
				a.under = u
				a.mu.Unlock()
				return nil
			}
		}
		if err.Error() != said {
			said = err.Error()
			a.log.Warn("waiting for the node's address", slog.Any("err", err))
		}
		a.waiting("waiting for the node's address: " + said)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// nodeName is the configured name, or the host's.
func (a *Agent) nodeName() string {
	if name := a.config().Node.Name; name != "" {
		return name
	}
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	name, _, _ = strings.Cut(name, ".")
	return name
}

// ipamOptions is what the config says about addresses.
func (a *Agent) ipamOptions(cfg *config.Config) ipam.Options {
	p := ipam.Plan{
		Shared: len(cfg.Store.Etcd.Endpoints) > 0,
		Alone:  len(cfg.BGP.Peers) == 0 && len(cfg.Nodes) == 0 && (cfg.Fabric == config.FabricBGP || cfg.Fabric == config.FabricNone),
	}
	given := givenBlockSizes(cfg)
	for i, pool := range cfg.Pools {
		plan := ipam.PoolPlan{CIDR: pool.CIDR, BlockSize: pool.BlockSize, Block: pool.Block, Size: pool.Size}
		if given[i] {
			plan.NodeSize = pool.BlockSize
		}
		p.Pools = append(p.Pools, plan)
	}
	return ipam.Options{Now: time.Now, HoldDown: cfg.IPAM.HoldDown, Plan: p}
}

// bookNode is what the book may ask of the node.
func (a *Agent) bookNode() cnm.Node {
	n := cnm.Node{
		Heard: a.heard, Taken: a.taken, Link: a.foreignLink, Changed: func() { a.loop.mark() }, Refuse: a.refuse, Announced: a.announced,
	}
	if len(a.config().Store.Etcd.Endpoints) > 0 {
		n.Network = a.clusterNetwork
	}
	return n
}

// heard is what the rib knows of an address: its holder elsewhere. A route of the whole pool, from a router before all
// nodes, or of everything, says nothing about one address.
func (a *Agent) heard(addr netip.Addr) (string, bool) {
	r, ok := a.rib.Covering(addr)
	if !ok || len(r.Paths) == 0 || a.wholePool(r.Prefix, addr) {
		return "", false
	}
	p := r.Paths[0]
	if p.Node.IsValid() {
		return fmt.Sprintf("node %s (%s)", p.Node, r.Prefix), true
	}
	return fmt.Sprintf("%s (%s)", p.Peer, r.Prefix), true
}

// wholePool says whether a prefix holds all of the pool that an address is in.
func (a *Agent) wholePool(p netip.Prefix, addr netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.pools, func(pool netip.Prefix) bool {
		return pool.Contains(addr) && p.Bits() <= pool.Bits()
	})
}

// taken names a connected subnet of the node that lies in the way of a pool.
func (a *Agent) taken(p netip.Prefix) (string, bool) {
	facts, err := a.kern.readFacts(context.Background())
	if err != nil {
		return "", false
	}
	for _, s := range a.config().DockerBridge.Subnets() {
		if s.Overlaps(p) {
			return fmt.Sprintf("%s of dockerBridge in the config", s), true
		}
	}
	for _, l := range sortedLinks(facts) {
		for _, have := range l.Addrs {
			if !have.Addr().IsLinkLocalUnicast() && !have.Addr().IsLoopback() && have.Masked().Overlaps(p) {
				return fmt.Sprintf("%s on %s", have.Masked(), l.Name), true
			}
		}
	}
	return "", false
}

// staticRoutes puts the config's further routes into the rib, whatever the fabric.
func (a *Agent) staticRoutes(cfg *config.Config) {
	if cfg.Fabric != config.FabricStatic { // that one brings them itself
		a.rib.Replace(rib.Static, static.Routes(cfg))
	}
}

var _ api.Backend = (*Agent)(nil)
