package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"fairway/internal/kernel"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// chainInfo is a chain as the kernel tells it.
type chainInfo struct {
	family   uint8
	table    string
	name     string
	base     bool // hooked; the rest is of base chains only
	hook     uint32
	priority int32
	kind     string // "filter", "nat", "route"
	drop     bool   // the policy
}

// ruleInfo is a rule as the kernel tells it.
type ruleInfo struct {
	chain   string
	exprs   []string // normalised, see normalise; without counters
	comment string   // in the rule's user data, as nft writes it
	counted bool
	packets uint64
	bytes   uint64
}

// generation is the number of the ruleset: it grows with every transaction in the namespace.
func (s *socket) generation(ctx context.Context) (uint32, error) {
	all, err := s.request(ctx, unix.NFT_MSG_GETGEN, unix.NFPROTO_UNSPEC, 0)
	if err != nil {
		return 0, fmt.Errorf("read generation of nftables ruleset: %w", err)
	}
	for _, m := range all {
		for t, v := range attributes(m.attrs) {
			if t == unix.NFTA_GEN_ID && len(v) == 4 {
				return binary.BigEndian.Uint32(v), nil
			}
		}
	}
	return 0, errors.New("read generation of nftables ruleset: kernel told none")
}

// table tells flags and number of objects (chains, sets and others) of our table of a family; false when there is none.
func (s *socket) table(ctx context.Context, family uint8) (flags, objects uint32, ok bool, err error) {
	const name = kernel.TableName
	all, err := s.request(ctx, unix.NFT_MSG_GETTABLE, family, 0, text(unix.NFTA_TABLE_NAME, name))
	if errors.Is(err, unix.ENOENT) {
		return 0, 0, false, nil
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("read nftables table %q: %w", name, err)
	}
	for _, m := range all {
		for t, v := range attributes(m.attrs) {
			switch {
			case t == unix.NFTA_TABLE_FLAGS && len(v) == 4:
				flags = binary.BigEndian.Uint32(v)
			case t == unix.NFTA_TABLE_USE && len(v) == 4:
				objects = binary.BigEndian.Uint32(v)
			}
		}
	}
	return flags, objects, len(all) > 0, nil
}

// chain reads one chain; false when there is none.
func (s *socket) chain(ctx context.Context, family uint8, table, name string) (chainInfo, bool, error) {
	all, err := s.request(ctx, unix.NFT_MSG_GETCHAIN, family, 0, text(unix.NFTA_CHAIN_TABLE, table), text(unix.NFTA_CHAIN_NAME, name))
	if errors.Is(err, unix.ENOENT) {
		return chainInfo{}, false, nil
	}
	if err != nil {
		return chainInfo{}, false, fmt.Errorf("read nftables chain %q of table %q: %w", name, table, err)
	}
	if len(all) == 0 {
		return chainInfo{}, false, nil
	}
	return parseChain(all[0]), true, nil
}

// chains reads all chains of all tables.
func (s *socket) chains(ctx context.Context) ([]chainInfo, error) {
	all, err := s.request(ctx, unix.NFT_MSG_GETCHAIN, unix.NFPROTO_UNSPEC, unix.NLM_F_DUMP)
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	out := make([]chainInfo, 0, len(all))
	for _, m := range all {
		out = append(out, parseChain(m))
	}
	return out, nil
}

// rules reads the rules of a table in order, those of one chain only unless chain is "". A chain or table that is not
// there has none.
func (s *socket) rules(ctx context.Context, family uint8, table, chain string) ([]ruleInfo, error) {
	attrs := [][]byte{text(unix.NFTA_RULE_TABLE, table)}
	if chain != "" {
		attrs = append(attrs, text(unix.NFTA_RULE_CHAIN, chain))
	}
	var all []message
	err := errInterrupted
	for range 5 {
		if all, err = s.request(ctx, unix.NFT_MSG_GETRULE, family, unix.NLM_F_DUMP, attrs...); !errors.Is(err, errInterrupted) {
			break
		}
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("list nftables rules of table %q: %w", table, err)
	}
	out := make([]ruleInfo, 0, len(all))
	for _, m := range all {
		if r := parseRule(m); chain == "" || r.chain == chain {
			out = append(out, r)
		}
	}
	return out, nil
}

func parseChain(m message) chainInfo {
	c := chainInfo{family: m.family}
	for t, v := range attributes(m.attrs) {
		switch t {
		case unix.NFTA_CHAIN_TABLE:
			c.table = cString(v)
		case unix.NFTA_CHAIN_NAME:
			c.name = cString(v)
		case unix.NFTA_CHAIN_TYPE:
			c.kind = cString(v)
		case unix.NFTA_CHAIN_POLICY:
			c.drop = len(v) == 4 && binary.BigEndian.Uint32(v) == 0 // NF_DROP
		case unix.NFTA_CHAIN_HOOK:
			c.base = true
			for t, v := range attributes(v) {
				switch {
				case t == unix.NFTA_HOOK_HOOKNUM && len(v) == 4:
					c.hook = binary.BigEndian.Uint32(v)
				case t == unix.NFTA_HOOK_PRIORITY && len(v) == 4:
					c.priority = int32(binary.BigEndian.Uint32(v))
				}
			}
		}
	}
	return c
}

func parseRule(m message) ruleInfo {
	var r ruleInfo
	for t, v := range attributes(m.attrs) {
		switch t {
		case unix.NFTA_RULE_CHAIN:
			r.chain = cString(v)
		case unix.NFTA_RULE_USERDATA:
			r.comment = userComment(v)
		case unix.NFTA_RULE_EXPRESSIONS:
			for _, e := range attributes(v) {
				r.add(e)
			}
		}
	}
	return r
}

// add takes in one expression. Counters are kept apart, since their values say nothing about the rule.
func (r *ruleInfo) add(e []byte) {
	name, data := expression(e)
	if name != "counter" {
		r.exprs = append(r.exprs, normalise(name, data))
		return
	}
	r.counted = true
	for t, v := range attributes(data) {
		switch {
		case t == unix.NFTA_COUNTER_BYTES && len(v) == 8:
			r.bytes = binary.BigEndian.Uint64(v)
		case t == unix.NFTA_COUNTER_PACKETS && len(v) == 8:
			r.packets = binary.BigEndian.Uint64(v)
		}
	}
}

func expression(b []byte) (name string, data []byte) {
	for t, v := range attributes(b) {
		switch t {
		case unix.NFTA_EXPR_NAME:
			name = cString(v)
		case unix.NFTA_EXPR_DATA:
			data = v
		}
	}
	return name, data
}

// normalise is a text of an expression by which two of them can be compared: name, then number and value of each
// attribute in the order of the numbers. What is zero is left out, because the kernel tells the defaults that the
// writer left out.
func normalise(name string, data []byte) string {
	if name == "match" {
		if c, ok := matchComment(data); ok {
			return "comment " + c
		}
	}
	var parts []string
	flatten(&parts, name, "", data)
	slices.Sort(parts)
	return strings.Join(append([]string{name}, parts...), " ")
}

func flatten(parts *[]string, name, path string, data []byte) {
	for t, v := range attributes(data) {
		p := fmt.Sprintf("%s.%d", path, t)
		switch {
		case nested(name, p):
			flatten(parts, name, p, v)
		case name == "nat" && p == ".7": // flags, which the kernel makes of the rest (NF_NAT_RANGE_MAP_IPS)
		case slices.ContainsFunc(v, func(b byte) bool { return b != 0 }):
			*parts = append(*parts, fmt.Sprintf("%s=%x", p, v))
		}
	}
}

// nested says that an attribute holds attributes, for the expressions that we and iptables-nft write. Of any other
// expression the bytes are taken as they are.
func nested(name, path string) bool {
	switch name {
	case "immediate": // NFTA_IMMEDIATE_DATA, and NFTA_DATA_VERDICT in it
		return path == ".2" || path == ".2.2"
	case "cmp": // NFTA_CMP_DATA
		return path == ".3"
	case "bitwise": // NFTA_BITWISE_MASK and NFTA_BITWISE_XOR
		return path == ".4" || path == ".5"
	}
	return false
}

// normalised is the same text for expressions that have yet to be written; counters are left out.
func normalised(exprs []expr.Any) ([]string, error) {
	var out []string
	for _, e := range exprs {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil {
			return nil, fmt.Errorf("encode nftables expression %T: %w", e, err)
		}
		if name, data := expression(b); name != "counter" {
			out = append(out, normalise(name, data))
		}
	}
	return out, nil
}

// matchComment is the text of iptables' match "comment".
func matchComment(data []byte) (string, bool) {
	var name, comment string
	for t, v := range attributes(data) {
		switch t {
		case unix.NFTA_MATCH_NAME:
			name = cString(v)
		case unix.NFTA_MATCH_INFO:
			comment = cString(v)
		}
	}
	return comment, name == "comment"
}

// userComment is the comment in a rule's user data: type (0 is a comment), length and text, as libnftnl has it.
func userComment(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == 0 {
			return cString(b[2 : 2+int(b[1])])
		}
		b = b[2+int(b[1]):]
	}
	return ""
}

func cString(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}
