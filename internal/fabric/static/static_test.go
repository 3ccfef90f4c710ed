package static_test

import (
	"context"
	"maps"
	"net/netip"
	"testing"

	"fairway/internal/config"
	"fairway/internal/fabric"
	"fairway/internal/fabric/static"
	"fairway/internal/kernel"
	"fairway/internal/rib"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var (
	_ fabric.Fabric = (*static.Fabric)(nil)
	_ fabric.Fabric = (*fabric.Silent)(nil)

	compareAddr = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func adr(s string) netip.Addr   { return netip.MustParseAddr(s) }

func cluster() *config.Config {
	return &config.Config{
		Node:   config.Node{Name: "host1"},
		Fabric: config.FabricStatic,
		Nodes: []config.ClusterNode{
			{Name: "host1", Address: adr("10.77.0.11"), Subnets: []netip.Prefix{pfx("10.9.1.0/24")}},
			{Name: "host2", Address: adr("10.77.0.12"), Address6: adr("fd77::12"), Subnets: []netip.Prefix{pfx("10.9.2.0/24"), pfx("fd00:9:2::/64")}},
			{Name: "host3", Address6: adr("fd77::13"), Subnets: []netip.Prefix{pfx("fd00:9:3::/64")}},
		},
		Routes: []config.Route{
			{To: pfx("10.20.0.0/16"), Via: adr("10.77.0.1"), Announce: true},
			{To: pfx("10.20.0.0/16"), Via: adr("10.77.0.2")},
			{To: pfx("fd20::/32"), Via: adr("fe80::1%eth1")},
			{To: pfx("10.30.0.0/16"), Via: adr("fd77::1")},
		},
	}
}

func path(hop, link, peer string) rib.Path {
	return rib.Path{NextHop: adr(hop), Link: link, Source: rib.Static, Peer: peer}
}

func TestRoutes(t *testing.T) {
	further := map[netip.Prefix][]rib.Path{
		pfx("10.20.0.0/16"): {path("10.77.0.1", "", "config"), path("10.77.0.2", "", "config")},
		pfx("fd20::/32"):    {path("fe80::1", "eth1", "config")},
		pfx("10.30.0.0/16"): {path("fd77::1", "", "config")},
	}
	all := map[netip.Prefix][]rib.Path{
		pfx("10.9.2.0/24"):   {path("10.77.0.12", "", "host2")},
		pfx("fd00:9:2::/64"): {path("fd77::12", "", "host2")},
		pfx("fd00:9:3::/64"): {path("fd77::13", "", "host3")},
	}
	maps.Copy(all, further)
	bgp := cluster()
	bgp.Fabric = config.FabricBGP
	unnamed := cluster()
	unnamed.Node.Name = ""
	tests := []struct {
		name string
		cfg  *config.Config
		own  []netip.Addr
		want map[netip.Prefix][]rib.Path
	}{
		{"static", cluster(), nil, all},
		{"this node by its address", unnamed, []netip.Addr{adr("10.77.0.11")}, all},
		{"other fabrics have only the routes", bgp, nil, further},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, static.Routes(tt.cfg, tt.own...), compareAddr); d != "" {
				t.Errorf("routes (-want +got):\n%s", d)
			}
		})
	}
}

func TestAnnouncements(t *testing.T) {
	want := map[netip.Prefix]fabric.Announcement{pfx("10.20.0.0/16"): {Kind: "route"}}
	if d := cmp.Diff(want, static.Announcements(cluster()), compareAddr); d != "" {
		t.Errorf("announcements (-want +got):\n%s", d)
	}
}

func TestFabric(t *testing.T) {
	changed := make(chan struct{}, 10)
	table := rib.New(func() { changed <- struct{}{} })
	f := static.New(cluster(), table)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	<-changed
	if got := table.Len(); got != 6 {
		t.Errorf("%d routes after Run, want 6", got)
	}
	cfg := cluster()
	cfg.Nodes = cfg.Nodes[:2]
	if err := f.Update(ctx, cfg, kernel.Facts{}); err != nil {
		t.Fatal(err)
	}
	if r, ok := table.Covering(adr("fd00:9:3::1")); ok {
		t.Errorf("the route %v of a node that left stays", r.Prefix)
	}
	own := map[netip.Prefix]fabric.Announcement{pfx("10.9.1.0/24"): {Kind: "block"}}
	if err := f.Announce(ctx, own); err != nil {
		t.Fatal(err)
	}
	delete(own, pfx("10.9.1.0/24"))
	if st := f.Status(); !st.Converged || st.Name != "static" || len(st.Announced) != 1 {
		t.Errorf("status %+v", st)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if table.Len() != 5 {
		t.Errorf("%d routes after the end of Run, want 5", table.Len())
	}
}
