package nft

import (
	"context"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// readNetlink reads what iptables-nft made, without running it. It knows no rules but those that concern us; when these
// look otherwise than expected (another release of iptables may write them in other ways), iptables -S has the last word.
func (h *Handle) readNetlink(ctx context.Context, nf uint8, links []string) (filter, error) {
	forward, hasForward, err := h.nl.chain(ctx, nf, tableFilter, chainForward)
	if err != nil {
		return filter{}, err
	}
	f := filter{chains: map[string][]ruleSpec{}}
	if hasForward {
		f.present = true
		f.forwardDrop = forward.base && forward.hook == unix.NF_INET_FORWARD && forward.drop
		f.chains[chainForward] = nil
	}
	for _, name := range []string{chainDockerUser, chainOwn} {
		_, ok, err := h.nl.chain(ctx, nf, tableFilter, name)
		if err != nil {
			return filter{}, err
		}
		if ok {
			f.present = true
			f.chains[name] = nil
		}
	}
	known, err := knownRules(links)
	if err != nil {
		return filter{}, err
	}
	for name := range f.chains {
		rules, err := h.nl.rules(ctx, nf, tableFilter, name)
		if err != nil {
			return filter{}, err
		}
		for _, r := range rules {
			f.chains[name] = append(f.chains[name], r.spec(known))
		}
	}
	return f, nil
}

// spec is the rule as iptables -S would write it, if it is one of the known ones.
func (r ruleInfo) spec(known map[string]ruleSpec) ruleSpec {
	comment, exprs := r.comment, r.exprs
	if i := slices.IndexFunc(exprs, func(e string) bool { return strings.HasPrefix(e, "comment ") }); i >= 0 {
		comment = strings.TrimPrefix(exprs[i], "comment ")
		exprs = slices.Delete(slices.Clone(exprs), i, i+1)
	}
	s, ok := known[strings.Join(exprs, "; ")]
	switch {
	case !ok:
		return ruleSpec{"?"}
	case comment != "":
		return append(ruleSpec{"-m", "comment", "--comment", comment}, s...)
	default:
		return s
	}
}

// knownRules are the rules that concern us, by the text of their expressions.
func knownRules(links []string) (map[string]ruleSpec, error) {
	out := make(map[string]ruleSpec)
	add := func(s ruleSpec, exprs ...expr.Any) error {
		n, err := normalised(exprs)
		out[strings.Join(n, "; ")] = s
		return err
	}
	for _, to := range []string{chainOwn, chainDockerUser} {
		if err := add(ruleSpec{"-j", to}, &expr.Verdict{Kind: expr.VerdictJump, Chain: to}); err != nil {
			return nil, err
		}
	}
	if err := add(ruleSpec{"-j", "RETURN"}, &expr.Verdict{Kind: expr.VerdictReturn}); err != nil {
		return nil, err
	}
	for _, l := range links {
		for flag, key := range map[string]expr.MetaKey{"-i": expr.MetaKeyIIFNAME, "-o": expr.MetaKeyOIFNAME} {
			err := add(ruleSpec{flag, asIPTables(l), "-j", "ACCEPT"},
				&expr.Meta{Key: key, Register: 1}, equal(asCompare(l)), &expr.Verdict{Kind: expr.VerdictAccept})
			if err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}
