package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/cluster"
	"fairway/internal/config"
	"fairway/internal/fabric"
	"fairway/internal/fabric/store"
	"fairway/internal/kernel"
	"fairway/internal/rib"
)

var _ fabric.Fabric = (*store.Fabric)(nil)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func adr(s string) netip.Addr   { return netip.MustParseAddr(s) }

// records is what a cluster would say, made by hand.
type records struct {
	mu     sync.Mutex
	now    time.Time
	view   cluster.View
	health cluster.Health
	set    []cluster.Route // what was last written
	err    error           // of writing
}

func (r *records) View() *cluster.View {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.view
	v.Routes, v.Alive, v.Nodes = maps.Clone(v.Routes), maps.Clone(v.Alive), maps.Clone(v.Nodes)
	v.Drains, v.Tombstones = maps.Clone(v.Drains), maps.Clone(v.Tombstones)
	return &v
}

func (r *records) Health() cluster.Health {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.health
}

func (r *records) SetRoutes(_ context.Context, want []cluster.Route) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.set = slices.Clone(want)
	}
	return r.err
}

func (r *records) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

// rig is a fabric of node h1 over records of h1 to h4, which are alive and have dual addresses, but for h4 without IPv6.
type rig struct {
	*records
	t      *testing.T
	table  *rib.Table
	fabric *store.Fabric
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, table: rib.New(nil), records: &records{now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}}
	r.view = cluster.View{
		Complete: true, Revision: 100, Nodes: map[string]cluster.Entry[cluster.Node]{}, Alive: map[string]cluster.Entry[cluster.Alive]{},
		Routes: map[cluster.RouteKey]cluster.Entry[cluster.Route]{}, Drains: map[string]cluster.Entry[cluster.Drain]{},
		Tombstones: map[string]cluster.Entry[cluster.Tombstone]{},
	}
	r.health = cluster.Health{Reachable: true, Since: r.now}
	for i := 1; i <= 4; i++ {
		n := cluster.Node{Name: fmt.Sprintf("h%d", i), ID: fmt.Sprintf("id%d", i), Addr4: adr(fmt.Sprintf("10.77.0.1%d", i))}
		if i < 4 {
			n.Addr6 = adr(fmt.Sprintf("fd77::1%d", i))
		}
		r.view.Nodes[n.Name] = cluster.Entry[cluster.Node]{Value: n}
		r.view.Alive[n.Name] = cluster.Entry[cluster.Alive]{}
	}
	r.fabric = store.New(store.Config{Node: "h1", Cluster: r, RIB: r.table, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: r.clock})
	return r
}

// route adds routes ("h2 10.9.2.0/26"), and drop takes them away.
func (r *rig) route(lines ...string) {
	for _, l := range lines {
		node, prefix, _ := strings.Cut(l, " ")
		r.view.Routes[cluster.RouteKey{Node: node, Prefix: pfx(prefix)}] = cluster.Entry[cluster.Route]{Value: cluster.Route{Prefix: pfx(prefix), Node: node}}
	}
	r.view.Revision++
}

func (r *rig) drop(lines ...string) {
	for _, l := range lines {
		node, prefix, _ := strings.Cut(l, " ")
		delete(r.view.Routes, cluster.RouteKey{Node: node, Prefix: pfx(prefix)})
	}
	r.view.Revision++
}

// after lets time pass, and hears.
func (r *rig) after(d time.Duration) {
	r.t.Helper()
	r.mu.Lock()
	r.now = r.now.Add(d)
	r.mu.Unlock()
	if err := r.fabric.Update(r.t.Context(), config.Default(), kernel.Facts{}); err != nil {
		r.t.Fatal(err)
	}
}

// has compares the rib's routes, "10.9.2.0/26 h2 via 10.77.0.12" each.
func (r *rig) has(what string, want ...string) {
	r.t.Helper()
	var got []string
	for prefix, route := range r.table.Snapshot() {
		for _, p := range route.Paths {
			got = append(got, fmt.Sprintf("%s %s via %s", prefix, p.Peer, p.NextHop))
		}
	}
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		r.t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func TestHear(t *testing.T) {
	r := newRig(t)
	r.route("h1 10.9.1.0/26", "h2 10.9.2.0/26", "h3 10.9.200.7/32", "h2 fd09:2::/122", "h4 fd09:4::/122", "h3 0.0.0.0/0", "h9 10.9.9.0/26")
	r.after(0)
	r.has("own, default routes, strangers and IPv6 over IPv4 are left out",
		"10.9.2.0/26 h2 via 10.77.0.12", "10.9.200.7/32 h3 via 10.77.0.13", "fd09:2::/122 h2 via fd77::12")
	if !r.fabric.Status().Converged {
		// h9 has a route and is not alive.
		r.after(time.Minute)
	}
	if !r.fabric.Status().Converged {
		t.Error("not converged after a minute")
	}
	n := r.view.Nodes["h2"]
	n.Value.Addr4 = adr("10.77.0.99")
	r.view.Nodes["h2"] = n
	r.drop("h3 10.9.200.7/32", "h2 fd09:2::/122")
	r.after(time.Second)
	r.has("another address", "10.9.2.0/26 h2 via 10.77.0.99")
}

func TestConflict(t *testing.T) {
	r := newRig(t)
	r.route("h2 10.9.200.7/32", "h3 10.9.200.7/32")
	r.after(0)
	all := r.table.Conflicts()
	if len(all) != 1 || all[0].Prefix != pfx("10.9.200.7/32") || len(all[0].Paths) != 2 {
		t.Errorf("conflicts %+v", all)
	}
}

// A dead node's routes go at once; those of a node that nobody can hear of stay.
func TestLiveness(t *testing.T) {
	r := newRig(t)
	r.route("h2 10.9.2.0/26", "h3 10.9.3.0/26")
	both := []string{"10.9.2.0/26 h2 via 10.77.0.12", "10.9.3.0/26 h3 via 10.77.0.13"}
	r.after(time.Minute)
	r.after(time.Minute)
	r.has("start", both...)

	alive := r.view.Alive["h2"]
	delete(r.view.Alive, "h2")
	r.after(time.Second)
	r.has("h2 is dead", both[1])
	r.view.Alive["h2"] = alive
	r.after(time.Second)
	r.has("h2 is back", both...)

	r.health.Reachable, r.health.Since = false, r.now
	r.view.Alive = map[string]cluster.Entry[cluster.Alive]{}
	r.drop("h2 10.9.2.0/26")
	r.after(time.Hour)
	r.has("the store is away", both...)

	r.route("h2 10.9.2.0/26")
	r.health.Reachable, r.health.Since = true, r.now
	r.after(time.Second)
	r.has("it is back, and the others have yet to say so", both...)
	r.view.Alive["h3"] = alive
	r.after(5 * time.Second)
	r.has("one has", both...)
	r.after(30 * time.Second)
	r.has("the other had time enough", both[1])

	r.view.Complete = false
	r.view.Routes = map[cluster.RouteKey]cluster.Entry[cluster.Route]{}
	r.after(time.Minute)
	r.has("records that are not all there", both[1])
}

// Who starts when another is not alive leaves what the kernel has of an earlier run alone for a while.
func TestConvergedAtStart(t *testing.T) {
	r := newRig(t)
	if r.after(0); !r.fabric.Status().Converged {
		t.Error("not converged, and there is nobody to wait for")
	}
	r = newRig(t)
	r.route("h2 10.9.2.0/26")
	delete(r.view.Alive, "h2")
	if r.after(0); r.fabric.Status().Converged {
		t.Error("converged, and h2 may be starting as well")
	}
	if r.after(time.Minute); !r.fabric.Status().Converged {
		t.Error("not converged after a minute")
	}
	r.has("nothing", nil...)
}

// An older copy in the store's place: what it lacks stays until its node has written it again, or could have.
func TestRestored(t *testing.T) {
	r := newRig(t)
	all := []string{"h2 10.9.2.0/26", "h2 10.9.200.2/32", "h3 10.9.3.0/26", "h3 10.9.200.3/32", "h4 10.9.4.0/26"}
	r.route(all...)
	r.after(time.Minute)
	r.after(time.Minute)

	r.drop(all...)
	r.view.Revision = 50
	delete(r.view.Alive, "h2") // its lease is lost as well
	alive := r.view.Alive["h3"]
	r.after(time.Second)
	h2 := []string{"10.9.2.0/26 h2 via 10.77.0.12", "10.9.200.2/32 h2 via 10.77.0.12"}
	h3 := []string{"10.9.200.3/32 h3 via 10.77.0.13", "10.9.3.0/26 h3 via 10.77.0.13"}
	h4 := "10.9.4.0/26 h4 via 10.77.0.14"
	r.has("all vanished", h2[0], h2[1], h3[0], h3[1], h4)

	r.route("h2 10.9.2.0/26", "h2 10.9.200.2/32", "h4 10.9.200.3/32")
	r.view.Alive["h2"] = alive
	r.after(time.Second)
	r.has("one has written again, and an address is elsewhere", h2[0], h2[1], "10.9.200.3/32 h4 via 10.77.0.14", h3[1], h4)

	r.drop("h2 10.9.200.2/32")
	r.after(time.Second)
	r.has("withdrawn after it was written again", h2[0], "10.9.200.3/32 h4 via 10.77.0.14", h3[1], h4)

	r.view.Tombstones["id4"] = cluster.Entry[cluster.Tombstone]{}
	r.after(time.Second)
	r.has("removed meanwhile", h2[0], "10.9.200.3/32 h4 via 10.77.0.14", h3[1])

	r.after(time.Minute)
	r.has("h3 never did", h2[0], "10.9.200.3/32 h4 via 10.77.0.14")
}

// A node that is drained is passed over where there is another way.
func TestDrained(t *testing.T) {
	r := newRig(t)
	r.route("h2 192.0.2.0/24", "h3 192.0.2.0/24", "h2 10.9.2.0/26")
	r.view.Drains["h2"] = cluster.Entry[cluster.Drain]{}
	r.after(0)
	r.has("one of two", "10.9.2.0/26 h2 via 10.77.0.12", "192.0.2.0/24 h3 via 10.77.0.13")
	r.view.Drains["h3"] = cluster.Entry[cluster.Drain]{}
	r.after(0)
	if got := len(r.table.Snapshot()[pfx("192.0.2.0/24")].Paths); got != 1 {
		t.Errorf("both drained: %d ways, want one", got)
	}
}

// What is announced is written whole, also after the store was away, and nobody waits for a store that is.
func TestWrite(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.fabric.Run(ctx) }()
	announce := func(prefixes ...string) time.Duration {
		want := map[netip.Prefix]fabric.Announcement{}
		for _, p := range prefixes {
			want[pfx(p)] = fabric.Announcement{Kind: "block"}
		}
		start := time.Now()
		if err := r.fabric.Announce(ctx, want); err != nil {
			t.Fatal(err)
		}
		return time.Since(start)
	}
	wrote := func(what string, want ...string) {
		t.Helper()
		eventually(t, what, func() error {
			r.mu.Lock()
			defer r.mu.Unlock()
			var got []string
			for _, x := range r.set {
				got = append(got, x.Node+" "+x.Prefix.String()+" "+x.Kind)
			}
			if !slices.Equal(got, want) {
				return fmt.Errorf("%v, want %v", got, want)
			}
			return nil
		})
	}
	announce("10.9.1.0/26", "10.9.0.0/26")
	wrote("two", "h1 10.9.0.0/26 block", "h1 10.9.1.0/26 block")
	announce("10.9.1.0/26")
	r.mu.Lock()
	if len(r.set) != 1 {
		t.Errorf("Announce came back with %v in the store", r.set)
	}
	r.health.Reachable = false
	r.mu.Unlock()
	if took := announce(); took > 200*time.Millisecond {
		t.Errorf("Announce waited %v for a store that is away", took)
	}
	r.mu.Lock()
	r.health.Reachable, r.err = true, fmt.Errorf("no")
	r.mu.Unlock()
	if took := announce("10.9.2.0/26"); took > 2*time.Second {
		t.Errorf("Announce waited %v for a store that refuses", took)
	}
	r.mu.Lock()
	r.err = nil
	r.mu.Unlock()
	wrote("it is tried again", "h1 10.9.2.0/26 block")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	wrote("after the end", "h1 10.9.2.0/26 block")
}

func eventually(tb testing.TB, what string, cond func() error) {
	tb.Helper()
	start := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Since(start) > 30*time.Second {
			tb.Fatalf("%s: %v", what, err)
		}
		<-tick.C
	}
}
