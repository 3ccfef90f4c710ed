package agent

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"fairway/internal/cluster"
	"fairway/internal/cnm"
	"fairway/internal/config"
	"fairway/internal/store"
	"fairway/internal/store/etcd"
)

// clus is this node's part in the cluster; nil on a node without a store, and while starting.
func (a *Agent) clus() *cluster.Cluster {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cluster
}

// openCluster joins the cluster, if the config names a store. It does not wait for the store: without it the node goes on
// with what its own disk has. A node whose name is another's does not start.
func (a *Agent) openCluster(ctx context.Context, g *errgroup.Group, local *store.Local) error {
	cfg := a.config()
	if len(cfg.Store.Etcd.Endpoints) == 0 {
		return nil
	}
	a.waiting("asking the store")
	e := cfg.Store.Etcd
	st, err := etcd.Open(etcd.Config{
		Endpoints: e.Endpoints, CA: e.TLS.CA, Cert: e.TLS.Cert, Key: e.TLS.Key, User: e.User, PasswordFile: e.PasswordFile, Prefix: e.Prefix, Log: a.log,
	})
	if err != nil {
		return err
	}
	a.mu.Lock()
	u := a.under
	a.mu.Unlock()
	c := cluster.New(cluster.Config{
		Store: st, Where: st.Where(), Local: local, Self: a.selfNode(cfg, u), Log: a.log, Changed: a.clusterChanged,
		Ledger: a.bookNow(), Heard: a.heardBlock, Drained: a.drainKept,
	})
	a.bookNow().Use(timed{c, a.metrics})
	if err := c.Start(ctx); err != nil {
		return errors.Join(err, st.Close())
	}
	a.mu.Lock()
	a.cluster = c
	a.mu.Unlock()
	g.Go(func() error {
		err := c.Run(ctx)
		return errors.Join(err, st.Close())
	})
	g.Go(func() error { return a.returnEmpty(ctx) })
	g.Go(func() error { return a.tellDrain(ctx) })
	return nil
}

// clusterNetwork is the record of a network of the cluster.
func (a *Agent) clusterNetwork(ctx context.Context, name string) (cluster.Network, error) {
	c := a.clus()
	if c == nil {
		return cluster.Network{}, errors.New("the agent is still starting; try again")
	}
	return c.Network(ctx, name)
}

// clusterChanged only marks: what it is about is read by those who are woken.
func (a *Agent) clusterChanged() {
	a.loop.mark()
	a.networks.wake()
}

// selfNode is this node as the others are to know it.
func (a *Agent) selfNode(cfg *config.Config, u underlay) cluster.Node {
	n := cluster.Node{
		Name: a.nodeName(), Addr4: u.Addr4, Addr6: u.Addr6, Fabric: string(cfg.Fabric), Docker: cfg.Docker.Enabled, Version: a.opt.Version,
	}
	if v := a.engine().state().Version; v.Engine != "" {
		n.Engine = v.Engine
	}
	if cfg.Fabric == config.FabricBGP {
		n.ASN, n.RouterID, n.RouteReflector = cfg.BGP.ASN, cfg.BGP.RouterID, cfg.BGP.RouteReflector
		if !n.RouterID.IsValid() {
			n.RouterID = u.Addr4
		}
		if cfg.BGP.Listen.IsValid() {
			n.BGPPort = cfg.BGP.Listen.Port()
		}
	}
	return n
}

// tellCluster keeps this node's record as it is now.
func (a *Agent) tellCluster(cfg *config.Config, u underlay, snap cnm.Snapshot) {
	c := a.clus()
	if c == nil {
		return
	}
	next := a.selfNode(cfg, u)
	c.UpdateSelf(func(n *cluster.Node) {
		if next.Engine == "" {
			next.Engine = n.Engine // it is away for a moment
		}
		*n = next
	})
	joined := 0
	for _, e := range snap.Endpoints {
		if e.State == cnm.Joined {
			joined++
		}
	}
	c.SetContainers(joined)
}
