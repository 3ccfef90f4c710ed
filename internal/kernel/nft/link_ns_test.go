package nft_test

import (
	"net/netip"
	"strings"
	"testing"

	"fairway/internal/kernel/nft"
	"fairway/internal/nettest"
)

// A router's rules stand before those that drop, are written once, follow what is wanted, and go without a trace.
func TestApplyLink(t *testing.T) {
	nettest.Require(t)
	ns := nettest.New(t)
	run := func(words string) string {
		t.Helper()
		f := strings.Fields(words)
		out, err := ns.Command(f[0], f[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, rule := range []string{"-N DOCKER-USER", "-A FORWARD -j DOCKER-USER", "-P FORWARD DROP", "-t raw -A PREROUTING -d 10.1.0.2 ! -i br1 -j DROP"} {
		run("iptables " + rule)
	}
	all := func() string {
		return run("iptables -S") + run("iptables -t raw -S") + run("ip6tables -t raw -S") + run("nft list tables inet")
	}
	before := all() + run("ip6tables -S")
	h, err := nft.Open(nft.Config{Namespace: ns.FD()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	p := netip.MustParsePrefix("10.1.0.0/24")
	l := nft.Link{
		Name: "frouter", Owner: "frouter", Bridges: []string{"br1"}, Masquerade: []netip.Prefix{p}, Reached: []netip.Prefix{p},
		Keep: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("fd09::/48")},
	}
	if changed, err := h.ApplyLink(t.Context(), l); err != nil || len(changed) == 0 {
		t.Fatalf("changed %v: %v", changed, err)
	}
	if changed, err := h.ApplyLink(t.Context(), l); err != nil || len(changed) != 0 {
		t.Fatalf("the second time: changed %v: %v", changed, err)
	}
	raw := run("iptables -t raw -S PREROUTING")
	for _, want := range []string{"-i br1 -m physdev", "-d 10.1.0.0/24", "-i frouter"} {
		if at := strings.Index(raw, want); at < 0 || at > strings.Index(raw, "-j DROP") {
			t.Errorf("want %q before what drops:\n%s", want, raw)
		}
	}
	table := run("nft list table inet fairway-frouter")
	for _, want := range []string{"10.9.0.0/16 snat ip to ip saddr", "snat ip6 to ip6 saddr", "ip saddr 10.1.0.0/24 masquerade"} {
		if !strings.Contains(table, want) {
			t.Errorf("want %q:\n%s", want, table)
		}
	}
	// Somebody puts a rule that drops before ours, and less is wanted.
	run("iptables -t raw -I PREROUTING -d 10.1.0.3 ! -i br1 -j DROP")
	l.Reached, l.Masquerade, l.Keep = nil, nil, nil
	if _, err := h.ApplyLink(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	raw = run("iptables -t raw -S PREROUTING")
	if strings.Index(raw, "-i br1 -m physdev") > strings.Index(raw, "-j DROP") || strings.Contains(raw, "-d 10.1.0.0/24") || strings.Contains(raw, "zone") {
		t.Errorf("rules:\n%s", raw)
	}
	run("iptables -t raw -D PREROUTING -d 10.1.0.3 ! -i br1 -j DROP")
	if err := h.RemoveLink(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	if after := all() + run("ip6tables -S"); after != before {
		t.Errorf("left:\n%s\nbefore:\n%s", after, before)
	}
}
