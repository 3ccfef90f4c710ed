package nft

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"fairway/internal/kernel"
)

// hide masquerades what the containers of the packets' namespaces send to anywhere but each other.
func hide() kernel.Firewall {
	fw := wall()
	fw.Masquerade = kernel.Masquerade{
		From:   prefixes("10.1.0.0/24", "fd00:1::/64"),
		Direct: prefixes("10.1.0.0/16", "224.0.0.0/4", "fd00:1::/64", "ff00::/8"),
	}
	return fw
}

// What the table has besides when something is masqueraded, as nft shows it.
const shownNAT = `	set masqueraded4 {
		type ipv4_addr
		flags interval
		elements = { 10.1.0.0/24 }
	}

	set direct4 {
		type ipv4_addr
		flags interval
		elements = { 10.1.0.0/16, 224.0.0.0/4 }
	}

	set masqueraded6 {
		type ipv6_addr
		flags interval
		elements = { fd00:1::/64 }
	}

	set direct6 {
		type ipv6_addr
		flags interval
		elements = { fd00:1::/64,
			     ff00::/8 }
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.1.0.0/24 ip daddr 10.7.0.0/16 accept comment "10.1.0.0/24 as itself to 10.7.0.0/16"
		ip saddr @masqueraded4 ip daddr != @direct4 masquerade comment "IPv4 that leaves the cluster"
		ip6 saddr @masqueraded6 ip6 daddr != @direct6 masquerade comment "IPv6 that leaves the cluster"
	}
`

func TestMasqueradeTable(t *testing.T) {
	r := newRig(t, "nft")
	// Without links of ours, as on a plain router, there is nothing else in the table.
	fw := kernel.Firewall{Masquerade: hide().Masquerade}
	fw.Masquerade.Except = []kernel.Exception{{From: prefixes("10.1.0.0/24")[0], To: prefixes("10.7.0.0/16")[0]}}
	apply(t, r.h, fw)
	if out, want := r.run(t, "nft -s list ruleset"), "table inet fairway {\n"+shownNAT+"}\n"; out != want {
		t.Fatalf("nft shows:\n%s\nwant:\n%s", out, want)
	}
	of, err := r.h.Masqueraded(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for a, want := range map[string]bool{
		"10.1.0.0": true, "10.1.0.255": true, "10.1.1.0": false, "10.0.255.255": false, "fd00:1::7": true, "fd00:0:ffff::": false, "fd00:2::": false,
	} {
		if of(netip.MustParseAddr(a)) != want {
			t.Errorf("%s is masqueraded: %v", a, !want)
		}
	}
	for name, line := range map[string]string{
		"element added":   "nft add element inet fairway direct4 '{ 10.6.0.0/16 }'",
		"element deleted": "nft delete element inet fairway masqueraded6 '{ fd00:1::/64 }'",
		"set emptied":     "nft flush set inet fairway direct4",
		"rule turned": "nft replace rule inet fairway postrouting handle $(nft -a list chain inet fairway postrouting | sed -n 's/.*@direct4.*handle //p')" +
			" ip saddr @masqueraded4 ip daddr @direct4 masquerade comment '\"IPv4 that leaves the cluster\"'",
		"another set": "nft replace rule inet fairway postrouting handle $(nft -a list chain inet fairway postrouting | sed -n 's/.*@direct4.*handle //p')" +
			" ip saddr @direct4 ip daddr != @direct4 masquerade comment '\"IPv4 that leaves the cluster\"'",
	} {
		t.Run(name, func(t *testing.T) {
			r.run(t, line)
			mended(t, r.h, fw, "nftables: restored table inet fairway")
			if out, want := r.run(t, "nft -s list ruleset"), "table inet fairway {\n"+shownNAT+"}\n"; out != want {
				t.Fatalf("nft shows:\n%s\nwant:\n%s", out, want)
			}
		})
	}
	apply(t, r.h, kernel.Firewall{})
	if of, err = r.h.Masqueraded(t.Context()); err != nil || of != nil {
		t.Errorf("without a table something is masqueraded, error %v", err)
	}
	if out := r.run(t, "nft list ruleset"); out != "" {
		t.Fatalf("left over:\n%s", out)
	}
}

// A pool that comes or goes changes the sets and nothing else: counters of other rules go on.
func TestMasqueradeSetsChange(t *testing.T) {
	r := newRig(t, "nft")
	fw := hide()
	apply(t, r.h, fw)
	handles := r.run(t, "nft -a list table inet fairway | grep -v elements | grep handle")
	// More than one message holds, and the last range is at the end of all addresses.
	fw.Masquerade.Direct = nil
	for i := range 1500 {
		fw.Masquerade.Direct = append(fw.Masquerade.Direct, prefixes(fmt.Sprintf("11.%d.%d.0/24", i/128, i%128*2))...)
	}
	fw.Masquerade.Direct = append(fw.Masquerade.Direct, prefixes("255.255.255.255/32", "fd00:1::/64", "ff00::/8")...)
	changed := apply(t, r.h, fw)
	if len(changed) != 1 || changed[0] != "nftables: restored table inet fairway: set direct4 holds something else" {
		t.Fatalf("changed %q", changed)
	}
	if now := r.run(t, "nft -a list table inet fairway | grep -v elements | grep handle"); now != handles {
		t.Fatalf("the table was written anew:\n%s\nbefore:\n%s", now, handles)
	}
	for range 3 {
		apply(t, r.h, hide())
		apply(t, r.h, fw)
	}
}

// Nobody else's NAT is touched, whichever way it was made.
func TestMasqueradeLeavesOthers(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			r := newRig(t, backend)
			for _, p := range r.families {
				r.run(t, engine("28", p)...)
				r.run(t, p+" -t nat -N DOCKER", p+" -t nat -A POSTROUTING ! -o docker0 -j MASQUERADE")
			}
			r.run(t, "nft add table inet mine", "nft add chain inet mine out '{ type nat hook postrouting priority 90; }'",
				"nft add rule inet mine out ip saddr 10.5.0.0/16 masquerade")
			others := func() string {
				return r.run(t, "nft list table inet mine", r.v4+"-save -t nat | grep -v '^#'", r.v6+"-save -t nat | grep -v '^#'")
			}
			before := others()
			apply(t, r.h, hide())
			fw := hide()
			fw.Masquerade.Direct = prefixes("10.1.0.0/16")
			apply(t, r.h, fw)
			apply(t, r.h, wall())
			if err := r.h.Remove(t.Context()); err != nil {
				t.Fatal(err)
			}
			if after := others(); after != before {
				t.Fatalf("others' rules:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

// seenAs sends until it arrives, and returns the source that arrived.
func (s space) seenAs(t *testing.T, to space, what, from, dst string) string {
	t.Helper()
	conn := to.listen(t, dst)
	defer conn.Close()
	buf, source := make([]byte, 100), ""
	what += fmt.Sprint(time.Now().UnixNano())
	eventually(t, from+" reaches "+dst, func() bool {
		s.send(t, from, dst, what)
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		for {
			n, at, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return false
			}
			if string(buf[:n]) == what {
				source = at.Addr().Unmap().String()
				return true
			}
		}
	})
	return source
}

func TestMasqueradePackets(t *testing.T) {
	n := newNode(t, "nft")
	for _, c := range []struct {
		name   string
		direct []string
		except string
		v4, v6 string // the source that is seen outside
	}{
		{"left", []string{"10.1.0.0/16", "fd00:1::/64"}, "", nodeOut4, nodeOut6},
		{"a pool came", []string{"10.1.0.0/16", "10.9.0.0/24", "fd00:1::/64"}, "", containerA4, nodeOut6},
		{"another came", []string{"10.1.0.0/16", "10.9.0.0/24", "fd00:1::/64", "fd00:9::/64"}, "", containerA4, containerA6},
		{"both went", []string{"10.1.0.0/16", "fd00:1::/64"}, "", nodeOut4, nodeOut6},
		{"an exception", []string{"10.1.0.0/16", "fd00:1::/64"}, "10.9.0.0/16", containerA4, nodeOut6},
	} {
		t.Run(c.name, func(t *testing.T) {
			fw := hide()
			fw.Masquerade.Direct = prefixes(c.direct...)
			if c.except != "" {
				fw.Masquerade.Except = []kernel.Exception{{From: prefixes("10.1.0.0/24")[0], To: prefixes(c.except)[0]}}
			}
			apply(t, n.h, fw)
			if got := n.a.seenAs(t, n.outside, c.name, containerA4, outside4); got != c.v4 {
				t.Errorf("outside sees %s, want %s", got, c.v4)
			}
			if got := n.a.seenAs(t, n.outside, c.name, containerA6, outside6); got != c.v6 {
				t.Errorf("outside sees %s, want %s", got, c.v6)
			}
			if got := n.a.seenAs(t, n.b, c.name, containerA4, containerB4); got != containerA4 {
				t.Errorf("another container sees %s", got)
			}
		})
	}
	if out := n.run(t, "nft list table inet fairway"); strings.Count(out, "type nat") != 1 {
		t.Errorf("want one chain of type nat:\n%s", out)
	}
	apply(t, n.h, wall())
	if out := n.run(t, "nft list table inet fairway"); strings.Contains(out, "type nat") {
		t.Errorf("want no chain of type nat:\n%s", out)
	}
}

// What Docker's bridges forward is accepted, and Docker keeps two of them apart as long as not both are ours.
func TestBridges(t *testing.T) {
	for _, on := range hosts() {
		t.Run(on.backend+"/"+on.generation, func(t *testing.T) {
			r := on.rig(t)
			fw := wall()
			fw.Bridges = []string{"br-111111111111", "docker0"}
			apply(t, r.h, fw)
			want := []string{
				acceptIn, acceptTo,
				"-A FAIRWAY -i br-111111111111 -o docker0 -j ACCEPT", "-A FAIRWAY -i docker0 -o br-111111111111 -j ACCEPT",
				"-A FAIRWAY -i br-111111111111 -o br-+ -j RETURN", "-A FAIRWAY -i br-+ -o br-111111111111 -j RETURN",
				"-A FAIRWAY -i br-111111111111 -j ACCEPT", "-A FAIRWAY -o br-111111111111 -j ACCEPT",
				"-A FAIRWAY -i docker0 -o br-+ -j RETURN", "-A FAIRWAY -i br-+ -o docker0 -j RETURN",
				"-A FAIRWAY -i docker0 -j ACCEPT", "-A FAIRWAY -o docker0 -j ACCEPT",
			}
			out := r.run(t, r.v4+" -S FAIRWAY")
			if got := strings.TrimSpace(strings.TrimPrefix(out, "-N FAIRWAY\n")); got != strings.Join(want, "\n") {
				t.Fatalf("rules:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
			}
			// Without bridges, they go again.
			apply(t, r.h, wall())
			r.want(t, "DOCKER-USER")
		})
	}
}

// An exception for everything, and one for a single address.
func TestMasqueradeExceptions(t *testing.T) {
	n := newNode(t, "nft")
	fw := hide()
	fw.Masquerade.Except = []kernel.Exception{
		{From: prefixes("10.1.0.0/24")[0], To: prefixes("0.0.0.0/0")[0]},
		{From: prefixes("fd00:1::/64")[0], To: prefixes(outside6 + "/128")[0]},
	}
	apply(t, n.h, fw)
	if got := n.a.seenAs(t, n.outside, "everything", containerA4, outside4); got != containerA4 {
		t.Errorf("outside sees %s", got)
	}
	if got := n.a.seenAs(t, n.outside, "one address", containerA6, outside6); got != containerA6 {
		t.Errorf("outside sees %s", got)
	}
	// Of another source they are not.
	fw.Masquerade.Except[0].From, fw.Masquerade.Except[1].From = prefixes("10.1.0.128/25")[0], prefixes("fd00:1::8000/113")[0]
	apply(t, n.h, fw)
	if got := n.a.seenAs(t, n.outside, "others", containerA4, outside4); got != nodeOut4 {
		t.Errorf("outside sees %s", got)
	}
	if got := n.a.seenAs(t, n.outside, "others", containerA6, outside6); got != nodeOut6 {
		t.Errorf("outside sees %s", got)
	}
}
