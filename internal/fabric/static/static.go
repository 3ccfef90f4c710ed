// Package static is the fabric without a daemon on the wire: the config names the nodes and their subnets, and further
// routes. Everybody is told the same by the operator, so nothing is announced, and a node that dies is not noticed.
//
// It only puts paths into the rib and remembers what the node has, for listings.
package static

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"fairway/internal/config"
	"fairway/internal/fabric"
	"fairway/internal/kernel"
	"fairway/internal/rib"
)

// peerConfig is who told a path of the config's routes.
const peerConfig = "config"

// Routes returns the paths that the config names: its routes whatever the fabric is, and with the static fabric the
// subnets of its nodes. A node with one of the addresses in own, or with this node's name, is this node and left out.
// The agent puts them into the rib with Replace and rib.Static.
func Routes(cfg *config.Config, own ...netip.Addr) map[netip.Prefix][]rib.Path {
	paths := map[netip.Prefix][]rib.Path{}
	add := func(to netip.Prefix, via netip.Addr, peer string) {
		p := rib.Path{NextHop: via.WithZone(""), Link: via.Zone(), Source: rib.Static, Peer: peer}
		to = to.Masked()
		paths[to] = append(paths[to], p)
	}
	for _, r := range cfg.Routes {
		add(r.To, r.Via, peerConfig)
	}
	if cfg.Fabric != config.FabricStatic {
		return paths
	}
	for _, n := range cfg.Nodes {
		if isSelf(cfg, n, own) {
			continue
		}
		for _, subnet := range n.Subnets {
			if via := hop(n, subnet); via.IsValid() {
				add(subnet, via, n.Name)
			}
		}
	}
	return paths
}

// Announcements returns the config's routes that say announce: true.
func Announcements(cfg *config.Config) map[netip.Prefix]fabric.Announcement {
	told := map[netip.Prefix]fabric.Announcement{}
	for _, r := range cfg.Routes {
		if r.Announce {
			told[r.To.Masked()] = fabric.Announcement{Kind: "route"}
		}
	}
	return told
}

func isSelf(cfg *config.Config, n config.ClusterNode, own []netip.Addr) bool {
	if cfg.Node.Name != "" && n.Name == cfg.Node.Name {
		return true
	}
	return n.Address.IsValid() && slices.Contains(own, n.Address) || n.Address6.IsValid() && slices.Contains(own, n.Address6)
}

// hop is the node's address of the subnet's family.
func hop(n config.ClusterNode, subnet netip.Prefix) netip.Addr {
	if subnet.Addr().Is4() {
		return n.Address
	}
	return n.Address6
}

// Fabric is the static fabric. It is safe for concurrent use.
type Fabric struct {
	rib *rib.Table
	own []netip.Addr

	mu        sync.Mutex
	cfg       *config.Config
	announced map[netip.Prefix]fabric.Announcement
}

// New makes the fabric of a config for the node that has the addresses in own. It does nothing before Run.
func New(cfg *config.Config, table *rib.Table, own ...netip.Addr) *Fabric {
	return &Fabric{rib: table, own: slices.Clone(own), cfg: cfg}
}

// Run puts the config's routes into the rib and waits for the end of the context; they stay in the rib.
func (f *Fabric) Run(ctx context.Context) error {
	f.put()
	<-ctx.Done()
	return nil
}

// Announce remembers the set: nobody is told.
func (f *Fabric) Announce(_ context.Context, want map[netip.Prefix]fabric.Announcement) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.announced = maps.Clone(want)
	return nil
}

// Update puts the routes of the new config into the rib.
func (f *Fabric) Update(_ context.Context, cfg *config.Config, _ kernel.Facts) error {
	f.mu.Lock()
	f.cfg = cfg
	f.mu.Unlock()
	f.put()
	return nil
}

// Status is converged from the start.
func (f *Fabric) Status() fabric.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fabric.Status{Name: string(config.FabricStatic), Converged: true, Announced: maps.Clone(f.announced)}
}

func (f *Fabric) put() {
	f.mu.Lock()
	cfg := f.cfg
	f.mu.Unlock()
	f.rib.Replace(rib.Static, Routes(cfg, f.own...))
}
