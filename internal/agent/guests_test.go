package agent

import (
	"net/netip"
	"testing"
	"time"

	"fairway/internal/api"
)

// A guest's prefixes hold as long as it says them, and what it says again is no news.
func TestGuests(t *testing.T) {
	g := guests{mark: func() {}}
	now := time.Now()
	p := netip.MustParsePrefix("10.1.0.0/24")
	said := api.Guest{Name: "frouter", Link: "frouter", Prefixes: []netip.Prefix{p}}
	if !g.take(said, now) || g.take(said, now.Add(20*time.Second)) {
		t.Error("what is news is told wrongly")
	}
	if list := g.prefixes(now.Add(45 * time.Second)); len(list) != 1 || list[0] != p {
		t.Errorf("prefixes %v, want %s", list, p)
	}
	if r := g.routes("n1", now.Add(45*time.Second)); len(r) != 1 || r[0].Kind != "guest" || !r[0].Since.Equal(now) {
		t.Errorf("routes %+v", r)
	}
	if list := g.prefixes(now.Add(51 * time.Second)); len(list) != 0 {
		t.Errorf("a guest that is silent is not forgotten: %v", list)
	}
	g.take(said, now)
	if !g.take(api.Guest{Name: "frouter"}, now) || len(g.prefixes(now)) != 0 {
		t.Error("a guest that goes is not forgotten")
	}
}
