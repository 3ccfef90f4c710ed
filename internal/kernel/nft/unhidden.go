package nft

import (
	"fmt"
	"net/netip"

	"fairway/internal/kernel"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// chainUnhidden keeps the source of packets that somebody else would masquerade. A connection gets its source translated
// once: by the first chain of type "nat" that says to what (nf_nat_inet_fn). Ours is before iptables' and says: to what
// it is.
const chainUnhidden = "unhidden"

// The sets that chainUnhidden looks into, each with the digit of a family behind its name.
const (
	setUnhidden = "unhidden" // sources
	setKnown    = "known"    // destinations that see them
)

// beforeMasquerade is before iptables' POSTROUTING, and Docker's own (NF_IP_PRI_NAT_SRC is 100).
const beforeMasquerade = nftables.ChainPriority(99)

// unhiddenChain is the chain; false when there is nothing to do.
func unhiddenChain(u kernel.Unhidden) (chain, bool) {
	priority := beforeMasquerade
	c := chain{name: chainUnhidden, kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting, priority: &priority}
	for _, f := range natFamilies() {
		if len(f.ranges(u.From)) == 0 {
			continue
		}
		c.rules = append(c.rules, rule{"IPv" + f.digit + " keeps its source", []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
			equal([]byte{f.number}),
			f.load(destinationAddress()),
			&expr.Lookup{SourceRegister: 1, SetName: setKnown + f.digit},
			f.load(sourceAddress()),
			&expr.Lookup{SourceRegister: 1, SetName: setUnhidden + f.digit},
			&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.number), RegAddrMin: 1, RegAddrMax: 1},
		}})
	}
	return c, len(c.rules) > 0
}

// addressSets are all sets of addresses in table "inet fairway".
func addressSets(fw kernel.Firewall) []set {
	out := natSets(fw.Masquerade)
	for _, f := range natFamilies() {
		if from := f.ranges(fw.Unhidden.From); len(from) > 0 {
			out = append(out, set{setUnhidden + f.digit, f.bits, from}, set{setKnown + f.digit, f.bits, f.ranges(fw.Unhidden.To)})
		}
	}
	return out
}

// validateUnhidden refuses what the kernel would take for something else.
func validateUnhidden(u kernel.Unhidden) error {
	for _, list := range [][]netip.Prefix{u.From, u.To} {
		for i, p := range list {
			if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() || i > 0 && list[i-1].Compare(p) >= 0 {
				return fmt.Errorf("sources that are kept: prefix %s: want them without host bits, sorted, each once", p)
			}
		}
	}
	return nil
}
