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
func (h *Handle) readNetlink(ctx context.Context, nf uint8, want []ruleSpec) (filter, error) {
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
	known, err := knownRules(want)
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
func knownRules(want []ruleSpec) (map[string]ruleSpec, error) {
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
	for _, spec := range want {
		if err := add(spec, spec.expressions()...); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// expressions are those that iptables-nft writes for a rule of chain FAIRWAY.
func (r ruleSpec) expressions() []expr.Any {
	var out []expr.Any
	for i := 0; i+1 < len(r); i += 2 {
		switch flag, val := r[i], r[i+1]; flag {
		case "-i":
			out = append(out, &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, equal(asCompare(asPattern(val))))
		case "-o":
			out = append(out, &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, equal(asCompare(asPattern(val))))
		case "-j":
			verdict := expr.VerdictAccept
			if val == "RETURN" {
				verdict = expr.VerdictReturn
			}
			out = append(out, &expr.Verdict{Kind: verdict})
		}
	}
	return out
}
