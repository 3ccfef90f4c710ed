package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// Addresses and a MAC that are asked for are got, are announced on their own, and are kept over a restart.
func TestExplicitAddresses(t *testing.T) {
	s := newSite(t)
	s.network("net")
	for n, h := range s.hosts {
		t.Run(h.Name, func(t *testing.T) {
			h := h.in(t)
			other := s.hosts[(n+1)%len(s.hosts)]
			ip, ip6 := fmt.Sprintf("10.9.200.%d", n+1), fmt.Sprintf("fd09:0:0:c000::%d", n+1)
			mac := fmt.Sprintf("02:00:5e:00:53:%02x", n+1)
			c := h.run("fixed", "--network", "net", "--ip", ip, "--ip6", ip6, "--mac-address", mac)
			peer := other.run("peer", "--network", "net")
			check := func(when string) {
				t.Helper()
				if c.v4.String() != ip || c.v6.String() != ip6 {
					t.Errorf("%s: addresses are %v, want %s and %s", when, c.addrs(), ip, ip6)
				}
				if list := c.links(); len(list) != 1 || list[0].MAC != mac {
					t.Errorf("%s: links %+v, want one with %s", when, list, mac)
				}
				for _, prefix := range []string{ip + "/32", ip6 + "/128"} {
					eventually(t, 5*time.Second, other.hasRoute(prefix, true))
				}
				everyPair(t, []*container{c, peer})
			}
			check("started")
			h.docker("restart", "-t", "0", "fixed")
			var err error
			if c, err = h.inspect("fixed"); err != nil {
				t.Fatal(err)
			}
			check("restarted")
			h.docker("rm", "-f", "fixed")
			eventually(t, 5*time.Second, other.hasRoute(ip+"/32", false))
			eventually(t, 5*time.Second, other.hasRoute(ip6+"/128", false))
			other.docker("rm", "-f", "peer")
		})
	}
}

// Containers of an internal network reach each other, also over hosts, and nothing else.
func TestInternal(t *testing.T) {
	s := newSite(t)
	s.network("inside", "--internal")
	var all []*container
	for _, h := range s.hosts {
		all = append(all, h.run("cc", "--network", "inside"))
	}
	everyPair(t, all)
	for _, c := range all {
		if list := c.links(); len(list) != 1 {
			t.Errorf("%s has %+v, want one link", c, list)
		}
		for _, family := range []string{"-4", "-6"} {
			if out := c.mustNet("ip", family, "route", "show", "default"); out != "" {
				t.Errorf("%s has a way out: %s", c, out)
			}
		}
		for _, a := range []netip.Addr{s.hosts[0].Address(), s.hosts[0].Address6()} {
			if err := c.ping(a); err == nil {
				t.Errorf("%s reaches %s", c, a)
			}
		}
	}
}

// A container on two networks has its default route through the one that the engine takes for its gateway, and keeps
// one while networks are taken from it and given back.
func TestSeveralNetworks(t *testing.T) {
	s := newSite(t)
	s.network("anet")
	for i, h := range s.hosts {
		err := h.createNetwork("bnet", "--ipv6", "--subnet", "10.40.0.0/16", "--ip-range", fmt.Sprintf("10.40.%d.0/24", i+1),
			"--subnet", "fd40::/48", "--ip-range", fmt.Sprintf("fd40:0:0:%d::/64", i+1))
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, h := range s.hosts {
		t.Run(h.Name, func(t *testing.T) {
			h := h.in(t)
			other := s.hosts[(i+1)%len(s.hosts)]
			a, b := other.run("on-a", "--network", "anet"), other.run("on-b", "--network", "bnet")
			c := h.run("both", "--network", "anet")
			check := func(when string, gateways []string, links int, on ...*container) {
				t.Helper()
				var routes []ipRoute
				for _, family := range []string{"-4", "-6"} {
					var list []ipRoute
					if err := json.Unmarshal([]byte(c.mustNet("ip", "-json", family, "route", "show", "default")), &list); err != nil {
						t.Fatal(err)
					}
					routes = append(routes, list...)
				}
				got := make([]string, 0, len(routes))
				for _, r := range routes {
					got = append(got, r.Gateway)
				}
				if !slices.Equal(got, gateways) {
					t.Errorf("%s: default routes through %v, want %v", when, got, gateways)
				}
				if list := c.links(); len(list) != links {
					t.Errorf("%s: links %+v, want %d", when, list, links)
				}
				for _, peer := range on {
					for _, addr := range peer.addrs() {
						c.reaches(addr)
					}
				}
				_, places, err := h.places("both")
				if err != nil {
					t.Fatal(err)
				}
				// Its addresses on both networks are reached, whichever way its answers take.
				for _, p := range places {
					for _, text := range []string{p.IPAddress, p.GlobalIPv6Address} {
						for _, from := range []*container{a, b} {
							from.reaches(netip.MustParseAddr(text))
						}
					}
				}
			}
			gwA, gwB := []string{"10.9.0.1", "fd09::1"}, []string{"10.40.0.1", "fd40::1"}
			check("on anet", gwA, 1, a, b)
			h.docker("network", "connect", "bnet", "both")
			check("on both", gwA, 2, a, b)
			h.docker("network", "disconnect", "anet", "both")
			check("on bnet", gwB, 1, a, b)
			h.docker("network", "connect", "anet", "both")
			check("on both again", gwA, 2, a, b)
			h.docker("restart", "-t", "0", "both")
			var err error
			if c, err = h.inspect("both"); err != nil {
				t.Fatal(err)
			}
			check("restarted", gwA, 2, a, b)
			h.docker("network", "disconnect", "bnet", "both")
			check("on anet alone", gwA, 1, a, b)
			h.docker("rm", "-f", "both")
			other.docker("rm", "-f", "on-a", "on-b")
		})
	}
}

// Further addresses of a container are reached from other hosts, and go with it.
func TestFurtherAddresses(t *testing.T) {
	s := newSite(t)
	s.network("net")
	for i, h := range s.hosts {
		t.Run(h.Name, func(t *testing.T) {
			h := h.in(t)
			other := s.hosts[(i+1)%len(s.hosts)]
			more := []string{fmt.Sprintf("10.9.210.%d", i+1), fmt.Sprintf("fd09:0:0:c001::%d", i+1)}
			h.run("cc", "--network", "name=net,driver-opt=fairway.addresses="+more[0]+" "+more[1])
			peer := other.run("peer", "--network", "net")
			for _, a := range more {
				peer.reaches(netip.MustParseAddr(a))
			}
			eventually(t, 5*time.Second, other.hasRoute(more[0]+"/32", true))
			h.docker("rm", "-f", "cc")
			eventually(t, 5*time.Second, other.hasRoute(more[0]+"/32", false))
			eventually(t, 5*time.Second, other.hasRoute(more[1]+"/128", false))
			other.docker("rm", "-f", "peer")
		})
	}
}
