package agent

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"fairway/internal/config"
	"fairway/internal/fabric"
	"fairway/internal/kernel"
)

// deferred is the bgp fabric of a node that has no peers: it listens nowhere, so that the node may run another speaker,
// until a reload, or another node of the cluster, brings the first peer.
type deferred struct {
	*fabric.Silent
	start func(*config.Config) (fabric.Fabric, error)
	told  func() // called once the real one runs

	mu    sync.Mutex
	real  fabric.Fabric
	pools []netip.Prefix
	mesh  []fabric.MeshPeer
	begin chan struct{} // closed when real is there
}

func newDeferred(start func(*config.Config) (fabric.Fabric, error), told func()) *deferred {
	return &deferred{Silent: fabric.NewSilent(string(config.FabricBGP)), start: start, told: told, begin: make(chan struct{})}
}

func (d *deferred) now() fabric.Fabric {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.real
}

// Run implements fabric.Fabric.
func (d *deferred) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.begin:
	}
	return d.now().Run(ctx)
}

// Announce implements fabric.Fabric.
func (d *deferred) Announce(ctx context.Context, want map[netip.Prefix]fabric.Announcement) error {
	if f := d.now(); f != nil {
		return f.Announce(ctx, want)
	}
	return d.Silent.Announce(ctx, want)
}

// Update implements fabric.Fabric; the first peer brings the real fabric.
func (d *deferred) Update(ctx context.Context, cfg *config.Config, facts kernel.Facts) error {
	f, began, err := d.begun(cfg)
	if err != nil {
		return fmt.Errorf("start bgp: %w", err)
	}
	if began {
		defer d.told()
	}
	if f == nil {
		return nil
	}
	return f.Update(ctx, cfg, facts)
}

// begun returns the real fabric, which it makes when there is somebody to peer with; nil when there is nobody.
func (d *deferred) begun(cfg *config.Config) (f fabric.Fabric, began bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.real != nil || len(cfg.BGP.Peers)+len(d.mesh) == 0 {
		return d.real, false, nil
	}
	if f, err = d.start(cfg); err != nil {
		return nil, false, err
	}
	if p, ok := f.(poolFilter); ok {
		err = p.SetPools(d.pools)
	}
	if m, ok := f.(mesher); ok && err == nil {
		err = m.SetMesh(d.mesh)
	}
	if err != nil {
		return nil, false, err
	}
	d.real = f
	close(d.begin)
	return f, true, nil
}

// SetMesh implements mesher; the next Update starts the real fabric for them.
func (d *deferred) SetMesh(peers []fabric.MeshPeer) error {
	d.mu.Lock()
	d.mesh = peers
	f := d.real
	d.mu.Unlock()
	if m, ok := f.(mesher); ok {
		return m.SetMesh(peers)
	}
	return nil
}

// SetPools implements poolFilter.
func (d *deferred) SetPools(pools []netip.Prefix) error {
	d.mu.Lock()
	d.pools = pools
	f := d.real
	d.mu.Unlock()
	if p, ok := f.(poolFilter); ok {
		return p.SetPools(pools)
	}
	return nil
}

// Status implements fabric.Fabric.
func (d *deferred) Status() fabric.Status {
	if f := d.now(); f != nil {
		return f.Status()
	}
	return d.Silent.Status()
}
