package nft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Link is what the distributed router needs of its host's filters. Its rules are apart from the agent's, and have a
// comment: packets of its link are accepted in DOCKER-USER, or in a FORWARD that drops where there is no such chain; and
// masqueraded by a table of its own.
//
// Engines from 28 on drop, in PREROUTING of the table "raw", what comes to a container by another link than its own
// bridge. Where bridged packets pass iptables (bridge-nf-call-iptables) that is so already in the sender's bridge, on the
// way to the router. Packets from ports of these bridges are let through there; what the host itself would forward
// between bridges is still dropped by Docker's rules in FORWARD.
type Link struct {
	Name string // no longer than 15 bytes; "": no link, only Bridges
	// Root is the directory under which the host's file system is seen, with its iptables programs; "" is "/".
	Root       string
	Masquerade []netip.Prefix // sources that are hidden where they leave by another link
	Bridges    []string       // Docker's bridges whose containers the router leads
	Owner      string         // tells several routers apart: the name of Name even without a link
}

// tableRaw is iptables' table before connection tracking.
const tableRaw = "raw"

// comment marks the rules in chains of others.
func (l Link) comment() string { return "fairway-router:" + l.Owner }

// table is the name of the link's own table.
func (l Link) table() string { return "fairway-" + l.Owner }

// ApplyLink makes the host let packets of the link through, and masquerade what is to be. It compares before it writes;
// changed says what was made.
func (h *Handle) ApplyLink(ctx context.Context, l Link) (changed []string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errClosed
	}
	for _, program := range []string{"iptables", "ip6tables"} {
		for _, list := range []func(context.Context, Link, string) ([]string, error){h.acceptLink, h.acceptBridges} {
			c, e := list(ctx, l, program)
			changed, err = append(changed, c...), errors.Join(err, e)
		}
	}
	c, e := h.masqueradeLink(l)
	return append(changed, c...), errors.Join(err, e)
}

// RemoveLink takes away what ApplyLink made; what is not there is no error.
func (h *Handle) RemoveLink(ctx context.Context, l Link) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errClosed
	}
	var errs []error
	for _, program := range []string{"iptables", "ip6tables"} {
		for _, table := range []string{tableFilter, tableRaw} {
			rules, err := h.saved(ctx, l, program, table)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			for _, r := range rules {
				if r[0] == "-A" && slices.Contains(r, l.comment()) {
					errs = append(errs, h.iptables(ctx, l, program, table, append([]string{"-D"}, r[1:]...)...))
				}
			}
		}
	}
	l.Masquerade = nil
	_, err := h.masqueradeLink(l)
	return errors.Join(append(errs, err)...)
}

// acceptLink adds what is missing of the two rules.
func (h *Handle) acceptLink(ctx context.Context, l Link, program string) (changed []string, err error) {
	if l.Name == "" {
		return nil, nil
	}
	rules, err := h.saved(ctx, l, program, tableFilter)
	if err != nil || len(rules) == 0 {
		return nil, err
	}
	chain := ""
	for _, r := range rules {
		switch {
		case len(r) == 2 && r[0] == "-N" && r[1] == chainDockerUser:
			chain = chainDockerUser
		case len(r) == 3 && r[0] == "-P" && r[1] == chainForward && r[2] == "DROP" && chain == "":
			chain = chainForward
		}
	}
	if chain == "" {
		return nil, nil // nothing is dropped
	}
	for _, direction := range []string{"-i", "-o"} {
		spec := []string{chain, direction, l.Name, "-m", "comment", "--comment", l.comment(), "-j", "ACCEPT"}
		if slices.ContainsFunc(rules, func(r []string) bool { return slices.Equal(r[1:], spec) }) {
			continue
		}
		if err := h.iptables(ctx, l, program, tableFilter, append([]string{"-I"}, spec...)...); err != nil {
			return changed, err
		}
		changed = append(changed, program+": "+strings.Join(spec, " "))
	}
	return changed, nil
}

// acceptBridges puts our rules before the first of Docker's that drops, where there are such, and takes those away whose
// bridge is no longer one of the router's.
func (h *Handle) acceptBridges(ctx context.Context, l Link, program string) (changed []string, err error) {
	rules, err := h.saved(ctx, l, program, tableRaw)
	if err != nil {
		return nil, err
	}
	drops := slices.IndexFunc(rules, func(r []string) bool {
		return r[0] == "-A" && slices.Contains(r, "!") && r[len(r)-1] == "DROP"
	})
	reached := map[string]bool{}
	for i, r := range rules {
		if r[0] != "-A" || !slices.Contains(r, l.comment()) {
			continue
		}
		bridge := r[3]
		if drops >= 0 && i < drops && slices.Contains(l.Bridges, bridge) && !reached[bridge] {
			reached[bridge] = true
			continue
		}
		if err := h.iptables(ctx, l, program, tableRaw, append([]string{"-D"}, r[1:]...)...); err != nil {
			return changed, err
		}
	}
	if drops < 0 {
		return nil, nil
	}
	for _, bridge := range l.Bridges {
		if reached[bridge] {
			continue
		}
		spec := []string{"PREROUTING", "-i", bridge, "-m", "physdev", "--physdev-in", "veth+", "-m", "comment", "--comment", l.comment(), "-j", "ACCEPT"}
		if err := h.iptables(ctx, l, program, tableRaw, append([]string{"-I"}, spec...)...); err != nil {
			return changed, err
		}
		changed = append(changed, program+" -t raw: "+strings.Join(spec, " "))
	}
	return changed, nil
}

// saved are the rules of a table, word by word; none where the host has no such program or no such table.
func (h *Handle) saved(ctx context.Context, l Link, program, table string) ([][]string, error) {
	var out bytes.Buffer
	err := h.run(ctx, l, program, &out, "-t", table, "-S")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var rules [][]string
	for line := range strings.Lines(out.String()) {
		words := strings.Fields(line)
		for i, w := range words {
			words[i] = strings.Trim(w, `"`)
		}
		if len(words) > 1 {
			rules = append(rules, words)
		}
	}
	return rules, nil
}

func (h *Handle) iptables(ctx context.Context, l Link, program, table string, args ...string) error {
	return h.run(ctx, l, program, &bytes.Buffer{}, append([]string{"-t", table}, args...)...)
}

// run runs one of the host's programs, with the host's root directory, in the handle's network namespace.
func (h *Handle) run(ctx context.Context, l Link, program string, out *bytes.Buffer, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	root := l.Root
	if root == "" {
		root = "/"
	}
	path := ""
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"} {
		// Lstat: a link of the host's may lead to a path that is not one here.
		if _, err := os.Lstat(filepath.Join(root, dir, program)); err == nil {
			path = filepath.Join(dir, program)
			break
		}
	}
	if path == "" {
		return fmt.Errorf("find %s on the host: %w", program, os.ErrNotExist)
	}
	var complaint bytes.Buffer
	err := h.inside(func() error {
		cmd := exec.CommandContext(ctx, path, append([]string{"--wait", fmt.Sprint(lockSeconds)}, args...)...)
		cmd.Path, cmd.Err, cmd.Dir = path, nil, "/"
		if root != "/" {
			cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
		}
		cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
		cmd.Stdout, cmd.Stderr = out, &complaint
		return cmd.Run()
	})
	if err != nil {
		return fmt.Errorf("run %s %s: %w: %s", path, strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return nil
}

// masqueradeLink writes the link's own table, whole, when it is not as wanted.
func (h *Handle) masqueradeLink(l Link) (changed []string, err error) {
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
	want := masqueradeRules(l)
	switch {
	case !have && len(want) == 0:
		return nil, nil
	case have && len(want) > 0 && sameMasquerade(conn, table, want):
		return nil, nil
	}
	conn.AddTable(table)
	conn.DelTable(table)
	what := "removed table inet " + l.table()
	if len(want) > 0 {
		what = fmt.Sprintf("wrote table inet %s: masquerade %v", l.table(), l.Masquerade)
		conn.AddTable(table)
		chain := conn.AddChain(&nftables.Chain{
			Name: chainNATOfLink, Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		})
		for i, r := range want {
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r, UserData: []byte(l.Masquerade[i].String())})
		}
	}
	if err := conn.Flush(); err != nil {
		return nil, fmt.Errorf("write nftables table inet %s: %w", l.table(), err)
	}
	return []string{what}, nil
}

const chainNATOfLink = "postrouting"

// sameMasquerade says whether the table has one rule for each prefix, in order.
func sameMasquerade(conn *nftables.Conn, table *nftables.Table, want [][]expr.Any) bool {
	rules, err := conn.GetRules(table, &nftables.Chain{Name: chainNATOfLink, Table: table})
	if err != nil || len(rules) != len(want) {
		return false
	}
	for i, r := range rules {
		if len(r.Exprs) != len(want[i]) {
			return false
		}
		for j, e := range r.Exprs {
			if have, ok := e.(*expr.Cmp); ok {
				w, ok := want[i][j].(*expr.Cmp)
				if !ok || !bytes.Equal(have.Data, w.Data) || have.Op != w.Op {
					return false
				}
			}
		}
	}
	return true
}

// masqueradeRules are one for each prefix: from it, and not back over the link.
func masqueradeRules(l Link) [][]expr.Any {
	name := append([]byte(l.Name), make([]byte, unix.IFNAMSIZ-len(l.Name))...)
	var out [][]expr.Any
	for _, p := range l.Masquerade {
		fam, offset, size := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4)
		if p.Addr().Is6() {
			fam, offset, size = unix.NFPROTO_IPV6, 8, 16
		}
		mask := make([]byte, size)
		for i := range p.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		out = append(out, []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{fam}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: mask, Xor: make([]byte, size)},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: name},
			&expr.Masq{},
		})
	}
	return out
}
