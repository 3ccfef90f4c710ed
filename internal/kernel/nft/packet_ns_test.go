package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"fairway/internal/kernel"
)

// Addresses of the packets' namespaces: two containers on a node, and a host outside.
const (
	containerA4, containerA6 = "10.1.0.2", "fd00:1::2"
	containerB4, containerB6 = "10.1.0.3", "fd00:1::3"
	gateway4, gateway6       = "10.1.0.1", "fd00:1::1"
	outside4, outside6       = "10.9.0.2", "fd00:9::2"
	nodeOut4, nodeOut6       = "10.9.0.1", "fd00:9::1"
	// What a container has no right to: an address of nobody, the other container's, the node's own.
	nobody4, nobody6 = "10.66.0.6", "fd00:66::6"
)

// node is a node with two containers, joined as in mode "routed", and a host on its other side, with an engine's
// rules that forward nothing by themselves.
type node struct {
	rig
	a, b, outside space
}

func newNode(t *testing.T, backend string) node {
	t.Helper()
	n := node{rig: newRig(t, backend), a: newSpace(t), b: newSpace(t), outside: newSpace(t)}
	n.set(t, "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
	for _, p := range n.families {
		n.run(t, engine("28", p)...)
	}
	n.container(t, n.a, "fwaaaaaaaaaaaa", containerA4, containerA6)
	n.container(t, n.b, "fwbbbbbbbbbbbb", containerB4, containerB6)
	n.run(t, "ip link add wan0 type veth peer name eth0 netns "+n.outside.path(), "ip link set wan0 up",
		"ip addr add "+nodeOut4+"/24 dev wan0", "ip addr add "+nodeOut6+"/64 dev wan0 nodad")
	n.outside.run(t, "ip link set eth0 up", "ip addr add "+outside4+"/24 dev eth0", "ip addr add "+outside6+"/64 dev eth0 nodad",
		"ip route add default via "+nodeOut4, "ip route add default via "+nodeOut6)
	return n
}

func (n node) container(t *testing.T, c space, link, v4, v6 string) {
	t.Helper()
	n.run(t, "ip link add "+link+" type veth peer name eth0 netns "+c.path(), "ip link set "+link+" up",
		"ip addr add "+gateway4+"/32 dev "+link, "ip addr add "+gateway6+"/128 dev "+link+" nodad",
		"ip route add "+v4+"/32 dev "+link, "ip route add "+v6+"/128 dev "+link)
	c.run(t, "ip link set eth0 up", "ip addr add "+v4+"/32 dev eth0", "ip addr add "+v6+"/128 dev eth0 nodad",
		"ip route add "+gateway4+" dev eth0", "ip route add default via "+gateway4,
		"ip -6 route add "+gateway6+" dev eth0", "ip -6 route add default via "+gateway6)
}

func (n node) set(t *testing.T, names ...string) {
	t.Helper()
	err := n.space.h.inside(func() error {
		for _, name := range names {
			if err := os.WriteFile("/proc/sys/"+name, []byte("1"), 0); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// listen waits for UDP in a namespace.
func (s space) listen(t *testing.T, addr string) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	err := s.h.inside(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 4242)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// send sends a datagram from one address to another, out of a namespace that may not be told by the kernel.
func (s space) send(t *testing.T, from, to, what string) {
	t.Helper()
	err := s.h.inside(func() error {
		conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0)),
			net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(to), 4242)))
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte(what))
		return err
	})
	if err != nil {
		t.Fatalf("send %s from %s to %s: %v", what, from, to, err)
	}
}

// reaches sends until it arrives, and demands that it has the sender's own address, and that nothing arrived meanwhile
// that should not.
func (s space) reaches(t *testing.T, conn *net.UDPConn, from, to string) {
	t.Helper()
	buf := make([]byte, 100)
	what := fmt.Sprintf("honest, %d", time.Now().UnixNano())
	eventually(t, fmt.Sprintf("%s reaches %s", from, to), func() bool {
		s.send(t, from, to, what)
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		for {
			n, source, err := conn.ReadFromUDPAddrPort(buf)
			got := string(buf[:n])
			switch {
			case err != nil:
				return false
			case got == what && source.Addr().String() != from:
				t.Fatalf("%s got %q from %s, want it from %s", to, got, source, from)
			case got == what:
				return true
			case got == "spoofed":
				t.Fatalf("%s got what %s spoofed as %s", to, from, source)
			}
		}
	})
}

func (n node) dropped(t *testing.T, rule string) uint64 {
	t.Helper()
	s, err := n.h.Status()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range s.Dropped {
		if d.Rule == rule {
			return d.Packets
		}
	}
	t.Fatalf("no counter %q in %v", rule, s.Dropped)
	return 0
}

func TestPacketsForwarded(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			n := newNode(t, backend)
			a4, a6 := n.a.listen(t, containerA4), n.a.listen(t, containerA6)
			b4, o4, o6 := n.b.listen(t, containerB4), n.outside.listen(t, outside4), n.outside.listen(t, outside6)

			// Under Docker's policy alone nothing passes: what is sent is counted by the policy.
			n.a.send(t, containerA4, outside4, "too early")
			eventually(t, "the engine's policy drops", func() bool {
				out := n.run(t, n.v4+" -L FORWARD -v -x -n 2>/dev/null | head -1")
				var packets int
				_, err := fmt.Sscanf(out, "Chain FORWARD (policy DROP %d packets", &packets)
				return err == nil && packets > 0
			})
			apply(t, n.h, wall())
			n.a.reaches(t, o4, containerA4, outside4)
			n.a.reaches(t, o6, containerA6, outside6)
			n.outside.reaches(t, a4, outside4, containerA4)
			n.outside.reaches(t, a6, outside6, containerA6)
			n.a.reaches(t, b4, containerA4, containerB4)
			if got := n.dropped(t, "source address not of this link"); got != 0 {
				t.Fatalf("%d honest packets dropped", got)
			}
		})
	}
}

func TestPacketsSpoofed(t *testing.T) {
	n := newNode(t, "nft")
	apply(t, n.h, wall())
	o4, o6 := n.outside.listen(t, outside4), n.outside.listen(t, outside6)
	n.a.reaches(t, o4, containerA4, outside4)
	n.a.reaches(t, o6, containerA6, outside6)

	// A node may route a prefix to itself and elsewhere: none of it makes a source good on this link.
	for _, c := range []struct {
		from, to, own string
		conn          *net.UDPConn
	}{
		{nobody4, outside4, containerA4, o4},
		{containerB4, outside4, containerA4, o4},
		{nodeOut4, outside4, containerA4, o4},
		{nobody6, outside6, containerA6, o6},
		{containerB6, outside6, containerA6, o6},
		{nodeOut6, outside6, containerA6, o6},
	} {
		t.Run(c.from, func(t *testing.T) {
			a := netip.MustParseAddr(c.from)
			n.a.run(t, "ip addr add "+netip.PrefixFrom(a, a.BitLen()).String()+" dev eth0 nodad")
			before := n.dropped(t, "source address not of this link")
			n.a.send(t, c.from, c.to, "spoofed")
			eventually(t, "the packet is counted", func() bool { return n.dropped(t, "source address not of this link") > before })
			n.a.reaches(t, c.conn, c.own, c.to)
			n.a.run(t, "ip addr del "+netip.PrefixFrom(a, a.BitLen()).String()+" dev eth0")
		})
	}

	// A further address of the same container is good as soon as it is routed to it.
	n.run(t, "ip route add "+nobody4+"/32 dev fwaaaaaaaaaaaa", "ip -6 route add "+nobody6+"/128 dev fwaaaaaaaaaaaa")
	n.a.run(t, "ip addr add "+nobody4+"/32 dev eth0", "ip addr add "+nobody6+"/128 dev eth0 nodad")
	n.a.reaches(t, o4, nobody4, outside4)
	n.a.reaches(t, o6, nobody6, outside6)
}

// A container that sends as a router does is not heard, and duplicate address detection is.
func TestPacketsOfNeighbourDiscovery(t *testing.T) {
	n := newNode(t, "nft")
	apply(t, n.h, wall())
	advertise := func(kind byte) {
		t.Helper()
		err := n.a.h.inside(func() error {
			conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "ip6:ipv6-icmp", "::")
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.WriteTo(append([]byte{kind, 0, 0, 0}, make([]byte, 36)...), &net.IPAddr{IP: net.ParseIP("ff02::1"), Zone: "eth0"})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, kind := range map[string]byte{"router advertisement": routerAdvertisement, "redirect": redirect} {
		eventually(t, name+" is dropped", func() bool {
			advertise(kind)
			return n.dropped(t, name) > 0
		})
	}
	// The node has an address; the container tries it and must learn that it is taken.
	n.a.run(t, "ip addr add "+gateway6+"/64 dev eth0")
	eventually(t, "duplicate address detection fails", func() bool {
		out, _ := n.a.try(t, "ip -6 addr show dev eth0 dadfailed")
		return len(out) > 0
	})
}

// BGP's port is closed towards containers, whichever of the node's addresses they try, and open to others.
func TestPacketsToClosedPorts(t *testing.T) {
	n := newNode(t, "nft")
	apply(t, n.h, wall())
	var l net.Listener
	if err := n.space.h.inside(func() (err error) { l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", ":179"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial := func(s space, to string) error {
		return s.h.inside(func() error {
			conn, err := (&net.Dialer{Timeout: 300 * time.Millisecond}).DialContext(t.Context(), "tcp", net.JoinHostPort(to, "179"))
			if err == nil {
				_ = conn.Close()
			}
			return err
		})
	}
	for _, to := range []string{nodeOut4, nodeOut6} {
		if err := dial(n.outside, to); err != nil {
			t.Fatalf("from outside to %s: %v", to, err)
		}
	}
	for _, to := range []string{gateway4, gateway6, nodeOut4, nodeOut6} {
		before := n.dropped(t, "closed tcp port 179")
		var timeout net.Error
		if err := dial(n.a, to); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Fatalf("from a container to %s: %v, want a timeout", to, err)
		}
		if n.dropped(t, "closed tcp port 179") == before {
			t.Fatalf("from a container to %s: not dropped by our rule", to)
		}
	}
	bfd := netip.AddrPortFrom(netip.MustParseAddr(gateway4), 3784)
	eventually(t, "BFD is dropped", func() bool {
		_ = n.a.h.inside(func() error {
			conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(bfd))
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write(binary.BigEndian.AppendUint32(nil, 0))
			return err
		})
		return n.dropped(t, "closed udp port 3784") > 0
	})
}

// A container with two networks answers over its default route from both addresses, and from no other.
func TestPacketsOfSiblings(t *testing.T) {
	n := newNode(t, "nft")
	fw := wall()
	for _, a := range []string{nobody4, nobody6} {
		fw.Siblings = append(fw.Siblings, kernel.LinkAddr{Link: "fwaaaaaaaaaaaa", Addr: netip.MustParseAddr(a)})
	}
	apply(t, n.h, fw)
	apply(t, n.h, fw)
	o4, o6 := n.outside.listen(t, outside4), n.outside.listen(t, outside6)
	for _, c := range []space{n.a, n.b} {
		c.run(t, "ip addr add "+nobody4+"/32 dev eth0", "ip addr add "+nobody6+"/128 dev eth0 nodad")
	}
	n.a.reaches(t, o4, nobody4, outside4)
	n.a.reaches(t, o6, nobody6, outside6)
	n.b.send(t, nobody4, outside4, "spoofed")
	n.b.send(t, nobody6, outside6, "spoofed")
	eventually(t, "the other container's packets are counted", func() bool {
		return n.dropped(t, "source address of no link of this container") >= 2
	})
	n.a.reaches(t, o4, nobody4, outside4)
}

// An internal network is kept apart although its containers have a default route, and goes on among its own subnets.
func TestPacketsOfInternalNetworks(t *testing.T) {
	n := newNode(t, "nft")
	fw := wall()
	apply(t, n.h, fw)
	o4, o6 := n.outside.listen(t, outside4), n.outside.listen(t, outside6)
	a4, b4, b6 := n.a.listen(t, containerA4), n.b.listen(t, containerB4), n.b.listen(t, containerB6)
	n.a.reaches(t, o4, containerA4, outside4)
	n.a.reaches(t, o6, containerA6, outside6)

	pfx := netip.MustParsePrefix
	fw.Internal = [][]netip.Prefix{{pfx("10.1.0.2/32"), pfx("10.1.0.3/32"), pfx("fd00:1::/64")}, {pfx("10.44.0.0/24")}}
	apply(t, n.h, fw)
	apply(t, n.h, fw)
	for _, c := range []struct {
		from     space
		src, dst string
		rule     string
	}{
		{n.a, containerA4, outside4, "out of internal 10.1.0.2/32"},
		{n.a, containerA6, outside6, "out of internal fd00:1::/64"},
		{n.outside, outside4, containerA4, "into internal 10.1.0.2/32"},
		{n.outside, outside6, containerB6, "into internal fd00:1::/64"},
	} {
		before := n.dropped(t, c.rule)
		c.from.send(t, c.src, c.dst, "spoofed")
		eventually(t, c.rule, func() bool { return n.dropped(t, c.rule) > before })
	}
	n.a.reaches(t, b4, containerA4, containerB4)
	n.b.reaches(t, a4, containerB4, containerA4)
	n.a.reaches(t, b6, containerA6, containerB6)

	fw.Internal = nil
	apply(t, n.h, fw)
	n.a.reaches(t, o4, containerA4, outside4)
	n.a.reaches(t, o6, containerA6, outside6)
}
