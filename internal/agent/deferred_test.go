package agent

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"fairway/internal/config"
	"fairway/internal/fabric"
	"fairway/internal/kernel"
)

// told is a fabric that notes what it is told.
type told struct {
	*fabric.Silent
	pools []netip.Prefix
	mesh  []fabric.MeshPeer
}

func (f *told) SetPools(p []netip.Prefix) error                          { f.pools = p; return nil }
func (f *told) SetMesh(m []fabric.MeshPeer) error                        { f.mesh = m; return nil }
func (f *told) announced() []netip.Prefix                                { return slices.Collect(maps.Keys(f.Status().Announced)) }
func (*told) Update(context.Context, *config.Config, kernel.Facts) error { return nil }

// A node without peers does not begin before there is one, also when a node of the cluster is the first.
func TestDeferredUntilSomebodyIsThere(t *testing.T) {
	cfg, pools := config.Default(), []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}
	somebody := []fabric.MeshPeer{{Node: "h2", Peer: config.Peer{Address: netip.MustParseAddr("10.77.0.12")}}}
	var begun *told
	began := 0
	d := newDeferred(func(*config.Config) (fabric.Fabric, error) {
		begun = &told{Silent: fabric.NewSilent("bgp")}
		return begun, nil
	}, func() { began++ })
	update := func() {
		t.Helper()
		if err := d.Update(t.Context(), cfg, kernel.Facts{}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	if err := d.SetPools(pools); err != nil {
		t.Fatal(err)
	}
	update()
	if begun != nil || began != 0 {
		t.Fatal("it began without a peer")
	}
	if err := d.SetMesh(somebody); err != nil {
		t.Fatal(err)
	}
	update()
	if begun == nil || began != 1 || !slices.Equal(begun.pools, pools) || !slices.Equal(begun.mesh, somebody) {
		t.Fatalf("after the first peer: %+v, began %d times", begun, began)
	}
	want := map[netip.Prefix]fabric.Announcement{pools[0]: {Kind: "block"}}
	if err := d.Announce(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if err := d.SetMesh(nil); err != nil {
		t.Fatal(err)
	}
	update()
	if len(begun.mesh) != 0 || began != 1 || !slices.Equal(begun.announced(), pools) {
		t.Errorf("after the last peer left: %+v, began %d times", begun, began)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
