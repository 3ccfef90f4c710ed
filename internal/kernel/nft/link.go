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
	Masquerade []netip.Prefix // sources that are hidden where packets of the link leave by another
	Bridges    []string       // Docker's bridges whose containers the router leads
	// Answered are networks whose containers may be answered from outside by their own addresses, Reached those whose
	// containers may be reached so.
	Answered, Reached []netip.Prefix
	// Keep are destinations to which what comes over the link keeps its source; with KeepAll to all.
	Keep    []netip.Prefix
	KeepAll bool
	Owner   string // tells several routers apart: the name of Name even without a link
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
		for _, table := range []string{tableFilter, tableRaw} {
			c, e := h.applyRules(ctx, l, program, table)
			changed, err = append(changed, c...), errors.Join(err, e)
		}
	}
	c, e := h.natOfLink(l)
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
	l.Masquerade, l.Keep, l.KeepAll = nil, nil, false
	_, err := h.natOfLink(l)
	return errors.Join(append(errs, err)...)
}

// applyRules makes our rules in a table of iptables agree: each before the first of others that drops.
func (h *Handle) applyRules(ctx context.Context, l Link, program, table string) (changed []string, err error) {
	rules, err := h.saved(ctx, l, program, table)
	if err != nil || len(rules) == 0 {
		return nil, err
	}
	want := l.rulesFor(table, rules, program == "iptables")
	behind := map[string]bool{} // chains of which a rule was seen that drops
	have := make([]bool, len(want))
	for _, r := range rules {
		if r[0] != "-A" || !slices.Contains(r, l.comment()) {
			behind[r[1]] = behind[r[1]] || r[len(r)-1] == "DROP"
			continue
		}
		at := slices.IndexFunc(want, func(spec []string) bool { return slices.Equal(r[1:], spec) })
		if at >= 0 && !have[at] && (!behind[r[1]] || r[1] == chainDockerUser) {
			have[at] = true
			continue
		}
		if err := h.iptables(ctx, l, program, table, append([]string{"-D"}, r[1:]...)...); err != nil {
			return changed, err
		}
		changed = append(changed, program+" -t "+table+" -D "+strings.Join(r[1:], " "))
	}
	for i, spec := range want {
		if have[i] {
			continue
		}
		if err := h.iptables(ctx, l, program, table, append([]string{"-I"}, spec...)...); err != nil {
			return changed, err
		}
		changed = append(changed, program+" -t "+table+" -I "+strings.Join(spec, " "))
	}
	return changed, nil
}

// rulesFor are those of a table.
func (l Link) rulesFor(table string, rules [][]string, v4 bool) [][]string {
	if table == tableRaw {
		return l.rawRules(rules, v4)
	}
	return l.filterRules(rules, v4)
}

// rule is one of ours, with its comment before its target.
func (l Link) rule(chain string, match []string, target ...string) []string {
	return slices.Concat([]string{chain}, match, []string{"-m", "comment", "--comment", l.comment(), "-j"}, target)
}

// filterRules are for DOCKER-USER, or for a FORWARD that drops where there is no such chain; none where nothing is dropped.
func (l Link) filterRules(rules [][]string, v4 bool) (want [][]string) {
	chain := ""
	for _, r := range rules {
		switch {
		case len(r) == 2 && r[0] == "-N" && r[1] == chainDockerUser:
			chain = chainDockerUser
		case len(r) == 3 && r[0] == "-P" && r[1] == chainForward && r[2] == "DROP" && chain == "":
			chain = chainForward
		}
	}
	if chain == "" || l.Name == "" {
		return nil
	}
	want = append(want, l.rule(chain, []string{"-i", l.Name}, "ACCEPT"), l.rule(chain, []string{"-o", l.Name}, "ACCEPT"))
	for _, p := range l.Reached {
		if p.Addr().Is4() == v4 {
			want = append(want, l.rule(chain, []string{"-d", p.String()}, "ACCEPT"))
		}
	}
	return want
}

// rawRules let through what engines from 28 on drop before it is routed; and give what comes over the link a state of its
// own in connection tracking, if it is masqueraded: where bridged packets pass iptables, it was seen in the sender's
// bridge already, and a connection that is known is not translated any more. Answers come without that mark, hence only
// the original direction has it.
func (l Link) rawRules(rules [][]string, v4 bool) (want [][]string) {
	if len(l.Masquerade) > 0 && l.Name != "" {
		want = append(want, l.rule(chainRawPrerouting, []string{"-i", l.Name}, "CT", "--zone-orig", zoneOfLink))
	}
	dropping := slices.ContainsFunc(rules, func(r []string) bool {
		return r[0] == "-A" && slices.Contains(r, "!") && r[len(r)-1] == "DROP"
	})
	if !dropping {
		return want
	}
	for _, bridge := range l.Bridges {
		want = append(want, l.rule(chainRawPrerouting, []string{"-i", bridge, "-m", "physdev", "--physdev-in", "veth+"}, "ACCEPT"))
	}
	for _, p := range slices.Concat(l.Answered, l.Reached) {
		spec := l.rule(chainRawPrerouting, []string{"-d", p.String()}, "ACCEPT")
		if p.Addr().Is4() == v4 && !slices.ContainsFunc(want, func(w []string) bool { return slices.Equal(w, spec) }) {
			want = append(want, spec)
		}
	}
	return want
}

const (
	chainRawPrerouting = "PREROUTING"
	// zoneOfLink is the zone of connection tracking of what comes over the link and is masqueraded.
	zoneOfLink = "5711"
)

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
