package router

import (
	"log/slog"
	"strings"
	"testing"

	"fairway/internal/kernel"
	"fairway/internal/kernel/rtnl"
	"fairway/internal/nettest"
)

// lan joins two namespaces by a link, with an address of 10.1.0.0/24 and fd01::/64 each.
func lan(t *testing.T) (a, b *nettest.Namespace) {
	t.Helper()
	a, b = nettest.New(t), nettest.New(t)
	nettest.Veth(t, a, "eth0", b, "eth0")
	for i, ns := range []*nettest.Namespace{a, b} {
		last := string(rune('1' + i))
		ns.Batch("addr add 10.1.0." + last + "/24 dev eth0\naddr add fd01::" + last + "/64 dev eth0 nodad\nlink set eth0 up\n")
	}
	return a, b
}

func rules(ns *nettest.Namespace) string {
	return ns.IP("rule") + ns.IP("-6 rule") + ns.IP("route show table all proto 200") + ns.IP("-6 route show table all proto 200")
}

// A container's routes are before Docker's default route and behind its other routes, and go without a trace.
func TestSteerContainer(t *testing.T) {
	nettest.Require(t)
	ns, _ := lan(t)
	ns.Batch("route add default via 10.1.0.2\nroute add 10.8.0.0/16 via 10.1.0.2\n")
	before := rules(ns)
	r := New(Config{Log: slog.New(slog.DiscardHandler), Options: options(nil)})
	c := Container{Name: "c", Namespace: ns.Path()}
	want := map[kernel.RouteKey]kernel.Route{}
	for dst, via := range map[string]string{"0.0.0.0/0": "10.1.0.9", "::/0": "fd01::9", "10.8.1.0/24": "10.1.0.9"} {
		want[kernel.RouteKey{Dst: pfx(dst)}] = kernel.Route{Type: kernel.Unicast, NextHops: []kernel.NextHop{{Via: ip(via)}}}
	}
	for range 2 { // the second time nothing is to be done
		if err := r.steerContainer(t.Context(), c, want); err != nil {
			t.Fatal(err)
		}
	}
	for to, via := range map[string]string{
		"192.0.2.1": "via 10.1.0.9 ", "2001:db8::1": "via fd01::9 ", "10.8.0.1": "via 10.1.0.2 ", "10.1.0.7": "dev eth0 src",
	} {
		if out := ns.IP("route get " + to); !strings.Contains(out, via) {
			t.Errorf("to %s: %s, want %q", to, out, via)
		}
	}
	if n := strings.Count(rules(ns), "lookup 3522"); n != 4 {
		t.Errorf("%d rules lead to the table, want 4:\n%s", n, rules(ns))
	}
	// A second instance whose routes are specific is before the first one's default route.
	second := New(Config{Log: slog.New(slog.DiscardHandler), Options: options(func(o *Options) { o.Instance = "lab" })})
	more := map[kernel.RouteKey]kernel.Route{{Dst: pfx("10.9.0.0/16")}: {Type: kernel.Unicast, NextHops: []kernel.NextHop{{Via: ip("10.1.0.7")}}}}
	if err := second.steerContainer(t.Context(), c, more); err != nil {
		t.Fatal(err)
	}
	if out := ns.IP("route get 10.9.0.1"); !strings.Contains(out, "via 10.1.0.7 ") {
		t.Errorf("the second instance's route is not taken: %s", out)
	}
	if err := second.steerContainer(t.Context(), c, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.steerContainer(t.Context(), c, nil); err != nil {
		t.Fatal(err)
	}
	if after := rules(ns); after != before {
		t.Errorf("left:\n%s\nbefore:\n%s", after, before)
	}
}

// The host link is made, dressed again, and taken back with its routes.
func TestHostLink(t *testing.T) {
	nettest.Require(t)
	host, router := nettest.New(t), nettest.New(t)
	open := func(ns *nettest.Namespace, cfg rtnl.Config) *rtnl.Handle {
		cfg.Namespace = ns.FD()
		h, err := rtnl.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.Close)
		return h
	}
	o := options(func(o *Options) { o.HostShortcut = true })
	own, there := open(router, rtnl.Config{Metric: metricOf(""), Table: metricOf("")}), open(host, rtnl.Config{Metric: metricOf("")})
	h := &hostSide{log: slog.New(slog.DiscardHandler), name: hostLinkOnHost(""), rt: there}
	for range 2 {
		if err := h.link(t.Context(), own, o); err != nil {
			t.Fatal(err)
		}
	}
	if out := host.IP("addr show frouter") + host.IP("link show frouter"); !strings.Contains(out, "172.29.255.253/30") || !strings.Contains(out, "fairway-router") {
		t.Errorf("the host's end: %s", out)
	}
	if _, err := syncTable(t.Context(), own, Decide(View{}, o).Self); err != nil {
		t.Fatal(err)
	}
	if _, err := host.Command("ping", "-c", "1", "-W", "2", "172.29.255.254"); err != nil {
		t.Errorf("the router does not answer over the link: %v\n%s", err, router.IP("addr"))
	}
	w := Wanted{Host: map[kernel.RouteKey]kernel.Route{}}
	w.overLink(View{}, o, pfx("10.1.0.0/24"))
	if _, err := syncRoutes(t.Context(), there, w.Host); err != nil {
		t.Fatal(err)
	}
	if out := host.IP("route"); !strings.Contains(out, "10.1.0.0/24 via 172.29.255.254 dev frouter") {
		t.Errorf("the host's routes: %s", out)
	}
	// The host's end goes with the router's, and what leads over it.
	if err := own.Links().Delete(t.Context(), hostLinkName); err != nil {
		t.Fatal(err)
	}
	if out := host.IP("link") + host.IP("route"); strings.Contains(out, "frouter") {
		t.Errorf("left on the host: %s", out)
	}
}
