package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"fairway/internal/store"
)

// Times of the cache.
const (
	probeInterval  = time.Second     // the store is asked whether it is there, and how far it is
	relistInterval = 5 * time.Minute // everything is listed again, whatever the watch said
	listRetry      = time.Second
	// sameRestore is how long what is said of a store that went back is about the time before that was seen.
	sameRestore = 5 * time.Second
)

// relisting is a wish to list everything again.
type relisting struct {
	why      string
	restored bool // the store is known to have gone back
}

// askRelist makes the cache list everything again. It never waits.
func (c *Cluster) askRelist(r relisting) {
	for {
		select {
		case c.relist <- r:
			return
		default:
		}
		select { // a wish is there already: one that knows more takes its place
		case was := <-c.relist:
			r.restored = r.restored || was.restored
		default:
		}
	}
}

// follow keeps the cache: it lists, and watches from there, until the context ends.
func (c *Cluster) follow(ctx context.Context) error {
	for ctx.Err() == nil {
		var why relisting
		select {
		case why = <-c.relist:
		default:
		}
		rev, err := c.list(ctx, why.restored)
		if err != nil {
			if why.restored {
				c.askRelist(why)
			}
			wait(ctx, listRetry)
			continue
		}
		if why, err := c.watch(ctx, rev); why != "" {
			c.log.Debug("list the store again", slog.String("why", why), slog.Any("err", err))
		}
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// list reads everything into the cache, and tells whether the store is still the one it was.
func (c *Cluster) list(ctx context.Context, restored bool) (uint64, error) {
	// Before asking: the answer must not be behind what was known then.
	before := c.View()
	c.mu.Lock()
	was := c.saved
	c.mu.Unlock()
	l, err := c.cfg.Store.List(ctx, root)
	if err = c.heard(err); err != nil {
		c.problem(err)
		return 0, err
	}
	now := c.cfg.Now()
	c.mu.Lock()
	restored = restored && now.Sub(c.health.Restored) > sameRestore
	c.mu.Unlock()
	switch {
	case l.Revision < max(was.Revision, before.Revision):
		restored = true
	case was.StoreID != "" && l.StoreID != was.StoreID:
		restored = true
	case before.wentBack(l):
		restored = true
	}
	fresh := listed(l, now)
	if !restored {
		restored = c.lostClaims(before, fresh.view())
	}
	if restored {
		// Before the cache has it: who sees records gone is to know why.
		c.mu.Lock()
		c.health.Restored = now
		c.mu.Unlock()
		c.log.Warn("the store has gone back, or is another one: this node writes its own records again",
			slog.Uint64("revision", l.Revision), slog.Uint64("revision_before", max(was.Revision, before.Revision)))
	}
	c.ghostsOf(before, fresh.view(), restored)
	news := c.cache.replace(fresh)
	if err := c.save(ctx, func(s *saved) { s.Revision, s.StoreID = l.Revision, l.StoreID }); err != nil {
		return 0, err
	}
	if restored {
		c.restoreDrain(ctx, before, c.View())
	}
	c.tell(news)
	wake(c.wakeKeeper)
	wake(c.wakeReconcile)
	return l.Revision, nil
}

// watch takes in changes until everything has to be listed again, and says why.
func (c *Cluster) watch(ctx context.Context, after uint64) (why string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	again := time.NewTimer(relistInterval)
	defer again.Stop()
	updates := c.cfg.Store.Watch(ctx, root, after)
	for {
		select {
		case u, ok := <-updates:
			switch {
			case !ok && ctx.Err() != nil:
				return "", nil
			case !ok:
				return "the watch ended", nil
			case errors.Is(u.Err, store.ErrReplaced):
				c.askRelist(relisting{why: "the store was replaced", restored: true})
				return "the watch broke off", u.Err
			case u.Err != nil:
				return "the watch broke off", c.heard(u.Err)
			}
			c.tell(c.cache.apply(u, c.cfg.Now()))
		case r := <-c.relist:
			if r.restored {
				c.askRelist(r)
			}
			return r.why, nil
		case <-again.C:
			return "some minutes have passed", nil
		case <-ctx.Done():
			return "", nil
		}
	}
}

// tell wakes whom a change of the cache concerns.
func (c *Cluster) tell(news touched) {
	if len(news.kinds) == 0 {
		return
	}
	for _, k := range []string{nodePrefix, alivePrefix, tombstonePrefix, drainPrefix, networkPrefix, statePrefix, blockPrefix, addressPrefix} {
		if news.kinds[k] {
			wake(c.wakeKeeper)
			break
		}
	}
	if news.owners[c.ID()] || news.kinds[poolPrefix] || news.kinds[tombstonePrefix] || news.kinds[networkPrefix] || news.kinds[statePrefix] {
		wake(c.wakeReconcile)
	}
	c.cfg.Changed()
}

// probe asks the store each second whether it is there, and whether it is still where it was. A watch does not tell: it is
// silent while the store is away, and one on a store that went back waits for revisions that are long to come.
func (c *Cluster) probe(ctx context.Context) error {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		c.probeOnce(ctx)
	}
}

func (c *Cluster) probeOnce(ctx context.Context) {
	v := c.View() // before asking: the answer must not be behind what was known then
	wrote := c.lastAlive()
	l, err := c.cfg.Store.List(ctx, AliveKey(c.Name()))
	if err := c.heard(err); err != nil {
		if ctx.Err() == nil {
			c.problem(err)
		}
		return
	}
	if v.Complete && l.Revision < v.Revision {
		c.askRelist(relisting{why: fmt.Sprintf("the store is at revision %d, and was at %d", l.Revision, v.Revision), restored: true})
		return
	}
	for _, r := range l.Records {
		// Written by this run at a later revision than is there: what was written since is lost.
		if r.Key == AliveKey(c.Name()) && r.Revision < wrote {
			c.askRelist(relisting{why: "the store has an older record of this node than was written", restored: true})
			return
		}
	}
	c.cache.seen(c.cfg.Now())
}

// problem notes an answer of the store that is none, for Health.
func (c *Cluster) problem(err error) {
	if errors.Is(err, store.ErrUnreachable) {
		return // noted already
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.health.LastError = err.Error()
}
