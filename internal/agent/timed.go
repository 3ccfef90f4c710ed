package agent

import (
	"context"
	"net/netip"
	"time"

	"fairway/internal/api"
	"fairway/internal/cluster"
	"fairway/internal/cnm"
)

// timed counts what the book asks of the store.
type timed struct {
	cnm.Claimer
	metrics *api.Metrics
}

// ClaimBlock implements cnm.Claimer.
func (t timed) ClaimBlock(ctx context.Context, spec cluster.PoolSpec, covering netip.Addr) (cluster.Block, error) {
	began := time.Now()
	b, err := t.Claimer.ClaimBlock(ctx, spec, covering)
	t.metrics.ObserveClaim("block", time.Since(began), err)
	return b, err
}

// ClaimAddress implements cnm.Claimer.
func (t timed) ClaimAddress(ctx context.Context, spec cluster.PoolSpec, addr netip.Addr, endpoint string) (cluster.Address, error) {
	began := time.Now()
	a, err := t.Claimer.ClaimAddress(ctx, spec, addr, endpoint)
	t.metrics.ObserveClaim("address", time.Since(began), err)
	return a, err
}

// Release implements cnm.Claimer.
func (t timed) Release(ctx context.Context) error {
	began := time.Now()
	err := t.Claimer.Release(ctx)
	t.metrics.ObserveClaim("release", time.Since(began), err)
	return err
}
