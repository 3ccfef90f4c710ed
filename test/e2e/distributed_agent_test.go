package e2e_test

import (
	"fmt"
	"testing"
	"time"
)

// Containers of networks that agents route, and of networks of other drivers, reach each other by their own addresses,
// also when they are on different hosts.
func TestRouterWithAgent(t *testing.T) {
	s := newRouterSite(t)
	s.network("routed")
	far := s.hosts[2].run("far", "--network", "routed")
	for i, h := range s.hosts[:2] { // an old engine, and one that shields its bridges
		version, err := h.EngineVersion(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Run(version, func(t *testing.T) {
			h, remote := h.in(t), *far
			remote.h = s.hosts[2].in(t)
			near := h.run("near", "--network", "routed")
			subnet := fmt.Sprintf("10.71.%d.0/24", i)
			h.otherNetwork("blue", "-o", "fairway.router=true", "--subnet", subnet)
			blue := h.run("inblue", "--network", "blue")
			if err := blue.ping(remote.v4); err == nil {
				// Docker masquerades it: it reaches, and hides.
				if seen, err := blue.seenBy(&remote, remote.v4); err == nil && seen == blue.v4 {
					t.Errorf("%s is seen as itself without a router", blue)
				}
			}
			h.router("--host-shortcut")
			h.routerOn("blue")
			eventually(t, 20*time.Second, s.hosts[2].in(t).hasRoute(subnet, true))
			for _, pair := range [][2]*container{{blue, &remote}, {&remote, blue}, {blue, near}, {near, blue}} {
				from, to := pair[0], pair[1]
				from.reaches(to.v4)
				eventually(t, 15*time.Second, func() error {
					seen, err := from.seenBy(to, to.v4)
					if err == nil && seen != from.v4 {
						err = fmt.Errorf("%s is seen by %s as %s, want its own address %s", from, to, seen, from.v4)
					}
					return err
				})
			}
			path, err := remote.path(blue.v4)
			back, _ := blue.path(remote.v4)
			t.Logf("measured: path of %s to %s: %v, %v; back: %v", &remote, blue, path, err, back)
			if out := h.must("fairway", "route", "ls"); !containsAll(out, subnet, "guest") {
				t.Errorf("route ls does not show the router's network:\n%s", out)
			}
			h.docker("stop", "-t", "10", routerName)
			took := eventually(t, 20*time.Second, s.hosts[2].in(t).hasRoute(subnet, false))
			t.Logf("measured: withdrawn %v after the router stopped", took.Round(time.Millisecond))
			h.docker("rm", "-f", "near", "inblue")
		})
	}
}

func containsAll(text string, words ...string) bool { return contains(text, nil, words) == nil }
