package nft

import (
	"context"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Shielded are the addresses of containers on Docker's own bridges that the engine (28 and later) shields from direct
// access: by a rule of its own in PREROUTING of iptables' table "raw", which drops what comes for one over any other
// link. Only rules that nftables can tell are seen; with iptables-legacy there are none.
func (h *Handle) Shielded(ctx context.Context) ([]netip.Addr, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errClosed
	}
	drop, err := normalised([]expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, family := range []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		rules, err := h.nl.rules(ctx, family, "raw", "PREROUTING")
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			if slices.Contains(r.exprs, drop[0]) {
				out = append(out, r.compared(family == unix.NFPROTO_IPV4)...)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}

// compared are the addresses of a family that the rule compares something with.
func (r ruleInfo) compared(v4 bool) []netip.Addr {
	var out []netip.Addr
	for i, e := range r.exprs {
		if i == 0 || !strings.HasPrefix(e, "cmp ") || !strings.HasPrefix(r.exprs[i-1], "payload ") {
			continue // the name of a link is as long as an address
		}
		for part := range strings.FieldsSeq(e) {
			text, found := strings.CutPrefix(part, ".3.1=") // NFTA_CMP_DATA, NFTA_DATA_VALUE
			b, err := hex.DecodeString(text)
			if a, ok := netip.AddrFromSlice(b); found && err == nil && ok && a.Is4() == v4 {
				out = append(out, a)
			}
		}
	}
	return out
}
