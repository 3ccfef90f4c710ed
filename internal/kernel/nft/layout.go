package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"fairway/internal/kernel"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The chains of table "inet fairway". Base chains are named after their hook.
const (
	chainPrerouting = "prerouting"
	chainInput      = "input"
	chainSource     = "source"    // what comes from our links: is the source its own?
	chainNeighbour  = "neighbour" // ICMPv6 of the neighbour discovery protocol from our links
	chainSibling    = "sibling"   // what comes over one link of a container from its address on another
	chainApart      = "forward"   // what is forwarded between internal networks and elsewhere
	chainClosed     = "closed"    // what comes from our links to the node itself
)

// chain is a chain as it should be.
type chain struct {
	name     string
	kind     nftables.ChainType  // "" is filter
	hook     *nftables.ChainHook // nil: not a base chain
	priority *nftables.ChainPriority
	rules    []rule
}

// rule is a rule as it should be. Every rule has a comment, which is also its name in Status.
type rule struct {
	comment string
	exprs   []expr.Any
}

func (r rule) counted() bool {
	for _, e := range r.exprs {
		if _, ok := e.(*expr.Counter); ok {
			return true
		}
	}
	return false
}

// expressions make up what a rule does; each call makes new ones.
type expressions func() []expr.Any

// layout is the table for a firewall: its chains, or none when there is nothing to do. Without a reverse path
// lookup the other rules against spoofing stand alone.
func layout(fw kernel.Firewall, reversePath expressions) []chain {
	var out []chain
	if c, ok := natChain(fw.Masquerade); ok {
		out = append(out, c)
	}
	if c, ok := unhiddenChain(fw.Unhidden); ok {
		out = append(out, c)
	}
	if len(fw.Links) == 0 {
		return out
	}
	if fw.AntiSpoof {
		// Before connection tracking, so that what is not to be does not fill the table of connections.
		out = append(
			out,
			chain{name: chainPrerouting, hook: nftables.ChainHookPrerouting, priority: nftables.ChainPriorityRaw, rules: fromLinks(fw.Links, chainSource)},
			chain{name: chainSource, rules: sourceRules(reversePath, len(fw.Siblings) > 0)},
			chain{name: chainNeighbour, rules: neighbourRules()},
		)
		if reversePath != nil && len(fw.Siblings) > 0 {
			out = append(out, chain{name: chainSibling, rules: siblingRules(fw.Siblings)})
		}
	}
	if len(fw.Internal) > 0 {
		out = append(out, chain{name: chainApart, hook: nftables.ChainHookForward, priority: nftables.ChainPriorityFilter, rules: append(withinBridges(fw.Ports), internalRules(fw.Internal)...)})
	}
	if len(fw.ClosedTCP)+len(fw.ClosedUDP) > 0 {
		out = append(
			out,
			chain{name: chainInput, hook: nftables.ChainHookInput, priority: nftables.ChainPriorityFilter, rules: fromLinks(fw.Links, chainClosed)},
			chain{name: chainClosed, rules: closedRules(fw)},
		)
	}
	return out
}

// fromLinks sends what comes in over our links to a chain, so that anybody else's packets cost one comparison.
func fromLinks(links []string, to string) []rule {
	var out []rule
	for _, l := range links {
		out = append(out, rule{
			comment: "from " + l,
			exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
				equal(asCompare(l)),
				&expr.Verdict{Kind: expr.VerdictJump, Chain: to},
			},
		})
	}
	return out
}

func sourceRules(reversePath expressions, siblings bool) []rule {
	unspecified := make([]byte, 16)
	out := []rule{
		{"neighbour discovery", append(protocol6(unix.IPPROTO_ICMPV6), &expr.Verdict{Kind: expr.VerdictJump, Chain: chainNeighbour})},
		{"no source address", append(source6(unspecified, ones(128)), drop()...)},
	}
	switch {
	case reversePath == nil:
	case siblings:
		out = append(out, rule{"source address not of this link", append(reversePath(), &expr.Verdict{Kind: expr.VerdictJump, Chain: chainSibling})})
	default:
		out = append(out, rule{"source address not of this link", append(reversePath(), drop()...)})
	}
	return out
}

// siblingRules let a container with several networks answer over its default route from its address on another
// network. Only packets that fail the reverse path come here, so their number costs nobody else anything.
func siblingRules(siblings []kernel.LinkAddr) []rule {
	out := make([]rule, 0, len(siblings)+1)
	for _, s := range siblings {
		exprs := []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, equal(asCompare(s.Link))}
		out = append(out, rule{fmt.Sprintf("%s also has %s", s.Link, s.Addr), append(append(exprs, source(s.Addr)...), &expr.Verdict{Kind: expr.VerdictAccept})})
	}
	return append(out, rule{"source address of no link of this container", drop()})
}

// internalRules drop what has one end in a subnet of an internal network and the other in none of the same network. Our
// rules against spoofing make the source say where a packet is from.
func internalRules(networks [][]netip.Prefix) []rule {
	var out []rule
	for _, subnets := range networks {
		for _, s := range subnets {
			from, to := within(s, sourceAddress(), expr.CmpOpEq), within(s, destinationAddress(), expr.CmpOpEq)
			for _, o := range subnets {
				if o.Addr().Is4() == s.Addr().Is4() {
					from = append(from, inPrefix(o, destinationAddress(), expr.CmpOpNeq)...)
					to = append(to, inPrefix(o, sourceAddress(), expr.CmpOpNeq)...)
				}
			}
			out = append(out, rule{"out of internal " + s.String(), append(from, drop()...)}, rule{"into internal " + s.String(), append(to, drop()...)})
		}
	}
	return out
}

// The offsets of addresses in the network header: IPv4 (RFC 791, 3.1) and IPv6 (RFC 8200, 3).
type headerField struct{ v4, v6 uint32 }

func sourceAddress() headerField      { return headerField{12, 8} }
func destinationAddress() headerField { return headerField{16, 24} }

// within matches packets of the prefix's family by one of their addresses.
func within(p netip.Prefix, f headerField, op expr.CmpOp) []expr.Any {
	family := byte(unix.NFPROTO_IPV6)
	if p.Addr().Is4() {
		family = unix.NFPROTO_IPV4
	}
	return append([]expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal([]byte{family})}, inPrefix(p, f, op)...)
}

func inPrefix(p netip.Prefix, f headerField, op expr.CmpOp) []expr.Any {
	offset, length := f.v6, uint32(16)
	if p.Addr().Is4() {
		offset, length = f.v4, 4
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: length, Mask: ones(p.Bits())[:length], Xor: make([]byte, length)},
		&expr.Cmp{Op: op, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

// source matches packets by their source address (IPv4: offset 12, RFC 791 3.1).
func source(a netip.Addr) []expr.Any {
	if a.Is6() {
		return source6(a.AsSlice(), ones(128))
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		equal([]byte{unix.NFPROTO_IPV4}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		equal(a.AsSlice()),
	}
}

// reversePath matches what has a source that is not routed back over the link it came from: unknown, another link's, the
// node's own.
func reversePath() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
		equal(make([]byte, 4)),
	}
}

// The types of ICMPv6 messages (RFC 4861).
const (
	routerAdvertisement   = 134
	neighbourSolicitation = 135
	neighbourAdvert       = 136
	redirect              = 137
)

// neighbourRules let pass what a link needs before any address of it is routed: duplicate address detection from the
// unspecified address (RFC 4862 5.4.2) and neighbour discovery from link-local ones. A container is no router.
func neighbourRules() []rule {
	linkLocal := make([]byte, 16)
	linkLocal[0], linkLocal[1] = 0xfe, 0x80
	unspecified := make([]byte, 16)
	accept := &expr.Verdict{Kind: expr.VerdictAccept}
	from := func(prefix []byte, bits int, kind byte) []expr.Any {
		return append(append(source6(prefix, ones(bits)), icmpType(kind)...), accept)
	}
	return []rule{
		{"router advertisement", append(icmpType(routerAdvertisement), drop()...)},
		{"redirect", append(icmpType(redirect), drop()...)},
		{"duplicate address detection", from(unspecified, 128, neighbourSolicitation)},
		{"neighbour solicitation", from(linkLocal, 10, neighbourSolicitation)},
		{"neighbour advertisement", from(linkLocal, 10, neighbourAdvert)},
	}
}

func closedRules(fw kernel.Firewall) []rule {
	var out []rule
	add := func(name string, proto byte, ports []uint16) {
		for _, p := range ports {
			exprs := []expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				equal([]byte{proto}),
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
				equal(binary.BigEndian.AppendUint16(nil, p)),
			}
			out = append(out, rule{fmt.Sprintf("closed %s port %d", name, p), append(exprs, drop()...)})
		}
	}
	add("tcp", unix.IPPROTO_TCP, fw.ClosedTCP)
	add("udp", unix.IPPROTO_UDP, fw.ClosedUDP)
	return out
}

func equal(data []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}
}

func drop() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
}

// protocol6 matches IPv6 packets of a protocol; extension headers are skipped.
func protocol6(proto byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		equal([]byte{unix.NFPROTO_IPV6}),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		equal([]byte{proto}),
	}
}

// source6 matches IPv6 packets by a prefix of their source (offset 8, RFC 8200 3).
func source6(prefix, mask []byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		equal([]byte{unix.NFPROTO_IPV6}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 16},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 16, Mask: mask, Xor: make([]byte, 16)},
		equal(prefix),
	}
}

// icmpType matches ICMPv6 messages of a type. The chain has nothing but ICMPv6 in it; the protocol is matched again so
// that nft shows the type by its name.
func icmpType(kind byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		equal([]byte{unix.IPPROTO_ICMPV6}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		equal([]byte{kind}),
	}
}

// ones is a mask of 16 bytes that begins with so many ones.
func ones(bits int) []byte {
	m := make([]byte, 16)
	for i := range bits {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}
