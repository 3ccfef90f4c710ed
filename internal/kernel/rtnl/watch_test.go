package rtnl_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"fairway/internal/kernel"
	"fairway/internal/kernel/rtnl"
	"fairway/internal/nettest"
)

// mirror keeps what Watch told: after a loss, what is listed then.
type mirror struct {
	h *rtnl.Handle

	mu      sync.Mutex
	state   kernel.State
	lost    int
	facts   int
	sysctl  int
	sandbox []string
	err     error
}

// watch starts a Watch that ends with the test, and waits for its first event.
func watch(t *testing.T, h *rtnl.Handle) *mirror {
	t.Helper()
	m := &mirror{h: h}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Watch(ctx, m.take) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	nettest.Eventually(t, func() string {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.lost == 0 {
			return "no first event"
		}
		return ""
	})
	return m
}

func (m *mirror) take(e rtnl.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case e.Lost:
		m.lost++
		m.state, m.err = readState(context.Background(), m.h)
	case e.Facts:
		m.facts++
	case e.Sysctl:
		m.sysctl++
	case e.Sandbox != "":
		m.sandbox = append(m.sandbox, e.Sandbox)
	case e.Link != nil:
		put(m.state.Links, e.Link.Key, e.Link.Val, e.Link.Deleted)
	case e.Addr != nil:
		put(m.state.Addrs, e.Addr.Key, e.Addr.Val, e.Addr.Deleted)
	case e.Neigh != nil:
		put(m.state.Neighs, e.Neigh.Key, e.Neigh.Val, e.Neigh.Deleted)
	case e.Route != nil:
		put(m.state.Routes, e.Route.Key, e.Route.Val, e.Route.Deleted)
	}
}

func put[K comparable, V any](m map[K]V, k K, v V, deleted bool) {
	if deleted {
		delete(m, k)
		return
	}
	m[k] = v
}

func (m *mirror) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err.Error()
	}
	return m.state.String()
}

// agrees waits until the events said what the tables list.
func (m *mirror) agrees(t *testing.T) string {
	t.Helper()
	var want string
	nettest.Eventually(t, func() string {
		want = listed(t, m.h)
		if got := m.String(); got != want {
			return fmt.Sprintf("events say:\n%slisted:\n%s", got, want)
		}
		return ""
	})
	return want
}

// counts are the events since the start that carry no object.
func (m *mirror) counts() (lost, facts, sysctl, sandbox int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lost, m.facts, m.sysctl, len(m.sandbox)
}

const endpoint = `
link fwaaaaaaaaaaaa type veth mtu 1400 address 02:00:00:00:00:01 alias fairway:net1/ep1 peer fwpaaa 02:00:00:00:00:02
addr 10.9.0.1/32 dev fwaaaaaaaaaaaa
addr 10.9.0.9/32 dev fwaaaaaaaaaaaa
addr fd00:9::1/128 dev fwaaaaaaaaaaaa
neigh 10.9.0.2 lladdr 02:00:00:00:00:02 dev fwaaaaaaaaaaaa permanent
route 10.9.0.2/32 dev fwaaaaaaaaaaaa
route 10.9.0.3/32 via 10.9.0.2 dev fwaaaaaaaaaaaa src 10.9.0.9
route fd00:9::2/128 dev fwaaaaaaaaaaaa
route blackhole 10.9.0.0/26
`

func TestWatchTellsForeignChanges(t *testing.T) {
	h, ns := open(t)
	ns.IP("link add up1 type veth peer name up1-peer")
	ns.IP("link set up1 up")
	ns.IP("link set up1-peer up")
	ns.IP("addr add 192.0.2.1/24 dev up1")
	m := watch(t, h)
	mustApply(t, h, endpoint)
	m.agrees(t)
	for _, step := range []struct{ line, gone string }{
		{"route del 10.9.0.0/26 proto 200 metric 200", "route blackhole 10.9.0.0/26"},
		{"route replace 10.9.0.3/32 via 192.0.2.2 proto static metric 200", "route 10.9.0.3/32"}, // not a word of ours
		{"-6 route del fd00:9::2/128 proto 200", "route fd00:9::2/128"},
		{"neigh change 10.9.0.2 lladdr 02:00:00:00:00:02 dev fwaaaaaaaaaaaa nud reachable", "neigh 10.9.0.2"},
		{"-6 addr del fd00:9::1/128 dev fwaaaaaaaaaaaa", "addr fd00:9::1/128"},
		{"link set fwaaaaaaaaaaaa mtu 1300", "link fwaaaaaaaaaaaa type veth mtu 1400"},
		{"link set fwaaaaaaaaaaaa down", "route 10.9.0.2/32"}, // the kernel is silent
		{"link set fwaaaaaaaaaaaa up", " down"},
		{"link del fwaaaaaaaaaaaa", "link"},
	} {
		ns.IP(step.line)
		if said := m.agrees(t); strings.Contains(said, step.gone) {
			t.Errorf("after ip %s there still is %s:\n%s", step.line, step.gone, said)
		}
	}
	if lost, _, _, _ := m.counts(); lost != 1 {
		t.Errorf("%d events of loss, want one at the start", lost)
	}
}

func TestWatchTellsRoutesThatGoSilently(t *testing.T) {
	h, ns := open(t)
	m := watch(t, h)
	for _, step := range []struct{ line, gone, stays string }{
		// The source of a route.
		{"addr del 10.9.0.9/32 dev fwaaaaaaaaaaaa", "route 10.9.0.3/32", "route 10.9.0.2/32"},
		// The last IPv4 address of a link.
		{"addr flush dev fwaaaaaaaaaaaa scope global", "route 10.9.0.2/32", "route blackhole 10.9.0.0/26"},
		// The other end, by whoever has it.
		{"link del fwpaaa", "route fd00:9::2/128", "route blackhole 10.9.0.0/26"},
	} {
		mustApply(t, h, endpoint)
		m.agrees(t)
		ns.IP(step.line)
		said := m.agrees(t)
		if strings.Contains(said, step.gone) || !strings.Contains(said, step.stays) {
			t.Errorf("after ip %s: %s should be gone, and %s not:\n%s", step.line, step.gone, step.stays, said)
		}
	}
}

func TestWatchTellsNextHopsTakenOffIPv6Routes(t *testing.T) {
	h, ns := open(t)
	ns.IP("link add up1 type veth peer name up2")
	ns.IP("link set up1 up")
	ns.IP("link set up2 up")
	ns.IP("-6 addr add 2001:db8:1::1/64 dev up1 nodad")
	ns.IP("-6 addr add 2001:db8:2::1/64 dev up2 nodad")
	m := watch(t, h)
	mustApply(t, h, "route fd00:8::/64 nexthop via 2001:db8:1::2 dev up1 nexthop via 2001:db8:2::2 dev up2")
	m.agrees(t)
	ns.IP("-6 route del fd00:8::/64 via 2001:db8:1::2 dev up1 proto 200 metric 200")
	if said := m.agrees(t); said != "route fd00:8::/64 via 2001:db8:2::2 dev up2\n" {
		t.Errorf("left over:\n%s", said)
	}
	ns.IP("-6 route append fd00:8::/64 via 2001:db8:1::9 dev up1 proto 200 metric 200")
	m.agrees(t)
	ns.IP("link set up1 down")
	m.agrees(t)
}

func TestWatchTellsFacts(t *testing.T) {
	h, ns := open(t)
	m := watch(t, h)
	grows := func(line string) {
		t.Helper()
		_, before, _, _ := m.counts()
		ns.IP(line)
		nettest.Eventually(t, func() string {
			if _, now, _, _ := m.counts(); now == before {
				return "no facts after ip " + line
			}
			return ""
		})
		m.agrees(t)
	}
	grows("link add up1 type veth peer name up2")
	grows("link set up1 up")
	grows("link set up2 up")
	grows("addr add 192.0.2.1/24 dev up1")
	grows("route add default via 192.0.2.2")
	grows("route replace default via 192.0.2.3")
	grows("route del default")
	grows("addr del 192.0.2.1/24 dev up1")
	grows("link set up1 mtu 1300")
	grows("link del up1")
}

func TestWatchKeepsQuiet(t *testing.T) {
	h, ns := open(t)
	ns.IP("link add up1 type veth peer name up2")
	ns.IP("link set up1 up")
	ns.IP("link set up2 up")
	ns.IP("addr add 192.0.2.1/24 dev up1")
	ns.IP("-6 addr add 2001:db8:1::1/64 dev up1 nodad")
	box := nettest.New(t)
	nettest.Eventually(t, func() string { // link-local addresses have come
		if out := ns.IP("-6 addr show scope link"); strings.Contains(out, "tentative") || strings.Count(out, "fe80") != 2 {
			return out
		}
		return ""
	})
	m := watch(t, h)
	mustApply(t, h, endpoint)
	ns.IP("link set fwpaaa netns " + box.Path())
	box.IP("link set fwpaaa up")
	nettest.Eventually(t, func() string {
		if _, _, _, sandbox := m.counts(); sandbox < 2 { // moved, and came up
			return fmt.Sprintf("%d sandbox events", sandbox)
		}
		return ""
	})
	ns.IP("route add 198.51.100.0/24 via 192.0.2.2")
	ns.IP("route replace 198.51.100.0/24 via 192.0.2.3")
	ns.IP("route del 198.51.100.0/24")
	ns.IP("-6 addr change 2001:db8:1::1/64 dev up1 valid_lft 1000 preferred_lft 500")
	ns.IP("neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev up1 nud permanent")
	mustApply(t, h, endpoint+"route 10.9.0.200/32 via 10.9.0.2 dev fwaaaaaaaaaaaa\n")
	m.agrees(t) // the last change has been heard, so all before
	if lost, facts, sysctl, _ := m.counts(); lost != 1 || facts != 0 || sysctl != 0 {
		t.Errorf("events: %d lost, %d facts, %d sysctl; want 1, 0, 0", lost, facts, sysctl)
	}
}

func TestWatchTellsSysctls(t *testing.T) {
	h, _ := open(t)
	m := watch(t, h)
	for i, key := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/lo/forwarding"} {
		value := "1"
		if i == 2 {
			value = "0" // "all" has set it to 1
		}
		_, _, before, _ := m.counts()
		if err := h.Sysctls().Set(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
		nettest.Eventually(t, func() string {
			if _, _, now, _ := m.counts(); now == before {
				return "no event after writing " + key
			}
			return ""
		})
	}
}

// TestWatchAgreesAfterAnything makes many changes of every kind, ours and others', and compares what was told with what
// is there.
func TestWatchAgreesAfterAnything(t *testing.T) {
	h, ns := open(t)
	ns.IP("link add up1 type veth peer name up2")
	m := watch(t, h)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	foreign := []string{
		"link set up1 up", "link set up1 down", "link set up2 up", "addr flush dev up1", "addr flush dev fw0", "link set fw1 down",
		"addr add 192.0.2.1/24 dev up1", "-6 addr add 2001:db8:1::1/64 dev up1 nodad", "link del fw2", "link set fw3 name fw4",
		"route add 10.1.1.0/24 dev up1 proto 200 metric 200", "route append 10.1.1.0/24 via 192.0.2.5 proto 200 metric 200",
		"route replace 10.1.1.0/24 dev up1 proto static metric 200", "route flush proto 200", "-6 route flush proto 200",
		"route del 10.1.1.0/24", "neigh flush dev fw0 nud permanent", "link set fw1 up alias stranger", "link set fw1 up alias fairway:n/1",
		"-6 route append fd00:1::/64 via 2001:db8:1::5 dev up1 proto 200 metric 200",
		"-6 route append fd00:1::/64 via 2001:db8:1::6 dev up1 proto 200 metric 200",
		"-6 route del fd00:1::/64 via 2001:db8:1::6 dev up1",
	}
	for range 20 {
		for range 10 {
			switch r.IntN(3) {
			case 0:
				n := r.IntN(4)
				s := mustState(t, strings.ReplaceAll(`
link fw# type veth mtu 1400 address 02:00:00:00:0#:01 alias fairway:n/# peer fwp# 02:00:00:00:0#:02
addr 10.9.0.1/32 dev fw#
neigh 10.9.0.2# lladdr 02:00:00:00:0#:02 dev fw# permanent
route 10.9.0.2#/32 dev fw#
route fd00:9::2#/128 dev fw#
route blackhole 10.9.#.0/24
`, "#", fmt.Sprint(n)))
				have, err := readState(t.Context(), h)
				if err != nil {
					t.Fatal(err)
				}
				merge(have.Links, s.Links)
				merge(have.Addrs, s.Addrs)
				merge(have.Neighs, s.Neighs)
				merge(have.Routes, s.Routes)
				_, err = apply(t.Context(), h, have)
				_ = err // some of it stands on links that are down or a stranger's by now
			default:
				_, err := ns.Command("ip", strings.Fields(foreign[r.IntN(len(foreign))])...)
				_ = err // as above
			}
		}
		m.agrees(t)
	}
}

func merge[K comparable, V any](dst, src map[K]V) { maps.Copy(dst, src) }

func TestWatchEndsWithItsContext(t *testing.T) {
	h, _ := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Watch(ctx, func(rtnl.Event) { cancel() }) }()
	if err := <-done; err != nil {
		t.Errorf("Watch: %v", err)
	}
	h.Close()
	if err := h.Watch(t.Context(), func(rtnl.Event) {}); err == nil {
		t.Error("Watch began on a closed handle")
	}
	if _, _, err := h.RouteGet(t.Context(), netip.MustParseAddr("10.0.0.1")); err == nil {
		t.Error("a closed handle answered")
	}
}
