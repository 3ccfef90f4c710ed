package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"fairway/internal/api"
	"fairway/internal/cnm"
	"fairway/internal/ipam"
)

func itoa(n int) string { return strconv.Itoa(n) }

var errStarting = errors.New("the agent is still starting")

// IPAM implements api.Addresses.
func (a *Agent) IPAM(context.Context) (api.IPAM, error) {
	book := a.bookNow()
	if book == nil {
		return api.IPAM{}, errStarting
	}
	snap, eng := book.Snapshot(), a.engine().state()
	name := func(network string) string { return cmp.Or(eng.Networks[network].Name, network) }
	out := api.IPAM{Pools: a.poolViews(snap, book.Usage(), name), Holdings: []api.Holding{}}
	down := a.config().IPAM.HoldDown
	for _, h := range book.Holdings() {
		v := api.Holding{
			Address: h.Addr, Kind: kindName(h.Kind), State: string(h.State), Network: name(h.Network), Endpoint: h.Endpoint,
			Container: cmp.Or(eng.Endpoints[h.Endpoint].Name, eng.Endpoints[h.Endpoint].ID), Node: a.nodeName(), Since: h.Since, Generation: h.Generation,
		}
		if h.State == ipam.StateResting {
			v.Since, v.RestingUntil = h.Released, h.Released.Add(down)
		}
		out.Holdings = append(out.Holdings, v)
	}
	if o, ok := a.overview(); ok {
		out.Pools = o.Pools(out.Pools)
		out.Holdings = append(out.Holdings, o.Holdings()...)
	}
	slices.SortFunc(out.Holdings, func(x, y api.Holding) int { return x.Address.Compare(y.Address) })
	return out, nil
}

func kindName(k ipam.Kind) string {
	switch k {
	case ipam.KindEndpoint:
		return "container"
	case ipam.KindExtra:
		return "further"
	case ipam.KindAux:
		return "reserved"
	case ipam.KindGateway:
	}
	return string(k)
}

// poolViews lists the pools of networks and those of the config that no network uses.
func (a *Agent) poolViews(snap cnm.Snapshot, usage []ipam.PoolUsage, name func(string) string) []api.Pool {
	byID := map[string]ipam.PoolUsage{}
	for _, u := range usage {
		byID[u.Pool] = u
	}
	var out []api.Pool
	for _, p := range snap.Pools {
		u := byID[p.ID]
		v := api.Pool{PoolUsage: usageOf(p, u), Network: name(p.Network), List: []api.Block{}}
		for _, b := range u.Blocks {
			v.List = append(v.List, api.Block{
				CIDR: b.CIDR, Node: a.nodeName(), Origin: origin(p), Problem: b.Fenced, Held: clamp(b.Held), Resting: clamp(b.Resting), Free: clamp(b.Free), Since: b.Since,
			})
		}
		out = append(out, v)
	}
	for _, c := range a.config().Pools {
		if !slices.ContainsFunc(snap.Pools, func(p ipam.Pool) bool { return p.CIDR.Overlaps(c.CIDR) }) {
			out = append(out, api.Pool{PoolUsage: api.PoolUsage{CIDR: c.CIDR, BlockSize: c.BlockSize}, List: []api.Block{}})
		}
	}
	slices.SortFunc(out, func(x, y api.Pool) int { return x.CIDR.Compare(y.CIDR) })
	return out
}

// origin is why a block is this node's.
func origin(p ipam.Pool) string {
	switch {
	case p.Range.IsValid():
		return "ip-range"
	case len(p.Own) > 0:
		return "config"
	case p.Shared:
		return "store"
	}
	return "first"
}

func usageOf(p ipam.Pool, u ipam.PoolUsage) api.PoolUsage {
	v := api.PoolUsage{
		CIDR: p.CIDR, BlockSize: p.BlockSize, Blocks: len(u.Blocks),
		Held: clamp(u.Total.Held + u.Outside), Resting: clamp(u.Total.Resting), Free: clamp(u.Total.Free),
	}
	most := float64(u.Total.Size)
	if len(p.Own) == 0 && !p.PerNode { // more blocks can be claimed: all of the pool but the static range
		most = math.Exp2(float64(p.CIDR.Addr().BitLen() - p.CIDR.Bits()))
		if p.Static.IsValid() {
			most -= math.Exp2(float64(p.Static.Addr().BitLen() - p.Static.Bits()))
		}
	}
	if most > 0 {
		v.Usage = min(1, float64(u.Total.Held+u.Total.Resting)/most)
	}
	return v
}

// clamp fits a count of addresses into an int.
func clamp(n uint64) int { return int(min(n, math.MaxInt)) }

// IPAMCheck implements api.Addresses.
func (a *Agent) IPAMCheck(ctx context.Context, fix bool) ([]api.Leak, error) {
	if a.bookNow() == nil {
		return nil, errStarting
	}
	var out []api.Leak
	if a.engine() != nil { // without an engine nothing of an engine's is held
		var err error
		if out, err = a.engine().check(ctx, fix); err != nil {
			return nil, err
		}
	}
	shared, err := a.storeLeaks(ctx)
	return append(out, shared...), err
}

// leakSettles is how long the store and this node may disagree while something is being claimed or given back.
const leakSettles = time.Second

// storeLeaks is what this node and the store do not agree on, now and a moment later.
func (a *Agent) storeLeaks(ctx context.Context) ([]api.Leak, error) {
	before, ok := a.overview()
	if !ok {
		return nil, nil
	}
	first := map[string]bool{}
	for _, l := range before.Leaks() {
		first[l.What] = true
	}
	if len(first) == 0 {
		return nil, nil
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(leakSettles):
	}
	after, _ := a.overview()
	return slices.DeleteFunc(after.Leaks(), func(l api.Leak) bool { return !first[l.What] }), nil
}

// IPAMRelease implements api.Addresses.
func (a *Agent) IPAMRelease(ctx context.Context, addr netip.Addr, force bool) error {
	book := a.bookNow()
	if book == nil {
		return errStarting
	}
	i := slices.IndexFunc(book.Holdings(), func(h ipam.Holding) bool { return h.Addr == addr && h.State == ipam.StateHeld })
	if i < 0 {
		return api.NotFound(fmt.Errorf("address %s is not held on this node", addr))
	}
	h := book.Holdings()[i]
	switch {
	case h.Kind == ipam.KindGateway || h.Kind == ipam.KindAux:
		return api.Conflict(fmt.Errorf("address %s is the %s of network %s, and is released with it", addr, kindName(h.Kind), h.Network))
	case h.Endpoint != "" && !force:
		return api.Conflict(fmt.Errorf("address %s belongs to endpoint %s; stop its container, or use --force when the container is gone", addr, h.Endpoint))
	}
	if _, ok := book.Endpoint(h.Endpoint); ok {
		if err := book.DropEndpoint(ctx, h.Endpoint); err != nil {
			return err
		}
		return a.loop.Apply(ctx, "")
	}
	return book.ReleaseAddress(ctx, h.Pool, addr)
}
