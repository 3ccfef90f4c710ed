package plan_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/cnm"
	"fairway/internal/kernel"
	"fairway/internal/plan"
	"fairway/internal/rib"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func ip(s string) netip.Addr    { return netip.MustParseAddr(s) }

// node is a host with an uplink and a second, dead one.
func node() plan.Input {
	return plan.Input{
		Node: plan.Node{Addr4: ip("10.77.0.11"), Addr6: ip("fd77::11"), MTU: 1450, Docker: true, BGPPort: 179, BFD: true},
		Facts: kernel.Facts{Links: map[string]kernel.FactLink{
			"eth0": {Name: "eth0", Up: true, Carrier: true, Addrs: []netip.Prefix{pfx("10.77.0.11/24"), pfx("fd77::11/64"), pfx("fe80::1/64")}},
			"eth1": {Name: "eth1", Up: true, Addrs: []netip.Prefix{pfx("10.78.0.11/24")}},
		}},
	}
}

func dual() cnm.Network {
	return cnm.Network{ID: "net1", Mode: cnm.Routed, Subnets: []cnm.Subnet{
		{Prefix: pfx("10.9.0.0/16"), Gateway: ip("10.9.0.1")}, {Prefix: pfx("fd09::/64"), Gateway: ip("fd09::1")},
	}}
}

func endpoint(id string, state cnm.State, addrs ...string) cnm.Endpoint {
	e := cnm.Endpoint{ID: id, Network: "net1", State: state, MAC: kernel.MAC{2, 0, 0, 0, 0, id[len(id)-1]}, Sandbox: "/ns/" + id}
	for _, a := range addrs {
		e.Addrs = append(e.Addrs, pfx(a))
	}
	return e
}

func TestCompute(t *testing.T) {
	tests := []struct {
		name string
		in   func() plan.Input
		want string // kernel state without what every node has, then announcements and problems
	}{
		{"nothing", node, ""},
		{"one dual stack container in its blocks", func() plan.Input {
			in := node()
			in.Networks = []cnm.Network{dual()}
			in.Blocks = []netip.Prefix{pfx("10.9.0.0/26"), pfx("fd09::/122")}
			in.Endpoints = []cnm.Endpoint{endpoint("e1", cnm.Joined, "10.9.0.2/32", "fd09::2/128")}
			return in
		}, `
addr 10.9.0.1/32 dev fwe1
addr fd09::1/128 dev fwe1
link fwe1 type veth mtu 1450 address 02:fa:18:fa:18:01 alias fairway:net1/e1 peer fve1 02:00:00:00:00:31
neigh 10.9.0.2 lladdr 02:00:00:00:00:31 dev fwe1 permanent
neigh fd09::2 lladdr 02:00:00:00:00:31 dev fwe1 permanent
route 10.9.0.2/32 dev fwe1 src 10.77.0.11
route blackhole 10.9.0.0/26
route blackhole fd09::/122
route fd09::2/128 dev fwe1 src fd77::11
sandbox /ns/e1 02:00:00:00:00:31 addrs [] neighs [{10.9.0.1 02:fa:18:fa:18:01} {fd09::1 02:fa:18:fa:18:01}]
sysctl net/ipv6/conf/all/forwarding = 1
sysctl net/ipv6/conf/fwe1/disable_ipv6 = 0
announce 10.9.0.0/26 block
announce fd09::/122 block
`},
		{"address outside the blocks, and a further one", func() plan.Input {
			in := node()
			n := dual()
			n.Subnets, n.MTU = n.Subnets[:1], 1300
			in.Networks = []cnm.Network{n}
			e := endpoint("e1", cnm.Joined, "10.9.200.9/32")
			e.Extra = []netip.Addr{ip("192.0.2.7")}
			in.Endpoints = []cnm.Endpoint{e}
			return in
		}, `
addr 10.9.0.1/32 dev fwe1
link fwe1 type veth mtu 1300 address 02:fa:18:fa:18:01 alias fairway:net1/e1 peer fve1 02:00:00:00:00:31
neigh 10.9.200.9 lladdr 02:00:00:00:00:31 dev fwe1 permanent
neigh 192.0.2.7 lladdr 02:00:00:00:00:31 dev fwe1 permanent
route 10.9.200.9/32 dev fwe1 src 10.77.0.11
route 192.0.2.7/32 dev fwe1 src 10.77.0.11
sandbox /ns/e1 02:00:00:00:00:31 addrs [192.0.2.7/32] neighs [{10.9.0.1 02:fa:18:fa:18:01}]
announce 10.9.200.9/32 address
announce 192.0.2.7/32 address
`},
		{"created has nothing, left keeps only its link", func() plan.Input {
			in := node()
			n := dual()
			n.Subnets = n.Subnets[:1]
			in.Networks = []cnm.Network{n}
			in.Endpoints = []cnm.Endpoint{endpoint("e1", cnm.Created, "10.9.0.2/32"), endpoint("e2", cnm.Left, "10.9.0.3/32")}
			return in
		}, `
link fwe2 type veth mtu 1450 address 02:fa:18:fa:18:01 alias fairway:net1/e2 peer fve2 02:00:00:00:00:32 if existing
`},
		{"heard routes", func() plan.Input {
			in := node()
			in.Heard = routes(
				heard("10.9.2.0/24", rib.Path{NextHop: ip("10.77.0.13")}, rib.Path{NextHop: ip("10.77.0.12")}),
				heard("10.9.3.0/24", rib.Path{NextHop: ip("fe80::7"), Link: "eth0"}),
				heard("10.9.4.0/24", rib.Path{NextHop: ip("172.16.0.1"), Peer: "172.16.0.1"}),
				heard("10.9.5.0/24", rib.Path{NextHop: ip("10.78.0.12")}),
				heard("10.9.6.0/24", rib.Path{NextHop: ip("10.78.0.12")}, rib.Path{NextHop: ip("10.77.0.12")}),
			)
			return in
		}, `
route 10.9.2.0/24 nexthop via 10.77.0.12 dev eth0 nexthop via 10.77.0.13 dev eth0
route 10.9.3.0/24 via fe80::7 dev eth0
route 10.9.6.0/24 via 10.77.0.12 dev eth0
problem next_hop_unreachable route 10.9.4.0/24 from 172.16.0.1: next hop 172.16.0.1 is on no link of this node
`},
		{"what is ours is not looked for elsewhere", func() plan.Input {
			in := node()
			n := dual()
			n.Subnets = n.Subnets[:1]
			in.Networks, in.Blocks = []cnm.Network{n}, []netip.Prefix{pfx("10.9.0.0/26")}
			in.Endpoints = []cnm.Endpoint{endpoint("e1", cnm.Joined, "10.9.200.9/32")}
			in.Heard = routes(
				heard("10.9.0.0/26", rib.Path{NextHop: ip("10.77.0.12"), Node: ip("10.77.0.12")}),
				heard("10.9.200.9/32", rib.Path{NextHop: ip("10.77.0.12"), Peer: "10.77.0.12"}),
			)
			return in
		}, `
addr 10.9.0.1/32 dev fwe1
link fwe1 type veth mtu 1450 address 02:fa:18:fa:18:01 alias fairway:net1/e1 peer fve1 02:00:00:00:00:31
neigh 10.9.200.9 lladdr 02:00:00:00:00:31 dev fwe1 permanent
route 10.9.200.9/32 dev fwe1 src 10.77.0.11
route blackhole 10.9.0.0/26
sandbox /ns/e1 02:00:00:00:00:31 addrs [] neighs [{10.9.0.1 02:fa:18:fa:18:01}]
announce 10.9.0.0/26 block
announce 10.9.200.9/32 address
problem duplicate_address address 10.9.200.9/32 is held by this node and announced by 10.77.0.12 too
problem duplicate_block block 10.9.0.0/26 is held by this node and announced by node 10.77.0.12 too
`},
		{"a fenced block is not announced; its containers stay, the rest is the holder's", func() plan.Input {
			in := node()
			n := dual()
			n.Subnets = n.Subnets[:1]
			in.Networks = []cnm.Network{n}
			in.Blocks, in.Fenced = []netip.Prefix{pfx("10.9.0.0/26")}, []netip.Prefix{pfx("10.9.0.64/26"), pfx("10.9.0.128/26")}
			e := endpoint("e1", cnm.Joined, "10.9.0.66/32")
			in.Endpoints = []cnm.Endpoint{e}
			in.Heard = routes(heard("10.9.0.64/26", rib.Path{NextHop: ip("10.77.0.12")}))
			return in
		}, `
addr 10.9.0.1/32 dev fwe1
link fwe1 type veth mtu 1450 address 02:fa:18:fa:18:01 alias fairway:net1/e1 peer fve1 02:00:00:00:00:31
neigh 10.9.0.66 lladdr 02:00:00:00:00:31 dev fwe1 permanent
route 10.9.0.64/26 via 10.77.0.12 dev eth0
route 10.9.0.66/32 dev fwe1 src 10.77.0.11
route blackhole 10.9.0.0/26
route blackhole 10.9.0.128/26
sandbox /ns/e1 02:00:00:00:00:31 addrs [] neighs [{10.9.0.1 02:fa:18:fa:18:01}]
announce 10.9.0.0/26 block
`},
		{"a container that moved away with its address is looked for there, though the block is ours", func() plan.Input {
			in := node()
			in.Blocks = []netip.Prefix{pfx("10.9.0.0/26")}
			in.Heard = routes(heard("10.9.0.7/32", rib.Path{NextHop: ip("10.77.0.12")}))
			return in
		}, `
route 10.9.0.7/32 via 10.77.0.12 dev eth0
route blackhole 10.9.0.0/26
announce 10.9.0.0/26 block
`},
		{"draining", func() plan.Input { return drained(plan.Draining) }, drainedText + "announce 10.9.0.0/26 block shutdown\nannounce 192.0.2.0/24 route shutdown\n"},
		{"drained", func() plan.Input { return drained(plan.Drained) }, drainedText},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(strings.TrimPrefix(tc.want, "\n"), text(plan.Compute(tc.in()))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// drained is a node with a block and a further route.
func drained(d plan.Drain) plan.Input {
	in := node()
	in.Blocks, in.Announce, in.Drain = []netip.Prefix{pfx("10.9.0.0/26")}, []netip.Prefix{pfx("192.0.2.0/24")}, d
	return in
}

const drainedText = "route blackhole 10.9.0.0/26\n"

// text leaves out what every node has.
func text(out plan.Output) string {
	var lines []string
	for l := range strings.Lines(out.State.String()) {
		if !strings.HasPrefix(l, "firewall ") && !strings.HasPrefix(l, "sysctl net/ipv4/ip_forward") && l != "\n" {
			lines = append(lines, l)
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(out.Announce), netip.Prefix.Compare) {
		kind := out.Announce[p].Kind
		if out.Announce[p].GracefulShutdown {
			kind += " shutdown"
		}
		lines = append(lines, fmt.Sprintf("announce %s %s\n", p, kind))
	}
	for _, p := range out.Problems {
		lines = append(lines, fmt.Sprintf("problem %s %s\n", p.Code, p.Text))
	}
	return strings.Join(lines, "")
}

func heard(prefix string, paths ...rib.Path) rib.Route {
	return rib.Route{Prefix: pfx(prefix), Paths: paths}
}

func routes(list ...rib.Route) map[netip.Prefix]rib.Route {
	m := map[netip.Prefix]rib.Route{}
	for _, r := range list {
		m[r.Prefix] = r
	}
	return m
}

func TestEveryAnnouncementNeedsItsRoute(t *testing.T) {
	in := node()
	in.Networks, in.Blocks = []cnm.Network{dual()}, []netip.Prefix{pfx("10.9.0.0/26")}
	in.Endpoints = []cnm.Endpoint{endpoint("e1", cnm.Joined, "10.9.0.2/32", "fd09::2/128")}
	out := plan.Compute(in)
	for p, a := range out.Announce {
		if _, ok := out.State.Routes[a.Needs]; !ok {
			t.Errorf("announced %s needs route %v, which is not planned", p, a.Needs)
		}
	}
}

func TestFirewall(t *testing.T) {
	in := node()
	e1, e2 := endpoint("e1", cnm.Joined, "10.9.0.2/32"), endpoint("e2", cnm.Joined, "10.8.0.2/32")
	e2.Network, e2.Sandbox = "net2", e1.Sandbox
	in.Endpoints = []cnm.Endpoint{e1, e2, endpoint("e3", cnm.Joined, "10.9.0.4/32")}
	want := kernel.Firewall{
		Links: []string{"fw*"}, AntiSpoof: true, ClosedTCP: []uint16{179}, ClosedUDP: []uint16{3784},
		Siblings: []kernel.LinkAddr{{Link: "fwe1", Addr: ip("10.8.0.2")}, {Link: "fwe2", Addr: ip("10.9.0.2")}},
	}
	if got := plan.Compute(in).State.Firewall; !got.Equal(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	in.Node.Docker = false
	if got := plan.Compute(in).State.Firewall; !got.Equal(kernel.Firewall{}) {
		t.Errorf("a plain router has %+v", got)
	}
}

func BenchmarkCompute(b *testing.B) {
	in := node()
	in.Networks = []cnm.Network{dual()}
	for i := range 1000 {
		in.Endpoints = append(in.Endpoints, endpoint(fmt.Sprintf("e%d", i), cnm.Joined, fmt.Sprintf("10.9.%d.%d/32", i/250, i%250)))
	}
	in.Heard = map[netip.Prefix]rib.Route{}
	for i := range 10_000 {
		r := heard(fmt.Sprintf("10.10.%d.%d/32", i/250, i%250), rib.Path{NextHop: ip("10.77.0.12")})
		in.Heard[r.Prefix] = r
	}
	for b.Loop() {
		plan.Compute(in)
	}
}

func TestInternalNetworksAreKeptApart(t *testing.T) {
	in := node()
	n := dual()
	n.Internal = true
	other := cnm.Network{ID: "net0", Mode: cnm.Routed, Subnets: []cnm.Subnet{{Prefix: pfx("10.8.0.0/16")}}}
	in.Networks = []cnm.Network{n, other}
	in.Endpoints = []cnm.Endpoint{endpoint("e1", cnm.Joined, "10.9.0.2/32", "fd09::2/128")}
	out := plan.Compute(in)
	want := [][]netip.Prefix{{pfx("10.9.0.0/16"), pfx("fd09::/64")}}
	same := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if diff := cmp.Diff(want, out.State.Firewall.Internal, same); diff != "" {
		t.Error(diff)
	}
	for _, r := range out.State.Links["fwe1"].Peer.Plug.Routes {
		if r.Dst.Bits() == 0 {
			t.Errorf("a veth that is made anew would get a default route via %s", r.Via)
		}
	}
}
