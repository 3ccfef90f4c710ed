package router

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/kernel"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func ip(s string) netip.Addr    { return netip.MustParseAddr(s) }

// options are those of a router without flags.
func options(change func(*Options)) Options {
	o := Options{
		Aggressive: true, ContainerGateway: true, HostLink: true, P2PNet: pfx(DefaultP2PNet), P2PNet6: pfx(DefaultP2PNet6),
		Driver: "fairway", Resync: 10 * time.Second,
	}
	if change != nil {
		change(&o)
	}
	return o
}

// two is a host with a bridge and a dual-stack network, both joined, and a container on each.
func two() View {
	return View{
		Self: "self",
		Networks: []Network{
			{ID: "b", Name: "blue", Driver: "bridge", Marked: true, Joined: true, Local: 1, Subnets: []Subnet{{pfx("10.1.0.0/24"), ip("10.1.0.1")}}},
			{ID: "g", Name: "green", Driver: "macvlan", Marked: true, Joined: true, Local: 1, Subnets: []Subnet{
				{pfx("10.2.0.0/24"), ip("10.2.0.1")}, {pfx("fd02::/64"), ip("fd02::1")},
			}},
		},
		Links: []Link{
			{"eth0", []netip.Prefix{pfx("10.1.0.9/24")}},
			{"eth1", []netip.Prefix{pfx("10.2.0.9/24"), pfx("fd02::9/64"), pfx("fe80::1/64")}},
			{hostLinkName, []netip.Prefix{pfx("172.29.255.254/30")}},
		},
		Containers: []Container{
			{ID: "c1", Name: "one", Gateway: ip("10.1.0.1"), Nets: map[string]netip.Addr{"b": ip("10.1.0.2")}},
			{ID: "c2", Name: "two", Gateway: ip("10.2.0.1"), V6: true, Nets: map[string]netip.Addr{"g": ip("10.2.0.2")}},
		},
	}
}

// text is what was decided, a line each.
func text(w Wanted) string {
	var out []string
	for _, j := range w.Join {
		out = append(out, strings.TrimRight(fmt.Sprintf("join %s %v %v", j.Name, j.IPv4, j.IPv6), " "))
	}
	for _, id := range w.Leave {
		out = append(out, "leave "+id)
	}
	routes := func(where string, m map[kernel.RouteKey]kernel.Route) {
		for k, r := range m {
			line := where + " " + k.Dst.String()
			if !r.NextHops[0].Via.IsValid() {
				continue // the host link's own
			}
			for _, h := range r.NextHops {
				line += " via " + h.Via.String()
				if h.Link != "" {
					line += " dev " + h.Link
				}
			}
			if r.Src.IsValid() {
				line += " src " + r.Src.String()
			}
			out = append(out, line)
		}
	}
	routes("self", w.Self)
	routes("host", w.Host)
	for _, id := range slices.Sorted(maps.Keys(w.Steered)) {
		routes(id, w.Steered[id])
	}
	for _, p := range w.Tell {
		out = append(out, "tell "+p.String())
	}
	for _, p := range w.Masquerade {
		out = append(out, "masquerade "+p.String())
	}
	for _, p := range w.Problems {
		out = append(out, "problem "+p)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func TestDecide(t *testing.T) {
	tests := []struct {
		name string
		view func(*View)
		opt  func(*Options)
		want string
	}{
		{"containers' packets go through the router", nil, nil, `
c1 0.0.0.0/0 via 10.1.0.9
c2 0.0.0.0/0 via 10.2.0.9
c2 ::/0 via fd02::9
tell 10.1.0.0/24
tell 10.2.0.0/24
tell fd02::/64`},
		{"without the gateway only to networks and static routes, which summarise", func(v *View) {
			v.Learned = map[netip.Prefix][]netip.Addr{pfx("10.3.0.0/24"): {ip("10.2.0.77")}, pfx("10.4.0.0/24"): {ip("10.2.0.77")}}
		}, func(o *Options) {
			o.ContainerGateway = false
			o.StaticRoutes = []netip.Prefix{pfx("10.4.0.0/16")}
		}, `
c1 10.2.0.0/24 via 10.1.0.9
c1 10.3.0.0/24 via 10.1.0.9
c1 10.4.0.0/16 via 10.1.0.9
c2 10.1.0.0/24 via 10.2.0.9
c2 10.3.0.0/24 via 10.2.0.9
c2 10.4.0.0/16 via 10.2.0.9
self 10.3.0.0/24 via 10.2.0.77 dev eth1
self 10.4.0.0/24 via 10.2.0.77 dev eth1
tell 10.1.0.0/24
tell 10.2.0.0/24
tell fd02::/64`},
		{"a network that is shared is connected, not learned", func(v *View) {
			v.Containers = nil
			v.Learned = map[netip.Prefix][]netip.Addr{pfx("10.1.0.0/24"): {ip("10.2.0.77")}, pfx("10.9.0.0/24"): {ip("192.0.2.1")}}
		}, nil, `
tell 10.1.0.0/24
tell 10.2.0.0/24
tell fd02::/64`},
		{"a container on two networks has one way out, that of its default route", func(v *View) {
			v.Containers = []Container{{ID: "c", Gateway: ip("10.2.0.1"), Nets: map[string]netip.Addr{"b": ip("10.1.0.2"), "g": ip("10.2.0.2")}}}
		}, func(o *Options) { o.ContainerGateway = false; o.StaticRoutes = []netip.Prefix{pfx("10.8.0.0/16")} }, `
c 10.8.0.0/16 via 10.2.0.9
tell 10.1.0.0/24
tell 10.2.0.0/24
tell fd02::/64`},
		{"one whose default route leaves elsewhere takes the first network", func(v *View) {
			v.Containers = []Container{{ID: "c", Nets: map[string]netip.Addr{"b": ip("10.1.0.2"), "g": ip("10.2.0.2"), "x": ip("10.7.0.2")}}}
		}, nil, `
c 0.0.0.0/0 via 10.1.0.9
tell 10.1.0.0/24
tell 10.2.0.0/24
tell fd02::/64`},
		{"a network whose link is not there yet steers nobody", func(v *View) { v.Links = v.Links[1:]; v.Containers = v.Containers[:1] }, nil, `
tell 10.2.0.0/24
tell fd02::/64`},
		{"networks to join, to leave, and to leave alone", func(v *View) {
			v.Containers, v.Links = nil, nil
			v.Networks = []Network{
				{ID: "1", Name: "new", Marked: true},
				{ID: "2", Name: "unmarked", Joined: true},
				{ID: "3", Name: "thrown out", Marked: true, Left: true},
				{ID: "4", Name: "ours", Driver: "fairway", Marked: true},
				{ID: "5", Name: "stranger"},
			}
		}, nil, `
join new invalid IP invalid IP
leave 2`},
		{"not aggressive", func(v *View) {
			v.Containers, v.Links = nil, nil
			v.Networks = []Network{
				{ID: "1", Name: "used", Marked: true, Local: 1},
				{ID: "2", Name: "unused", Marked: true},
				{ID: "3", Name: "emptied", Marked: true, Joined: true},
				{ID: "4", Name: "backbone", Transit: true},
			}
		}, func(o *Options) { o.Aggressive = false; o.TransitNet = "backbone" }, `
join backbone invalid IP invalid IP
join used invalid IP invalid IP
leave 3`},
		{"the last address of each subnet", func(v *View) {
			v.Containers, v.Links = nil, nil
			v.Networks[0].Joined, v.Networks[1].Joined = false, false
		}, func(o *Options) { o.IPOffset = -1 }, `
join blue 10.1.0.254 invalid IP
join green 10.2.0.254 fd02::ffff:ffff:ffff:fffe`},
		{"the gateway's own address", func(v *View) {
			v.Containers, v.Links = nil, nil
			v.Networks[0].Joined = false
			v.Networks = v.Networks[:1]
		}, func(o *Options) { o.IPOffset = 1 }, `
problem network blue is not joined: --ip-offset 1 is 10.1.0.1, the network's own gateway: choose another offset, or make the network with another --gateway`},
		{"everything of the host link", func(v *View) {
			v.Containers = nil
			v.Host = []netip.Addr{ip("192.0.2.11")}
			v.Learned = map[netip.Prefix][]netip.Addr{pfx("10.3.0.0/24"): {ip("10.2.0.77")}, pfx("192.0.2.12/32"): {ip("10.2.0.77")}}
			v.ByHost = []netip.Prefix{pfx("10.50.0.0/16")}
		}, func(o *Options) { o.Masquerade, o.HostGateway, o.HostShortcut = true, true, true }, `
host 10.1.0.0/24 via 172.29.255.254 src 192.0.2.11
host 10.2.0.0/24 via 172.29.255.254 src 192.0.2.11
host 10.3.0.0/24 via 172.29.255.254 src 192.0.2.11
host fd02::/64 via fd72:6f75:7465::2
masquerade 10.1.0.0/24
masquerade 10.2.0.0/24
masquerade 10.3.0.0/24
masquerade fd02::/64
self 0.0.0.0/0 via 172.29.255.253 dev host0
self 10.3.0.0/24 via 10.2.0.77 dev eth1
self 10.50.0.0/16 via 172.29.255.253 dev host0
self 192.0.2.11/32 via 172.29.255.253 dev host0
self 192.0.2.12/32 via 10.2.0.77 dev eth1
self ::/0 via fd72:6f75:7465::1 dev host0
tell 10.1.0.0/24
tell 10.2.0.0/24
tell 192.0.2.11/32
tell fd02::/64`},
		{"the transit network's gateway leads to the rest", func(v *View) { v.Containers = nil; v.Networks[1].Transit = true }, func(o *Options) { o.TransitNet = "green" }, `
self 0.0.0.0/0 via 10.2.0.1 dev eth1
self ::/0 via fd02::1 dev eth1
tell 10.1.0.0/24
tell 10.2.0.0/24
tell fd02::/64`},
		{"a transit network that is not there", func(v *View) { v.Networks, v.Containers = nil, nil }, func(o *Options) { o.TransitNet = "backbone" }, `
problem --transit-net backbone: the engine has no such network; it is joined once there is one`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := two()
			if tt.view != nil {
				tt.view(&v)
			}
			if d := cmp.Diff(strings.TrimSpace(tt.want), text(Decide(v, options(tt.opt)))); d != "" {
				t.Errorf("decided (-want +got):\n%s", d)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	tests := []struct {
		name string
		opt  func(*Options)
		want string // the error
	}{
		{"none", nil, ""},
		{"masquerade without a link", func(o *Options) { o.HostLink, o.Masquerade = false, true }, "--no-p2p with --masquerade"},
		{"host gateway without a link", func(o *Options) { o.HostLink, o.HostGateway = false, true }, "--no-p2p with --host-gateway"},
		{"shortcut without a link", func(o *Options) { o.HostLink, o.HostShortcut = false, true }, "--no-p2p with --host-shortcut"},
		{"no link at all", func(o *Options) { o.HostLink, o.P2PNet = false, netip.Prefix{} }, ""},
		{"a link without room", func(o *Options) { o.P2PNet = pfx("10.0.0.0/31") }, "--p2p-net 10.0.0.0/31: has no two usable addresses"},
		{"a link with host bits", func(o *Options) { o.P2PNet = pfx("10.0.0.1/30") }, "did you mean 10.0.0.0/30?"},
		{"a link of the other family", func(o *Options) { o.P2PNet = pfx("fd00::/64") }, "is of the other family"},
		{"no IPv6 link", func(o *Options) { o.P2PNet6 = netip.Prefix{} }, ""},
		{"static route with host bits", func(o *Options) { o.StaticRoutes = []netip.Prefix{pfx("10.0.0.1/8")} }, "did you mean 10.0.0.0/8?"},
		{"static default route", func(o *Options) { o.StaticRoutes = []netip.Prefix{pfx("0.0.0.0/0")} }, "use --container-gateway"},
		{"a peer that is none", func(o *Options) { o.Peers = []netip.Addr{ip("224.0.0.1")} }, "--peer 224.0.0.1: want the IPv4 unicast address"},
		{"too many looks", func(o *Options) { o.Resync = time.Millisecond }, "--resync 1ms: want 1s or more"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := options(tt.opt)
			err := o.Check()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	o := options(func(o *Options) { o.Masquerade = true })
	if err := o.Check(); err != nil || !o.HostGateway || !o.HostShortcut {
		t.Errorf("masquerade implies host gateway (%v) and shortcut (%v): %v", o.HostGateway, o.HostShortcut, err)
	}
}

func TestOffset(t *testing.T) {
	tests := []struct {
		subnet string
		n      int
		want   string // "" is an error
	}{
		{"10.1.0.0/24", 1, "10.1.0.1"},
		{"10.1.0.0/24", -1, "10.1.0.254"},
		{"10.1.0.0/24", -3, "10.1.0.252"},
		{"10.1.0.0/24", 254, "10.1.0.254"},
		{"10.1.0.0/24", 255, ""},
		{"10.1.0.0/24", -255, ""},
		{"10.1.0.0/31", 1, "10.1.0.0"},
		{"10.1.0.0/31", -1, "10.1.0.1"},
		{"10.1.0.0/31", 3, ""},
		{"fd00::/64", 2, "fd00::2"},
		{"fd00::/64", -1, "fd00::ffff:ffff:ffff:fffe"},
		{"255.255.255.0/24", 300, ""},
	}
	for _, tt := range tests {
		got, err := offset(pfx(tt.subnet), tt.n)
		if (err != nil) != (tt.want == "") || err == nil && got.String() != tt.want {
			t.Errorf("offset(%s, %d) = %v, %v, want %q", tt.subnet, tt.n, got, err, tt.want)
		}
	}
}

func TestMarked(t *testing.T) {
	tests := []struct {
		options, labels map[string]string
		instance        string
		want            bool
	}{
		{nil, nil, "", false},
		{map[string]string{"fairway.router": "true"}, nil, "", true},
		{nil, map[string]string{"fairway.router": "1"}, "", true},
		{map[string]string{"drouter": "true"}, nil, "", true},
		{map[string]string{"drouter": "false"}, nil, "", false},
		{map[string]string{"fairway.router": "lab"}, nil, "", false},
		{map[string]string{"fairway.router": "lab"}, nil, "lab", true},
		{map[string]string{"fairway.router": "true"}, nil, "lab", false},
		{map[string]string{"drouter": "no"}, map[string]string{"fairway.router": "lab"}, "lab", true},
	}
	for _, tt := range tests {
		if got := Marked(tt.options, tt.labels, tt.instance); got != tt.want {
			t.Errorf("Marked(%v, %v, %q) = %v", tt.options, tt.labels, tt.instance, got)
		}
	}
}

func TestMetrics(t *testing.T) {
	seen := map[uint32]string{}
	for _, name := range []string{"", "a", "b", "blue", "green", "lab", "prod"} {
		m := metricOf(name)
		if m == kernel.RouteMetric || seen[m] != "" {
			t.Errorf("instance %q has metric %d, as %q or the agent", name, m, seen[m])
		}
		seen[m] = name + "."
		if n := len(hostLinkOnHost(name)); n > 15 {
			t.Errorf("instance %q: link name of %d bytes", name, n)
		}
	}
}
