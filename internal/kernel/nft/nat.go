package nft

import (
	"fmt"
	"net/netip"
	"strings"

	"fairway/internal/kernel"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// chainNAT masquerades what leaves the cluster. It is the only chain of ours of type "nat", and is there only when
// something is to be masqueraded.
const chainNAT = "postrouting"

// The sets that chainNAT looks into, each with the digit of a family behind its name.
const (
	setMasqueraded = "masqueraded" // sources
	setDirect      = "direct"      // destinations that see the sources' own addresses
)

// natFamily is one of the two families of addresses.
type natFamily struct {
	digit  string
	number byte // NFPROTO_*
	bits   int
}

func natFamilies() []natFamily {
	return []natFamily{{"4", unix.NFPROTO_IPV4, 32}, {"6", unix.NFPROTO_IPV6, 128}}
}

// natChain is the chain for a masquerade; false when there is nothing to do.
//
// What a source reaches with its own address is let through first, so that the exceptions of one network are no other's.
// A chain of type "nat" sees the first packet of a connection only; the kernel does the rest of it the same way.
func natChain(m kernel.Masquerade) (chain, bool) {
	c := chain{name: chainNAT, kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting, priority: nftables.ChainPriorityNATSource}
	for _, e := range m.Except {
		exprs := append(within(e.From, sourceAddress(), expr.CmpOpEq), inPrefix(e.To, destinationAddress(), expr.CmpOpEq)...)
		c.rules = append(c.rules, rule{fmt.Sprintf("%s as itself to %s", e.From, e.To), append(exprs, &expr.Verdict{Kind: expr.VerdictAccept})})
	}
	masquerades := false
	for _, f := range natFamilies() {
		if len(f.ranges(m.From)) == 0 {
			continue
		}
		masquerades = true
		c.rules = append(c.rules, rule{"IPv" + f.digit + " that leaves the cluster", []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
			equal([]byte{f.number}),
			f.load(sourceAddress()),
			&expr.Lookup{SourceRegister: 1, SetName: setMasqueraded + f.digit},
			f.load(destinationAddress()),
			&expr.Lookup{SourceRegister: 1, SetName: setDirect + f.digit, Invert: true},
			&expr.Masq{},
		}})
	}
	return c, masquerades
}

// load puts one of a packet's addresses into the register.
func (f natFamily) load(h headerField) expr.Any {
	offset := h.v6
	if f.bits == 32 {
		offset = h.v4
	}
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(f.bits / 8)}
}

// natSets are the sets of the table.
func natSets(m kernel.Masquerade) []set {
	var out []set
	for _, f := range natFamilies() {
		from := f.ranges(m.From)
		if len(from) == 0 {
			continue
		}
		out = append(out, set{setMasqueraded + f.digit, f.bits, from}, set{setDirect + f.digit, f.bits, f.ranges(m.Direct)})
	}
	return out
}

// ranges are the prefixes of the family as ranges that neither overlap nor touch, in order: what the kernel's interval
// sets take.
func (f natFamily) ranges(prefixes []netip.Prefix) []addrRange {
	var out []addrRange
	for _, p := range prefixes { // sorted by address, the shorter first
		if p.Addr().BitLen() != f.bits {
			continue
		}
		r := rangeOf(p)
		if n := len(out); n > 0 && (!out[n-1].end.IsValid() || r.start.Compare(out[n-1].end) <= 0) {
			out[n-1].end = later(out[n-1].end, r.end)
			continue
		}
		out = append(out, r)
	}
	return out
}

// addrRange is a range of addresses.
type addrRange struct {
	start netip.Addr
	end   netip.Addr // the first address behind it; zero when there is none
}

func rangeOf(p netip.Prefix) addrRange {
	last := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	return addrRange{start: p.Masked().Addr(), end: end.Next()}
}

// later is the later of two ends, of which the zero one is the last of all.
func later(a, b netip.Addr) netip.Addr {
	if !a.IsValid() || !b.IsValid() {
		return netip.Addr{}
	}
	if a.Less(b) {
		return b
	}
	return a
}

// validateNAT refuses what the kernel would take for something else.
func validateNAT(m kernel.Masquerade) error {
	check := func(p netip.Prefix) error {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return fmt.Errorf("masquerade: prefix %s: want one without host bits", p)
		}
		return nil
	}
	for _, list := range [][]netip.Prefix{m.From, m.Direct} {
		for i, p := range list {
			if err := check(p); err != nil {
				return err
			}
			if i > 0 && list[i-1].Compare(p) >= 0 {
				return fmt.Errorf("masquerade: prefixes %s and %s: want them sorted, each once", list[i-1], p)
			}
		}
	}
	for _, e := range m.Except {
		if err := check(e.From); err != nil {
			return err
		}
		if err := check(e.To); err != nil {
			return err
		}
		if e.From.Addr().BitLen() != e.To.Addr().BitLen() {
			return fmt.Errorf("masquerade: exception from %s to %s: want one family", e.From, e.To)
		}
	}
	return nil
}

// aboutSet says whether a finding about the table is about one of its sets.
func aboutSet(finding string) bool { return strings.HasPrefix(finding, "set ") }
