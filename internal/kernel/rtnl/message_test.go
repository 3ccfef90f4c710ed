package rtnl

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
)

// A route that is written as a message is read back the same.
func TestRouteMessage(t *testing.T) {
	names := map[int]string{3: "up1", 4: "up2"}
	addr := netip.MustParseAddr
	for dst, want := range map[string]kernel.Route{
		"10.1.0.0/24": {Type: kernel.Unicast, NextHops: []kernel.NextHop{{Via: addr("192.0.2.1"), Link: "up1"}}, Src: addr("192.0.2.9")},
		"10.2.0.0/24": {Type: kernel.Unicast, NextHops: []kernel.NextHop{
			{Via: addr("192.0.2.1"), Link: "up1"}, {Via: addr("192.0.2.1"), Link: "up2"}, {Via: addr("fe80::1"), Link: "up1"},
		}},
		"0.0.0.0/0":   {Type: kernel.Unicast, NextHops: []kernel.NextHop{{Link: "up2"}}},
		"10.3.0.0/24": {Type: kernel.Blackhole},
		"fd00::/64":   {Type: kernel.Unicast, NextHops: []kernel.NextHop{{Via: addr("fe80::1"), Link: "up1"}}},
		"::/0":        {Type: kernel.Blackhole},
	} {
		key := kernel.RouteKey{Dst: netip.MustParsePrefix(dst)}
		var indexes []int
		for _, n := range want.NextHops {
			for i, name := range names {
				if name == n.Link {
					indexes = append(indexes, i)
				}
			}
		}
		var w builder
		putRoute(&w, 0, key, want, indexes)
		w.end(1)
		for _, p := range messages(w.b) {
			msg, ok := parseRoute(p)
			got, known := msg.route(func(i int) (string, bool) { name, ok := names[i]; return name, ok })
			if !ok || !known || !msg.ours() || msg.key != key {
				t.Errorf("%s: parsed %t, links known %t, ours %t, key %v", dst, ok, known, msg.ours(), msg.key)
			}
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", dst, diff)
			}
		}
	}
}

func TestKernelError(t *testing.T) {
	var w builder
	w.begin(unix.NLMSG_ERROR, 0)
	w.b = append(w.b, 0xef, 0xff, 0xff, 0xff) // -EEXIST
	w.b = append(w.b, make([]byte, sizeHeader)...)
	w.str(unix.NLMSGERR_ATTR_MSG, "taken")
	err := parseError(header{flags: unix.NLM_F_ACK_TLVS | unix.NLM_F_CAPPED}, w.b[sizeHeader:])
	if !errors.Is(err, unix.EEXIST) || err.Error() != "file exists (taken)" {
		t.Errorf("error %v", err)
	}
	if err := parseError(header{}, w.b[sizeHeader:]); !errors.Is(err, unix.EEXIST) || err.Error() != "file exists" {
		t.Errorf("error without a text: %v", err)
	}
	if err := parseError(header{}, make([]byte, 4)); err != nil {
		t.Errorf("acknowledgement: %v", err)
	}
	if err := parseError(header{}, nil); err == nil {
		t.Error("a message without a number is no error")
	}
}

// Whatever the messages are, reading them ends, and without a panic.
func FuzzMessages(f *testing.F) {
	var w builder
	w.begin(unix.RTM_NEWLINK, 0, ifinfo(7, unix.IFF_UP, 0)...)
	endpoint(&w, "fw0", 1500, kernel.MAC{2, 0, 0, 0, 0, 1})
	w.end(1)
	addrBody(&w, unix.RTM_NEWADDR, 0, 7, netip.MustParsePrefix("fd00::1/64"))
	w.end(2)
	neighFixed(&w, unix.RTM_NEWNEIGH, 0, 7, netip.MustParseAddr("10.0.0.1"), unix.NUD_PERMANENT)
	w.end(3)
	putRoute(&w, 0, kernel.RouteKey{Dst: netip.MustParsePrefix("10.0.0.0/8")}, kernel.Route{
		Type: kernel.Unicast, NextHops: []kernel.NextHop{{Via: netip.MustParseAddr("10.0.0.1")}, {Via: netip.MustParseAddr("fe80::1")}},
	}, []int{1, 2})
	w.end(4)
	f.Add(w.b)
	f.Fuzz(func(t *testing.T, b []byte) {
		h := &Handle{}
		watch := &watcher{h: h, fn: func(Event) {}, links: map[int]linkMsg{}, addrs: map[addrMsg]struct{}{}, routes: newRouteMemory()}
		watch.links[7] = linkMsg{index: 7, name: "fw0", alias: kernel.AliasPrefix, peerNS: -1}
		total := 0
		for hd, p := range messages(b) {
			watch.take(hd, slices.Clone(p))
			_ = parseError(hd, p)
			_, _ = parseAnswer(slices.Clone(p))
			total += sizeHeader + len(p)
		}
		if total > len(b) {
			t.Errorf("%d bytes of messages in %d", total, len(b))
		}
	})
}

// Ways are counted: what no route uses is forgotten.
func TestRouteMemory(t *testing.T) {
	m := newRouteMemory()
	name := func(i int) (string, bool) { return "up", i < 10 }
	r := routeMsg{typ: unix.RTN_UNICAST, src: netip.MustParseAddr("10.0.0.9"), hops: []hop{{index: 3}}}
	for _, dst := range []string{"10.1.0.0/24", "10.2.0.0/24", "10.2.0.0/24"} {
		r.key.Dst = netip.MustParsePrefix(dst)
		m.set(&r, name)
	}
	if len(m.ways) != 2 || len(m.shared) != 1 || !m.uses(3) || m.sources[r.src] != 1 {
		t.Errorf("memory %+v", m)
	}
	r.hops = []hop{{index: 10}}
	if m.set(&r, name) != nil {
		t.Error("a route over a link without a name is remembered")
	}
	for key := range m.ways {
		m.remove(key)
	}
	if len(m.ways)+len(m.shared)+len(m.links)+len(m.sources) != 0 {
		t.Errorf("left in memory: %+v", m)
	}
}
