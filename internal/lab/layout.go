package lab

import (
	"fmt"
	"net/netip"
)

// The lab's numbers. In the flat topology every node is in one AS (iBGP); with two segments every host is in its
// own, and so is the router (eBGP).
const (
	FlatASN   = 64512
	HostASN   = 64512 // plus the host's number
	RouterASN = 64600
	holdTime  = "9s"
)

// Pools of the lab's networks: each host has one block of each.
const (
	Pool4 = "10.9.0.0/16"
	Pool6 = "fd09::/48"
)

const (
	routerName = "router"
	switchName = "switch"
)

// HostInfo is the place of one host in the lab.
type HostInfo struct {
	// Name is host1, host2, ... or router.
	Name string `json:"name"`
	// Number is N of hostN, from 1; 0 is the router.
	Number int `json:"number"`
	// Rootfs is what was asked for: a suite or a path.
	Rootfs string `json:"rootfs"`
	// Tree is the path of its root file system's lower layer.
	Tree string `json:"tree"`
	// NICs are its network cards; a host has one, the router one per segment.
	NICs []NIC `json:"nics"`
	// ASN is its BGP autonomous system.
	ASN uint32 `json:"asn"`
	// Block4 and Block6 are its own parts of the pools; the router has none.
	Block4 netip.Prefix `json:"block4,omitzero"`
	Block6 netip.Prefix `json:"block6,omitzero"`
}

// Router says that this is the plain router, which has no engine.
func (h HostInfo) Router() bool { return h.Number == 0 }

// Address is the host's first IPv4 address, its underlay address.
func (h HostInfo) Address() netip.Addr { return h.NICs[0].Address4.Addr() }

// Address6 is the host's first IPv6 address.
func (h HostInfo) Address6() netip.Addr { return h.NICs[0].Address6.Addr() }

// NIC is a network card and the switch port it is plugged into.
type NIC struct {
	Name     string       `json:"name"` // inside the host
	Port     string       `json:"port"` // at the switch
	Segment  int          `json:"segment"`
	Address4 netip.Prefix `json:"address4"`
	Address6 netip.Prefix `json:"address6"`
	MAC      string       `json:"mac"`
}

// segmentName is the bridge of a segment, in the namespace of the switch.
func segmentName(segment int) string { return fmt.Sprintf("segment%d", segment) }

// segments are the numbers of a topology's segments. The flat one is 0, as its addresses say.
func (t Topology) segments() []int {
	if t == Flat {
		return []int{0}
	}
	return []int{1, 2}
}

// newHost places host number of a lab that is made with hosts hosts. With two segments the first half is on the
// first one; a host that is added later goes by its number.
func newHost(t Topology, number, hosts int) HostInfo {
	segment := 0
	asn := uint32(FlatASN)
	if t == TwoSegments {
		asn = uint32(HostASN + number)
		segment = 1
		if number > (hosts+1)/2 {
			segment = 2
		}
		if number > hosts {
			segment = 1 + (number+1)%2
		}
	}
	name := fmt.Sprintf("host%d", number)
	return HostInfo{
		Name: name, Number: number, ASN: asn,
		NICs:   []NIC{newNIC("eth0", name, segment, 10+number)},
		Block4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(number), 0}), 24),
		Block6: netip.MustParsePrefix(fmt.Sprintf("fd09:0:0:%d::/64", number)),
	}
}

func newRouter() HostInfo {
	r := HostInfo{Name: routerName, ASN: RouterASN}
	for i, segment := range TwoSegments.segments() {
		port := fmt.Sprintf("%s-eth%d", routerName, i)
		r.NICs = append(r.NICs, newNIC(fmt.Sprintf("eth%d", i), port, segment, 1))
	}
	return r
}

// newNIC addresses a card: 10.77.SEGMENT.HOST/24 and fd77:0:0:SEGMENT::HOST/64, whose last group has the digits of
// the IPv4 address's last byte.
func newNIC(name, port string, segment, host int) NIC {
	return NIC{
		Name: name, Port: port, Segment: segment,
		Address4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(segment), byte(host)}), 24),
		Address6: netip.MustParsePrefix(fmt.Sprintf("fd77:0:0:%d::%d/64", segment, host)),
		MAC:      fmt.Sprintf("02:00:0a:4d:%02x:%02x", segment, host),
	}
}

// gateway returns the router's addresses on a segment.
func gateway(segment int) (v4, v6 netip.Addr) {
	nic := newNIC("", "", segment, 1)
	return nic.Address4.Addr(), nic.Address6.Addr()
}
