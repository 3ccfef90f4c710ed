package rib_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"testing"

	"fairway/internal/rib"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var compareAddr = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func adr(s string) netip.Addr   { return netip.MustParseAddr(s) }

// via is a path of a source over a next hop.
func via(src rib.Source, hop string) rib.Path {
	return rib.Path{NextHop: adr(hop), Source: src, Peer: hop}
}

func one(p string, paths ...rib.Path) map[netip.Prefix][]rib.Path {
	return map[netip.Prefix][]rib.Path{pfx(p): paths}
}

func TestBestSource(t *testing.T) {
	static, store, bgp := via(rib.Static, "10.0.0.1"), via(rib.Store, "10.0.0.2"), via(rib.BGP, "10.0.0.3")
	tests := []struct {
		name string
		do   func(*rib.Table)
		want []rib.Path
	}{
		{"nothing", func(*rib.Table) {}, nil},
		{"one source", func(r *rib.Table) { r.Update(rib.BGP, one("10.9.0.0/26", bgp)) }, []rib.Path{bgp}},
		{"static before bgp", func(r *rib.Table) {
			r.Update(rib.Static, one("10.9.0.0/26", static))
			r.Update(rib.BGP, one("10.9.0.0/26", bgp))
		}, []rib.Path{static}},
		{"store after static is gone", func(r *rib.Table) {
			r.Update(rib.Static, one("10.9.0.0/26", static))
			r.Update(rib.BGP, one("10.9.0.0/26", bgp))
			r.Update(rib.Store, one("10.9.0.0/26", store))
			r.Update(rib.Static, one("10.9.0.0/26"))
		}, []rib.Path{store}},
		{"host bits are masked", func(r *rib.Table) { r.Update(rib.BGP, one("10.9.0.7/26", bgp)) }, []rib.Path{bgp}},
		{"replace drops what is not named", func(r *rib.Table) {
			r.Update(rib.BGP, one("10.9.0.0/26", bgp))
			r.Replace(rib.BGP, one("10.9.0.64/26", bgp))
		}, nil},
		{"replace drops what is named without paths", func(r *rib.Table) {
			r.Update(rib.BGP, one("10.9.0.0/26", bgp))
			r.Replace(rib.BGP, one("10.9.0.0/26"))
		}, nil},
		{"replace leaves other sources alone", func(r *rib.Table) {
			r.Update(rib.BGP, one("10.9.0.0/26", bgp))
			r.Replace(rib.Static, nil)
		}, []rib.Path{bgp}},
		{"all paths of the source, sorted", func(r *rib.Table) {
			r.Update(rib.BGP, one("10.9.0.0/26", via(rib.BGP, "10.0.0.9"), bgp))
		}, []rib.Path{bgp, via(rib.BGP, "10.0.0.9")}},
		{"unknown source", func(r *rib.Table) { r.Update(rib.Source(9), one("10.9.0.0/26", bgp)) }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := rib.New(nil)
			tt.do(table)
			got := table.Snapshot()[pfx("10.9.0.0/26")]
			if d := cmp.Diff(tt.want, got.Paths, compareAddr); d != "" {
				t.Errorf("paths (-want +got):\n%s", d)
			}
		})
	}
}

func TestDirtyOnlyOnChange(t *testing.T) {
	calls := 0
	table := rib.New(func() { calls++ })
	p := via(rib.BGP, "10.0.0.1")
	for range 3 {
		table.Update(rib.BGP, one("10.9.0.0/26", p))
		table.Replace(rib.BGP, one("10.9.0.0/26", p))
	}
	if calls != 1 {
		t.Errorf("dirty ran %d times for one change", calls)
	}
	p.Stale = true
	table.Update(rib.BGP, one("10.9.0.0/26", p))
	if calls != 2 {
		t.Errorf("dirty ran %d times, want 2: a path became stale", calls)
	}
	table.Update(rib.BGP, one("10.9.9.0/26"))
	if calls != 2 {
		t.Errorf("dirty ran %d times, want 2: a prefix that was not there is gone", calls)
	}
}

func TestDirtyMayLook(t *testing.T) {
	seen := -1
	var table *rib.Table
	table = rib.New(func() { seen = table.Len() })
	table.Update(rib.BGP, one("10.9.0.0/26", via(rib.BGP, "10.0.0.1")))
	if seen != 1 {
		t.Errorf("dirty saw %d routes, want 1", seen)
	}
}

func TestSnapshotStays(t *testing.T) {
	table := rib.New(nil)
	table.Update(rib.BGP, one("10.9.0.0/26", via(rib.BGP, "10.0.0.1")))
	first := table.Snapshot()
	table.Update(rib.BGP, one("10.9.0.64/26", via(rib.BGP, "10.0.0.2")))
	table.Update(rib.BGP, one("10.9.0.0/26"))
	if len(first) != 1 || first[pfx("10.9.0.0/26")].Paths[0].NextHop != adr("10.0.0.1") {
		t.Errorf("a snapshot changed after it was handed out: %v", first)
	}
	if got := table.Snapshot(); len(got) != 1 || !got[pfx("10.9.0.64/26")].Prefix.IsValid() {
		t.Errorf("the new snapshot is %v", got)
	}
}

func TestCovering(t *testing.T) {
	table := rib.New(nil)
	for _, p := range []string{"0.0.0.0/0", "10.9.0.0/16", "10.9.1.0/26", "10.9.1.5/32", "fd00:9::/48", "fd00:9::7/128"} {
		table.Update(rib.BGP, one(p, via(rib.BGP, "10.0.0.1")))
	}
	tests := []struct{ addr, want string }{
		{"10.9.1.5", "10.9.1.5/32"},
		{"10.9.1.6", "10.9.1.0/26"},
		{"::ffff:10.9.1.6", "10.9.1.0/26"},
		{"10.9.200.1", "10.9.0.0/16"},
		{"192.0.2.1", "0.0.0.0/0"},
		{"fd00:9::7", "fd00:9::7/128"},
		{"fd00:9:0:1::7", "fd00:9::/48"},
		{"2001:db8::1", ""},
	}
	for _, tt := range tests {
		got, ok := table.Covering(adr(tt.addr))
		if tt.want == "" && ok || tt.want != "" && (!ok || got.Prefix != pfx(tt.want)) {
			t.Errorf("Covering(%s) = %v, %v, want %q", tt.addr, got.Prefix, ok, tt.want)
		}
	}
	table.Replace(rib.BGP, nil)
	if got, ok := table.Covering(adr("10.9.1.5")); ok {
		t.Errorf("Covering found %v in an empty table", got.Prefix)
	}
	if _, ok := table.Covering(netip.Addr{}); ok {
		t.Error("Covering found the zero address")
	}
}

func TestWithin(t *testing.T) {
	table := rib.New(nil)
	for _, p := range []string{"10.9.1.64/26", "10.9.1.0/26", "10.9.1.0/24", "10.9.0.0/16", "10.10.0.0/26", "fd00:9::/64"} {
		table.Update(rib.BGP, one(p, via(rib.BGP, "10.0.0.1")))
	}
	var got []string
	for _, r := range table.Within(pfx("10.9.1.0/24")) {
		got = append(got, r.Prefix.String())
	}
	want := []string{"10.9.1.0/24", "10.9.1.0/26", "10.9.1.64/26"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Within (-want +got):\n%s", d)
	}
}

func TestConflicts(t *testing.T) {
	of := func(node, hop string, as uint32) rib.Path {
		p := via(rib.BGP, hop)
		if node != "" {
			p.Node = adr(node)
		}
		p.OriginAS = as
		return p
	}
	tests := []struct {
		name   string
		src    rib.Source
		prefix string
		paths  []rib.Path
		want   int // holders; 0: no conflict
	}{
		{"two nodes", rib.BGP, "10.9.0.5/32", []rib.Path{of("1.1.1.1", "10.0.0.1", 0), of("2.2.2.2", "10.0.0.2", 0)}, 2},
		{"one node by two ways", rib.BGP, "10.9.0.5/32", []rib.Path{of("1.1.1.1", "10.0.0.1", 0), of("1.1.1.1", "10.1.0.1", 0)}, 0},
		{"two nodes, three ways", rib.BGP, "fd00::5/128", []rib.Path{of("1.1.1.1", "10.0.0.1", 0), of("2.2.2.2", "10.0.0.2", 0), of("1.1.1.1", "10.1.0.1", 0)}, 2},
		{"no host prefix", rib.BGP, "10.9.0.0/26", []rib.Path{of("1.1.1.1", "10.0.0.1", 0), of("2.2.2.2", "10.0.0.2", 0)}, 0},
		{"a stranger and a node", rib.BGP, "10.9.0.5/32", []rib.Path{of("1.1.1.1", "10.0.0.1", 0), of("", "10.0.0.1", 65001)}, 2},
		{"one stranger told by two", rib.BGP, "10.9.0.5/32", []rib.Path{
			{NextHop: adr("10.0.0.1"), Source: rib.BGP, Peer: "a", OriginAS: 65001},
			{NextHop: adr("10.0.0.1"), Source: rib.BGP, Peer: "b", OriginAS: 65001},
		}, 0},
		{"static ways", rib.Static, "10.9.0.5/32", []rib.Path{via(rib.Static, "10.0.0.1"), via(rib.Static, "10.0.0.2")}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := rib.New(nil)
			table.Update(tt.src, one(tt.prefix, tt.paths...))
			got := table.Conflicts()
			switch {
			case tt.want == 0 && len(got) != 0:
				t.Errorf("conflicts %v, want none", got)
			case tt.want != 0 && (len(got) != 1 || len(got[0].Paths) != tt.want):
				t.Errorf("conflicts %v, want one with %d holders", got, tt.want)
			}
			table.Update(tt.src, one(tt.prefix, tt.paths[0]))
			if got := table.Conflicts(); len(got) != 0 {
				t.Errorf("conflict stays after all but one path is gone: %v", got)
			}
		})
	}
}

// Run with -race: readers and writers at once, and the table agrees with itself at the end.
func TestConcurrent(t *testing.T) {
	table := rib.New(func() {})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 200 {
				p := fmt.Sprintf("10.%d.%d.0/26", w, i)
				table.Update(rib.BGP, one(p, via(rib.BGP, "10.0.0.1")))
				if i%2 == 0 {
					table.Update(rib.BGP, one(p))
				}
				for prefix, r := range table.Snapshot() {
					if r.Prefix != prefix || len(r.Paths) == 0 {
						t.Errorf("route %v at %v", r, prefix)
					}
				}
				table.Covering(adr("10.0.0.1"))
				table.Conflicts()
			}
		})
	}
	wg.Wait()
	if got := table.Len(); got != 400 {
		t.Errorf("%d routes, want 400", got)
	}
}

func many(n int) map[netip.Prefix][]rib.Path {
	m := make(map[netip.Prefix][]rib.Path, n)
	for i := range n {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		m[netip.PrefixFrom(a, 32)] = []rib.Path{via(rib.BGP, "10.0.0.1")}
	}
	return m
}

func BenchmarkUpdate65536(b *testing.B) {
	var table *rib.Table
	for b.Loop() {
		table = rib.New(nil)
		table.Update(rib.BGP, many(65536))
	}
	b.StopTimer()
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapAlloc)/65536, "heap-bytes/route")
	runtime.KeepAlive(table)
}

// One change of a table of 65,536 routes, and a snapshot after each: what the agent pays for a route that flaps.
func BenchmarkChangeAndSnapshot65536(b *testing.B) {
	table := rib.New(nil)
	table.Update(rib.BGP, many(65536))
	for i := 0; b.Loop(); i++ {
		p := via(rib.BGP, "10.0.0.1")
		p.MED = uint32(i)
		table.Update(rib.BGP, one("10.0.0.1/32", p))
		table.Snapshot()
	}
}

func BenchmarkSnapshotUnchanged65536(b *testing.B) {
	table := rib.New(nil)
	table.Update(rib.BGP, many(65536))
	for b.Loop() {
		table.Snapshot()
	}
}
