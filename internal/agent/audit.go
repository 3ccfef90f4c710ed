package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"fairway/internal/api"
	"fairway/internal/cnm"
	"fairway/internal/ipam"
)

var errEventsEnded = errors.New("the engine closed its event stream")

// When something that the engine does not have is a leak. The engine makes an endpoint known only some time after it
// told us of it, so a young one is no leak, and two looks must agree.
const (
	leakAge    = 10 * time.Second // since the object last changed
	leakLooks  = 15 * time.Second // between the first look that missed it and the one that ends it
	unusedAge  = 60 * time.Second // an address or a pool that was given out and not used
	fixBetween = 1 * time.Second  // between the two looks of `ipam check --fix`
)

// leak is one thing held for nobody, and how it is ended.
type leak struct {
	api.Leak
	key string
	end func(context.Context) error
}

// leaks compares the book with the engine's word.
func (v *engineView) leaks(book *cnm.Book, s engineState, now time.Time) []leak {
	snap := book.Snapshot()
	var out []leak
	for _, e := range snap.Endpoints {
		if _, alive := s.Endpoints[e.ID]; !alive && old(e.Changed, now, s, leakAge) {
			out = append(out, v.endpointLeak(book, e))
		}
	}
	for _, n := range snap.Networks {
		if _, alive := s.Networks[n.ID]; !alive && old(n.Created, now, s, leakAge) {
			out = append(out, v.networkLeak(book, n))
		}
	}
	for _, p := range snap.Pools {
		if p.Network == "" && old(p.Created, now, s, unusedAge) {
			out = append(out, poolLeak(book, p))
		}
	}
	for _, h := range book.Unused(unusedAge) {
		out = append(out, addressLeak(book, h, "was given out and no endpoint made with it"))
	}
	for _, h := range book.Orphans() {
		if old(h.Since, now, s, leakAge) {
			out = append(out, addressLeak(book, h, "is held for endpoint "+short(h.Endpoint)+", which is deleted"))
		}
	}
	return out
}

func short(id string) string { return id[:min(12, len(id))] }

// old says that a thing had its last change well before the engine was looked at.
func old(changed, now time.Time, s engineState, age time.Duration) bool {
	return now.Sub(changed) > age && s.At.Sub(changed) > age
}

func (v *engineView) endpointLeak(book *cnm.Book, e cnm.Endpoint) leak {
	return leak{
		key: "endpoint/" + e.ID,
		Leak: api.Leak{
			Kind: "endpoint", Endpoint: e.ID, Network: e.Network, Link: e.LinkName(),
			What:   fmt.Sprintf("endpoint %s (%s) with %v is not known to the engine", short(e.ID), e.State, e.All()),
			Action: "delete the endpoint, its link and routes, and release its addresses",
		},
		end: func(ctx context.Context) error {
			if err := book.DropEndpoint(ctx, e.ID); err != nil {
				return err
			}
			return v.a.loop.Apply(ctx, "")
		},
	}
}

func (v *engineView) networkLeak(book *cnm.Book, n cnm.Network) leak {
	return leak{
		key: "network/" + n.ID,
		Leak: api.Leak{
			Kind: "network", Network: n.ID,
			What:   fmt.Sprintf("network %s is not known to the engine", short(n.ID)),
			Action: "forget the network and release its subnets",
		},
		end: func(ctx context.Context) error {
			if err := book.DeleteNetwork(ctx, n.ID); err != nil {
				return err
			}
			for _, s := range n.Subnets {
				if err := book.DropPool(ctx, s.Pool); err != nil {
					return err
				}
			}
			return v.a.loop.Apply(ctx, "")
		},
	}
}

func poolLeak(book *cnm.Book, p ipam.Pool) leak {
	return leak{
		key: "pool/" + p.ID,
		Leak: api.Leak{
			Kind: "network", What: fmt.Sprintf("subnet %s was requested and no network made of it", p.CIDR), Action: "release the subnet",
		},
		end: func(ctx context.Context) error { return book.DropPool(ctx, p.ID) },
	}
}

func addressLeak(book *cnm.Book, h ipam.Holding, why string) leak {
	return leak{
		key: "address/" + h.Pool + "/" + h.Addr.String() + "/" + fmt.Sprint(h.Generation),
		Leak: api.Leak{
			Kind: "address", Address: h.Addr, Network: h.Network,
			What: fmt.Sprintf("address %s %s", h.Addr, why), Action: "release the address",
		},
		end: func(ctx context.Context) error { return book.ReleaseAddress(ctx, h.Pool, h.Addr) },
	}
}

// auditNow ends what two looks, some time apart, found to be held for nobody.
func (v *engineView) auditNow(ctx context.Context) {
	now := time.Now()
	found := v.leaks(v.a.bookNow(), v.state(), now)
	v.mu.Lock()
	suspects := make(map[string]time.Time, len(found))
	var due []leak
	for _, l := range found {
		first, ok := v.suspects[l.key]
		if !ok {
			first = now
		}
		suspects[l.key] = first
		if now.Sub(first) >= leakLooks {
			due = append(due, l)
		}
	}
	v.suspects = suspects
	v.mu.Unlock()
	for _, l := range due {
		err := l.end(ctx)
		v.a.log.Warn("ended a leak", slog.String("what", l.What), slog.String("action", l.Action), slog.Any("err", err))
	}
}

// check looks now, and with fix looks twice and ends what both looks found.
func (v *engineView) check(ctx context.Context, fix bool) ([]api.Leak, error) {
	first, err := v.lookForLeaks(ctx)
	if err != nil {
		return nil, err
	}
	again := map[string]bool{}
	if fix && len(first) > 0 {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(fixBetween):
		}
		second, err := v.lookForLeaks(ctx)
		if err != nil {
			return nil, err
		}
		for _, l := range second {
			again[l.key] = true
		}
	}
	out := make([]api.Leak, 0, len(first))
	for _, l := range first {
		if again[l.key] {
			if err := l.end(ctx); err != nil {
				l.Error = err.Error()
			} else {
				l.Fixed = true
			}
		}
		out = append(out, l.Leak)
	}
	return out, nil
}

func (v *engineView) lookForLeaks(ctx context.Context) ([]leak, error) {
	if err := v.look(ctx); err != nil {
		return nil, fmt.Errorf("compare with the engine: %w", err)
	}
	now := time.Now()
	found := v.leaks(v.a.bookNow(), v.state(), now)
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range found {
		found[i].SeenSince = now
		if first, ok := v.suspects[found[i].key]; ok {
			found[i].SeenSince = first
		}
	}
	return found, nil
}

func (a *Agent) bookNow() *cnm.Book {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.book
}
