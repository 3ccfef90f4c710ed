package cluster_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"fairway/internal/cluster"
	"fairway/internal/store/etcdtest"
)

// More routes than one transaction takes are written, changed and deleted as a whole set, and others' are left alone.
func TestSetRoutes(t *testing.T) {
	srv := etcdtest.Start(t)
	a, b := mustBoot(t, newMachine(t, srv, "h1", "10.77.0.11")), mustBoot(t, newMachine(t, srv, "h2", "10.77.0.12"))
	a.registered()
	b.registered()
	routes := func(n int, kind string) []cluster.Route {
		var all []cluster.Route
		for i := range n {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 32)
			all = append(all, cluster.Route{Prefix: p, Node: "h1", Kind: kind})
		}
		return all
	}
	theirs := []cluster.Route{{Prefix: netip.MustParsePrefix("10.9.0.0/32"), Node: "h2", Kind: "address"}}
	if err := b.SetRoutes(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		n    int
		kind string
	}{{250, "address"}, {250, "block"}, {120, "block"}, {0, ""}} {
		if err := a.SetRoutes(t.Context(), routes(step.n, step.kind)); err != nil {
			t.Fatal(err)
		}
		b.sees(fmt.Sprintf("%d routes, %s", step.n, step.kind), func(v *cluster.View) bool {
			n := 0
			for key, r := range v.Routes {
				if key.Node == "h1" && r.Value.Kind == step.kind {
					n++
				}
			}
			return n == step.n && len(v.Routes) == step.n+1
		})
	}
	if err := b.SetRoutes(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	if got := b.View().Routes[cluster.RouteKey{Node: "h2", Prefix: theirs[0].Prefix}]; got.Revision != got.Created {
		t.Errorf("the same routes were written again: %+v", got)
	}
}

// A node whose record is not its own any more writes nothing.
func TestSetRoutesOfAnotherNode(t *testing.T) {
	srv := etcdtest.Start(t)
	a := mustBoot(t, newMachine(t, srv, "h1", "10.77.0.11"))
	a.registered()
	n := a.View().Nodes["h1"].Value
	n.ID = "another"
	a.write(cluster.NodeKey("h1"), n)
	a.sees("another's record", func(v *cluster.View) bool { return v.Nodes["h1"].Value.ID == "another" })
	err := a.SetRoutes(t.Context(), []cluster.Route{{Prefix: netip.MustParsePrefix("10.9.0.0/26"), Node: "h1", Kind: "block"}})
	if !errors.Is(err, cluster.ErrFenced) {
		t.Errorf("got %v, want ErrFenced", err)
	}
}
