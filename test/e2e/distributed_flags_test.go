package e2e_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// What each flag does, on an old engine and a new one.
func TestRouterFlags(t *testing.T) {
	s := newRouterSite(t)
	for i, h := range s.hosts[:2] {
		version, err := h.EngineVersion(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			newFlagRig(t, h.in(t), s.hosts[2].in(t), 66+i).run()
		})
	}
}

// flagRig is a host with marked networks and a container on each kind, and a machine outside.
type flagRig struct {
	t           *testing.T
	h, outside  *host
	net         string // two bytes of all its subnets
	blue, named *container
	beyond      netip.Addr // an address of the machine outside, to which only the transit network leads
	proof       []string
}

func newFlagRig(t *testing.T, h, outside *host, n int) *flagRig {
	t.Helper()
	r := &flagRig{t: t, h: h, outside: outside, net: fmt.Sprintf("10.%d.", n), beyond: netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", n))}
	h.otherNetwork("blue", "-o", "fairway.router=true", "--subnet", r.net+"1.0/24")
	h.otherNetwork("green", "-o", "fairway.router=true", "--ipv6", "--subnet", r.net+"2.0/24", "--subnet", fmt.Sprintf("fd%d:2::/64", n))
	h.otherNetwork("named", "-o", "fairway.router=lab", "--subnet", r.net+"3.0/24")
	parent := h.segment(n)
	h.otherNetwork("transit", "-d", "macvlan", "--subnet", r.net+"4.0/24", "--gateway", r.net+"4.1", "--ip-range", r.net+"4.128/25", "-o", parent)
	// The machine outside is the transit network's gateway.
	outside.segment(n)
	link := strings.TrimPrefix(parent, "parent=")
	outside.must("ip", "addr", "add", r.net+"4.1/24", "dev", link)
	outside.must("ip", "addr", "add", r.beyond.String()+"/32", "dev", link)
	r.blue, r.named = h.run("inblue", "--network", "blue"), h.run("innamed", "--network", "named")
	return r
}

// flagTest is a router with flags, the networks that it joins, and what shows that they do what they say.
type flagTest struct {
	flags string
	on    []string
	proof string
	check func(*flagRig)
}

func flagTests() []flagTest {
	both := []string{"blue", "green"}
	return []flagTest{
		{"--ip-offset -1", both, "containers' gateway is the last address", func(r *flagRig) { r.blue.led("default via " + r.net + "1.254 ") }},
		{"--ip-offset 2", []string{"green"}, "the second address; one that is taken is a problem until it is free", (*flagRig).taken},
		{"--drouter-instance lab", []string{"named"}, "only fairway.router=lab is joined", func(r *flagRig) {
			r.blue.led("!default")
			r.named.led("default via " + r.net + "3.")
		}},
		{"--no-aggressive", []string{"blue"}, "joined with the first container, left after the last", func(r *flagRig) { r.follows() }},
		{"--no-aggressive --transit-net transit", []string{"blue", "transit"}, "always joined; its gateway leads to what nobody has; networks are still joined then", func(r *flagRig) {
			r.seenAs(r.beyond, r.blue.v4, "route", "add", r.net+"1.0/24", "via", r.routerOn("transit"))
			r.follows("transit")
		}},
		{"--container-gateway=false --static-route 10.99.0.0/16", both, "containers have these routes and no default route of the router", func(r *flagRig) {
			r.blue.led("!default", "10.99.0.0/16 via "+r.net+"1.", r.net+"2.0/24 via "+r.net+"1.")
		}},
		{"--host-shortcut --p2p-net 10.98.200.0/30 --p2p-net6 fd98::/126 -d", both, "the host's routes, and pings from it, IPv4 and IPv6; -d logs changes", (*flagRig).shortcut},
		{"--host-gateway", both, "a machine outside sees the container's address", func(r *flagRig) {
			r.seenAs(r.outside.Address(), r.blue.v4, "route", "add", r.net+"1.0/24", "via", r.h.Address().String())
		}},
		{"--masquerade", both, "a machine outside sees the host's address", func(r *flagRig) { r.seenAs(r.outside.Address(), r.h.Address()) }},
		{"--disable-p2p", both, "no link on the host", func(r *flagRig) {
			if out := r.h.must("sh", "-c", "ip link show frouter 2>&1; true"); !strings.Contains(out, "does not exist") {
				r.t.Errorf("there is a link to the host: %s", out)
			}
		}},
	}
}

func (r *flagRig) run() {
	t := r.t
	for _, tt := range flagTests() {
		t.Run(tt.flags, func(t *testing.T) {
			sub := *r
			sub.t, sub.h, sub.outside = t, r.h.in(t), r.outside.in(t)
			for _, c := range []**container{&sub.blue, &sub.named} {
				own := **c
				own.h = sub.h
				*c = &own
			}
			sub.h.router(strings.Fields(tt.flags)...)
			sub.h.routerOn(tt.on...)
			tt.check(&sub)
			if !t.Failed() {
				r.proof = append(r.proof, fmt.Sprintf("%-75s %s", "fairway router "+tt.flags, tt.proof))
			}
		})
	}
	for flags, want := range map[string]string{
		"--no-p2p --masquerade": "--no-p2p with --masquerade", "--static-route 10.0.0.1/8": "did you mean 10.0.0.0/8", "--p2p-net 10.0.0.0/31": "no two usable",
	} {
		words := slices.Concat([]string{"docker", "run", "--rm"}, routerRights, []string{"fairway", "router"}, strings.Fields(flags))
		if said := r.h.refused(words...); !strings.Contains(said, want) {
			t.Errorf("router %s says %q, want %q", flags, said, want)
		}
		r.proof = append(r.proof, fmt.Sprintf("%-75s refused: %s", "fairway router "+flags, want))
	}
	if said := r.h.refused(slices.Concat([]string{"docker", "run", "--rm", "--net=host"}, routerRights, []string{"fairway", "router"})...); !strings.Contains(said, "--net=host") {
		t.Errorf("router with the host's network says %q", said)
	}
	t.Logf("measured: flags:\n%s", strings.Join(r.proof, "\n"))
}

// routerOn is the router's address on a network.
func (r *flagRig) routerOn(network string) string {
	r.t.Helper()
	s, err := r.h.routerStatus()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, n := range s.Networks {
		if n.Name == network && len(n.Addresses) > 0 {
			return n.Addresses[0].String()
		}
	}
	r.t.Fatalf("the router is not on %s: %+v", network, s)
	return ""
}

// seenAs connects from the container on blue to an address of the machine outside, which sees it as want; way is how that
// machine answers, if it does not know.
func (r *flagRig) seenAs(at, want netip.Addr, way ...string) {
	r.t.Helper()
	if len(way) > 0 {
		r.outside.must(append([]string{"ip"}, way...)...)
		r.t.Cleanup(func() {
			cmd := r.outside.Command(context.WithoutCancel(r.t.Context()), "ip", way[0], "del", way[2])
			if out, err := cmd.CombinedOutput(); err != nil {
				r.t.Errorf("remove route: %v %s", err, out)
			}
		})
	}
	eventually(r.t, 20*time.Second, func() error {
		seen, err := r.blue.seenBy(r.outside.itself(), at)
		if err == nil && seen != want {
			err = fmt.Errorf("%s is seen as %s, want %s", r.blue, seen, want)
		}
		return err
	})
}

// follows starts and ends a container on green, of which there is none: the router goes with it.
func (r *flagRig) follows(more ...string) {
	r.t.Helper()
	r.h.run("ingreen", "--network", "green")
	r.h.routerOn(append([]string{"blue", "green"}, more...)...)
	r.h.docker("rm", "-f", "ingreen")
	r.h.routerOn(append([]string{"blue"}, more...)...)
}

// taken waits for the problem of an address that a container has, and for the router to join when that one is gone.
func (r *flagRig) taken() {
	r.t.Helper()
	if r.blue.v4.String() != r.net+"1.2" {
		r.t.Fatalf("%s has address %s", r.blue, r.blue.v4)
	}
	eventually(r.t, 20*time.Second, func() error {
		s, err := r.h.routerStatus()
		return contains(fmt.Sprint(s.Problems), err, []string{"--ip-offset 2 is " + r.net + "1.2"})
	})
	r.h.docker("network", "disconnect", "blue", r.blue.name)
	defer r.h.docker("network", "connect", "--ip", r.net+"1.2", "blue", r.blue.name) // as the other tests want it
	r.h.routerOn("blue", "green")
	r.h.docker("network", "connect", "blue", r.blue.name)
	again, err := r.h.inspect(r.blue.name)
	if err != nil {
		r.t.Fatal(err)
	}
	again.led("default via " + r.net + "1.2 ")
	r.h.docker("network", "disconnect", "blue", r.blue.name)
	r.h.docker("network", "disconnect", "blue", routerName)
	eventually(r.t, 20*time.Second, func() error {
		s, err := r.h.routerStatus()
		return contains(fmt.Sprint(s.Networks), err, []string{"left by hand"})
	})
}

func (r *flagRig) shortcut() {
	r.t.Helper()
	green := r.h.run("ingreen", "--network", "green")
	defer r.h.docker("rm", "-f", green.name)
	eventually(r.t, 20*time.Second, func() error {
		out, err := r.h.try("sh", "-c", "ip route; ip -6 route")
		return contains(out, err, []string{r.net + "2.0/24 via 10.98.200.2 dev frouter", "10.98.200.0/30 dev frouter", "via fd98::2 dev frouter"})
	})
	for _, a := range append(green.addrs(), r.blue.v4) {
		r.h.itself().reaches(a)
	}
	if log := r.h.must("sh", "-c", "docker logs "+routerName+" 2>&1"); !strings.Contains(log, "level=DEBUG") {
		r.t.Errorf("-d logs no changes: %s", log)
	}
}
