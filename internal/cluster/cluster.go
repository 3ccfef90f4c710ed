package cluster

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"fairway/internal/store"
)

// LocalStore keeps what this node knows of itself, on its own disk; store.Local is one.
type LocalStore interface {
	List(ctx context.Context, prefix string) (store.Listing, error)
	Commit(ctx context.Context, t store.Txn) (uint64, error)
}

// Config of a Cluster.
type Config struct {
	Store store.Store
	Where string     // what the store is, for errors: "etcd at 10.0.0.1:2379"
	Local LocalStore // its keys begin with "cluster/"
	Self  Node       // without ID and Joined
	Log   *slog.Logger
	// Changed is called, from any goroutine and with nothing locked, when records other than Alive and Seen or what
	// Health says have changed; nil: nobody. It must not wait.
	Changed func()
	Now     func() time.Time // nil: time.Now
	Ledger  Ledger           // what this node believes to hold; nil: it claims nothing
	// Heard says whether a route is heard from another node for all of a block of the pool, but not for the whole pool, and
	// from which; nil: nothing is heard. Such a block is not claimed.
	Heard func(pool, block netip.Prefix) (holder string, heard bool)
	// Drained is the request to drain this node that its own disk knows of, if it knows of one: a store that has lost the
	// node's record gets it with that; nil: there is none.
	Drained func() (d Drain, ok bool)
}

// Cluster is this node's part in the cluster. It is safe for concurrent use.
type Cluster struct {
	cfg   Config
	log   *slog.Logger
	cache *cache

	wakeKeeper    chan struct{}  // own records may have to be written
	wakeReconcile chan struct{}  // blocks or addresses of this node, or its fence, may have changed
	relist        chan relisting // list everything again

	following atomic.Bool // the cache is kept by Run

	keeper keeper  // of the goroutine that keeps this node's records
	claims *claims // of what this node claims

	mu         sync.Mutex
	self       Node // as it should be in the store, without ID and Joined
	containers int
	session    string // of this run
	since      time.Time
	former     []string // sessions of earlier runs
	aliveAt    uint64   // revision of what this run wrote last as Alive
	saved      saved
	health     Health // Fenced, NewerSchema and Unreadable are made when asked for
}

// New makes a Cluster that does nothing yet.
func New(cfg Config) *Cluster {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	return &Cluster{
		cfg: cfg, log: cfg.Log, cache: newCache(), self: cfg.Self,
		wakeKeeper: make(chan struct{}, 1), wakeReconcile: make(chan struct{}, 1), relist: make(chan relisting, 1),
		claims: newClaims(),
	}
}

// startPatience is how long Start waits for the store.
const startPatience = 1500 * time.Millisecond

// Start reads who this node is, and registers it. A *NameTakenError says that it cannot join under its name. A store that
// does not answer is no error: Run goes on trying, and what runs goes on. Nor is being fenced; see Health.
func (c *Cluster) Start(ctx context.Context) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	first, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	if _, err := c.list(first, false); err != nil {
		c.log.Warn("cannot read the store; going on with what this node has", slog.Any("err", err))
		return ctx.Err()
	}
	if err := c.keepOnce(ctx); err != nil {
		return err
	}
	if _, err := c.list(ctx, false); err != nil { // with what was just written
		c.log.Warn("cannot read the store; going on with what this node has", slog.Any("err", err))
	}
	return ctx.Err()
}

// Run keeps the cache and this node's records until the context ends. It leaves the records as they are; that the node is
// alive is forgotten after some seconds. A *NameTakenError says that another agent was there first under this name or
// with this identity, which Start could not tell.
func (c *Cluster) Run(ctx context.Context) (err error) {
	c.following.Store(true)
	// How far the store was, for the next run to know whether it has gone back.
	defer func() { err = errors.Join(err, c.saveRevision(context.WithoutCancel(ctx))) }()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.follow(ctx) })
	g.Go(func() error { return c.probe(ctx) })
	g.Go(func() error { return c.keep(ctx) })
	g.Go(func() error { return c.keepLedger(ctx) })
	return g.Wait()
}

// mine says whether an ID is this node's.
func (c *Cluster) mine(id string) bool { return id != "" && id == c.ID() }

// Name is this node's name.
func (c *Cluster) Name() string { return c.cfg.Self.Name }

// ID is this node's ID; "" before Start.
func (c *Cluster) ID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.saved.ID
}

// View is what the cache holds now; it is not changed any more.
func (c *Cluster) View() *View { return c.cache.view() }

// wake asks for a run of what waits on the channel; one that is asked for already is enough.
func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// catchUp bounds the wait for the cache to have what this node has written.
const catchUp = time.Second

// commit writes a transaction, and returns once the cache has it, or after catchUp. While the store is known to be
// unreachable it fails at once: the probe finds out when it is back. An error wraps store.ErrConflict (nothing was
// written) or store.ErrUnreachable (nobody knows), or is the store's own word.
func (c *Cluster) commit(ctx context.Context, t store.Txn) (uint64, error) {
	if err := c.unreachable(); err != nil {
		return 0, err
	}
	rev, err := c.cfg.Store.Commit(ctx, t)
	if err := c.heard(err); err != nil {
		return 0, err
	}
	if c.following.Load() {
		c.cache.until(rev, ctx.Done())
	}
	return rev, nil
}
