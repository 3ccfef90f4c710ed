package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"fairway/internal/cnm"
	"fairway/internal/config"
	"fairway/internal/fabric/bgp"
	"fairway/internal/kernel"
	"fairway/internal/kernel/rtnl"
	"fairway/internal/plan"
	"fairway/internal/reconcile"
)

// input is the snapshot that the next pass plans from. It also tells the fabric what changed around it.
func (a *Agent) input(ctx context.Context) (plan.Input, error) {
	facts, err := a.kern.readFacts(ctx)
	if err != nil {
		return plan.Input{}, err
	}
	cfg := a.config()
	u, err := chooseUnderlay(cfg.Node, facts)
	a.mu.Lock()
	if err != nil {
		u = a.under // the link may be down for a moment; what was found is still the node's address
	}
	a.under = u
	book, fab := a.book, a.fab
	a.mu.Unlock()
	snap := book.Snapshot()
	a.tellPools(cfg, snap.Networks)
	a.tellMesh(cfg)
	a.tellCluster(cfg, u, snap)
	if err := fab.Update(ctx, cfg, facts); err != nil {
		a.log.Error("the fabric did not take in its settings", slog.Any("err", err))
	}
	in := plan.Input{
		Node:     a.planNode(cfg, u, facts),
		Egress:   egressInput(cfg, u, facts),
		Networks: snap.Networks, Endpoints: snap.Endpoints, Heard: a.rib.Snapshot(), Facts: facts,
	}
	a.egressCluster(&in.Egress)
	in.Fenced, in.Drain, in.Docker = snap.Fenced, a.drainPhase(ctx), a.docker.list()
	for _, b := range snap.Blocks {
		if !slices.Contains(snap.Fenced, b.CIDR) {
			in.Blocks = append(in.Blocks, b.CIDR)
		}
	}
	if cfg.Fabric == config.FabricBGP {
		in.Aggregates = cfg.BGP.Aggregate
	}
	for _, r := range cfg.Routes {
		if r.Announce {
			in.Announce = append(in.Announce, r.To)
		}
	}
	in.Guests = a.guests.prefixes(time.Now())
	return in, nil
}

func (a *Agent) planNode(cfg *config.Config, u underlay, facts kernel.Facts) plan.Node {
	n := plan.Node{MTU: u.MTU, Docker: cfg.Docker.Enabled}
	// A preferred source must be an address of the node at this moment, or the kernel refuses the route. IPv6 addresses
	// go when their link goes down.
	for _, l := range facts.Links {
		for _, p := range l.Addrs {
			switch p.Addr() {
			case u.Addr4:
				n.Addr4 = u.Addr4
			case u.Addr6:
				n.Addr6 = u.Addr6
			}
		}
	}
	if cfg.Fabric == config.FabricBGP && cfg.BGP.Listen.IsValid() {
		n.BGPPort = cfg.BGP.Listen.Port()
		n.BFD = true
	}
	return n
}

// The fabric that filters must be one: a type that does not match would be passed over without a word.
var (
	_ poolFilter = (*bgp.Fabric)(nil)
	_ poolFilter = (*deferred)(nil)
)

// tellPools lets the fabric take routes inside the subnets of networks as well as inside the config's pools.
func (a *Agent) tellPools(cfg *config.Config, networks []cnm.Network) {
	pools := cfg.DockerBridge.Pools()
	for _, p := range cfg.Pools {
		pools = append(pools, p.CIDR)
	}
	for _, n := range networks {
		for _, s := range n.Subnets {
			pools = append(pools, s.Prefix)
		}
	}
	pools = append(pools, a.clusterPools()...)
	slices.SortFunc(pools, netip.Prefix.Compare)
	pools = slices.Compact(pools)
	a.mu.Lock()
	same := slices.Equal(pools, a.pools)
	a.pools = pools
	fab := a.fab
	a.mu.Unlock()
	p, ok := fab.(poolFilter)
	if !ok || same {
		return
	}
	if err := p.SetPools(pools); err != nil {
		a.log.Error("the fabric did not take in the networks' subnets", slog.Any("err", err))
		a.mu.Lock()
		a.pools = nil // the next pass tries again
		a.mu.Unlock()
	}
}

// poolFilter is a fabric that takes only routes inside known pools.
type poolFilter interface {
	SetPools([]netip.Prefix) error
}

// passed counts a pass.
func (a *Agent) passed(d time.Duration, reports []reconcile.Report) {
	a.metrics.ObservePass(d)
	for _, r := range reports {
		if r.Mended > 0 {
			a.metrics.Mended(r.Name, r.Mended)
		}
	}
}

// kernelSaid takes in one event; it only marks dirty.
func (a *Agent) kernelSaid(e rtnl.Event) {
	if a.kern.observe(e) {
		a.loop.mark()
	}
}

// watchDrift looks a few times a second at what the kernel does not tell of.
func (a *Agent) watchDrift(ctx context.Context) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			a.checkDrift(ctx)
		}
	}
}

func (a *Agent) checkDrift(ctx context.Context) {
	if a.kern.drifted(ctx) {
		a.loop.mark()
	}
}
