package e2e_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// mendLimit is how long it may take until what somebody took away is back. The promise is a second; the rest is for a
// busy machine.
const mendLimit = 3 * time.Second

// flushDockerUser takes everything out of the chain, and puts back what the engine had in it.
const flushDockerUser = `r=$(iptables -S DOCKER-USER | grep RETURN); iptables -F DOCKER-USER; [ -z "$r" ] || iptables $r`

// What somebody else takes from the node's kernel is put back, soon, and counted; containers on two hosts reach each
// other again, or never stopped to.
func TestMended(t *testing.T) {
	s := newSite(t)
	s.network("net")
	var all []*container
	for _, h := range s.hosts {
		all = append(all, h.run("cc", "--network", "net"))
	}
	everyPair(t, all)
	for i, h := range s.hosts {
		c, far := all[i], all[(i+1)%len(all)]
		h.must("sh", "-c", "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP")
		// What is not ours has to be as it was, whatever is done to ours.
		for _, foreign := range []string{
			"ip route add 10.66.0.0/16 via 10.77.0.99 proto static", "ip -6 route add fd66::/48 via fd77::99 proto static",
			"iptables -A INPUT -s 10.66.6.6 -j DROP", "ip neighbour add 10.77.0.98 lladdr 02:00:5e:00:53:98 dev eth0 nud permanent",
		} {
			h.must("sh", "-c", foreign)
		}
		link := h.linkOf(c)
		want := h.settledKernel()
		for _, d := range []struct {
			name    string
			command string
			counted string // in the status
		}{
			{"DOCKER-USER flushed", flushDockerUser, "rules"},
			{"our jump deleted", "iptables -D DOCKER-USER -m comment --comment fairway -j FAIRWAY", "rules"},
			{"our chain flushed", "iptables -F FAIRWAY", "rules"},
			{"nftables table deleted", "nft delete table inet fairway", "rules"},
			{"nftables table flushed", "nft flush table inet fairway", "rules"},
			{"ip_forward turned off", "sysctl -qw net.ipv4.ip_forward=0", "sysctls"},
			{"IPv6 forwarding turned off", "sysctl -qw net.ipv6.conf.all.forwarding=0", "sysctls"},
			{"learned route deleted", "ip route del " + far.h.Block4.String(), "routes"},
			{"IPv6 learned route deleted", "ip -6 route del " + far.h.Block6.String(), "routes"},
			{"block's route deleted", "ip route del blackhole " + h.Block4.String(), "routes"},
			{"container's route deleted", "ip route del " + c.v4.String(), "routes"},
			{"container's IPv6 route deleted", "ip -6 route del " + c.v6.String(), "routes"},
			{"all our routes flushed", "ip route flush proto 200; ip -6 route flush proto 200", "routes"},
			{"gateway's address deleted", "ip address del 10.9.0.1/32 dev " + link, "addresses"},
			{"neighbour deleted", "ip neighbour del " + c.v4.String() + " dev " + link, "neighbours"},
			{"link set down", "ip link set " + link + " down", "links"},
			{"link's MTU changed", "ip link set " + link + " mtu 1280", "links"},
		} {
			t.Run(h.Name+"/"+d.name, func(t *testing.T) {
				h := h.in(t)
				before := h.status().Kernel.Mended[d.counted]
				h.must("sh", "-c", d.command)
				start := time.Now()
				if err := patiently(mendLimit, func() error { return h.reachBoth(c, far) }); err != nil {
					t.Errorf("traffic: %v", err)
				}
				back := time.Since(start)
				if err := patiently(3*mendLimit, func() error { return h.sameKernel(want) }); err != nil {
					t.Error(err)
				}
				t.Logf("measured: %s: %s: traffic after %v, all as before after %v", h, d.name,
					back.Round(10*time.Millisecond), time.Since(start).Round(10*time.Millisecond))
				if now := h.status().Kernel.Mended[d.counted]; now <= before {
					t.Errorf("status counts %d %s put back, as before", now, d.counted)
				}
			})
		}
		h.must("sh", "-c", "ip route del 10.66.0.0/16; ip -6 route del fd66::/48; iptables -D INPUT -s 10.66.6.6 -j DROP; "+
			"ip neighbour del 10.77.0.98 dev eth0; iptables -P FORWARD ACCEPT; ip6tables -P FORWARD ACCEPT")
	}
}

// reachBoth pings from a container on the host to another host's, in both families.
func (h *host) reachBoth(c, far *container) error {
	for _, a := range far.addrs() {
		if err := c.ping(a); err != nil {
			return err
		}
	}
	return nil
}

// linkOf is the node's end of a container's veth.
func (h *host) linkOf(c *container) string {
	h.t.Helper()
	list, err := h.api().Containers(h.ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range list {
		if slices.Contains(e.Addresses, c.v4) {
			return e.Link
		}
	}
	h.t.Fatalf("%s: no link of %s in %+v", h, c, list)
	return ""
}

// A veth that somebody deletes is made anew and put back into its container, which the engine does not know of.
func TestDeletedLink(t *testing.T) {
	s := newSite(t)
	s.network("net")
	for i, h := range s.hosts {
		t.Run(h.Name, func(t *testing.T) {
			h := h.in(t)
			far := s.hosts[(i+1)%len(s.hosts)].run("far", "--network", "net")
			c := h.run("cc", "--network", "net", "--mac-address", "02:00:5e:00:53:77")
			c.reaches(far.v4)
			h.must("ip", "link", "del", h.linkOf(c))
			start := time.Now()
			if err := patiently(mendLimit, func() error { return h.reachBoth(c, far) }); err != nil {
				t.Fatal(err)
			}
			t.Logf("measured: %s: veth deleted: traffic after %v", h, time.Since(start).Round(10*time.Millisecond))
			if list := c.links(); len(list) != 1 || list[0].MAC != "02:00:5e:00:53:77" || list[0].Name != "eth0" {
				t.Errorf("the container has %+v", list)
			}
			far.reaches(c.v6)
			// The engine can still take it apart, and put it together.
			h.docker("restart", "-t", "0", "cc")
			again, err := h.inspect("cc")
			if err != nil {
				t.Fatal(err)
			}
			again.reaches(far.v4)
			h.docker("rm", "-f", "cc")
			far.h.docker("rm", "-f", "far")
		})
	}
}

// On an internal network, too, and the container is no less inside than before.
func TestDeletedLinkOfInternalNetwork(t *testing.T) {
	s := newSite(t)
	s.network("inside", "--internal")
	h := s.hosts[0]
	c, far := h.run("cc", "--network", "inside"), s.hosts[1].run("far", "--network", "inside")
	everyPair(t, []*container{c, far})
	routes := func() string {
		return c.mustNet("sh", "-c", "ip route; ip -6 route | grep -v fe80")
	}
	before := routes()
	for _, command := range []string{"ip link set " + h.linkOf(c) + " mtu 1300", "ip link del " + h.linkOf(c)} {
		h.must("sh", "-c", command)
		if err := patiently(mendLimit, func() error { return h.reachBoth(c, far) }); err != nil {
			t.Errorf("after %s: %v", command, err)
		}
		if now := routes(); now != before {
			t.Errorf("after %s the container's routes are\n%s\nand were\n%s", command, now, before)
		}
	}
}

// `nft flush ruleset` takes the engine's rules too, which only the engine makes anew; containers of ours do not care.
func TestRulesetFlushed(t *testing.T) {
	s := newSite(t)
	s.network("net")
	h := s.hosts[1]
	c, far := h.run("cc", "--network", "net"), s.hosts[0].run("far", "--network", "net")
	everyPair(t, []*container{c, far})
	h.must("nft", "flush", "ruleset")
	start := time.Now()
	eventually(t, mendLimit, func() error {
		if _, err := h.try("nft", "list", "chain", "inet", "fairway", "source"); err != nil {
			return err
		}
		return h.reachBoth(c, far)
	})
	t.Logf("measured: %s: nft flush ruleset: our table back after %v", h, time.Since(start).Round(10*time.Millisecond))
	// The engine makes its chains at its next start, and ours is in them.
	if err := h.StopEngine(h.ctx); err != nil {
		t.Fatal(err)
	}
	if err := h.StartEngine(h.ctx); err != nil {
		t.Fatal(err)
	}
	h.must("iptables", "-P", "FORWARD", "DROP")
	eventually(t, mendLimit, func() error {
		out, err := h.try("iptables-save", "-t", "filter")
		if err == nil && strings.Count(out, "-j FAIRWAY") != 1 {
			err = fmt.Errorf("want one jump to our chain: %s", out)
		}
		if err != nil {
			return err
		}
		return h.reachBoth(c, far)
	})
	h.must("iptables", "-P", "FORWARD", "ACCEPT")
}

// A container cannot send with an address that is not its own.
func TestSpoofedSource(t *testing.T) {
	s := newSite(t)
	s.network("net")
	from, to := s.hosts[0].run("liar", "--network", "net"), s.hosts[1].run("victim", "--network", "net")
	everyPair(t, []*container{from, to})
	for i, other := range []string{"10.9.1.250", "fd09:0:0:1::250"} {
		t.Run(other, func(t *testing.T) {
			own, target := from.addrs()[i], to.addrs()[i]
			from.mustNet("ip", "address", "add", netip.PrefixFrom(netip.MustParseAddr(other), own.BitLen()).String(), "dev", "eth0", "nodad")
			// Seen by the victim: the lie, if it comes through, and then the truth, which shows that one would have seen it.
			capture := make(chan string, 1)
			ready := make(chan struct{})
			go func() { capture <- to.capture("src "+own.String()+" or src "+other, own.String(), ready) }()
			<-ready
			for range 3 {
				if err := from.pingFrom(other, target); err == nil {
					t.Errorf("%s got an answer as %s", from, other)
				}
			}
			if err := from.pingFrom(own.String(), target); err != nil {
				t.Error(err)
			}
			if seen := <-capture; strings.Contains(seen, other) || !strings.Contains(seen, own.String()) {
				t.Errorf("seen at %s, where only %s should be:\n%s", to, own, seen)
			}
		})
	}
}

// pingFrom sends one packet with a source address.
func (c *container) pingFrom(source string, to netip.Addr) error {
	_, err := c.net("ping", "-n", "-c", "1", "-W", "1", "-I", source, to.String())
	return err
}
