package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"fairway/internal/api"
)

// guests are other programs of the node whose prefixes are announced. What they say holds for api.GuestTime: a guest that
// was killed is forgotten, and so are all of them when the agent starts anew, until they say it again.
type guests struct {
	mark func() // asks for a pass

	mu    sync.Mutex
	heard map[string]guest
}

type guest struct {
	api.Guest
	since, until time.Time
}

// take takes in what a guest says; changed says whether that is news.
func (g *guests) take(said api.Guest, now time.Time) (changed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	was, known := g.heard[said.Name]
	if len(said.Prefixes) == 0 {
		delete(g.heard, said.Name)
		return known
	}
	if g.heard == nil {
		g.heard = map[string]guest{}
	}
	next := guest{Guest: said, since: now, until: now.Add(api.GuestTime)}
	changed = !known || !slices.Equal(was.Prefixes, said.Prefixes)
	if !changed {
		next.since = was.since
	}
	g.heard[said.Name] = next
	// Later than its end by a moment, so that the pass finds it over.
	time.AfterFunc(api.GuestTime+100*time.Millisecond, g.mark)
	return changed
}

// list are those that are not over.
func (g *guests) list(now time.Time) []guest {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []guest
	for name, one := range g.heard {
		if now.After(one.until) {
			delete(g.heard, name)
			continue
		}
		out = append(out, one)
	}
	return out
}

// prefixes are theirs, each once.
func (g *guests) prefixes(now time.Time) []netip.Prefix {
	var out []netip.Prefix
	for _, one := range g.list(now) {
		out = append(out, one.Prefixes...)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// routes are for listings.
func (g *guests) routes(node string, now time.Time) []api.Route {
	var out []api.Route
	for _, one := range g.list(now) {
		for _, p := range one.Prefixes {
			out = append(out, api.Route{
				Prefix: p, Kind: "guest", Link: one.Link, Source: "local", Peer: one.Name, Node: node, Best: true, InKernel: true, Since: one.since,
			})
		}
	}
	return out
}

// Announce implements api.Host.
func (a *Agent) Announce(_ context.Context, g api.Guest) error {
	if g.Name == "" || len(g.Name) > 64 {
		return api.Invalid(errors.New("name: want 1 to 64 bytes"))
	}
	book := a.bookNow()
	if book == nil {
		return errors.New("the agent is still starting; try again")
	}
	networks := book.Snapshot().Networks
	for _, p := range g.Prefixes {
		if !p.IsValid() || p != p.Masked() || p.Bits() == 0 {
			return api.Invalid(fmt.Errorf("prefix %s: want one without host bits, and not the default route", p))
		}
		for _, n := range networks {
			for _, s := range n.Subnets {
				if s.Prefix.Overlaps(p) {
					return api.Conflict(fmt.Errorf("prefix %s overlaps subnet %s of a network of this node", p, s.Prefix))
				}
			}
		}
	}
	g.Prefixes = slices.Clone(g.Prefixes)
	slices.SortFunc(g.Prefixes, netip.Prefix.Compare)
	if a.guests.take(g, time.Now()) {
		a.loop.mark()
	}
	return nil
}
