package kernel_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"fairway/internal/kernel"
)

func TestMAC(t *testing.T) {
	want := kernel.MAC{0x02, 0x42, 0xac, 0x11, 0x00, 0xff}
	for _, s := range []string{"02:42:ac:11:00:ff", "02-42-AC-11-00-FF"} {
		got, err := kernel.ParseMAC(s)
		if err != nil || got != want {
			t.Errorf("ParseMAC(%q) = %v, %v", s, got, err)
		}
	}
	if s := want.String(); s != "02:42:ac:11:00:ff" {
		t.Errorf("String() = %s", s)
	}
	for _, s := range []string{"", "02", "02:42:ac:11:00", "02:42:ac:11:00:ff:01", "02:42:ac:11:00:gg", "2:42:ac:11:00:ff", "02:42:ac:11:00:-1", "02:42:ac:11:00:+1"} {
		if got, err := kernel.ParseMAC(s); err == nil {
			t.Errorf("ParseMAC(%q) = %v, want an error", s, got)
		}
	}
	for m, unicast := range map[kernel.MAC]bool{{}: false, {2}: true, {1}: false, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}: false, {0, 1}: true} {
		if m.IsUnicast() != unicast {
			t.Errorf("%v.IsUnicast() = %t", m, !unicast)
		}
	}
}

func TestMACText(t *testing.T) {
	type object struct{ MAC kernel.MAC }
	for text, want := range map[string]kernel.MAC{`{"MAC":"02:00:00:00:00:01"}`: {2, 0, 0, 0, 0, 1}, `{"MAC":""}`: {}} {
		got := object{MAC: kernel.MAC{9}}
		if err := json.Unmarshal([]byte(text), &got); err != nil || got.MAC != want {
			t.Errorf("%s is read as %v, error %v", text, got.MAC, err)
		}
		if b, err := json.Marshal(got); err != nil || string(b) != text {
			t.Errorf("%v is written as %s, error %v", got.MAC, b, err)
		}
	}
	if err := json.Unmarshal([]byte(`{"MAC":"x"}`), &object{}); err == nil {
		t.Error("MAC x is read")
	}
}

func TestLinkEqual(t *testing.T) {
	want := kernel.Link{Kind: kernel.Veth, Alias: "fairway:n/e", MTU: 1500, MAC: kernel.MAC{2}, Peer: kernel.Peer{Name: "p"}}
	for name, c := range map[string]struct {
		change func(want, have *kernel.Link)
		equal  bool
	}{
		"peer is not compared": {func(_, have *kernel.Link) { have.Peer = kernel.Peer{} }, true},
		"no MAC wanted":        {func(want, _ *kernel.Link) { want.MAC = kernel.MAC{} }, true},
		"existing":             {func(want, _ *kernel.Link) { want.Existing, want.MTU = true, 9000 }, true},
		"MAC":                  {func(_, have *kernel.Link) { have.MAC = kernel.MAC{4} }, false},
		"MTU":                  {func(_, have *kernel.Link) { have.MTU = 1400 }, false},
		"alias":                {func(_, have *kernel.Link) { have.Alias = "fairway:n/f" }, false},
		"kind":                 {func(_, have *kernel.Link) { have.Kind = "bridge" }, false},
		"down":                 {func(_, have *kernel.Link) { have.Down = true }, false},
	} {
		w, h := want, want
		c.change(&w, &h)
		if kernel.LinkEqual(w, h) != c.equal {
			t.Errorf("%s: equal is %t", name, !c.equal)
		}
	}
}

func TestRouteEqual(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	route := func(hops ...kernel.NextHop) kernel.Route {
		return kernel.Route{Type: kernel.Unicast, NextHops: kernel.SortNextHops(hops)}
	}
	sourced := route(kernel.NextHop{Via: a})
	sourced.Src = b
	for name, c := range map[string]struct {
		want, have kernel.Route
		equal      bool
	}{
		"the kernel fills the link in":   {route(kernel.NextHop{Via: a}), route(kernel.NextHop{Via: a, Link: "eth0"}), true},
		"any order, twice is once":       {route(kernel.NextHop{Via: b}, kernel.NextHop{Via: a}, kernel.NextHop{Via: b}), route(kernel.NextHop{Via: a}, kernel.NextHop{Via: b}), true},
		"another link":                   {route(kernel.NextHop{Via: a, Link: "eth1"}), route(kernel.NextHop{Via: a, Link: "eth0"}), false},
		"another gateway":                {route(kernel.NextHop{Via: a}), route(kernel.NextHop{Via: b}), false},
		"one more":                       {route(kernel.NextHop{Via: a}), route(kernel.NextHop{Via: a}, kernel.NextHop{Via: b}), false},
		"blackhole":                      {route(), kernel.Route{Type: kernel.Blackhole}, false},
		"no source":                      {sourced, route(kernel.NextHop{Via: a}), false},
		"on the link, through a gateway": {route(kernel.NextHop{Link: "eth0"}), route(kernel.NextHop{Via: a, Link: "eth0"}), false},
	} {
		if kernel.RouteEqual(c.want, c.have) != c.equal {
			t.Errorf("%s: equal is %t", name, !c.equal)
		}
	}
}

func TestSandboxEqual(t *testing.T) {
	p, q := netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("10.0.0.2/32")
	n := kernel.Neigh{IP: p.Addr(), MAC: kernel.MAC{2}}
	want := kernel.Sandbox{Addrs: []netip.Prefix{p}, Neighs: []kernel.Neigh{n}}
	if !kernel.SandboxEqual(want, kernel.Sandbox{Addrs: []netip.Prefix{q, p}, Neighs: []kernel.Neigh{{IP: q.Addr()}, n}}) {
		t.Error("what is there besides makes a difference")
	}
	if kernel.SandboxEqual(want, kernel.Sandbox{Addrs: want.Addrs}) || kernel.SandboxEqual(want, kernel.Sandbox{Neighs: want.Neighs}) {
		t.Error("what is missing makes no difference")
	}
	other := kernel.Sandbox{Addrs: want.Addrs, Neighs: []kernel.Neigh{{IP: n.IP, MAC: kernel.MAC{4}}}}
	if kernel.SandboxEqual(want, other) {
		t.Error("another MAC makes no difference")
	}
}

func TestConnected(t *testing.T) {
	f := kernel.Facts{Links: map[string]kernel.FactLink{
		"eth0": {Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8"), netip.MustParsePrefix("fe80::1/64")}},
		"eth1": {Name: "eth1", Addrs: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/16"), netip.MustParsePrefix("fd00::1/64")}},
	}}
	for a, want := range map[string]string{
		"10.2.0.1": "eth0", "10.1.9.9": "eth1", "fd00::9": "eth1", "192.0.2.1": "", "fe80::9": "", "fd01::1": "", "10.1.0.1": "eth1",
	} {
		got, ok := f.Connected(netip.MustParseAddr(a))
		if got.Name != want || ok != (want != "") {
			t.Errorf("Connected(%s) = %q, %t; want %q", a, got.Name, ok, want)
		}
	}
}

func TestStateString(t *testing.T) {
	s := kernel.NewState()
	mac := kernel.MAC{2, 0, 0, 0, 0, 1}
	gw, up := netip.MustParseAddr("192.0.2.1"), "eth0"
	s.Sysctls["net/ipv4/ip_forward"] = "1"
	s.Links["fw1"] = kernel.Link{Kind: kernel.Veth, Alias: "fairway:n/e", MTU: 1500, MAC: mac, Peer: kernel.Peer{Name: "fwp1", MAC: kernel.MAC{2, 0, 0, 0, 0, 2}}}
	s.Links["fw2"] = kernel.Link{Kind: kernel.Veth, Alias: "fairway:n/f", MTU: 1500, MAC: mac, Existing: true}
	s.Links["fw3"] = kernel.Link{Kind: kernel.Veth, Alias: "fairway:n/g", MTU: 1500, MAC: mac, Down: true}
	s.Addrs[kernel.AddrKey{Link: "fw1", Prefix: netip.MustParsePrefix("10.9.0.1/32")}] = struct{}{}
	s.Neighs[kernel.NeighKey{Link: "fw1", IP: netip.MustParseAddr("10.9.0.2")}] = mac
	s.Sandbox[kernel.SandboxKey{Path: "/run/ns/1", MAC: mac}] = kernel.Sandbox{Addrs: []netip.Prefix{netip.MustParsePrefix("10.9.0.3/32")}, Neighs: []kernel.Neigh{{IP: gw, MAC: mac}}}
	route := func(dst string, r kernel.Route) { s.Routes[kernel.RouteKey{Dst: netip.MustParsePrefix(dst)}] = r }
	route("10.9.0.2/32", kernel.Route{Type: kernel.Unicast, NextHops: []kernel.NextHop{{Link: "fw1"}}})
	route("10.9.0.0/26", kernel.Route{Type: kernel.Blackhole})
	route("10.8.0.0/26", kernel.Route{Type: kernel.Unicast, Src: gw, NextHops: []kernel.NextHop{{Via: gw, Link: up}, {Via: gw, Link: "eth1"}}})
	want := `addr 10.9.0.1/32 dev fw1
link fw1 type veth mtu 1500 address 02:00:00:00:00:01 alias fairway:n/e peer fwp1 02:00:00:00:00:02
link fw2 type veth mtu 1500 address 02:00:00:00:00:01 alias fairway:n/f if existing
link fw3 type veth mtu 1500 address 02:00:00:00:00:01 alias fairway:n/g down
neigh 10.9.0.2 lladdr 02:00:00:00:00:01 dev fw1 permanent
route 10.8.0.0/26 nexthop via 192.0.2.1 dev eth0 nexthop via 192.0.2.1 dev eth1 src 192.0.2.1
route 10.9.0.2/32 dev fw1
route blackhole 10.9.0.0/26
sandbox /run/ns/1 02:00:00:00:00:01 addrs [10.9.0.3/32] neighs [{192.0.2.1 02:00:00:00:00:01}]
sysctl net/ipv4/ip_forward = 1
`
	if got := s.String(); got != want {
		t.Errorf("state is written as:\n%swant:\n%s", got, want)
	}
	s = kernel.NewState()
	s.Firewall = kernel.Firewall{Links: []string{"fw*"}, AntiSpoof: true, ClosedTCP: []uint16{179}, ClosedUDP: []uint16{3784}}
	if got := s.String(); !strings.HasPrefix(got, "firewall accept [fw*] anti-spoof true closed tcp [179] udp [3784]") {
		t.Errorf("firewall is written as %s", got)
	}
}
