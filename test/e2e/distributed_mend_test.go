package e2e_test

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// What befalls a router, on an old engine: networks that go, an engine that restarts, a second instance, containers with
// several networks or with another's, and a router that is removed without being stopped.
func TestRouterMends(t *testing.T) {
	s := newRouterSite(t)
	h := s.hosts[0]
	h.otherNetwork("blue", "-o", "fairway.router=true", "--subnet", "10.72.1.0/24")
	h.otherNetwork("green", "-o", "fairway.router=true", "--ipv6", "--subnet", "10.72.2.0/24", "--subnet", "fd72:2::/64")
	h.otherNetwork("third", "-o", "fairway.router=lab", "--subnet", "10.72.3.0/24")
	blue, green := h.run("inblue", "--network", "blue"), h.run("ingreen", "--network", "green")
	h.run("shares", "--network", "container:inblue")
	before := blue.routes()
	h.router()
	h.routerOn("blue", "green")
	blue.reaches(green.v4)

	// A container joins another network while it is led, and leaves it.
	h.docker("network", "connect", "green", "inblue")
	h.docker("network", "connect", "third", "inblue")
	eventually(t, 20*time.Second, func() error {
		out, err := blue.net("ip", "route", "get", green.v4.String())
		return contains(out, err, []string{"!via"}) // on its own link
	})
	blue.led("default via 10.72.") // by the network that the engine chose for its own default route
	h.docker("network", "disconnect", "blue", "inblue")
	blue.led("default via 10.72.2.")
	h.docker("network", "connect", "blue", "inblue")
	h.docker("network", "disconnect", "green", "inblue")
	blue.led("default via 10.72.1.")

	// A second instance has routes of its own beside them.
	h.docker(append(append([]string{"run", "-d", "--name", "second"}, routerRights...), "fairway", "router", "--instance", "lab", "--p2p-net", "10.72.200.0/30", "--p2p-net6", "")...)
	third := h.run("inthird", "--network", "third")
	third.led("default via 10.72.3.")
	blue.led("default via 10.72.1.", "!default via 10.72.3.") // its own default route leaves by blue
	blue.reaches(green.v4)
	h.docker("stop", "-t", "10", "second")
	third.led("!default")
	blue.led("default via 10.72.1.")
	h.docker("rm", "second")
	h.docker("network", "disconnect", "third", "inblue")

	// The engine restarts, and its containers run on.
	if err := h.KillEngine(h.ctx); err != nil {
		t.Fatal(err)
	}
	if err := h.StartEngine(h.ctx); err != nil {
		t.Fatal(err)
	}
	h.routerOn("blue", "green")
	late := h.run("late", "--network", "green")
	late.led("default via 10.72.2.", "default via fd72:2::")
	late.reaches(blue.v4)

	// A network of which the router is the last member goes.
	h.docker("rm", "-f", "late", "ingreen")
	h.docker("network", "disconnect", "green", routerName)
	h.docker("network", "rm", "green")
	h.routerOn("blue")
	h.docker("network", "create", "-o", "fairway.router=true", "--subnet", "10.72.2.0/24", "green")
	h.routerOn("blue", "green")

	// One that is removed leaves its routes; `--cleanup` takes them away.
	h.docker("rm", "-f", routerName)
	blue.led("default via 10.72.1.")
	out := h.must(append(append([]string{"docker", "run", "--rm"}, routerRights...), "fairway", "router", "--cleanup")...)
	// Its link on blue is another one since it joined anew.
	if now := regexp.MustCompile(`eth\d`).ReplaceAllString(blue.routes(), "eth0"); now != before {
		t.Errorf("after --cleanup:\n%s\nbefore:\n%s\n%s", now, before, out)
	}
	if rules := h.must("sh", "-c", "iptables -S; iptables -t raw -S; ip link"); strings.Contains(rules, "frouter") {
		t.Errorf("left on the host:\n%s", rules)
	}
}
