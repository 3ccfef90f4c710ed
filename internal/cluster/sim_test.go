package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"fairway/internal/cluster"
	"fairway/internal/cnm"
	"fairway/internal/ipam"
	"fairway/internal/store"
	"fairway/internal/store/etcdtest"
)

// full says whether the simulations are to have the size that the figures in the documentation are of.
func full() bool { return os.Getenv("FAIRWAY_TEST_FULL") == "1" }

func sized[V any](short, long V) V {
	if full() {
		return long
	}
	return short
}

// network does what the engine does for docker network create; the same again changes nothing.
func (n *node) network(ctx context.Context) error {
	snap := n.book.Snapshot()
	if len(snap.Networks) > 0 {
		return nil
	}
	for _, p := range snap.Pools { // what a run left that died in the middle
		if err := n.book.DropPool(ctx, p.ID); err != nil {
			return err
		}
	}
	pool, cidr, err := n.book.RequestPool(ctx, cnm.PoolRequest{Space: "local", Pool: n.w.pool})
	if err != nil {
		return err
	}
	gw, err := n.book.RequestAddress(ctx, cnm.AddressRequest{Pool: pool, Gateway: true})
	if err != nil {
		return err
	}
	return n.book.CreateNetwork(ctx, cnm.NetworkRequest{
		ID: "net-" + n.name, Options: map[string]string{"staticRange": n.w.static.String()},
		IPv4: []cnm.SubnetRequest{{Prefix: cidr, Gateway: gw.Addr(), Space: "local"}},
	})
}

func (n *node) poolID() string {
	for _, p := range n.book.Snapshot().Pools {
		return p.ID
	}
	return ""
}

// ask has a container started: with an address of its choice, or one that the node chooses.
func (n *node) ask(ctx context.Context, addr netip.Addr) error {
	pool := n.poolID()
	got, err := n.book.RequestAddress(ctx, cnm.AddressRequest{Pool: pool, Addr: addr})
	if err != nil {
		n.w.tally.refused.Add(1)
		return err
	}
	n.w.tally.answers.Add(1)
	n.w.mu.Lock()
	who, taken := n.w.held[got.Addr()]
	if !taken {
		n.w.held[got.Addr()] = n.name
	}
	n.w.mu.Unlock()
	switch {
	case taken && who != n.name:
		n.w.t.Errorf("%v was given out by %s, and %s has it", got.Addr(), n.name, who)
	case taken: // an address asked for that no endpoint has yet is given again
	}
	_, err = n.book.CreateEndpoint(ctx, cnm.EndpointRequest{Network: "net-" + n.name, ID: endpointID(n, got.Addr()), Addr4: got})
	return err
}

func endpointID(n *node, a netip.Addr) string {
	b := a.As4()
	return fmt.Sprintf("%x%s%s", b[2:], "ffff0000", n.name)
}

// end ends a container.
func (n *node) end(ctx context.Context, a netip.Addr) error {
	if err := n.book.DeleteEndpoint(ctx, "net-"+n.name, endpointID(n, a)); err != nil {
		return err
	}
	n.w.mu.Lock()
	if n.w.held[a] == n.name {
		delete(n.w.held, a)
	}
	n.w.mu.Unlock()
	return n.book.ReleaseAddress(ctx, n.poolID(), a)
}

// tidy ends, after a crash, what the engine never heard of.
func (w *world) tidy(ctx context.Context, n *node) {
	for _, h := range n.book.Holdings() {
		if h.State != ipam.StateHeld || h.Kind != ipam.KindEndpoint {
			continue
		}
		w.mu.Lock()
		ours := w.held[h.Addr] == n.name
		w.mu.Unlock()
		if _, alive := n.book.Endpoint(h.Endpoint); ours && alive {
			continue
		}
		_ = n.end(ctx, h.Addr) // it may die again
	}
}

func (n *node) containers() []netip.Addr {
	var out []netip.Addr
	for _, h := range n.book.Holdings() {
		if h.State == ipam.StateHeld && h.Kind == ipam.KindEndpoint {
			out = append(out, h.Addr)
		}
	}
	return out
}

// pause is what a user does after a refusal.
func pause(err error) {
	if err != nil {
		<-time.After(3 * time.Millisecond)
	}
}

// live does on a node what users do, until the time is over.
func (n *node) live(ctx context.Context, until time.Time) {
	explicit := n.w.static.Addr()
	for time.Now().Before(until) && ctx.Err() == nil {
		n.revive(ctx)
		if err := n.network(ctx); err != nil {
			<-time.After(10 * time.Millisecond) // the store is away
			continue
		}
		have := n.containers()
		switch dice := n.rng.IntN(100); {
		case dice < 45 && len(have) < 20:
			pause(n.ask(ctx, netip.Addr{}))
		case dice < 60:
			a := explicit
			for range 1 + n.rng.IntN(20) {
				a = a.Next()
			}
			pause(n.ask(ctx, a))
		case dice < 97 && len(have) > 3:
			_ = n.end(ctx, have[n.rng.IntN(len(have))])
		case dice < 99:
			for range 2 { // minutes later, what is empty goes back
				n.skew.Add(int64(6 * time.Minute))
				_ = n.book.ReturnEmpty(ctx)
			}
		case n.rng.IntN(20) == 0:
			for _, a := range have {
				_ = n.end(ctx, a)
			}
			if len(n.containers()) == 0 {
				_ = n.book.DeleteNetwork(ctx, "net-"+n.name)
				_ = n.book.ReleasePool(ctx, n.poolID())
			}
		}
	}
	n.revive(ctx)
}

// settled waits until each node's book and the store say the same, and then looks at all of it.
func (w *world) settled(ctx context.Context) {
	w.t.Helper()
	w.faults.crash.Store(0)
	w.faults.lost.Store(0)
	w.late.Wait()
	w.each(func(n *node) { n.revive(ctx); w.tidy(ctx, n) })
	deadline := time.Now().Add(90 * time.Second)
	for {
		odd := w.odd(ctx)
		if len(odd) == 0 {
			break
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("store and nodes do not agree:\n%s", strings.Join(odd[:min(len(odd), 20)], "\n"))
		}
		<-time.After(100 * time.Millisecond)
	}
	w.audit()
}

// odd lists what the store and the nodes say differently.
func (w *world) odd(ctx context.Context) []string {
	var out []string
	listing, err := w.stores[0].List(ctx, "v1/")
	if err != nil {
		return []string{err.Error()}
	}
	owner := map[string]string{} // key -> node
	for _, r := range listing.Records {
		switch {
		case strings.HasPrefix(r.Key, "v1/block/"):
			b, err := cluster.Decode[cluster.Block](r.Key, r.Value)
			if err != nil {
				w.t.Error(err)
			}
			owner[r.Key] = b.Node
		case strings.HasPrefix(r.Key, "v1/address/"):
			a, err := cluster.Decode[cluster.Address](r.Key, r.Value)
			if err != nil {
				w.t.Error(err)
			}
			owner[r.Key] = a.Node
		}
	}
	claimed := map[string]string{}
	for _, n := range w.nodes {
		for _, k := range n.book.Claims() {
			switch {
			case k.Releasing, k.Pending:
				out = append(out, fmt.Sprintf("%s gives %s back", n.name, k.Key()))
			case k.Fenced != "":
				out = append(out, fmt.Sprintf("%s: %s is fenced: %s", n.name, k.Key(), k.Fenced))
			case owner[k.Key()] != n.name:
				out = append(out, fmt.Sprintf("%s has %s, and the store says %q", n.name, k.Key(), owner[k.Key()]))
			case claimed[k.Key()] != "":
				out = append(out, fmt.Sprintf("%s and %s have %s", n.name, claimed[k.Key()], k.Key()))
			}
			claimed[k.Key()] = n.name
		}
	}
	for key, n := range owner {
		if claimed[key] != n {
			out = append(out, fmt.Sprintf("the store says that %s has %s, which it does not know", n, key))
		}
	}
	slices.Sort(out)
	return out
}

// audit looks at the addresses: each is held once, in a block or by a record of its own.
func (w *world) audit() {
	w.t.Helper()
	held := map[netip.Addr]string{}
	for _, n := range w.nodes {
		blocks := map[netip.Prefix]bool{}
		for _, k := range n.book.Claims() {
			blocks[k.Block] = true
			if k.Addr.IsValid() {
				blocks[netip.PrefixFrom(k.Addr, 32)] = true
			}
		}
		for _, h := range n.book.Holdings() {
			if h.State != ipam.StateHeld || h.Kind != ipam.KindEndpoint {
				continue
			}
			if who := held[h.Addr]; who != "" {
				w.t.Errorf("%s and %s hold %v", who, n.name, h.Addr)
			}
			held[h.Addr] = n.name
			if !slices.ContainsFunc(slices.Collect(maps.Keys(blocks)), func(p netip.Prefix) bool { return p.IsValid() && p.Contains(h.Addr) }) {
				w.t.Errorf("%s holds %v, of which it has no block", n.name, h.Addr)
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for a, n := range w.held {
		if held[a] != n {
			w.t.Errorf("the container with %v on %s has lost it to %q", a, n, held[a])
		}
	}
}

func (w *world) report(what string, took time.Duration) {
	y := &w.tally
	blocks, claims := 0, max(1, y.claims.Load())
	for _, n := range w.nodes {
		for _, k := range n.book.Claims() {
			if k.Block.IsValid() {
				blocks++
			}
		}
	}
	w.mu.Lock()
	slices.Sort(w.took)
	half, most := time.Duration(0), time.Duration(0)
	if n := len(w.took); n > 0 {
		half, most = w.took[n/2], w.took[n*99/100]
	}
	w.mu.Unlock()
	w.t.Logf("a block claimed within %v (median), %v (99 of 100)", half.Round(100*time.Microsecond), most.Round(100*time.Microsecond))
	w.t.Logf("%s: %d nodes, %v: %d blocks held; %d claims written, %d conflicts, %d releases, %d reads: %.2f etcd operations a claim; %d answers, %d refusals; %d crashes, %d lost answers (%d applied late)",
		what, len(w.nodes), took.Round(time.Millisecond), blocks, y.claims.Load(), y.conflicts.Load(), y.releases.Load(), y.reads.Load(),
		float64(y.claims.Load()+y.conflicts.Load()+y.reads.Load())/float64(claims), y.answers.Load(), y.refused.Load(), y.crashes.Load(), y.lost.Load(), y.late.Load())
}

// ready waits until each node is registered and has its network.
func (w *world) ready() {
	w.each(func(n *node) {
		for !n.cluster.Health().Registered {
			<-time.After(10 * time.Millisecond)
		}
		if err := n.network(w.t.Context()); err != nil {
			w.t.Error(err)
		}
	})
}

// fill has each node start containers until it has so many blocks.
func (w *world) fill(ctx context.Context, blocks int) {
	w.each(func(n *node) {
		for ctx.Err() == nil && !w.t.Failed() {
			n.revive(ctx)
			if err := n.network(ctx); err != nil {
				continue
			}
			if len(n.book.Snapshot().Blocks) >= blocks {
				return
			}
			err := n.ask(ctx, netip.Addr{})
			switch {
			case err == nil:
			case errors.Is(err, cluster.ErrNoBlock):
				return // others, who claimed ahead of their need, have the last ones
			case errors.Is(err, errDead), errors.Is(err, errLost), errors.Is(err, store.ErrUnreachable):
				<-time.After(20 * time.Millisecond) // as an engine's user does
			default:
				w.t.Errorf("%s: %v", n.name, err)
				return
			}
		}
	})
}

// All nodes claim their blocks at once, of a pool that is nearly full in the end.
func TestClaimsAtOnce(t *testing.T) {
	srv := etcdtest.Start(t)
	nodes := sized(12, 100)
	for _, crashes := range []bool{false, true} {
		t.Run(map[bool]string{false: "quiet", true: "crashes"}[crashes], func(t *testing.T) {
			srv.Ctl("del", "--prefix", "")
			// Of the blocks of four addresses, all but a few are claimed in the end; crashes cost some more.
			pool, static := sized("10.9.0.0/23", "10.9.0.0/20"), sized("10.9.1.224/27", "10.9.15.224/27")
			if crashes {
				pool = sized("10.9.0.0/22", "10.9.0.0/19")
			}
			w := newWorld(t, srv.Endpoint(), nodes, pool, static)
			w.ready()
			if crashes {
				w.faults.crash.Store(15)
				w.faults.lost.Store(50)
			}
			start := time.Now()
			w.fill(t.Context(), sized(9, 10))
			w.report("claims at once", time.Since(start))
			w.settled(t.Context())
			w.report("settled", time.Since(start))
			if crashes && (w.tally.crashes.Load() == 0 || w.tally.lost.Load() == 0) {
				t.Errorf("nothing went wrong: %d crashes, %d lost answers", w.tally.crashes.Load(), w.tally.lost.Load())
			}
		})
	}
}

// Containers come, go and move, networks come and go, agents die at every step, and answers get lost.
func TestLifeWithCrashes(t *testing.T) {
	srv := etcdtest.Start(t)
	w := newWorld(t, srv.Endpoint(), sized(10, 100), "10.9.0.0/21", "10.9.7.0/24")
	w.faults.crash.Store(10)
	w.faults.lost.Store(60)
	start := time.Now()
	w.each(func(n *node) { n.live(t.Context(), start.Add(sized(4*time.Second, time.Minute))) })
	w.settled(t.Context())
	w.report("life with crashes", time.Since(start))
}

// The store is killed under load, and comes back.
func TestStoreKilled(t *testing.T) {
	srv := etcdtest.Start(t)
	w := newWorld(t, srv.Endpoint(), sized(6, 50), "10.9.0.0/21", "10.9.7.0/24")
	start := time.Now()
	span := sized(4*time.Second, 30*time.Second)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.each(func(n *node) { n.live(t.Context(), start.Add(span)) })
	}()
	<-time.After(span / 4)
	srv.Kill()
	<-time.After(span / 4)
	srv.Start()
	<-done
	w.settled(t.Context())
	w.report("store killed", time.Since(start))
}

// An older copy of the store is put in its place, while containers come and go.
func TestStoreRestored(t *testing.T) {
	srv := etcdtest.Start(t)
	w := newWorld(t, srv.Endpoint(), sized(6, 50), "10.9.0.0/21", "10.9.7.0/24")
	start := time.Now()
	span := sized(6*time.Second, time.Minute)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.each(func(n *node) { n.live(t.Context(), start.Add(span)) })
	}()
	<-time.After(span / 4)
	file := srv.Snapshot()
	<-time.After(span / 4)
	srv.Kill()
	srv.Restore(file, "")
	<-done
	w.settled(t.Context())
	w.report("store restored", time.Since(start))
}

// A node is cut off for a while; it goes on with what it has, and nothing collides afterwards.
func TestPartition(t *testing.T) {
	srv := etcdtest.Start(t)
	w := newWorld(t, srv.Endpoint(), sized(5, 20), "10.9.0.0/21", "10.9.7.0/24")
	w.fill(t.Context(), 1)
	lone := w.nodes[0]
	lone.off.Store(true)
	start := time.Now()
	w.each(func(n *node) { n.live(t.Context(), start.Add(sized(3*time.Second, 20*time.Second))) })
	for lone.cluster.Health().Reachable {
		<-time.After(10 * time.Millisecond)
	}
	before := time.Now()
	err := lone.ask(t.Context(), w.static.Addr().Next())
	if took := time.Since(before); !errors.Is(err, store.ErrUnreachable) || !strings.Contains(err.Error(), "since") || took > 4*time.Second {
		t.Errorf("an address of the static range while cut off: %v, after %v", err, took)
	}
	lone.off.Store(false)
	w.settled(t.Context())
	w.report("partition", time.Since(start))
}

// An older copy of the store knows nothing of what a node claimed since, or has it in another node's name; and that other
// node was cut off, so that it never heard of the claim. It must not get it as long as its owner lives.
func TestOldCopyDoublesNothing(t *testing.T) {
	srv := etcdtest.Start(t)
	w := newWorld(t, srv.Endpoint(), 2, "10.9.0.0/24", "10.9.0.128/25")
	w.ready()
	owner, other := w.nodes[0], w.nodes[1]
	never, once := w.static.Addr().Next(), w.static.Addr().Next().Next()
	ctx := t.Context()
	if err := other.ask(ctx, once); err != nil {
		t.Fatal(err)
	}
	file := srv.Snapshot()
	if err := other.end(ctx, once); err != nil {
		t.Fatal(err)
	}
	other.off.Store(true)
	var block netip.Prefix
	for _, a := range []netip.Addr{never, once, {}} {
		if err := owner.ask(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	block = owner.book.Snapshot().Blocks[0].CIDR
	srv.Restore(file, "")
	other.off.Store(false)
	deadline := time.Now().Add(30 * time.Second)
	for refused := map[netip.Addr]bool{}; len(refused) < 3; {
		for _, a := range []netip.Addr{never, once, block.Addr().Next().Next()} {
			err := other.ask(ctx, a)
			switch {
			case err == nil:
				t.Fatalf("%v was given out twice", a)
			case errors.Is(err, cluster.ErrHeld):
				refused[a] = true
			}
			pause(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("refused for %v only", refused)
		}
	}
	w.settled(ctx)
}
