package e2e_test

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// bridged makes a network with a subnet per node on each host, and on each of them two containers.
func (s *site) bridged(name string, args ...string) [][]*container {
	s.t.Helper()
	s.network(name, append([]string{"-o", "mode=subnet"}, args...)...)
	all := make([][]*container, len(s.hosts))
	for i, err := range atOnce(len(s.hosts), len(s.hosts), func(i int) error {
		for _, c := range []string{"ca", "cb"} {
			made, err := s.hosts[i].tryRun(c, "--network", name)
			if err != nil {
				return err
			}
			all[i] = append(all[i], made)
		}
		return nil
	}) {
		s.t.Fatalf("%s: %v", s.hosts[i], err)
	}
	return all
}

// bridgeOf is the bridge on a host that has the gateway of its subnet.
func (h *host) bridgeOf(gateway netip.Addr) string {
	h.t.Helper()
	var list []struct {
		Name  string `json:"ifname"`
		Addrs []struct {
			Local string `json:"local"`
		} `json:"addr_info"`
	}
	if err := h.ip(&list, "address", "show", "type", "bridge"); err != nil {
		h.t.Fatal(err)
	}
	for _, l := range list {
		for _, a := range l.Addrs {
			if a.Local == gateway.String() {
				return l.Name
			}
		}
	}
	h.t.Fatalf("%s: no bridge has %s: %+v", h, gateway, list)
	return ""
}

// Each host has its own subnet of the pool behind a bridge; containers reach each other on one host and across hosts,
// whatever the engine's rules say, and each host has one route a family to each other.
func TestSubnet(t *testing.T) {
	s := newSite(t)
	all := s.bridged("net")
	var flat []*container
	for i, h := range s.hosts {
		h.must("sh", "-c", "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP; sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1")
		gw := h.Block4.Addr().Next()
		for _, c := range all[i] {
			flat = append(flat, c)
			if !h.Block4.Contains(c.v4) || !h.Block6.Contains(c.v6) {
				t.Errorf("%s has %v, want addresses of %s and %s", c, c.addrs(), h.Block4, h.Block6)
			}
			if out := c.mustNet("ip", "-4", "-o", "addr", "show", "dev", "eth0"); !strings.Contains(out, netip.PrefixFrom(c.v4, h.Block4.Bits()).String()) {
				t.Errorf("%s: want the prefix length of the host's subnet: %s", c, out)
			}
			if out := c.mustNet("ip", "route", "show", "default"); !strings.Contains(out, "via "+gw.String()) {
				t.Errorf("%s: want the bridge as its gateway: %s", c, out)
			}
		}
		if name := h.bridgeOf(gw); !strings.HasPrefix(name, "fwb") || len(name) != 15 {
			t.Errorf("%s: the bridge is %q", h, name)
		}
	}
	everyPair(t, flat)
	s.holdRoutes(s.hosts[:1], []string{s.hosts[1].Block4.String(), s.hosts[1].Block6.String()}, true, hearsay)
	for _, h := range s.hosts {
		if out := h.must("sh", "-c", "ip route show proto 200; ip -6 route show proto 200"); len(strings.Split(strings.TrimSpace(out), "\n")) != 2*len(s.hosts) {
			t.Errorf("%s: want one route a family for each host:\n%s", h, out)
		}
		h.must("sh", "-c", "iptables -P FORWARD ACCEPT; ip6tables -P FORWARD ACCEPT")
	}
	from, to := all[0][0], all[1][1]
	for i, at := range to.addrs() {
		if seen, err := from.seenBy(to, at); err != nil || seen != from.addrs()[i] {
			t.Errorf("%s sees %v (%v), want %v", to, seen, err, from.addrs()[i])
		}
	}
	if hops, err := from.path(to.v4); err != nil || len(hops) != 3 || hops[0] != s.hosts[0].Block4.Addr().Next().String() {
		t.Errorf("path %v (%v), want the bridge, the other host, the container", hops, err)
	}
}

// What cannot be is refused with a reason, and nothing is left of it.
func TestSubnetRefused(t *testing.T) {
	s := newSite(t)
	s.bridged("net", "-o", "BRIDGENAME=br-net", "-o", "bridgemtu=1450", "-o", "mtu=1400", "-o", "bridgeHardwareAddr=02:00:5e:00:53:01")
	h, other := s.hosts[0], s.hosts[1]
	if out := h.must("ip", "-o", "link", "show", "br-net"); !strings.Contains(out, "mtu 1450") || !strings.Contains(out, "02:00:5e:00:53:01") {
		t.Errorf("the bridge is not as the options say: %s", out)
	}
	inNet := func(args ...string) []string {
		return append(append([]string{"docker", "run", "--rm", "--network", "net"}, args...), idle[0], "true")
	}
	create := func(args ...string) []string {
		return append(append([]string{"docker", "network", "create", "-d", "fairway", "--ipam-driver", "fairway", "-o", "mode=subnet"}, args...), "more")
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{inNet("--ip", other.Block4.Addr().Next().Next().String()), "not in this node's subnet " + h.Block4.String()},
		{inNet("--ip", h.Block4.Addr().Next().String()), "is the gateway of this node's subnet"},
		{create("--subnet", "10.8.0.0/16", "--ip-range", "10.8.1.0/24", "-o", "bridgeName=br-net"), "has a bridge of this name"},
		{create("--subnet", "10.8.0.0/16", "--ip-range", "10.8.1.0/24", "-o", "bridgeName=eth0"), "is not fairway's"},
		{create("--subnet", "10.8.0.0/16", "--ip-range", "10.8.1.0/24", "-o", "bridgeName=sixteen-byteslong"), "1 to 15 bytes"},
		{create("--subnet", "10.8.0.0/16", "--ip-range", "10.8.1.0/24", "-o", "bridgeMTU=67"), "want bytes, from 68"},
		{create("--subnet", "10.8.0.0/16", "--ip-range", "10.8.1.0/24", "-o", "bridgeHardwareAddr=01:00:5e:00:53:01"), "want a unicast address"},
		{create("--subnet", "10.8.0.0/16", "--ip-range", "10.8.1.0/24", "--gateway", "10.8.0.1"), "is not in this node's subnet 10.8.1.0/24"},
		{create("--subnet", "10.8.0.0/16"), "has no part of this node"},
		{create("--subnet", "10.8.0.0/16", "--ip-range", "10.8.1.0/24", "-o", "staticRange=10.8.200.0/24"), "there is no range for all nodes"},
	} {
		if out := h.refused(c.args...); !strings.Contains(out, c.want) {
			t.Errorf("%v: want %q in: %s", c.args, c.want, out)
		}
	}
	if out := h.docker("run", "--rm", "--network", "net", "--ip", h.Block4.Addr().Next().Next().Next().Next().Next().String(), idle[0], "cat", "/sys/class/net/eth0/mtu"); out != "1400" {
		t.Errorf("MTU of a container is %s, want 1400", out)
	}
}

// What somebody takes away of a bridge is back within a second; that is the promise, and the rest is for a busy machine.
func TestSubnetMended(t *testing.T) {
	s := newSite(t)
	all := s.bridged("net")
	for i, h := range s.hosts[:2] {
		c, near, far := all[i][0], all[i][1], all[(i+1)%len(all)][0]
		everyPair(t, []*container{c, near, far})
		bridge, port := h.bridgeOf(h.Block4.Addr().Next()), h.linkOf(c)
		want := h.subnetKernel()
		for _, d := range []struct{ name, command string }{
			{"bridge deleted", "ip link del " + bridge},
			{"bridge set down", "ip link set " + bridge + " down"},
			{"addresses flushed", "ip addr flush dev " + bridge + " scope global"},
			{"port pulled out", "ip link set " + port + " nomaster"},
			{"veth deleted", "ip link del " + port},
			{"subnet's route deleted", "ip route del " + h.Block4.String() + " proto 200; ip -6 route del " + h.Block6.String() + " proto 200"},
			{"neighbours flushed", "ip neighbour flush nud permanent dev " + bridge},
			{"bridge table deleted", "nft delete table bridge fairway"},
			{"its elements deleted", "nft flush set bridge fairway macs"},
		} {
			t.Run(h.Name+"/"+d.name, func(t *testing.T) {
				h := h.in(t)
				h.must("sh", "-c", d.command)
				start := time.Now()
				if err := patiently(mendLimit, func() error {
					if err := h.reachBoth(c, near); err != nil {
						return err
					}
					return h.reachBoth(c, far)
				}); err != nil {
					t.Errorf("traffic: %v", err)
				}
				back := time.Since(start)
				if err := patiently(3*mendLimit, func() error { return h.sameSubnet(want) }); err != nil {
					t.Error(err)
				}
				t.Logf("measured: %s: %s: traffic after %v, all as before after %v", h, d.name,
					back.Round(10*time.Millisecond), time.Since(start).Round(10*time.Millisecond))
			})
		}
	}
}

// subnetScript prints what is ours, without the numbers of links and in an order of its own.
const subnetScript = `(
ip -o link show | grep ' fw' | sed 's/^[0-9]*: //; s/@if[0-9]*//; s/link-netns.*alias/alias/; s/group default//'
ip -o addr show | grep ' fw' | grep -v fe80 | sed 's/^[0-9]*: //'
ip route show proto 200; ip -6 route show proto 200
ip neigh show nud permanent | grep ' fw'
nft -s list ruleset inet; nft -s list ruleset bridge | tr '{},' '\n' | tr -d ' \t'
) | sort`

func (h *host) subnetKernel() string {
	h.t.Helper()
	return h.must("sh", "-c", subnetScript)
}

// sameSubnet says how what is ours differs from what it was.
func (h *host) sameSubnet(before string) error {
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(h.subnetKernel(), "\n")); diff != "" {
		return fmt.Errorf("%s: the kernel has changed (-before +now):\n%s", h, diff)
	}
	return nil
}

// No packet is lost while the agent is restarted or killed, nor while the engine is.
func TestSubnetRestarts(t *testing.T) {
	s := newSite(t)
	all := s.bridged("net")
	h := s.hosts[0]
	everyPair(t, []*container{all[0][0], all[0][1], all[1][0]})
	for what, f := range map[string]func() error{
		"agent restarted": func() error { return h.restartAgent(syscall.SIGTERM) },
		"agent killed":    func() error { return h.restartAgent(syscall.SIGKILL) },
		"engine restarted": func() error {
			if err := h.StopEngine(h.ctx); err != nil {
				return err
			}
			return h.StartEngine(h.ctx)
		},
	} {
		pings := []*pinger{startPing(t, all[0][0], all[0][1].v4), startPing(t, all[0][0], all[1][0].v6), startPing(t, all[1][0], all[0][1].v4)}
		for _, p := range pings {
			p.more(10)
		}
		if err := f(); err != nil {
			t.Fatal(err)
		}
		for _, p := range pings {
			p.more(10)
		}
		noLoss(t, what, pings...)
	}
	// A container that comes afterwards is one of them.
	c := h.run("later", "--network", "net")
	everyPair(t, []*container{c, all[0][1], all[1][0]})
}

// A container on a bridge cannot send with an address that is not its own, to its neighbours or further.
func TestSubnetSpoofedSource(t *testing.T) {
	s := newSite(t)
	all := s.bridged("net")
	liar := all[0][0]
	everyPair(t, []*container{liar, all[0][1], all[1][0]})
	for i, lie := range []string{s.hosts[0].Block4.Addr().Next().String(), s.hosts[0].Block6.Addr().Next().String()} { // the gateway's
		liar.mustNet("ip", "address", "add", netip.PrefixFrom(netip.MustParseAddr(lie), liar.addrs()[i].BitLen()).String(), "dev", "eth0", "nodad")
		for _, victim := range []*container{all[0][1], all[1][0]} {
			own, target := liar.addrs()[i], victim.addrs()[i]
			capture, ready := make(chan string, 1), make(chan struct{})
			go func() { capture <- victim.capture("icmp or icmp6", own.String(), ready) }()
			<-ready
			for range 2 {
				if err := liar.pingFrom(lie, target); err == nil {
					t.Errorf("%s got an answer as %s", liar, lie)
				}
			}
			if err := liar.pingFrom(own.String(), target); err != nil {
				t.Error(err)
			}
			if seen := <-capture; strings.Contains(seen, " "+lie+" > ") {
				t.Errorf("seen at %s:\n%s", victim, seen)
			}
		}
		// Nobody took it for the gateway meanwhile.
		if err := all[0][1].ping(all[1][0].addrs()[i]); err != nil {
			t.Error(err)
		}
	}
}

// An internal network reaches its own subnets on all hosts and nothing else; further addresses are announced on their
// own; and cleanup takes bridges away.
func TestSubnetInternalFurtherCleanup(t *testing.T) {
	s := newSite(t)
	all := s.bridged("inside", "--internal")
	c, far := all[0][0], all[1][0]
	everyPair(t, []*container{c, all[0][1], far})
	if out := c.mustNet("ip", "route"); strings.Contains(out, "default") {
		t.Errorf("an internal network has a default route:\n%s", out)
	}
	if err := c.ping(s.hosts[1].Address()); err == nil {
		t.Errorf("%s reaches another host out of an internal network", c)
	}
	for _, h := range s.hosts {
		if err := h.empty(); err != nil {
			t.Fatal(err)
		}
	}
	all = s.bridged("net")
	h := s.hosts[0]
	extra := netip.MustParseAddr("172.31.9.7")
	further := h.run("further", "--network", "name=net,driver-opt=fairway.addresses="+extra.String())
	all[0][0].reaches(extra)
	further.reaches(all[1][0].v4)
	if list, err := h.route(extra.String()); err != nil || len(list) != 1 || list[0].Dev != h.bridgeOf(h.Block4.Addr().Next()) {
		t.Errorf("route to %s: %+v (%v), want one over the bridge", extra, list, err)
	}
	if err := h.StopAgent(h.ctx, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	out := h.fairway("cleanup", "--yes")
	if !strings.Contains(out, "fwb") || !strings.Contains(out, "table bridge fairway") {
		t.Errorf("cleanup says: %s", out)
	}
	if left := h.must("sh", "-c", "ip -o link show type bridge | grep fwb; nft list tables | grep fairway; true"); left != "" {
		t.Errorf("left after cleanup: %s", left)
	}
	if err := h.StartAgent(h.ctx); err != nil {
		t.Fatal(err)
	}
	all[0][0].reaches(all[1][0].v4) // plugged in again
}
