package ipam

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Allocator gives out pools and addresses. It is not safe for concurrent use. Make one with New.
type Allocator struct {
	opts      Options
	pools     map[string]*pool // by ID
	loose     *pool            // extra addresses outside all pools
	endpoints map[string]map[leaseKey]struct{}
	gen       uint64   // the highest generation ever seen
	pending   []change // of the call that runs
}

// New returns an allocator without pools.
func New(opts Options) *Allocator {
	a := &Allocator{}
	a.SetOptions(opts)
	a.reset()
	return a
}

func (a *Allocator) reset() {
	a.pools = make(map[string]*pool)
	a.loose = newPool(Pool{})
	a.endpoints = make(map[string]map[leaseKey]struct{})
	a.pending = nil
}

// SetOptions replaces the options. A new hold-down counts for addresses that rest already; a new
// plan is for pools requested from now on, but a node that is no longer alone claims no more blocks.
func (a *Allocator) SetOptions(opts Options) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	opts.Plan.Pools = slices.Clone(opts.Plan.Pools)
	a.opts = opts
}

// Undo takes back the change that was made last, when it could not be saved. Several are taken
// back newest first.
func (a *Allocator) Undo(d Delta) {
	for _, c := range slices.Backward(d.undo) {
		if c.had {
			a.apply(c.was)
		} else {
			a.erase(c.was)
		}
	}
}

// commit ends a call that went well and says what changed.
func (a *Allocator) commit() Delta {
	d := Delta{undo: a.pending}
	a.pending = nil
	seen := make(map[string]bool, len(d.undo))
	for _, c := range d.undo {
		if seen[c.key] {
			continue
		}
		seen[c.key] = true
		if now, has := a.current(c.was); has {
			d.Put = append(d.Put, now)
		} else if c.had {
			d.Delete = append(d.Delete, c.key)
		}
	}
	return d
}

// rollback ends a call that failed: nothing is half made.
func (a *Allocator) rollback() {
	a.Undo(Delta{undo: a.pending})
	a.pending = nil
}

// rank orders records so that each is behind what it is in.
func rank(r Record) int {
	switch {
	case r.Pool != nil:
		return 0
	case r.Block != nil:
		return 1
	}
	return 2
}

// Records returns everything there is to save, in an order in which it can be loaded.
func (a *Allocator) Records() []Record {
	var out []Record
	for _, p := range a.sorted() {
		rec := p.Pool
		out = append(out, Record{Pool: &rec})
		for _, b := range p.blocks {
			if !b.given {
				rec := b.Block
				out = append(out, Record{Block: &rec})
			}
		}
		out = append(out, p.holdings()...)
	}
	return append(out, a.loose.holdings()...)
}

// sorted are the pools by space and address.
func (a *Allocator) sorted() []*pool {
	return slices.SortedFunc(maps.Values(a.pools), func(x, y *pool) int {
		return cmp.Or(cmp.Compare(x.Space, y.Space), x.CIDR.Addr().Compare(y.CIDR.Addr()), cmp.Compare(x.ID, y.ID))
	})
}

func (p *pool) holdings() []Record {
	out := make([]Record, 0, len(p.leases))
	for _, addr := range slices.SortedFunc(maps.Keys(p.leases), netip.Addr.Compare) {
		rec := p.leases[addr].Holding
		out = append(out, Record{Holding: &rec})
	}
	return out
}

// generation is higher than any before, in this run and, as long as the clock is right, in all earlier ones.
func (a *Allocator) generation(now time.Time) uint64 {
	if us := now.UnixMicro(); us > 0 && uint64(us) > a.gen {
		return uint64(us)
	}
	return a.gen + 1
}
