package nft

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"fairway/internal/kernel"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// applyTable makes table "inet fairway" as fw wants it, and says what was changed.
func (h *Handle) applyTable(ctx context.Context, fw kernel.Firewall) ([]string, error) {
	lacks, err := h.checkTable(ctx, fw)
	if err != nil {
		return nil, err
	}
	if len(lacks) == 0 {
		h.made = h.made || len(h.wanted(fw)) > 0
		return nil, nil
	}
	write := h.writeTable
	if !slices.ContainsFunc(lacks, func(l string) bool { return !aboutSet(l) }) {
		write = h.writeSets
	}
	if err := write(fw); err != nil {
		return nil, err
	}
	h.log.Debug("wrote nftables table", slog.String("table", "inet "+kernel.TableName), slog.Any("because", lacks))
	was := h.made
	h.made = len(h.wanted(fw)) > 0
	switch {
	case !h.made:
		return []string{"nftables: removed table inet " + kernel.TableName}, nil
	case was:
		return []string{fmt.Sprintf("nftables: restored table inet %s: %s", kernel.TableName, strings.Join(lacks, ", "))}, nil
	default:
		return []string{"nftables: made table inet " + kernel.TableName}, nil
	}
}

// wanted is the table as it should be, which depends on what the kernel can do.
func (h *Handle) wanted(fw kernel.Firewall) []chain {
	if h.noReversePath {
		return layout(fw, nil)
	}
	return layout(fw, h.reversePath)
}

// writeTable replaces the table in one transaction. A kernel that has no reverse path lookup gets the table without it.
func (h *Handle) writeTable(fw kernel.Firewall) error {
	err := h.write(layout(fw, h.reversePath), addressSets(fw))
	if err == nil || !fw.AntiSpoof || !isUnsupported(err) {
		h.noReversePath = false
		return err
	}
	if again := h.write(layout(fw, nil), addressSets(fw)); again != nil {
		return err
	}
	if !h.noReversePath {
		h.log.Warn("kernel has no reverse path lookup in nftables: only IPv4 is kept from spoofing, by rp_filter", slog.Any("err", err))
	}
	h.noReversePath = true
	return nil
}

// isUnsupported says that the kernel does not know an expression, or not at that place.
func isUnsupported(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EINVAL)
}

func (h *Handle) write(chains []chain, sets []set) error {
	conn, err := nftables.New(nftables.WithNetNSFd(h.ns))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: kernel.TableName}
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	if len(chains) > 0 {
		conn.AddTable(table)
	}
	if err := addSets(conn, table, sets); err != nil {
		return err
	}
	addChains(conn, table, chains)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("write nftables table inet %s: %w", kernel.TableName, err)
	}
	return nil
}

// addChains adds chains with their rules to a transaction.
func addChains(conn *nftables.Conn, table *nftables.Table, chains []chain) {
	made := make(map[string]*nftables.Chain, len(chains))
	for _, c := range chains {
		n := &nftables.Chain{Table: table, Name: c.name}
		if c.hook != nil {
			accept := nftables.ChainPolicyAccept
			n.Type, n.Hooknum, n.Priority, n.Policy = cmp.Or(c.kind, nftables.ChainTypeFilter), c.hook, c.priority, &accept
		}
		made[c.name] = conn.AddChain(n)
	}
	for _, c := range chains {
		for _, r := range c.rules {
			conn.AddRule(&nftables.Rule{
				Table: table, Chain: made[c.name], Exprs: r.exprs,
				UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment),
			})
		}
	}
}

// checkTable says in words how the table differs from what fw wants, without naming the table.
func (h *Handle) checkTable(ctx context.Context, fw kernel.Firewall) ([]string, error) {
	chains, sets := h.wanted(fw), addressSets(fw)
	flags, objects, ok, err := h.nl.table(ctx, unix.NFPROTO_INET)
	switch {
	case err != nil:
		return nil, err
	case !ok && len(chains) == 0:
		return nil, nil
	case !ok:
		return []string{"missing"}, nil
	case len(chains) == 0:
		return []string{"not wanted"}, nil
	}
	var lacks []string
	if flags != 0 {
		lacks = append(lacks, fmt.Sprintf("flags %#x (1 is dormant)", flags))
	}
	if want := len(chains) + len(sets); int(objects) != want {
		lacks = append(lacks, fmt.Sprintf("%d chains and other objects instead of %d", objects, want))
	}
	rules, err := h.nl.rules(ctx, unix.NFPROTO_INET, kernel.TableName, "")
	if err != nil {
		return nil, err
	}
	for _, c := range chains {
		lack, err := h.checkChain(ctx, unix.NFPROTO_INET, c, rules)
		if err != nil {
			return nil, err
		}
		if lack != "" {
			lacks = append(lacks, lack)
		}
	}
	for _, s := range sets {
		lack, err := h.checkSet(ctx, s)
		if err != nil {
			return nil, err
		}
		if lack != "" {
			lacks = append(lacks, lack)
		}
	}
	return lacks, nil
}

// checkChain compares one chain, and those of the rules that are in it.
func (h *Handle) checkChain(ctx context.Context, family uint8, want chain, rules []ruleInfo) (string, error) {
	have, ok, err := h.nl.chain(ctx, family, kernel.TableName, want.name)
	if err != nil {
		return "", err
	}
	what := "chain " + want.name
	if !ok {
		return what + " is missing", nil
	}
	if !sameHook(want, have) {
		return what + " has another hook, priority or policy", nil
	}
	rules = slices.DeleteFunc(slices.Clone(rules), func(r ruleInfo) bool { return r.chain != want.name })
	if len(rules) != len(want.rules) {
		return what + " has " + strconv.Itoa(len(rules)) + " rules instead of " + strconv.Itoa(len(want.rules)), nil
	}
	for i, w := range want.rules {
		exprs, err := normalised(w.exprs)
		if err != nil {
			return "", err
		}
		if h := rules[i]; h.comment != w.comment || h.counted != w.counted() || !slices.Equal(h.exprs, exprs) {
			return what + fmt.Sprintf(" has another rule in place of %q", w.comment), nil
		}
	}
	return "", nil
}

func sameHook(want chain, have chainInfo) bool {
	if want.hook == nil {
		return !have.base
	}
	return have.base && have.kind == string(cmp.Or(want.kind, nftables.ChainTypeFilter)) && !have.drop &&
		have.hook == uint32(*want.hook) && have.priority == int32(*want.priority)
}
