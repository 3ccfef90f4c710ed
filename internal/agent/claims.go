package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"
)

// emptyInterval is how often blocks in which nothing is held are looked for.
const emptyInterval = time.Minute

// heardBlock says whether a route is heard that has all of a block, and not the whole pool: another node's own part of it,
// or a block whose record was lost. Docker's default bridge of this node is in nobody's name in the store either.
func (a *Agent) heardBlock(pool, block netip.Prefix) (string, bool) {
	if slices.ContainsFunc(a.config().DockerBridge.Subnets(), block.Overlaps) {
		return "Docker's default bridge of this node", true
	}
	r, ok := a.rib.Covering(block.Addr())
	if !ok || r.Prefix.Bits() <= pool.Bits() || !r.Prefix.Overlaps(block) {
		return "", false
	}
	return a.heard(block.Addr())
}

// announced says whether a prefix is announced at this moment.
func (a *Agent) announced(p netip.Prefix) bool {
	_, ok := a.loop.last().Announced[p]
	return ok
}

// refuse says why this node takes no new containers.
func (a *Agent) refuse() error {
	if err := a.drainRefuses(); err != nil {
		return err
	}
	if c := a.clus(); c != nil {
		return c.Refuse()
	}
	return nil
}

// returnEmpty gives empty blocks back to the store, until the context ends.
func (a *Agent) returnEmpty(ctx context.Context) error {
	tick := time.NewTicker(emptyInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := a.bookNow().ReturnEmpty(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("empty blocks were not given back", slog.Any("err", err))
		}
	}
}
