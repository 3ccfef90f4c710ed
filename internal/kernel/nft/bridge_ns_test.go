package nft

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
)

// segment is a node with a bridge and two containers on it, as in mode "subnet".
type segment struct {
	node
	fw kernel.Firewall
}

const (
	portA, portB = "fwaaaaaaaaaaaa", "fwbbbbbbbbbbbb"
	bridgeAB     = "fwbaaaaaaaaaaaa"
)

func mac(last byte) kernel.MAC { return kernel.MAC{2, 0, 0, 0, 0, last} }

func newSegment(t *testing.T) segment {
	t.Helper()
	n := node{rig: newRig(t, "nft"), a: newSpace(t), b: newSpace(t)}
	n.set(t, "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
	n.run(t, "ip link add "+bridgeAB+" address 02:fa:18:fa:18:01 type bridge mcast_snooping 0", "ip link set "+bridgeAB+" up",
		"ip addr add "+gateway4+"/24 dev "+bridgeAB, "ip addr add "+gateway6+"/64 dev "+bridgeAB+" nodad")
	s := segment{node: n, fw: wall()}
	s.plug(t, n.a, portA, mac(0xa), containerA4, containerA6)
	s.plug(t, n.b, portB, mac(0xb), containerB4, containerB6)
	apply(t, s.h, s.fw)
	return s
}

func (s *segment) plug(t *testing.T, c space, link string, m kernel.MAC, v4, v6 string) {
	t.Helper()
	s.run(t, "ip link add "+link+" type veth peer name eth0 address "+m.String()+" netns "+c.path(), "ip link set "+link+" up master "+bridgeAB)
	c.run(t, "ip link set eth0 up", "ip addr add "+v4+"/24 dev eth0", "ip addr add "+v6+"/64 dev eth0 nodad",
		"ip route add default via "+gateway4, "ip -6 route add default via "+gateway6)
	s.fw.Ports = append(s.fw.Ports, kernel.BridgePort{Link: link, MAC: m, Addrs: []netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)}})
}

// frame puts a frame on a container's interface that its kernel knows nothing of.
func (s space) frame(t *testing.T, b []byte) {
	t.Helper()
	err := s.h.inside(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		ifr, err := unix.NewIfreq("eth0")
		if err == nil {
			err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr)
		}
		if err != nil {
			return err
		}
		return unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: int(ifr.Uint32()), Protocol: 0})
	})
	if err != nil {
		t.Fatalf("send a frame: %v", err)
	}
}

// ethernet is a frame to everybody.
func ethernet(from kernel.MAC, proto uint16, payload ...[]byte) []byte {
	b := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, from[:]...)
	b = binary.BigEndian.AppendUint16(b, proto)
	return append(b, slices.Concat(payload...)...)
}

// arpReply says that an address is at a MAC.
func arpReply(sender kernel.MAC, addr string) []byte {
	a := netip.MustParseAddr(addr).As4()
	return slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, 2}, sender[:], a[:], make([]byte, 6), a[:])
}

// icmp6 is an IPv6 packet to all nodes with an ICMPv6 message that is about a target.
func icmp6(from string, kind byte, target string) []byte {
	src, dst, of := netip.MustParseAddr(from).As16(), netip.MustParseAddr("ff02::1").As16(), netip.MustParseAddr(target).As16()
	return slices.Concat([]byte{0x60, 0, 0, 0, 0, 24, unix.IPPROTO_ICMPV6, 255}, src[:], dst[:], []byte{kind, 0, 0, 0, 0x20, 0, 0, 0}, of[:])
}

func TestBridgeHonestPackets(t *testing.T) {
	s := newSegment(t)
	b4, b6 := s.b.listen(t, containerB4), s.b.listen(t, containerB6)
	g4, g6 := s.listen(t, gateway4), s.listen(t, gateway6)
	s.a.reaches(t, b4, containerA4, containerB4)
	s.a.reaches(t, b6, containerA6, containerB6)
	s.a.reaches(t, g4, containerA4, gateway4)
	s.a.reaches(t, g6, containerA6, gateway6)
	st, err := s.h.Status()
	if err != nil || !st.Bridge {
		t.Fatalf("status %+v, error %v", st, err)
	}
	for _, d := range st.Dropped {
		if d.Packets > 0 && strings.HasPrefix(d.Rule, "bridge: ") {
			t.Errorf("dropped honest packets: %+v", d)
		}
	}
}

// A container cannot send with a MAC, an IPv4 or an IPv6 address that is not its own, nor say by ARP or neighbour
// discovery that it has one.
func TestBridgeSpoofedFrames(t *testing.T) {
	s := newSegment(t)
	own := mac(0xa)
	for rule, f := range map[string][]byte{
		"MAC address not of this port":              ethernet(mac(0xb), unix.ETH_P_ARP, arpReply(mac(0xb), containerB4)),
		"neither IP nor ARP":                        ethernet(own, 0x88cc, make([]byte, 50)),
		"VLAN tag":                                  ethernet(own, 0x8100, []byte{0, 5, 8, 6}, arpReply(own, containerA4), make([]byte, 20)),
		"VLAN service tag":                          ethernet(own, 0x88a8, []byte{0, 5, 8, 6}, arpReply(own, containerA4), make([]byte, 20)),
		"ARP not of IPv4 over Ethernet":             ethernet(own, unix.ETH_P_ARP, make([]byte, 46)),
		"ARP sender's MAC not of this port":         ethernet(own, unix.ETH_P_ARP, arpReply(mac(0xb), containerA4)),
		"ARP sender's address not of this port":     ethernet(own, unix.ETH_P_ARP, arpReply(own, gateway4)),
		"router advertisement":                      ethernet(own, unix.ETH_P_IPV6, icmp6(linkLocal(own).String(), routerAdvertisement, "::")),
		"redirect":                                  ethernet(own, unix.ETH_P_IPV6, icmp6(linkLocal(own).String(), redirect, gateway6)),
		"advertised address not of this port":       ethernet(own, unix.ETH_P_IPV6, icmp6(containerA6, neighbourAdvert, gateway6)),
		"IPv6 source address not of this port":      ethernet(own, unix.ETH_P_IPV6, icmp6(containerB6, neighbourSolicitation, gateway6)),
		"IPv6 source address not of this port, all": ethernet(own, unix.ETH_P_IPV6, icmp6("::", neighbourAdvert, containerA6)),
	} {
		t.Run(rule, func(t *testing.T) {
			rule, _, _ := strings.Cut(rule, ", ")
			before := s.dropped(t, "bridge: "+rule)
			s.a.frame(t, f)
			eventually(t, "the frame is dropped", func() bool { return s.dropped(t, "bridge: "+rule) == before+1 })
		})
	}
	b4 := s.b.listen(t, containerB4)
	s.a.run(t, "ip addr add "+nobody4+"/32 dev eth0")
	before := s.dropped(t, "bridge: IPv4 source address not of this port")
	s.a.reaches(t, b4, containerA4, containerB4) // it knows where b is
	s.a.send(t, nobody4, containerB4, "spoofed")
	eventually(t, "the packet is dropped", func() bool {
		return s.dropped(t, "bridge: IPv4 source address not of this port") > before
	})
	s.a.reaches(t, b4, containerA4, containerB4) // and nothing else came
}

// What is wanted otherwise changes elements and no more; the counters stay.
func TestBridgePortsComeAndGo(t *testing.T) {
	s := newSegment(t)
	s.a.frame(t, ethernet(mac(0xb), unix.ETH_P_ARP, arpReply(mac(0xb), containerB4)))
	eventually(t, "a frame is dropped", func() bool { return s.dropped(t, "bridge: MAC address not of this port") == 1 })
	all := s.fw.Ports
	s.fw.Ports = all[:1]
	apply(t, s.h, s.fw)
	if out := s.run(t, "nft list table bridge fairway"); strings.Contains(out, portB) || !strings.Contains(out, portA) || !strings.Contains(out, containerA6) {
		t.Fatalf("table:\n%s", out)
	}
	s.fw.Ports = all
	apply(t, s.h, s.fw)
	if n := s.dropped(t, "bridge: MAC address not of this port"); n != 1 {
		t.Fatalf("counted %d, want 1: the table was written anew", n)
	}
	s.fw.Ports = nil
	if changed := apply(t, s.h, s.fw); !slices.Equal(changed, []string{"nftables: removed table bridge fairway"}) {
		t.Fatalf("changed %q", changed)
	}
	if out := s.run(t, "nft list tables"); strings.Contains(out, "bridge") {
		t.Fatalf("left over:\n%s", out)
	}
}

func TestBridgeTableMendsEdits(t *testing.T) {
	s := newSegment(t)
	before := s.run(t, "nft -s list table bridge fairway")
	key := portA + "\" . " + containerA4
	for name, lines := range map[string][]string{
		"deleted":         {"nft delete table bridge fairway"},
		"flushed":         {"nft flush table bridge fairway"},
		"rule first":      {"nft insert rule bridge fairway port accept"},
		"chain added":     {"nft add chain bridge fairway more"},
		"element deleted": {`nft delete element bridge fairway addresses4 '{ "` + key + ` }'`},
		"element added":   {`nft add element bridge fairway addresses4 '{ "` + portA + `" . ` + nobody4 + ` }'`},
		"set flushed":     {"nft flush set bridge fairway macs"},
	} {
		t.Run(name, func(t *testing.T) {
			s.run(t, lines...)
			ok, missing, err := s.h.Check(t.Context(), s.fw)
			if ok || err != nil || len(missing) == 0 {
				t.Fatalf("check: %v %q %v", ok, missing, err)
			}
			if changed := apply(t, s.h, s.fw); len(changed) != 1 || !strings.Contains(changed[0], "restored table bridge fairway") {
				t.Fatalf("changed %q", changed)
			}
			if after := s.run(t, "nft -s list table bridge fairway"); sorted(after) != sorted(before) {
				t.Fatalf("nft shows:\n%s\nwant:\n%s", after, before)
			}
		})
	}
	if err := s.h.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := s.run(t, "nft list tables"); strings.Contains(out, "fairway") {
		t.Fatalf("left over:\n%s", out)
	}
}

// sorted is a listing without the order of its lines: elements of sets have none.
func sorted(s string) string {
	words := strings.Fields(strings.NewReplacer(",", " ", "{", " ", "}", " ").Replace(s))
	slices.Sort(words)
	return strings.Join(words, " ")
}
