package nft

import (
	"net/netip"
	"slices"

	"fairway/internal/kernel"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The chains of table "bridge fairway". What comes in through a port of a bridge has to be from the container behind it,
// before the bridge learns of its MAC and before anybody else hears it.
const (
	chainPort  = "port"  // a frame from one of our ports
	chainARP   = "arp"   // ARP, RFC 826
	chainIPv4  = "ipv4"  // an IPv4 packet
	chainIPv6  = "ipv6"  // an IPv6 packet
	chainNDisc = "ndisc" // ICMPv6 with an own source address
)

// The sets of table "bridge fairway". The first part of each key is the name of a port.
const (
	setPorts = "ports"
	setMACs  = "macs"
	setIPv4  = "addresses4"
	setIPv6  = "addresses6"
)

// bridgePriority is before all others of the family (NF_BR_PRI_NAT_DST_BRIDGED of linux/netfilter_bridge.h).
const bridgePriority = nftables.ChainPriority(-300)

// bridgeLayout is the table for the ports of our bridges: its chains, or none without ports.
func bridgeLayout(ports []kernel.BridgePort) []chain {
	if len(ports) == 0 {
		return nil
	}
	priority := bridgePriority
	return []chain{
		{name: chainPrerouting, hook: nftables.ChainHookPrerouting, priority: &priority, rules: []rule{
			{"from our ports", append(portLookup(setPorts, nil, false), jumpTo(chainPort))},
		}},
		{name: chainPort, rules: []rule{
			{"MAC address not of this port", append(portLookup(setMACs, linkLayer(6, 6), true), drop()...)},
			{"VLAN tag", append(taggedWith(unix.ETH_P_8021Q), drop()...)},
			{"VLAN service tag", append(taggedWith(unix.ETH_P_8021AD), drop()...)},
			{"ARP", append(etherType(unix.ETH_P_ARP), jumpTo(chainARP))},
			{"IPv4", append(etherType(unix.ETH_P_IP), jumpTo(chainIPv4))},
			{"IPv6", append(etherType(unix.ETH_P_IPV6), jumpTo(chainIPv6))},
			{"neither IP nor ARP", drop()},
		}},
		{name: chainARP, rules: arpRules()},
		{name: chainIPv4, rules: []rule{
			{"own IPv4 source", append(portLookup(setIPv4, network(12, 4), false), accept())},
			{"IPv4 source address not of this port", drop()},
		}},
		{name: chainIPv6, rules: ipv6Rules()},
		{name: chainNDisc, rules: ndiscRules()},
	}
}

// arpRules let pass what says of an address of the port that it is at the MAC of the port, and probes, which say nothing
// (RFC 5227, 2.1.1).
func arpRules() []rule {
	const ethernetIPv4 = "\x00\x01\x08\x00\x06\x04"
	return []rule{
		{"ARP not of IPv4 over Ethernet", append([]expr.Any{network(0, 6), &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte(ethernetIPv4)}}, drop()...)},
		{"ARP sender's MAC not of this port", append(portLookup(setMACs, network(8, 6), true), drop()...)},
		{"ARP probe", []expr.Any{network(14, 4), equal(make([]byte, 4)), accept()}},
		{"own ARP sender", append(portLookup(setIPv4, network(14, 4), false), accept())},
		{"ARP sender's address not of this port", drop()},
	}
}

// multicastListener is a report of MLDv2 (RFC 3810), which hosts send before they have an address.
const multicastListener = 143

// ipv6Rules let pass own sources, and what an interface sends before it has an address (RFC 4862, 5.4.2).
func ipv6Rules() []rule {
	unspecified := func(kind byte) []expr.Any {
		return append(append([]expr.Any{network(8, 16), equal(make([]byte, 16))}, icmpType(kind)...), accept())
	}
	return []rule{
		{"duplicate address detection", unspecified(neighbourSolicitation)},
		{"multicast listener report", unspecified(multicastListener)},
		{"IPv6 source address not of this port", append(portLookup(setIPv6, network(8, 16), true), drop()...)},
		{"ICMPv6", []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{unix.IPPROTO_ICMPV6}), jumpTo(chainNDisc)}},
		{"own IPv6 source", []expr.Any{accept()}},
	}
}

// ndiscRules keep containers from being routers and from claiming others' addresses (the target of an advertisement is
// at byte 8, RFC 4861, 4.4).
func ndiscRules() []rule {
	target := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 8, Len: 16}
	return []rule{
		{"router advertisement", append(icmpType(routerAdvertisement), drop()...)},
		{"redirect", append(icmpType(redirect), drop()...)},
		{"advertised address not of this port", append(append(icmpType(neighbourAdvert), portLookup(setIPv6, target, true)...), drop()...)},
	}
}

// withinBridges let pass what the kernel shows on its way from port to port of one bridge (br_netfilter): nothing is
// forwarded there, and neighbour discovery is to addresses of no subnet.
func withinBridges(ports []kernel.BridgePort) []rule {
	var out []rule
	seen := map[string]bool{}
	for _, p := range ports {
		if p.Bridge == "" || seen[p.Bridge] {
			continue
		}
		seen[p.Bridge] = true
		out = append(out, rule{"within " + p.Bridge, []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, equal(asCompare(p.Bridge)),
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, equal(asCompare(p.Bridge)), accept(),
		}})
	}
	return out
}

// portLookup looks for the name of the port, and behind it one field of the frame, in a set.
func portLookup(set string, field *expr.Payload, not bool) []expr.Any {
	out := []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1}}
	if field != nil {
		behind := *field
		behind.DestRegister = unix.NFT_REG_2 // 16 bytes behind the first
		out = append(out, &behind)
	}
	return append(out, &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set, Invert: not})
}

func linkLayer(offset, length uint32) *expr.Payload {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseLLHeader, Offset: offset, Len: length}
}

func network(offset, length uint32) *expr.Payload {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

// taggedWith matches frames by what stands behind their MAC addresses. The kernel has taken a tag off by then, and shows it
// here all the same.
func taggedWith(tag uint16) []expr.Any {
	return []expr.Any{linkLayer(12, 2), equal([]byte{byte(tag >> 8), byte(tag)})}
}

// etherType matches frames by their protocol, as the kernel took it from the header: of one with a tag, that behind it.
func etherType(proto uint16) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1}, equal([]byte{byte(proto >> 8), byte(proto)})}
}

func accept() expr.Any { return &expr.Verdict{Kind: expr.VerdictAccept} }

func jumpTo(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictJump, Chain: chain} }

// portSet is a set of table "bridge fairway" as it should be.
type portSet struct {
	name string
	key  nftables.SetDatatype
	keys [][]byte // sorted, unique
}

// portSets are the sets for the ports.
func portSets(ports []kernel.BridgePort) []portSet {
	if len(ports) == 0 {
		return nil
	}
	sets := []portSet{
		{name: setPorts, key: nftables.TypeIFName},
		{name: setMACs, key: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr)},
		{name: setIPv4, key: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIPAddr)},
		{name: setIPv6, key: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIP6Addr)},
	}
	for _, p := range ports {
		name := make([]byte, 16)
		copy(name, p.Link)
		key := func(b []byte) []byte { return append(slices.Clone(name), b...) }
		sets[0].keys = append(sets[0].keys, name)
		sets[1].keys = append(sets[1].keys, key(append(p.MAC[:], 0, 0)))
		for _, a := range append(slices.Clone(p.Addrs), linkLocal(p.MAC)) {
			if a.Is4() {
				sets[2].keys = append(sets[2].keys, key(a.AsSlice()))
			} else {
				sets[3].keys = append(sets[3].keys, key(a.AsSlice()))
			}
		}
	}
	for i := range sets {
		slices.SortFunc(sets[i].keys, slices.Compare)
		sets[i].keys = slices.CompactFunc(sets[i].keys, slices.Equal)
	}
	return sets
}

// linkLocal is the address that an interface with the MAC gives itself (RFC 4291, appendix A).
func linkLocal(m kernel.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}
