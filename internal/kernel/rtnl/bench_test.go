package rtnl_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"fairway/internal/kernel"
	"fairway/internal/nettest"
)

// manyRoutesCount is how many routes the benchmarks of routes use.
const manyRoutesCount = 65536

// BenchmarkRoutes programs 65,536 routes by ip -batch and by SetAll, in the same run, and reports the ratio.
func BenchmarkRoutes(b *testing.B) {
	h, ns := open(b)
	uplinks(ns)
	set := manyRoutes(manyRoutesCount, via("192.0.2.2"))
	other := manyRoutes(manyRoutesCount, via("192.0.2.3"))
	var batch strings.Builder
	keys := make([]kernel.RouteKey, 0, len(set))
	for k, r := range set {
		keys = append(keys, k)
		fmt.Fprintf(&batch, "route replace %s proto 200 metric 200\n", kernel.RouteText(k, r))
	}
	table := batcher(b, h)
	clean := func() {
		if failed := table.DeleteAll(b.Context(), keys); len(failed) > 0 {
			b.Fatal(len(failed), " deletes failed")
		}
	}
	var ip, ours, replace, list, del time.Duration
	timed := func(d *time.Duration, fn func()) {
		begin := time.Now()
		fn()
		*d += time.Since(begin)
	}
	for b.Loop() {
		timed(&ip, func() { ns.Batch(batch.String()) })
		clean()
		timed(&ours, func() {
			if failed := table.SetAll(b.Context(), set); len(failed) > 0 {
				b.Fatal(len(failed), " sets failed")
			}
		})
		timed(&replace, func() {
			if failed := table.SetAll(b.Context(), other); len(failed) > 0 {
				b.Fatal(len(failed), " replaces failed")
			}
		})
		timed(&list, func() {
			if have, err := h.Routes().List(b.Context()); err != nil || len(have) != len(set) {
				b.Fatal(len(have), err)
			}
		})
		timed(&del, clean)
	}
	rate := func(d time.Duration) float64 { return float64(manyRoutesCount*b.N) / d.Seconds() }
	b.ReportMetric(rate(ip), "ip-batch-routes/s")
	b.ReportMetric(rate(ours), "set-routes/s")
	b.ReportMetric(rate(replace), "replace-routes/s")
	b.ReportMetric(rate(del), "delete-routes/s")
	b.ReportMetric(ip.Seconds()/ours.Seconds(), "x-ip-batch")
	b.ReportMetric(list.Seconds()*1000/float64(b.N), "list-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRouteList lists 65,536 routes of ours, and none of ours among 65,536 of a stranger's.
func BenchmarkRouteList(b *testing.B) {
	for name, count := range map[string]int{"ours": manyRoutesCount, "strangers": 0} {
		b.Run(name, func(b *testing.B) {
			h, ns := open(b)
			uplinks(ns)
			if count > 0 {
				if failed := batcher(b, h).SetAll(b.Context(), manyRoutes(count, via("192.0.2.2"))); len(failed) > 0 {
					b.Fatal(len(failed), " sets failed")
				}
			} else {
				var batch strings.Builder
				for k, r := range manyRoutes(manyRoutesCount, via("192.0.2.2")) {
					fmt.Fprintf(&batch, "route add %s proto bird metric 200\n", kernel.RouteText(k, r))
				}
				ns.Batch(batch.String())
			}
			for b.Loop() {
				if have, err := h.Routes().List(b.Context()); err != nil || len(have) != count {
					b.Fatal(len(have), err)
				}
			}
		})
	}
}

// BenchmarkEndpoint makes and removes all that one container has on the node.
func BenchmarkEndpoint(b *testing.B) {
	h, _ := open(b)
	s := mustState(b, endpoint)
	var set, del time.Duration
	for b.Loop() {
		begin := time.Now()
		if _, err := apply(b.Context(), h, s); err != nil {
			b.Fatal(err)
		}
		set += time.Since(begin)
		begin = time.Now()
		if _, err := apply(b.Context(), h, kernel.NewState()); err != nil {
			b.Fatal(err)
		}
		del += time.Since(begin)
	}
	b.ReportMetric(set.Seconds()*1000/float64(b.N), "set-ms")
	b.ReportMetric(del.Seconds()*1000/float64(b.N), "delete-ms")
}

// BenchmarkThousand lists what 1,000 containers have on the node, and makes one more beside them.
func BenchmarkThousand(b *testing.B) {
	h, ns := open(b)
	thousand(b, ns)
	b.Run("links", func(b *testing.B) {
		for b.Loop() {
			if m, err := h.Links().List(b.Context()); err != nil || len(m) != 1000 {
				b.Fatal(len(m), err)
			}
		}
	})
	b.Run("addrs", func(b *testing.B) {
		for b.Loop() {
			if m, err := h.Addrs().List(b.Context()); err != nil || len(m) != 2000 {
				b.Fatal(len(m), err)
			}
		}
	})
	b.Run("neighs", func(b *testing.B) {
		for b.Loop() {
			if m, err := h.Neighs().List(b.Context()); err != nil || len(m) != 2000 {
				b.Fatal(len(m), err)
			}
		}
	})
	b.Run("routes", func(b *testing.B) {
		for b.Loop() {
			if m, err := h.Routes().List(b.Context()); err != nil || len(m) != 2000 {
				b.Fatal(len(m), err)
			}
		}
	})
	b.Run("facts", func(b *testing.B) {
		for b.Loop() {
			if f, err := h.Facts(b.Context()); err != nil || len(f.Links) != 1 {
				b.Fatal(len(f.Links), err)
			}
		}
	})
	b.Run("sysctls", func(b *testing.B) {
		keys := make([]string, 1000)
		for i := range keys {
			keys[i] = fmt.Sprintf("net/ipv4/conf/fw%d/forwarding", i)
		}
		for b.Loop() {
			if m, err := h.Sysctls().Read(b.Context(), keys); err != nil || len(m) != 1000 {
				b.Fatal(len(m), err)
			}
		}
	})
	b.Run("one-more", func(b *testing.B) {
		s := mustState(b, endpoint)
		var set, del time.Duration
		for b.Loop() {
			begin := time.Now()
			for k, v := range s.Links {
				if err := h.Links().Set(b.Context(), k, v); err != nil {
					b.Fatal(err)
				}
			}
			for k := range s.Addrs {
				if err := h.Addrs().Set(b.Context(), k, struct{}{}); err != nil {
					b.Fatal(err)
				}
			}
			for k, v := range s.Neighs {
				if err := h.Neighs().Set(b.Context(), k, v); err != nil {
					b.Fatal(err)
				}
			}
			if failed := batcher(b, h).SetAll(b.Context(), s.Routes); len(failed) > 0 {
				b.Fatal(failed)
			}
			set += time.Since(begin)
			begin = time.Now()
			for k := range s.Links {
				if err := h.Links().Delete(b.Context(), k); err != nil {
					b.Fatal(err)
				}
			}
			for k := range s.Routes {
				if err := h.Routes().Delete(b.Context(), k); err != nil {
					b.Fatal(err)
				}
			}
			del += time.Since(begin)
		}
		b.ReportMetric(set.Seconds()*1000/float64(b.N), "set-ms")
		b.ReportMetric(del.Seconds()*1000/float64(b.N), "delete-ms")
	})
}

// thousand makes what 1,000 containers have.
func thousand(b *testing.B, ns *nettest.Namespace) {
	b.Helper()
	var state strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&state, "link fw%d type veth mtu 1400 address 02:00:00:%02x:%02x:01 alias fairway:n/%d peer p%d 02:00:00:%02x:%02x:02\n",
			i, i/256, i%256, i, i, i/256, i%256)
		fmt.Fprintf(&state, "addr 10.8.0.1/32 dev fw%d\naddr fd00:8::1/128 dev fw%d\n", i, i)
		for _, ip := range []string{fmt.Sprintf("10.8.%d.%d", 1+i/250, i%250), fmt.Sprintf("fd00:8::%x", i+2)} {
			fmt.Fprintf(&state, "neigh %s lladdr 02:00:00:%02x:%02x:02 dev fw%d permanent\n", ip, i/256, i%256, i)
			bits := 32
			if strings.Contains(ip, ":") {
				bits = 128
			}
			fmt.Fprintf(&state, "route %s/%d dev fw%d\n", ip, bits, i)
		}
	}
	h := openAt(b, ns)
	want := mustState(b, state.String())
	if _, err := apply(b.Context(), h, want); err != nil {
		b.Fatal(err)
	}
	var batch strings.Builder
	box := nettest.New(b)
	for _, l := range want.Links {
		fmt.Fprintf(&batch, "link set %s netns %s\n", l.Peer.Name, box.Path())
	}
	ns.Batch(batch.String())
}

// BenchmarkLinks makes and deletes 50 links at once.
func BenchmarkLinks(b *testing.B) {
	const count = 50
	h, _ := open(b)
	var state strings.Builder
	for i := range count {
		fmt.Fprintf(&state, "link fw%d type veth mtu 1400 address 02:00:00:00:%02x:01 alias fairway:n/%d peer p%d 02:00:00:00:%02x:02\n", i, i, i, i, i)
	}
	s := mustState(b, state.String())
	var set, del time.Duration
	for b.Loop() {
		begin := time.Now()
		if _, err := apply(b.Context(), h, s); err != nil {
			b.Fatal(err)
		}
		set += time.Since(begin)
		begin = time.Now()
		if _, err := apply(b.Context(), h, kernel.NewState()); err != nil {
			b.Fatal(err)
		}
		del += time.Since(begin)
	}
	b.ReportMetric(set.Seconds()*1000/float64(b.N*count), "set-ms/link")
	b.ReportMetric(del.Seconds()*1000/float64(b.N*count), "delete-ms/link")
}
