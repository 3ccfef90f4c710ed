package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"fairway/internal/kernel"
	"fairway/internal/kernel/nft"
	"fairway/internal/nettest"
)

// Where a container's packets go in this test: one address inside of what may become known, the others always outside.
const inside4, outside4, later4 = "10.2.0.2", "10.2.0.3", "10.2.0.4"

// gateway is a node between a container and a host.
type gateway struct {
	*host
	t         *testing.T
	container *nettest.Namespace
	far       *nettest.Namespace
}

func newGateway(t *testing.T) gateway {
	t.Helper()
	g := gateway{host: newHost(t), t: t, container: nettest.New(t), far: nettest.New(t)}
	nettest.Veth(t, g.ns, "c0", g.container, "eth0")
	nettest.Veth(t, g.ns, "f0", g.far, "eth0")
	g.ns.Batch("addr add 10.1.0.1/24 dev c0\naddr add 10.2.0.1/24 dev f0")
	g.container.Batch("addr add 10.1.0.2/24 dev eth0\nroute add default via 10.1.0.1")
	g.far.Batch("addr add " + inside4 + "/24 dev eth0\naddr add " + outside4 + "/24 dev eth0\naddr add " + later4 + "/24 dev eth0\nroute add 10.1.0.0/24 via 10.2.0.1")
	if _, err := g.ns.Command("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"); err != nil {
		t.Fatal(err)
	}
	return g
}

// set makes one pass of the loop's stages with a masquerade.
func (g gateway) set(m kernel.Masquerade) {
	g.t.Helper()
	want := kernel.NewState()
	want.Firewall.Masquerade = m
	g.pass(want, true)
}

func (g gateway) pass(want kernel.State, prune bool) {
	g.t.Helper()
	reports, _, _ := g.apply(g.t.Context(), want, prune)
	for _, r := range reports {
		if err := r.Err(); err != nil {
			g.t.Fatal(err)
		}
	}
}

// flow is a conversation over UDP whose ports stay the same.
type flow struct {
	g        gateway
	from, at *net.UDPConn
}

func (g gateway) open(to string, port uint16) flow {
	g.t.Helper()
	f := flow{g: g}
	addr := func(a string, port uint16) *net.UDPAddr {
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(a), port))
	}
	err := errors.Join(
		g.far.Do(func() (err error) { f.at, err = net.ListenUDP("udp", addr(to, port)); return err }),
		g.container.Do(func() (err error) { f.from, err = net.DialUDP("udp", addr("10.1.0.2", 0), addr(to, port)); return err }),
	)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = errors.Join(f.from.Close(), f.at.Close()) })
	return f
}

// seen is the source of the flow's next packet as its destination sees it.
func (f flow) seen() netip.AddrPort {
	f.g.t.Helper()
	if _, err := f.from.Write([]byte("x")); err != nil {
		f.g.t.Fatal(err)
	}
	buf := make([]byte, 10)
	if err := f.at.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		f.g.t.Fatal(err)
	}
	_, from, err := f.at.ReadFromUDPAddrPort(buf)
	if err != nil {
		f.g.t.Fatal(err)
	}
	return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

func (f flow) wantSeen(when, want string) {
	f.g.t.Helper()
	if got := f.seen().Addr().String(); got != want {
		f.g.t.Errorf("%s: %s sees %s, want %s", when, f.at.LocalAddr(), got, want)
	}
}

// tracked is what the kernel knows of a flow: it is another one after the flow was forgotten.
func (f flow) tracked() string {
	f.g.t.Helper()
	var all []string
	to := f.at.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	_, err := f.g.rt.DeleteFlows(f.g.t.Context(), func(k kernel.Flow) bool {
		if k.Dst == to {
			all = append(all, fmt.Sprint(k))
		}
		return false
	})
	if err != nil {
		f.g.t.Fatal(err)
	}
	slices.Sort(all)
	return fmt.Sprint(all)
}

func TestFlowsFollow(t *testing.T) {
	g := newGateway(t)
	p := netip.MustParsePrefix
	off := kernel.Masquerade{}
	hidden := kernel.Masquerade{From: []netip.Prefix{p("10.1.0.0/24")}, Direct: []netip.Prefix{p("224.0.0.0/4")}}
	known := kernel.Masquerade{From: hidden.From, Direct: []netip.Prefix{p(inside4 + "/32"), p("224.0.0.0/4")}}
	except := kernel.Masquerade{From: hidden.From, Direct: hidden.Direct, Except: []kernel.Exception{{From: p("10.1.0.0/24"), To: p(inside4 + "/32")}}}

	g.set(off)
	in, out := g.open(inside4, 4242), g.open(outside4, 4242)
	for _, step := range []struct {
		when    string
		to      kernel.Masquerade
		in, out string
	}{
		{"no NAT", off, "10.1.0.2", "10.1.0.2"},
		{"all that leaves", hidden, "10.2.0.1", "10.2.0.1"},
		{"a pool came", known, "10.1.0.2", "10.2.0.1"},
		{"the pool went", hidden, "10.2.0.1", "10.2.0.1"},
		{"an exception came", except, "10.1.0.2", "10.2.0.1"},
		{"no NAT again", off, "10.1.0.2", "10.1.0.2"},
		{"the pool at once", known, "10.1.0.2", "10.2.0.1"},
	} {
		g.set(step.to)
		in.wantSeen(step.when, step.in)
		out.wantSeen(step.when, step.out)
	}

	// Somebody takes the table away; packets meanwhile begin flows that are not masqueraded.
	if _, err := g.ns.Command("nft", "delete", "table", "inet", "fairway"); err != nil {
		t.Fatal(err)
	}
	late := g.open(later4, 4242)
	late.wantSeen("no table", "10.1.0.2")
	g.invalidate()
	g.set(known)
	late.wantSeen("the table is back", "10.2.0.1")
}

// While an agent that was started again waits to hear from its peers, what it knew before is not outside.
func TestFlowsUntilConverged(t *testing.T) {
	g := newGateway(t)
	p := netip.MustParsePrefix
	g.far.Batch("addr add 10.3.0.2/24 dev eth0")
	key, way := kernel.RouteKey{Dst: p("10.3.0.0/24")}, kernel.Route{Type: kernel.Unicast, NextHops: []kernel.NextHop{{Via: netip.MustParseAddr(inside4), Link: "f0"}}}
	alone := kernel.NewState()
	alone.Firewall.Masquerade = kernel.Masquerade{From: []netip.Prefix{p("10.1.0.0/24")}, Direct: []netip.Prefix{p("224.0.0.0/4")}}
	heard := kernel.NewState()
	heard.Routes[key] = way
	heard.Firewall.Masquerade = kernel.Masquerade{From: alone.Firewall.Masquerade.From, Direct: []netip.Prefix{p("10.3.0.0/24"), p("224.0.0.0/4")}}
	g.pass(heard, true)
	f, out := g.open("10.3.0.2", 4242), g.open(outside4, 4242)
	f.wantSeen("heard", "10.1.0.2")
	out.wantSeen("heard", "10.2.0.1")
	before := f.tracked()
	g.restart()
	g.pass(alone, false)
	f.wantSeen("started again", "10.1.0.2")
	if now := f.tracked(); now != before {
		t.Errorf("tracked %s, before %s", now, before)
	}
	g.pass(heard, true)
	f.wantSeen("heard again", "10.1.0.2")
	g.pass(alone, true)
	if _, err := g.ns.Command("ip", "route", "add", "10.3.0.0/24", "via", inside4); err != nil {
		t.Fatal(err)
	}
	f.wantSeen("heard no more", "10.2.0.1")
	out.wantSeen("heard no more", "10.2.0.1")
}

// restart is another run of the agent: what it remembers is gone.
func (g gateway) restart() {
	g.t.Helper()
	fw, err := nft.Open(nft.Config{Log: slog.New(slog.DiscardHandler), Namespace: g.ns.FD()})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(fw.Close)
	g.machinery = newMachinery(g.log, g.rt, fw)
}

// An agent that is started again leaves flows alone when nothing about them has changed, and else does what it would have
// done had it run.
func TestFlowsOverRestart(t *testing.T) {
	g := newGateway(t)
	p := netip.MustParsePrefix
	known := kernel.Masquerade{From: []netip.Prefix{p("10.1.0.0/24")}, Direct: []netip.Prefix{p(inside4 + "/32"), p("224.0.0.0/4")}}
	g.set(known)
	in, out := g.open(inside4, 4242), g.open(outside4, 4242)
	in.wantSeen("before", "10.1.0.2")
	port := out.seen()
	// A rule of the operator's own, for a destination that we leave alone: its flows are his.
	for _, line := range []string{
		"nft add table ip mine", "nft add chain ip mine out '{ type nat hook postrouting priority 90; }'",
		"nft add rule ip mine out ip daddr " + inside4 + " udp dport 4343 masquerade",
	} {
		if _, err := g.ns.Command("sh", "-c", line); err != nil {
			t.Fatal(err)
		}
	}
	theirs := g.open(inside4, 4343)
	their := theirs.seen()
	if their.Addr().String() != "10.2.0.1" {
		t.Fatalf("the operator's rule shows %s", their)
	}
	before := in.tracked() + out.tracked()
	handles := func() string {
		text, err := g.ns.Command("nft", "-a", "list", "table", "inet", "fairway")
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	was := handles()
	g.restart()
	g.set(known)
	if now := handles(); now != was {
		t.Errorf("the table was written anew:\n%s\nbefore:\n%s", now, was)
	}
	if now := in.tracked() + out.tracked(); now != before {
		t.Errorf("tracked %s, before the restart %s", now, before)
	}
	if got := out.seen(); got != port {
		t.Errorf("the flow goes on as %s, it was %s", got, port)
	}
	if got := theirs.seen(); got != their {
		t.Errorf("the operator's flow goes on as %s, it was %s", got, their)
	}
	// The config changed while no agent ran.
	g.restart()
	g.set(kernel.Masquerade{})
	out.wantSeen("masquerading was turned off meanwhile", "10.1.0.2")
	g.restart()
	g.set(known)
	in.wantSeen("and on again", "10.1.0.2")
	out.wantSeen("and on again", "10.2.0.1")
}
