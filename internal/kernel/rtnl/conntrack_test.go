package rtnl_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"fairway/internal/kernel"
	"fairway/internal/kernel/rtnl"
	"fairway/internal/nettest"
)

// Of the connections that a node forwards, masqueraded and not, of both families, those are forgotten that are picked.
func TestDeleteFlows(t *testing.T) {
	node, a, b := nettest.New(t), nettest.New(t), nettest.New(t)
	nettest.Veth(t, node, "a0", a, "eth0")
	nettest.Veth(t, node, "b0", b, "eth0")
	node.Batch("addr add 10.1.0.1/24 dev a0\naddr add fd00:1::1/64 dev a0 nodad\naddr add 10.2.0.1/24 dev b0\naddr add fd00:2::1/64 dev b0 nodad")
	a.Batch("addr add 10.1.0.2/24 dev eth0\naddr add fd00:1::2/64 dev eth0 nodad\nroute add default via 10.1.0.1\nroute add default via fd00:1::1")
	b.Batch("addr add 10.2.0.2/24 dev eth0\naddr add 10.2.0.3/24 dev eth0\naddr add fd00:2::2/64 dev eth0 nodad\nroute add default via 10.2.0.1\nroute add default via fd00:2::1")
	for _, line := range []string{
		"echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding",
		"nft add table inet t; nft add chain inet t nat '{ type nat hook postrouting priority 100; }'",
		"nft add rule inet t nat ip daddr 10.2.0.2 masquerade; nft add rule inet t nat ip6 daddr fd00:2::2 masquerade",
		"nft add chain inet t pre '{ type nat hook prerouting priority -100; }'",
		"nft add rule inet t pre ip daddr 10.3.0.9 dnat ip to 10.2.0.3",
	} {
		if _, err := node.Command("sh", "-c", line); err != nil {
			t.Fatal(err)
		}
	}
	h, err := rtnl.Open(rtnl.Config{Namespace: node.FD()})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for _, to := range []string{"10.2.0.2", "10.2.0.3", "10.3.0.9", "fd00:2::2"} {
		err := a.Do(func() error {
			conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(to), 4242)))
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write([]byte("x"))
			return err
		})
		if err != nil {
			t.Fatalf("send to %s: %v", to, err)
		}
	}
	list := func() []string {
		var all []string
		n, err := h.DeleteFlows(t.Context(), func(f kernel.Flow) bool {
			if f.Src != netip.MustParseAddr("10.1.0.2") && f.Src != netip.MustParseAddr("fd00:1::2") {
				return false // the stranger's own, such as an answer of ICMP
			}
			all = append(all, fmt.Sprintf("%s to %s as %s", f.Src, f.Dst, f.Seen))
			return false
		})
		if n != 0 || err != nil {
			t.Fatalf("forgot %d, error %v", n, err)
		}
		slices.Sort(all)
		return all
	}
	want := []string{
		"10.1.0.2 to 10.2.0.2 as 10.2.0.1", "10.1.0.2 to 10.2.0.3 as 10.1.0.2", "10.1.0.2 to 10.2.0.3 as 10.1.0.2",
		"fd00:1::2 to fd00:2::2 as fd00:2::1",
	}
	nettest.Eventually(t, func() string {
		if got := list(); !slices.Equal(got, want) {
			return fmt.Sprintf("tracked %q, want %q", got, want)
		}
		return ""
	})
	n, err := h.DeleteFlows(t.Context(), func(f kernel.Flow) bool {
		return f.Src != f.Seen && f.Src.Is4() || f.Dst == netip.MustParseAddr("fd00:2::2")
	})
	if n != 2 || err != nil {
		t.Fatalf("forgot %d, error %v, want 2", n, err)
	}
	if got := list(); !slices.Equal(got, want[1:3]) {
		t.Errorf("left are %q, want %q", got, want[1:3])
	}
}

func TestDeleteFlowsOfNone(t *testing.T) {
	ns := nettest.New(t)
	h, err := rtnl.Open(rtnl.Config{Namespace: ns.FD()})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if n, err := h.DeleteFlows(t.Context(), func(kernel.Flow) bool { return true }); n != 0 || err != nil {
		t.Errorf("forgot %d, error %v", n, err)
	}
}
