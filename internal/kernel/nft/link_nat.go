package nft

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// natOfLink writes the link's own table, whole, when it is not as wanted.
func (h *Handle) natOfLink(l Link) (changed []string, err error) {
	var opts []nftables.ConnOption
	if h.ns > 0 {
		opts = append(opts, nftables.WithNetNSFd(h.ns))
	}
	conn, err := nftables.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	have := slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == l.table() })
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: l.table()}
	want := l.natRules()
	switch {
	case !have && len(want) == 0:
		return nil, nil
	case have && len(want) > 0 && sameNAT(conn, table, want):
		return nil, nil
	}
	conn.AddTable(table)
	conn.DelTable(table)
	what := "removed table inet " + l.table()
	if len(want) > 0 {
		what = fmt.Sprintf("wrote table inet %s: masquerade %v, keep source to %v (all: %v)", l.table(), l.Masquerade, l.Keep, l.KeepAll)
		conn.AddTable(table)
		chain := conn.AddChain(&nftables.Chain{
			Name: chainNATOfLink, Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting,
			Priority: new(*nftables.ChainPriorityNATSource - 1), // before the engine's
		})
		for _, r := range want {
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r.exprs, UserData: []byte(r.text)})
		}
	}
	if err := conn.Flush(); err != nil {
		return nil, fmt.Errorf("write nftables table inet %s: %w", l.table(), err)
	}
	return []string{what}, nil
}

const chainNATOfLink = "postrouting"

// natRule is a rule of the link's own table; text tells it from others, and is kept with it.
type natRule struct {
	text  string
	exprs []expr.Any
}

// sameNAT says whether the table has these rules, in order.
func sameNAT(conn *nftables.Conn, table *nftables.Table, want []natRule) bool {
	rules, err := conn.GetRules(table, &nftables.Chain{Name: chainNATOfLink, Table: table})
	return err == nil && slices.EqualFunc(rules, want, func(r *nftables.Rule, w natRule) bool { return string(r.UserData) == w.text })
}

// natRules keep the source of what is not to be hidden, which the engine's own rules would do, and hide the rest
// of each prefix. All is about what came over the link (a kernel from 5.7 on knows that here): bridged packets, on the way
// to the router, may pass this chain too.
func (l Link) natRules() (out []natRule) {
	for _, p := range l.Keep {
		out = append(out, natRule{"keep " + p.String(), slices.Concat(l.from(), addressIn(p, false), keepSource(p.Addr().Is4()))})
	}
	if l.KeepAll {
		for _, v4 := range []bool{true, false} {
			out = append(out, natRule{fmt.Sprintf("keep all, IPv4 %v", v4), slices.Concat(l.from(), onlyFamily(v4), keepSource(v4))})
		}
	}
	for _, p := range l.Masquerade {
		out = append(out, natRule{"masquerade " + p.String(), slices.Concat(l.from(), addressIn(p, true), []expr.Any{&expr.Masq{}})})
	}
	return out
}

// from matches what came over the link.
func (l Link) from() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: linkName(l.Name)}}
}

func linkName(name string) []byte {
	return append([]byte(name), make([]byte, unix.IFNAMSIZ-len(name))...)
}

func onlyFamily(v4 bool) []expr.Any {
	fam := byte(unix.NFPROTO_IPV6)
	if v4 {
		fam = unix.NFPROTO_IPV4
	}
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{fam}}}
}

// place is where an address stands in its header, and how long it is, in bytes.
func place(v4, source bool) (offset, size uint32) {
	switch {
	case v4 && source:
		return 12, 4
	case v4:
		return 16, 4
	case source:
		return 8, 16
	}
	return 24, 16
}

// addressIn matches packets whose source, or destination, is in a prefix.
func addressIn(p netip.Prefix, source bool) []expr.Any {
	offset, size := place(p.Addr().Is4(), source)
	mask := make([]byte, size)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return append(onlyFamily(p.Addr().Is4()),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: mask, Xor: make([]byte, size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()})
}

// keepSource translates a source to itself, so that no later chain translates it to something else.
func keepSource(v4 bool) []expr.Any {
	offset, size := place(v4, true)
	fam := uint32(unix.NFPROTO_IPV6)
	if v4 {
		fam = unix.NFPROTO_IPV4
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: fam, RegAddrMin: 1, RegAddrMax: 1},
	}
}
