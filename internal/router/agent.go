package router

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"fairway/internal/api"
)

const (
	// agentInterval is how often the host's agent is asked what it routes, and told again what this router does.
	agentInterval = 3 * time.Second
	// agentAway is how long what it routes is still true when it does not answer: the kernel keeps its routes while it
	// restarts.
	agentAway = time.Minute
)

// hostAgent is the fairway agent of the host, if there is one.
type hostAgent struct {
	log    *slog.Logger
	client *api.Client
	name   string // of this router among its guests
	link   string
	mark   func()

	mu       sync.Mutex
	answered time.Time // zero: never, or too long ago
	routes   []netip.Prefix
	tell     []netip.Prefix
	problem  error // why it does not tell of them
}

// run asks and tells until the context ends, and then takes back what it told.
func (a *hostAgent) run(ctx context.Context) error {
	tick := time.NewTicker(agentInterval)
	defer tick.Stop()
	for {
		a.ask(ctx)
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if present, _ := a.state(); present {
				if err := a.client.Announce(last, api.Guest{Name: a.name}); err != nil {
					a.log.Debug("take networks back from the agent", slog.Any("err", err))
				}
			}
			return nil
		case <-tick.C:
		}
	}
}

// ask takes in what the agent routes, and renews what it tells.
func (a *hostAgent) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, agentInterval)
	defer cancel()
	nets, err := a.client.Networks(ctx)
	var routes []api.Route
	if err == nil {
		routes, err = a.client.Routes(ctx)
	}
	now := time.Now()
	a.mu.Lock()
	before := len(a.routes) > 0 || !a.answered.IsZero()
	if err != nil {
		gone := before && now.Sub(a.answered) > agentAway
		if gone {
			a.answered, a.routes, a.problem = time.Time{}, nil, nil
		}
		a.mu.Unlock()
		if gone {
			a.log.Info("the host's agent is away", slog.Any("err", err))
			a.mark()
		}
		return
	}
	found := routedBy(nets, routes)
	changed := !before || !slices.Equal(found, a.routes)
	a.answered, a.routes = now, found
	tell := slices.Clone(a.tell)
	a.mu.Unlock()
	if changed {
		a.log.Info("the host's agent routes", slog.Int("prefixes", len(found)))
		a.mark()
	}
	if len(tell) > 0 {
		a.announce(ctx, tell)
	}
}

// routedBy are the subnets of the agent's networks and what it has learned that is in none of them.
func routedBy(nets []api.Network, routes []api.Route) []netip.Prefix {
	var out []netip.Prefix
	for _, n := range nets {
		for _, s := range n.Subnets {
			out = append(out, s.Prefix)
		}
	}
	subnets := slices.Clone(out)
	for _, r := range routes {
		inside := slices.ContainsFunc(subnets, func(s netip.Prefix) bool { return s.Bits() <= r.Prefix.Bits() && s.Overlaps(r.Prefix) })
		if (r.Kind == "learned" || r.Kind == "static") && r.InKernel && r.Prefix.Bits() > 0 && !inside {
			out = append(out, r.Prefix)
		}
	}
	return compact(out)
}

// state is whether there is an agent, and what it routes.
func (a *hostAgent) state() (present bool, routes []netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.answered.IsZero(), slices.Clone(a.routes)
}

// wants says which prefixes the agent is to tell other nodes of; at once when that is news.
func (a *hostAgent) wants(ctx context.Context, tell []netip.Prefix) error {
	a.mu.Lock()
	news := !slices.Equal(a.tell, tell)
	a.tell = slices.Clone(tell)
	a.mu.Unlock()
	if news {
		a.announce(ctx, tell)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.problem
}

func (a *hostAgent) announce(ctx context.Context, tell []netip.Prefix) {
	err := a.client.Announce(ctx, api.Guest{Name: a.name, Link: a.link, Prefixes: tell})
	if errors.Is(err, api.ErrNotRunning) || ctx.Err() != nil {
		return // it restarts, and is told again
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	was := a.problem
	a.problem = err
	if (was == nil) != (err == nil) {
		a.mark()
	}
}
