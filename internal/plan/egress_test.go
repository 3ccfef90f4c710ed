package plan_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/cnm"
	"fairway/internal/kernel"
	"fairway/internal/plan"
	"fairway/internal/rib"
)

// fixed are the destinations that are never masqueraded, whatever the cluster is.
const fixed4, fixed6 = "224.0.0.0/4 255.255.255.255/32", "fe80::/10 ff00::/8"

func hears(in *plan.Input, prefixes ...string) {
	in.Heard = map[netip.Prefix]rib.Route{}
	for _, p := range prefixes {
		in.Heard[pfx(p)] = rib.Route{Prefix: pfx(p), Paths: []rib.Path{{NextHop: ip("10.77.0.12"), Source: rib.BGP, Peer: "10.77.0.12"}}}
	}
}

func bridged(in *plan.Input, addrs ...string) {
	link := kernel.FactLink{Name: "docker0", Kind: "bridge", Up: true}
	for _, a := range addrs {
		link.Addrs = append(link.Addrs, pfx(a))
	}
	in.Facts.Links["docker0"] = link
}

func prefixText(list []netip.Prefix) string { return strings.Trim(fmt.Sprint(list), "[]") }

func TestEgress(t *testing.T) {
	pool := plan.EgressPool{CIDR: pfx("10.9.0.0/16"), Masquerade: true, NoMasqueradeTo: []netip.Prefix{pfx("192.0.2.0/24"), pfx("2001:db8::/32")}}
	for _, c := range []struct {
		name                 string
		in                   func(in *plan.Input)
		from, direct, except string
	}{
		{"nothing asked for", func(in *plan.Input) { in.Networks = []cnm.Network{dual()} }, "", "", ""},
		{"a network's option", func(in *plan.Input) {
			n := dual()
			n.Egress = cnm.Egress{Way: cnm.EgressMasquerade, NoMasqueradeTo: []netip.Prefix{pfx("198.51.100.0/24")}}
			in.Networks = []cnm.Network{n}
		}, "10.9.0.0/16 fd09::/64", "10.9.0.0/16 " + fixed4 + " fd09::/64 " + fixed6, "{10.9.0.0/16 198.51.100.0/24}"},
		{"the pool's setting, for the family of the pool", func(in *plan.Input) {
			in.Networks, in.Egress.Pools = []cnm.Network{dual()}, []plan.EgressPool{pool}
		}, "10.9.0.0/16", "10.9.0.0/16 " + fixed4 + " fd09::/64 " + fixed6, "{10.9.0.0/16 192.0.2.0/24}"},
		{"networks of the cluster that are not here", func(in *plan.Input) {
			in.Networks, in.Egress.Pools = []cnm.Network{dual()}, []plan.EgressPool{pool}
			in.Egress.Cluster = []netip.Prefix{pfx("172.20.0.0/16"), pfx("10.9.0.0/16"), pfx("fd20::/48")}
		}, "10.9.0.0/16", "10.9.0.0/16 172.20.0.0/16 " + fixed4 + " fd09::/64 fd20::/48 " + fixed6, "{10.9.0.0/16 192.0.2.0/24}"},
		{"the network says otherwise", func(in *plan.Input) {
			n := dual()
			n.Egress.Way = cnm.EgressRoute
			in.Networks, in.Egress.Pools = []cnm.Network{n}, []plan.EgressPool{pool}
		}, "", "", ""},
		{"a subnet larger than the pool is not of the pool", func(in *plan.Input) {
			in.Networks = []cnm.Network{{ID: "n", Mode: cnm.Routed, Subnets: []cnm.Subnet{{Prefix: pfx("10.8.0.0/14")}}}}
			in.Egress.Pools = []plan.EgressPool{pool}
		}, "", "", ""},
		{"a plain router hides the pool, a node with Docker only its networks", func(in *plan.Input) {
			in.Node.Docker, in.Egress.Pools = false, []plan.EgressPool{pool}
		}, "10.9.0.0/16", "10.9.0.0/16 " + fixed4 + " " + fixed6, "{10.9.0.0/16 192.0.2.0/24}"},
		{"a pool without networks", func(in *plan.Input) { in.Egress.Pools = []plan.EgressPool{pool} }, "", "", ""},
		{"what is heard, but for a default route", func(in *plan.Input) {
			in.Networks, in.Egress.Pools = []cnm.Network{dual()}, []plan.EgressPool{pool}
			in.Egress.Underlay = []netip.Prefix{pfx("10.77.0.0/24"), pfx("fd77::/64")}
			hears(in, "0.0.0.0/0", "10.9.3.0/26", "172.20.0.0/16", "172.20.1.0/24", "::/0")
		}, "10.9.0.0/16", "10.9.0.0/16 10.77.0.0/24 172.20.0.0/16 " + fixed4 + " fd09::/64 fd77::/64 " + fixed6, "{10.9.0.0/16 192.0.2.0/24}"},
		{"Docker's default bridge", func(in *plan.Input) {
			in.Egress.Bridge = plan.DockerBridge{
				Subnets: []netip.Prefix{pfx("10.11.1.0/24"), pfx("fd11:0:0:1::/64")}, Pools: []netip.Prefix{pfx("10.11.0.0/16"), pfx("fd11::/48")},
				Masquerade: true, NoMasqueradeTo: []netip.Prefix{pfx("192.0.2.0/24")},
			}
			bridged(in, "10.11.1.1/24", "fd11:0:0:1::1/64")
		}, "10.11.1.0/24 fd11:0:0:1::/64", "10.11.0.0/16 " + fixed4 + " fd11::/48 " + fixed6, "{10.11.1.0/24 192.0.2.0/24}"},
		{"Docker's default bridge as itself", func(in *plan.Input) {
			in.Egress.Bridge = plan.DockerBridge{Subnets: []netip.Prefix{pfx("10.11.1.0/24")}, Pools: []netip.Prefix{pfx("10.11.0.0/16")}}
			bridged(in, "10.11.1.1/24")
		}, "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := node()
			c.in(&in)
			m := plan.Compute(in).State.Firewall.Masquerade
			want := []string{c.from, c.direct, c.except}
			got := []string{prefixText(m.From), prefixText(m.Direct), strings.Trim(fmt.Sprint(m.Except), "[]")}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("from, direct, except (-want +got):\n%s", d)
			}
		})
	}
}

func TestDockerBridge(t *testing.T) {
	bridge := plan.DockerBridge{
		Subnets: []netip.Prefix{pfx("10.11.1.0/24"), pfx("fd11:0:0:1::/64")}, Pools: []netip.Prefix{pfx("10.11.0.0/16"), pfx("fd11::/48")},
	}
	for _, c := range []struct {
		name    string
		in      func(in *plan.Input)
		want    string   // announced, sorted
		bridges string   // whose traffic is accepted
		says    []string // in problems
	}{
		{"as the config has it", func(in *plan.Input) { bridged(in, "10.11.1.1/24", "fe80::1/64", "fd11:0:0:1::1/64") }, "10.11.1.0/24 fd11:0:0:1::/64", "[docker0]", nil},
		{"not applied yet", func(in *plan.Input) { bridged(in, "172.17.0.1/16") }, "", "[]", []string{
			"docker0 has 172.17.0.1/16, and the config gives it subnet 10.11.1.0/24", "docker0 has no address of that family, and the config gives it subnet fd11:0:0:1::/64",
		}},
		{"without IPv6", func(in *plan.Input) { bridged(in, "10.11.1.1/24") }, "10.11.1.0/24", "[docker0]", []string{"subnet fd11:0:0:1::/64"}},
		{"another prefix length", func(in *plan.Input) { bridged(in, "10.11.1.1/25", "fd11:0:0:1::1/64") }, "fd11:0:0:1::/64", "[docker0]", []string{"docker0 has 10.11.1.1/25"}},
		{"set down", func(in *plan.Input) {
			bridged(in, "10.11.1.1/24", "fd11:0:0:1::1/64")
			l := in.Facts.Links["docker0"]
			l.Up = false
			in.Facts.Links["docker0"] = l
		}, "", "[]", []string{"docker0 is down, so subnet 10.11.1.0/24 is not announced", "docker0 is down"}},
		{"no Docker yet", func(*plan.Input) {}, "", "[]", []string{"there is no link docker0", "there is no link docker0"}},
		{"announced by another, too", func(in *plan.Input) {
			bridged(in, "10.11.1.1/24", "fd11:0:0:1::1/64")
			hears(in, "10.11.1.0/24", "10.11.2.0/24")
		}, "10.11.1.0/24 fd11:0:0:1::/64", "[docker0]", []string{"block 10.11.1.0/24 is held by this node and announced by 10.77.0.12 too"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := node()
			in.Egress.Bridge = bridge
			c.in(&in)
			out := plan.Compute(in)
			var announced []string
			for _, p := range []string{"10.11.1.0/24", "fd11:0:0:1::/64"} {
				if a, ok := out.Announce[pfx(p)]; ok && a.Kind == "docker" && !a.Needs.Dst.IsValid() {
					announced = append(announced, p)
				}
			}
			if got := strings.Join(announced, " "); got != c.want || len(out.Announce) != len(announced) {
				t.Errorf("announced %v, want %s", out.Announce, c.want)
			}
			if got := fmt.Sprint(out.State.Firewall.Bridges); got != c.bridges {
				t.Errorf("accepts bridges %s, want %s", got, c.bridges)
			}
			if len(out.Problems) != len(c.says) {
				t.Errorf("problems %v, want %q", out.Problems, c.says)
			}
			for _, want := range c.says {
				if !strings.Contains(fmt.Sprint(out.Problems), want) {
					t.Errorf("problems %v, want in them %q", out.Problems, want)
				}
			}
			if _, own := out.State.Routes[kernel.RouteKey{Dst: pfx("10.11.1.0/24")}]; own {
				t.Error("a route of ours to the bridge")
			}
			if out.State.Sysctls["net/ipv6/conf/all/forwarding"] != "1" {
				t.Error("IPv6 is not forwarded")
			}
		})
	}
}
