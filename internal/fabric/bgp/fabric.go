package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"fairway/internal/config"
	"fairway/internal/fabric"
	"fairway/internal/kernel"
	"fairway/internal/rib"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// Config is what a Fabric needs. All fields up to Log are required.
type Config struct {
	// Node and Node6 are the node's addresses; one of them may be zero. Node is the router ID unless the config has one,
	// and both are next hops where a session's own address is of the wrong family.
	Node, Node6 netip.Addr
	Cfg         *config.Config
	RIB         *rib.Table
	Log         *slog.Logger
	// Restarting says that the kernel still forwards for routes of an earlier run: peers are told to keep our routes until
	// we have told them all again (RFC 4724, the restart and forwarding bits).
	Restarting bool
	// Facts are what is known of the links at the start; without links nothing is concluded from them.
	Facts kernel.Facts
	// Changed, if set, is called when Converged turns true and when a session comes up or ends. It must not block, nor call
	// the Fabric.
	Changed func()
	// Now is the clock of listings and retries; nil is time.Now.
	Now func() time.Time
}

// Fabric is one BGP speaker. It is safe for concurrent use.
type Fabric struct {
	log        *slog.Logger
	rib        *rib.Table
	now        func() time.Time
	changed    func()
	node       netip.Addr
	node6      netip.Addr
	routerID   netip.Addr
	asn        uint32 // as long as the process lives, like multipath: see RestartKeys
	multipath  bool
	restarting bool
	queue      *queue
	learned    *learned
	first      chan struct{} // closed by the first Announce
	firstOnce  sync.Once
	changes    atomic.Uint64 // counts whatever may change what peers are told or have told; for Status

	mu        sync.Mutex
	cfg       *config.Config
	facts     kernel.Facts
	pools     []netip.Prefix    // of networks
	mesh      []fabric.MeshPeer // besides the peers of the config
	want      map[netip.Prefix]fabric.Announcement
	told      map[netip.Prefix]bool    // what GoBGP has; true: as about to be withdrawn
	tells     uint64                   // counts changes of told
	gone      map[netip.Prefix]uint64  // withdrawn a moment ago, with tells of then
	sessions  map[string]*session      // by the peer's name
	callers   map[netip.Addr]time.Time // from ranges of the config: when there last was a session
	closing   map[netip.Addr]*api.Peer // being taken out of GoBGP
	server    *server.BgpServer        // nil: not running
	policy    policy                   // what GoBGP has
	bfd       *bfd
	adverts   *advertiser
	trouble   string    // what is wrong with unnumbered sessions as such
	deadline  time.Time // convergence is waited for no longer
	converged bool

	countMu sync.Mutex
	counts  map[string]counted // by the peer's address
}

// New checks the settings and makes a Fabric; all work is done by Run.
func New(c Config) (*Fabric, error) {
	rid := c.Cfg.BGP.RouterID
	if !rid.IsValid() {
		rid = c.Node
	}
	if !rid.Is4() || rid.IsUnspecified() {
		return nil, fmt.Errorf("choose router ID: the node's address %v is no IPv4 address: set bgp.routerID to one that no other node has", c.Node)
	}
	f := &Fabric{
		log: c.Log, rib: c.RIB, now: c.Now, changed: c.Changed,
		node: c.Node, node6: c.Node6, routerID: rid,
		asn: c.Cfg.BGP.ASN, multipath: c.Cfg.BGP.Multipath, restarting: c.Restarting,
		cfg: c.Cfg, facts: c.Facts,
		queue: newQueue(), learned: newLearned(c.RIB), first: make(chan struct{}),
		want: map[netip.Prefix]fabric.Announcement{}, told: map[netip.Prefix]bool{}, gone: map[netip.Prefix]uint64{},
		sessions: map[string]*session{}, callers: map[netip.Addr]time.Time{}, closing: map[netip.Addr]*api.Peer{}, counts: map[string]counted{},
	}
	if f.now == nil {
		f.now = time.Now
	}
	if f.changed == nil {
		f.changed = func() {}
	}
	f.learned.own = slices.DeleteFunc([]netip.Addr{c.Node, c.Node6}, func(a netip.Addr) bool { return !a.IsValid() })
	return f, nil
}

// RestartKeys returns the keys of the config whose change the Fabric does not take up before the agent is restarted.
func RestartKeys(old, now *config.Config) []string {
	var keys []string
	for _, k := range []struct {
		key  string
		same bool
	}{
		{"bgp.asn", old.BGP.ASN == now.BGP.ASN},
		{"bgp.routerID", old.BGP.RouterID == now.BGP.RouterID},
		{"bgp.listen", old.BGP.Listen == now.BGP.Listen},
		{"bgp.multipath", old.BGP.Multipath == now.BGP.Multipath},
	} {
		if !k.same {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// Run opens the sessions and works until the context ends; then it closes them without a NOTIFICATION, so that peers which
// do graceful restart keep our routes, and returns within a second. Sessions are opened only once Announce was called: a
// peer that hears End-of-RIB before our routes drops those it kept for us. After an error, which is one of starting, it may
// be called again.
func (f *Fabric) Run(ctx context.Context) error {
	select {
	case <-f.first:
	case <-ctx.Done():
		return nil
	}
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	defer unwatch()
	if err := f.start(watching); err != nil {
		return err
	}
	f.work(ctx)
	unwatch() // what the end of the sessions withdraws must not reach the rib
	f.stop()
	return nil
}

// Announce makes what GoBGP tells to peers agree with want. What is no longer wanted is withdrawn before anything is added.
func (f *Fabric) Announce(_ context.Context, want map[netip.Prefix]fabric.Announcement) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.want = maps.Clone(want)
	err := f.tell()
	f.firstOnce.Do(func() { close(f.first) })
	return err
}

// Update takes up a new config and new facts. What is heard over a link without carrier is out of the rib when it returns.
func (f *Fabric) Update(_ context.Context, cfg *config.Config, facts kernel.Facts) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cfg, f.facts = cfg, facts
	return f.sync()
}

// SetPools says which prefixes the node's networks use; routes inside them are taken from peers, like those inside the
// config's pools.
func (f *Fabric) SetPools(pools []netip.Prefix) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pools = slices.Clone(pools)
	return f.sync()
}

// SetMesh says which peers there are besides those of the config. A peer that comes or goes changes no other's session.
func (f *Fabric) SetMesh(peers []fabric.MeshPeer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Equal(f.mesh, peers) {
		return nil
	}
	f.mesh = slices.Clone(peers)
	return f.sync()
}

// sync makes GoBGP's policies and peers agree with the config and the facts. f.mu is held.
func (f *Fabric) sync() error {
	f.list()
	for _, s := range f.sessions {
		f.check(s)
	}
	if f.server == nil {
		return nil
	}
	for addr := range f.closing {
		f.finish(addr)
	}
	errs := []error{f.applyPolicy()}
	for _, name := range slices.Sorted(maps.Keys(f.sessions)) {
		errs = append(errs, f.apply(f.sessions[name]))
	}
	f.advertise()
	f.converge()
	return errors.Join(errs...)
}

// work handles what peers say and what time brings, until the context ends.
func (f *Fabric) work(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for seconds := 1; ; {
		select {
		case <-ctx.Done():
			return
		case <-f.queue.wake:
			f.handle(f.queue.take())
		case <-tick.C:
			f.retry(seconds%recount == 0)
			seconds++
		}
	}
}

// retry lets sessions whose waiting time is over try again, and counts prefixes.
func (f *Fabric) retry(countAll bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limit(countAll)
	f.resolveDoubts()
	f.forgetCallers()
	f.unstick()
	if err := errors.Join(f.sync(), f.sendAgain()); err != nil {
		f.log.Debug("sync peers", slog.Any("err", err))
	}
}
