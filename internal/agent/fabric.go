package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/sync/errgroup"

	"fairway/internal/config"
	"fairway/internal/fabric"
	"fairway/internal/fabric/bgp"
	"fairway/internal/fabric/static"
	"fairway/internal/fabric/store"
)

// startFabric makes the fabric that the config names and lets it run.
func (a *Agent) startFabric(ctx context.Context, g *errgroup.Group, restarted bool) error {
	cfg := a.config()
	a.staticRoutes(cfg)
	fab, err := a.newFabric(cfg, restarted)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.fab = fab
	a.mu.Unlock()
	a.log.Info("fabric", slog.String("name", string(cfg.Fabric)), slog.Int("peers", len(cfg.BGP.Peers)+len(a.meshPeers(cfg))))
	g.Go(func() error {
		if err := fab.Run(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("fabric %s: %w", cfg.Fabric, err)
		}
		return nil
	})
	return nil
}

func (a *Agent) newFabric(cfg *config.Config, restarted bool) (fabric.Fabric, error) {
	switch cfg.Fabric {
	case config.FabricBGP:
		if len(cfg.BGP.Peers)+len(a.meshPeers(cfg)) == 0 {
			start := func(cfg *config.Config) (fabric.Fabric, error) { return a.newBGP(cfg, false) }
			return newDeferred(start, func() { a.loop.mark() }), nil
		}
		f, err := a.newBGP(cfg, restarted)
		if err != nil {
			return nil, err
		}
		return f, f.SetMesh(a.meshPeers(cfg)) // before it runs, so that those of an earlier run are waited for
	case config.FabricStatic:
		a.mu.Lock()
		defer a.mu.Unlock()
		return static.New(cfg, a.rib, a.under.Addr4, a.under.Addr6), nil
	case config.FabricKernel, config.FabricNone:
		return fabric.NewSilent(string(cfg.Fabric)), nil
	case config.FabricStore:
		if c := a.clus(); c != nil {
			return store.New(store.Config{
				Node: c.Name(), Cluster: c, RIB: a.rib, Log: a.log, Changed: func() { a.loop.mark() },
			}), nil
		}
		return nil, errors.New("fabric store needs a store: set store.etcd.endpoints")
	}
	return nil, fmt.Errorf("fabric %q is not known", cfg.Fabric)
}

func (a *Agent) newBGP(cfg *config.Config, restarted bool) (*bgp.Fabric, error) {
	a.mu.Lock()
	u := a.under
	a.mu.Unlock()
	return bgp.New(bgp.Config{
		Node: u.Addr4, Node6: u.Addr6, Cfg: cfg, RIB: a.rib, Log: a.log, Restarting: restarted,
		Changed: func() { a.loop.mark() },
	})
}
