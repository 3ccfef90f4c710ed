package plan_test

import (
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

// perNode is a network with a subnet per node, of which this node has its part of each family.
func perNode() cnm.Network {
	return cnm.Network{ID: "net1", Mode: cnm.PerNode, Subnets: []cnm.Subnet{
		{Prefix: pfx("10.9.0.0/16"), Part: pfx("10.9.1.0/24"), Gateway: ip("10.9.1.1")},
		{Prefix: pfx("fd09::/48"), Part: pfx("fd09:0:0:1::/64"), Gateway: ip("fd09:0:0:1::1")},
	}}
}

func TestSubnetPerNode(t *testing.T) {
	in := node()
	in.Networks = []cnm.Network{perNode()}
	in.Blocks = []netip.Prefix{pfx("10.9.1.0/24"), pfx("fd09:0:0:1::/64")}
	e1 := endpoint("e1", cnm.Joined, "10.9.1.2/24", "fd09:0:0:1::2/64")
	e1.Extra = []netip.Addr{ip("192.0.2.7")}
	in.Endpoints = []cnm.Endpoint{e1, endpoint("e2", cnm.Left, "10.9.1.3/24"), endpoint("e3", cnm.Created, "10.9.1.4/24")}
	out := plan.Compute(in)
	want := `addr 10.9.1.1/24 dev fwbnet1
addr fd09:0:0:1::1/64 dev fwbnet1
firewall accept [fw*] anti-spoof true closed tcp [179] udp [3784] siblings [] internal []
link fwbnet1 type bridge mtu 1450 address 02:fa:18:fa:18:01 alias fairway:net1/bridge
link fwe1 type veth mtu 1450 address 02:fa:18:fa:18:01 alias fairway:net1/e1 peer fve1 02:00:00:00:00:31 master fwbnet1
link fwe2 type veth mtu 1450 address 02:fa:18:fa:18:01 alias fairway:net1/e2 peer fve2 02:00:00:00:00:32 master fwbnet1 if existing
neigh 10.9.1.2 lladdr 02:00:00:00:00:31 dev fwbnet1 permanent
neigh 192.0.2.7 lladdr 02:00:00:00:00:31 dev fwbnet1 permanent
neigh fd09:0:0:1::2 lladdr 02:00:00:00:00:31 dev fwbnet1 permanent
port fwe1 of fwbnet1 02:00:00:00:00:31 from [10.9.1.2 192.0.2.7 fd09:0:0:1::2]
route 10.9.1.0/24 dev fwbnet1
route 192.0.2.7/32 dev fwbnet1 src 10.77.0.11
route fd09:0:0:1::/64 dev fwbnet1
sandbox /ns/e1 02:00:00:00:00:31 addrs [192.0.2.7/32] neighs [{10.9.1.1 02:fa:18:fa:18:01} {fd09:0:0:1::1 02:fa:18:fa:18:01}]
sysctl net/ipv4/ip_forward = 1
sysctl net/ipv6/conf/all/forwarding = 1
sysctl net/ipv6/conf/fwbnet1/disable_ipv6 = 0
`
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(out.State.String(), "\n")); diff != "" {
		t.Error(diff)
	}
	for prefix, a := range map[netip.Prefix]plan.Announcement{
		pfx("10.9.1.0/24"):     {Kind: "block", Needs: kernel.RouteKey{Dst: pfx("10.9.1.0/24")}, Link: "fwbnet1"},
		pfx("fd09:0:0:1::/64"): {Kind: "block", Needs: kernel.RouteKey{Dst: pfx("fd09:0:0:1::/64")}, Link: "fwbnet1"},
		pfx("192.0.2.7/32"):    {Kind: "address", Needs: kernel.RouteKey{Dst: pfx("192.0.2.7/32")}},
	} {
		if got := out.Announce[prefix]; got != a {
			t.Errorf("%s is announced as %+v, want %+v", prefix, got, a)
		}
	}
	if len(out.Announce) != 3 {
		t.Errorf("announced: %v", out.Announce)
	}
	plug := out.State.Links["fwe1"].Peer.Plug
	if !slices.Equal(plug.Addrs, []netip.Prefix{pfx("10.9.1.2/24"), pfx("fd09:0:0:1::2/64"), pfx("192.0.2.7/32")}) || len(plug.OnLink) > 0 || len(plug.Routes) != 2 {
		t.Errorf("a veth made anew would get %+v", plug)
	}
}

// Without a subnet there is no bridge; with options it is as they say, and its name is in the firewall.
func TestSubnetPerNodeBridge(t *testing.T) {
	in := node()
	n := perNode()
	for i := range n.Subnets {
		n.Subnets[i].Part, n.Subnets[i].Gateway = netip.Prefix{}, netip.Addr{}
	}
	in.Networks = []cnm.Network{n}
	if out := plan.Compute(in); len(out.State.Links)+len(out.Announce) > 0 {
		t.Errorf("links %v, announced %v", out.State.Links, out.Announce)
	}
	n = perNode()
	n.MTU, n.Bridge = 1400, cnm.Bridge{Name: "br-app", MTU: 9000, MAC: kernel.MAC{2, 1}}
	in.Networks = []cnm.Network{n}
	in.Endpoints = []cnm.Endpoint{endpoint("e1", cnm.Joined, "10.9.1.2/24")}
	s := plan.Compute(in).State
	if l := s.Links["br-app"]; l.MTU != 9000 || l.MAC != n.Bridge.MAC || s.Links["fwe1"].MTU != 1400 || s.Links["fwe1"].Master != "br-app" {
		t.Errorf("links %+v", s.Links)
	}
	if !slices.Equal(s.Firewall.Links, []string{"fw*", "br-app"}) {
		t.Errorf("firewall %+v", s.Firewall)
	}
	for k, v := range s.Sandbox {
		if v.Neighs[0].MAC != n.Bridge.MAC {
			t.Errorf("%v has %v", k, v.Neighs)
		}
	}
}

// A container on a bridge and on a routed network may answer over either from its address on the other.
func TestSubnetPerNodeSiblings(t *testing.T) {
	in := node()
	routed := cnm.Network{ID: "net2", Mode: cnm.Routed, Subnets: []cnm.Subnet{{Prefix: pfx("10.8.0.0/16"), Gateway: ip("10.8.0.1")}}}
	in.Networks = []cnm.Network{perNode(), routed}
	e1, e2 := endpoint("e1", cnm.Joined, "10.9.1.2/24"), endpoint("e2", cnm.Joined, "10.8.0.2/32")
	e2.Network, e2.Sandbox = "net2", e1.Sandbox
	in.Endpoints = []cnm.Endpoint{e1, e2}
	f := plan.Compute(in).State.Firewall
	if want := []kernel.LinkAddr{{Link: "fwbnet1", Addr: ip("10.8.0.2")}, {Link: "fwe2", Addr: ip("10.9.1.2")}}; !slices.Equal(f.Siblings, want) {
		t.Errorf("siblings %v, want %v", f.Siblings, want)
	}
	if len(f.Ports) != 1 || !slices.Equal(f.Ports[0].Addrs, []netip.Addr{ip("10.8.0.2"), ip("10.9.1.2")}) {
		t.Errorf("ports %+v", f.Ports)
	}
}

// A subnet that another node announces too is this node's all the same, and told.
func TestSubnetPerNodeTwice(t *testing.T) {
	in := node()
	in.Networks, in.Blocks = []cnm.Network{perNode()}, []netip.Prefix{pfx("10.9.1.0/24")}
	in.Heard = routes(heard("10.9.1.0/24", rib.Path{NextHop: ip("10.77.0.12")}))
	out := plan.Compute(in)
	if r := out.State.Routes[kernel.RouteKey{Dst: pfx("10.9.1.0/24")}]; len(r.NextHops) != 1 || r.NextHops[0].Link != "fwbnet1" {
		t.Errorf("route %+v", r)
	}
	if len(out.Problems) != 1 || out.Problems[0].Code != "duplicate_block" {
		t.Errorf("problems %+v", out.Problems)
	}
}

// Docker's own networks are announced while their bridge is up and has the subnet, and their packets to the cluster keep
// their source.
func TestDockerNetworks(t *testing.T) {
	in := node()
	in.Facts.Links["br-1"] = kernel.FactLink{Name: "br-1", Kind: "bridge", Up: true, Addrs: []netip.Prefix{pfx("10.5.1.1/24")}}
	in.Facts.Links["br-3"] = kernel.FactLink{Name: "br-3", Kind: "bridge", Up: true, Addrs: []netip.Prefix{pfx("10.5.3.1/24")}}
	in.Networks = []cnm.Network{dual()}
	in.Heard = routes(heard("10.5.2.0/24", rib.Path{NextHop: ip("10.77.0.12")}), heard("0.0.0.0/0", rib.Path{NextHop: ip("10.77.0.1")}))
	in.Docker = []plan.DockerNetwork{
		{Name: "one", Link: "br-1", Subnets: []netip.Prefix{pfx("10.5.1.0/24"), pfx("10.6.0.0/24")}},
		{Name: "gone", Link: "br-2", Subnets: []netip.Prefix{pfx("10.5.4.0/24")}},
		{Name: "inside", Link: "br-3", Internal: true, Subnets: []netip.Prefix{pfx("10.5.3.0/24")}},
	}
	out := plan.Compute(in)
	if len(out.Announce) != 1 || out.Announce[pfx("10.5.1.0/24")] != (plan.Announcement{Kind: plan.KindDocker}) {
		t.Errorf("announced %v", out.Announce)
	}
	f := out.State.Firewall
	want := kernel.Unhidden{From: []netip.Prefix{pfx("10.5.1.0/24")}, To: []netip.Prefix{pfx("10.5.2.0/24"), pfx("10.9.0.0/16"), pfx("fd09::/64")}}
	if !slices.Equal(f.Bridges, []string{"br-1"}) || !f.Unhidden.Equal(want) {
		t.Errorf("bridges %v, unhidden %+v, want %+v", f.Bridges, f.Unhidden, want)
	}
}

// A subnet that another node has by the store is not announced, and its containers go on; without a subnet there is no
// bridge, no gateway and nothing announced.
func TestSubnetFencedAndGone(t *testing.T) {
	in := node()
	in.Networks = []cnm.Network{perNode()}
	in.Endpoints = []cnm.Endpoint{endpoint("e1", cnm.Joined, "10.9.1.2/24", "fd09:0:0:1::2/64")}
	in.Blocks = []netip.Prefix{pfx("10.9.1.0/24"), pfx("fd09:0:0:1::/64")}
	want := plan.Compute(in).State.String()
	in.Blocks, in.Fenced = in.Blocks[1:], in.Blocks[:1]
	for _, heard := range []bool{false, true} {
		if heard { // from its holder
			hears(&in, "10.9.1.0/24")
		}
		out := plan.Compute(in)
		if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(out.State.String(), "\n")); diff != "" {
			t.Errorf("heard %v: a fenced subnet is planned otherwise:\n%s", heard, diff)
		}
		if _, ok := out.Announce[pfx("10.9.1.0/24")]; ok || len(out.Announce) != 1 {
			t.Errorf("heard %v: announced %v, want only the subnet that is not fenced", heard, out.Announce)
		}
	}
	in = node()
	n := perNode()
	for i := range n.Subnets {
		n.Subnets[i].Part, n.Subnets[i].Gateway = netip.Prefix{}, netip.Addr{}
	}
	in.Networks = []cnm.Network{n}
	if out := plan.Compute(in); len(out.Announce)+len(out.State.Links)+len(out.State.Routes)+len(out.State.Addrs) > 0 {
		t.Errorf("without a subnet: %v\n%v", out.Announce, out.State)
	}
}
