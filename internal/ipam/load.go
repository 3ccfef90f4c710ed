package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Load replaces everything by the saved records, which may come in any order. Records that do not
// fit together are an error that names each by its key; then nothing is loaded.
func (a *Allocator) Load(records []Record) error {
	was := *a
	a.reset()
	now := a.opts.Now()
	ordered := slices.Clone(records)
	slices.SortStableFunc(ordered, func(x, y Record) int { return rank(x) - rank(y) })
	var errs []error
	for _, r := range ordered {
		if err := a.load(r, now); err != nil {
			errs = append(errs, fmt.Errorf("record %q: %w", r.Key(), err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		*a = was
		return fmt.Errorf("load addresses: %w", err)
	}
	return nil
}

func (a *Allocator) load(r Record, now time.Time) error {
	fields := 0
	for _, set := range []bool{r.Pool != nil, r.Block != nil, r.Holding != nil} {
		if set {
			fields++
		}
	}
	if fields != 1 {
		return fmt.Errorf("it holds %d things: want one pool, block or holding", fields)
	}
	if _, has := a.current(r); has {
		return errors.New("it is there twice")
	}
	switch {
	case r.Pool != nil:
		if err := a.checkPool(*r.Pool); err != nil {
			return err
		}
	case r.Block != nil:
		if err := a.checkBlock(*r.Block); err != nil {
			return err
		}
	default:
		if err := a.checkHolding(*r.Holding); err != nil {
			return err
		}
		h := *r.Holding
		if h.Released.After(now) { // the clock was set back: nothing may rest for years
			h.Released = now
		}
		r.Holding = &h
	}
	a.apply(r)
	return nil
}

func (a *Allocator) checkPool(rec Pool) error {
	req, err := ParsePoolID(rec.ID)
	if err != nil {
		return err
	}
	if req.Space != rec.Space || req.Pool != rec.CIDR || req.Range != rec.Range {
		return fmt.Errorf("space %q, subnet %v and ip-range %v are not those of the ID", rec.Space, rec.CIDR, rec.Range)
	}
	if err := checkShape(rec); err != nil {
		return err
	}
	for _, own := range rec.Own {
		if own != own.Masked() || !covers(rec.CIDR, own) {
			return fmt.Errorf("own part %v is not inside %v", own, rec.CIDR)
		}
	}
	if rec.Gateway.IsValid() {
		if err := checkAddr(&pool{Pool: rec}, rec.Gateway); err != nil {
			return fmt.Errorf("gateway: %w", err)
		}
	}
	return a.checkFree(rec.Space, rec.CIDR)
}

// checkShape refuses a pool that cannot be cut in this way.
func checkShape(rec Pool) error {
	if !possibleSize(rec) {
		return fmt.Errorf("block size /%d is not possible in %v", rec.BlockSize, rec.CIDR)
	}
	if rec.Static.IsValid() && (rec.Static != rec.Static.Masked() || !covers(rec.CIDR, rec.Static)) {
		return fmt.Errorf("static range %v is not inside %v", rec.Static, rec.CIDR)
	}
	return nil
}

func (a *Allocator) checkBlock(rec Block) error {
	p := a.pools[rec.Pool]
	switch {
	case p == nil:
		return fmt.Errorf("pool %q: %w", rec.Pool, ErrNotFound)
	case len(p.Own) > 0:
		return fmt.Errorf("the pool has an own part %v, so it has no claimed blocks", p.Own)
	case rec.CIDR != rec.CIDR.Masked() || rec.CIDR.Bits() != p.BlockSize || !covers(p.CIDR, rec.CIDR):
		return fmt.Errorf("%v is not a /%d of %v", rec.CIDR, p.BlockSize, p.CIDR)
	case p.PerNode && len(p.blocks) > 0 && p.blocks[0].CIDR != rec.CIDR:
		return fmt.Errorf("%w: %v", ErrOneBlock, p.blocks[0].CIDR)
	case p.Static.Overlaps(rec.CIDR):
		return fmt.Errorf("it overlaps the static range %v", p.Static)
	}
	return nil
}

func (a *Allocator) checkHolding(h Holding) error {
	p := a.pool(h.Pool)
	if p == nil {
		return fmt.Errorf("pool %q: %w", h.Pool, ErrNotFound)
	}
	if h.Pool == "" {
		return a.checkLooseHolding(h)
	}
	if err := checkAddr(p, h.Addr); err != nil {
		return err
	}
	switch {
	case !slices.Contains([]Kind{KindGateway, KindAux, KindEndpoint, KindExtra}, h.Kind):
		return fmt.Errorf("kind %q: want gateway, aux, endpoint or extra", h.Kind)
	case (h.Kind == KindGateway && h.State == StateHeld) != (h.Addr == p.Gateway):
		return fmt.Errorf("it is the %s address, and the pool's gateway is %v", h.Kind, orNone(p.Gateway))
	case h.Kind == KindExtra && h.State == StateHeld && h.Endpoint == "":
		return errors.New("it is an extra address of no endpoint")
	case h.State == StateHeld:
		return nil
	case h.State != StateResting:
		return fmt.Errorf("state %q: want held or resting", h.State)
	case h.Released.IsZero():
		return errors.New("it rests, but was never released")
	case p.block(h.Addr) == nil:
		return errors.New("it rests, but is in no block of this node")
	}
	return nil
}

func (a *Allocator) checkLooseHolding(h Holding) error {
	if !h.Addr.IsValid() || h.Kind != KindExtra || h.State != StateHeld || h.Endpoint == "" {
		return errors.New("outside all pools there are only extra addresses that an endpoint holds")
	}
	return a.checkLoose(h.Addr)
}

func orNone(addr netip.Addr) string {
	if addr.IsValid() {
		return addr.String()
	}
	return "none"
}
