package e2e_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// Containers of all hosts, each host with another generation of the engine, reach each other by their own addresses.
func TestAllPairs(t *testing.T) {
	s := newSite(t)
	s.network("net")
	var all []*container
	for _, h := range s.hosts {
		version, err := h.EngineVersion(h.ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("measured: %s runs Docker %s", h.Name, version)
		all = append(all, h.run("c"+h.Name, "--network", "net"))
	}
	all = append(all, s.hosts[0].run("second", "--network", "net"))
	everyPair(t, all)

	t.Run("sender's own address", func(t *testing.T) {
		for _, from := range all {
			for _, to := range all {
				if from != to {
					ownAddress(t, from, to)
				}
			}
		}
	})
	t.Run("path", func(t *testing.T) { eachNodeOnce(t, all) })
	t.Run("node", func(t *testing.T) {
		for _, c := range all {
			for _, h := range s.hosts {
				for _, a := range c.addrs() {
					if out, err := h.try("ping", "-n", "-c", "1", "-W", "2", a.String()); err != nil {
						t.Errorf("%s to %s: %v %s", h, c, err, out)
					}
				}
				for _, a := range []netip.Addr{h.Address(), h.Address6()} {
					if err := c.ping(a); err != nil {
						t.Errorf("%s to node %s: %v", c, h, err)
					}
				}
			}
		}
	})
	t.Run("one interface", func(t *testing.T) {
		for _, c := range all {
			if list := c.links(); len(list) != 1 || list[0].Name != "eth0" || list[0].MTU != 1500 {
				t.Errorf("%s has %+v, want eth0 alone with the underlay's MTU of 1500", c, list)
			}
		}
		for _, h := range s.hosts {
			if code, _ := h.exitCode("docker", "network", "inspect", "docker_gwbridge"); code == 0 {
				t.Errorf("%s has a docker_gwbridge", h)
			}
		}
	})
	t.Run("full packets", func(t *testing.T) {
		to := all[0]
		for _, c := range all[1:] {
			// 1500 bytes less the headers of IPv4 and of ICMP; of IPv6 and ICMPv6.
			for size, at := range map[string]netip.Addr{"1472": to.v4, "1452": to.v6} {
				if _, err := c.net("ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", size, at.String()); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

func ownAddress(t *testing.T, from, to *container) {
	t.Helper()
	for i, at := range to.addrs() {
		seen, err := from.seenBy(to, at)
		if err != nil {
			t.Error(err)
			continue
		}
		if own := from.addrs()[i]; seen != own {
			t.Errorf("%s sees %s as %s, and its own address is %s", to, from, seen, own)
		}
	}
}

// eachNodeOnce looks at the ways between all pairs: the sender's node, the receiver's if it is another one, the receiver.
func eachNodeOnce(t *testing.T, all []*container) {
	t.Helper()
	for _, from := range all {
		for _, to := range all {
			if from == to {
				continue
			}
			for i, at := range to.addrs() {
				want := []string{nodeAddr(from.h, i), nodeAddr(to.h, i), at.String()}
				if from.h == to.h {
					want = want[1:]
				}
				var got []string
				// The kernel sends only so many ICMP errors a second, and shows a star for the rest.
				err := patiently(5*time.Second, func() (err error) {
					if got, err = from.path(at); err == nil && !slices.Equal(got, want) {
						err = fmt.Errorf("path from %s to %s is %v, want %v", from, to, got, want)
					}
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// nodeAddr is the underlay address of a host: IPv4 for 0, else IPv6.
func nodeAddr(h *host, family int) string {
	return []string{h.Address().String(), h.Address6().String()}[family]
}

// Networks of one family work, as do MTUs that are asked for.
func TestFamilies(t *testing.T) {
	s := newSite(t)
	a, b := s.hosts[0], s.hosts[2]
	for _, c := range []struct {
		name  string
		args  []string
		parts []string // each node's part, of a subnet that is in no pool
		want  int      // addresses of a container
		mtu   int
	}{
		{"v4", []string{"--subnet", pool4, "-o", "mtu=1400"}, nil, 1, 1400},
		{"v4docker", []string{"--subnet", "10.30.0.0/16", "-o", "com.docker.network.driver.mtu=1300"}, []string{"10.30.%d.0/24"}, 1, 1300},
		{"dual", []string{"--ipv6", "--subnet", "10.31.0.0/16", "--subnet", "fd31::/48"}, []string{"10.31.%d.0/24", "fd31:0:0:%d::/64"}, 2, 1500},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i, h := range []*host{a, b} {
				args := slices.Clone(c.args)
				for _, part := range c.parts {
					args = append(args, "--ip-range", fmt.Sprintf(part, i+1))
				}
				if err := h.createNetwork(c.name, args...); err != nil {
					t.Fatal(err)
				}
			}
			x, y := a.run(c.name+"a", "--network", c.name), b.run(c.name+"b", "--network", c.name)
			everyPair(t, []*container{x, y})
			if got := x.addrs(); len(got) != c.want {
				t.Errorf("addresses %v, want %d", got, c.want)
			}
			if list := x.links(); len(list) != 1 || list[0].MTU != c.mtu {
				t.Errorf("links %+v, want one with MTU %d", list, c.mtu)
			}
			if c.want == 1 {
				if out := x.mustNet("ip", "-6", "route", "show", "default"); out != "" {
					t.Errorf("an IPv4 network gives a way for IPv6: %s", out)
				}
			}
		})
	}
}
