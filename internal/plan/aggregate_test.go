package plan_test

import (
	"net/netip"
	"testing"

	"fairway/internal/kernel"
	"fairway/internal/plan"
	"fairway/internal/rib"
)

// A router drops what no host has, sends the rest to the hosts, and does not mind another router with the same aggregate.
func TestAggregate(t *testing.T) {
	in := node()
	in.Node.Docker = false
	in.Aggregates = []netip.Prefix{pfx("10.9.0.0/16"), pfx("10.8.1.0/24")}
	in.Blocks = []netip.Prefix{pfx("10.8.1.0/24")}
	in.Heard = map[netip.Prefix]rib.Route{}
	for _, p := range []string{"10.9.2.0/24", "10.9.0.0/16"} {
		in.Heard[pfx(p)] = rib.Route{Prefix: pfx(p), Paths: []rib.Path{{NextHop: ip("10.77.0.12"), Source: rib.BGP, Peer: "10.77.0.12"}}}
	}
	out := plan.Compute(in)
	for prefix, want := range map[string]plan.Announcement{
		"10.9.0.0/16": {Kind: "aggregate", Needs: kernel.RouteKey{Dst: pfx("10.9.0.0/16")}},
		"10.8.1.0/24": {Kind: "block", Needs: kernel.RouteKey{Dst: pfx("10.8.1.0/24")}},
	} {
		if got := out.Announce[pfx(prefix)]; got != want {
			t.Errorf("%s is announced as %+v, want %+v", prefix, got, want)
		}
		if got := out.State.Routes[kernel.RouteKey{Dst: pfx(prefix)}]; got.Type != kernel.Blackhole {
			t.Errorf("route to %s: %+v, want a blackhole", prefix, got)
		}
	}
	if got := out.State.Routes[kernel.RouteKey{Dst: pfx("10.9.2.0/24")}]; len(got.NextHops) != 1 || got.NextHops[0].Via != ip("10.77.0.12") {
		t.Errorf("route to a host: %+v", got)
	}
	if len(out.Announce) != 2 || len(out.Problems) != 0 {
		t.Errorf("announced %v, problems %v", out.Announce, out.Problems)
	}
}
