package nft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"fairway/internal/kernel"

	"github.com/coreos/go-iptables/iptables"
	"golang.org/x/sys/unix"
)

// Backend is what an iptables program writes to.
type Backend string

// The backends.
const (
	NFTables   Backend = "nft"    // iptables-nft: tables "ip filter" and "ip6 filter" of nftables
	Legacy     Backend = "legacy" // the kernel's older tables, which tell of no changes
	NoIPTables Backend = "none"   // there is no such program
)

// How long a program may wait for the lock of the older tables, and how long it may take in all.
const (
	lockSeconds = 5
	runTime     = 15 * time.Second
)

// rounds is how often the rules are read and written again when somebody else writes at the same time.
const rounds = 4

// family is one of iptables and ip6tables.
type family struct {
	name    string // of the program, and in messages
	path    string // of Config; "" looks for name
	nf      uint8  // NFPROTO_*
	names   string // where the kernel lists the older tables of the namespace
	current program
	before  bool // our rules were in place once: from then on they are put back
}

// program is a program that writes rules of one family. Its zero value stands for none.
type program struct {
	path    string // as found; its name matters, since one file serves under many names
	file    string // without symbolic links, by which another choice of backend is noticed
	backend Backend
	run     *iptables.IPTables
}

// program returns what the family's rules are written with. It is looked for each time, since it may be installed, or
// another backend be chosen, at any time; it is asked for its backend only when it is another file than before.
func (h *Handle) program(ctx context.Context, f *family) program {
	path, file := find(f.path, f.name)
	if path == "" {
		f.current = program{backend: NoIPTables}
		return f.current
	}
	if f.current.path == path && f.current.file == file {
		return f.current
	}
	p, err := f.open(ctx, path, file)
	if err != nil {
		if ctx.Err() == nil {
			h.log.Warn("cannot use iptables program", slog.String("path", path), slog.Any("err", err))
		}
		return program{backend: NoIPTables}
	}
	f.current = p
	return p
}

// programs returns the family's program, and with it the one for the other backend if the host has it.
func (h *Handle) programs(ctx context.Context, f *family) []program {
	out := []program{h.program(ctx, f)}
	for _, suffix := range []string{"-nft", "-legacy"} {
		path, file := find("", f.name+suffix)
		if path == "" {
			continue
		}
		p, err := f.open(ctx, path, file)
		if err == nil && !slices.ContainsFunc(out, func(o program) bool { return o.backend == p.backend }) {
			out = append(out, p)
		}
	}
	return out
}

// find looks for a program. Services are started with all kinds of PATH: where distributions put it is looked at too.
func find(path, name string) (found, file string) {
	candidates := []string{path}
	if path == "" {
		candidates = []string{name, "/usr/sbin/" + name, "/sbin/" + name}
	}
	for _, c := range candidates {
		found, err := exec.LookPath(c)
		if err != nil {
			continue
		}
		if file, err = filepath.EvalSymlinks(found); err == nil {
			return found, file
		}
	}
	return "", ""
}

func (f *family) open(ctx context.Context, path, file string) (program, error) {
	proto := iptables.ProtocolIPv4
	if f.nf == unix.NFPROTO_IPV6 {
		proto = iptables.ProtocolIPv6
	}
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	version, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return program{}, fmt.Errorf("ask %s for its version: %w", path, err)
	}
	run, err := iptables.New(iptables.IPFamily(proto), iptables.Path(path), iptables.Timeout(lockSeconds))
	if err != nil {
		return program{}, fmt.Errorf("use %s: %w", path, err)
	}
	p := program{path: path, file: file, backend: Legacy, run: run}
	if bytes.Contains(version, []byte("nf_tables")) {
		p.backend = NFTables
	}
	return p, nil
}

// list reads the table "filter" with iptables -S. Where the older tables are not in use in this namespace the program
// is not run, since it would make one.
func (h *Handle) list(ctx context.Context, f *family, p program) (filter, error) {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	var out, complaint bytes.Buffer
	err := h.inside(func() error {
		if p.backend == Legacy {
			names, err := os.ReadFile(f.names)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			if !slices.Contains(strings.Fields(string(names)), tableFilter) {
				return nil
			}
		}
		cmd := exec.CommandContext(ctx, p.path, "--wait", fmt.Sprint(lockSeconds), "-t", tableFilter, "-S")
		cmd.Stdout, cmd.Stderr = &out, &complaint
		return cmd.Run()
	})
	if err != nil {
		return filter{}, fmt.Errorf("list rules with %s: %w: %s", p.path, err, strings.TrimSpace(complaint.String()))
	}
	if out.Len() == 0 {
		return filter{}, nil
	}
	return parseSave(out.String()), nil
}

// pending reads the family's filter and plans what is to be done about it. With iptables-nft the program is run only if
// there seems to be something to do.
func (h *Handle) pending(ctx context.Context, f *family, p program, fw kernel.Firewall) (filter, []step, error) {
	want := ownRules(fw)
	if p.backend != Legacy {
		have, err := h.readNetlink(ctx, f.nf, want)
		if err != nil {
			return filter{}, nil, fmt.Errorf("%s: %w", f.name, err)
		}
		steps := plan(have, want)
		if len(steps) == 0 || p.backend == NoIPTables {
			return have, steps, nil
		}
	}
	have, err := h.list(ctx, f, p)
	return have, plan(have, want), err
}

// checkFilter says in words what is missing in the family's filter.
func (h *Handle) checkFilter(ctx context.Context, f *family, p program, fw kernel.Firewall) ([]string, error) {
	_, steps, err := h.pending(ctx, f, p, fw)
	var out []string
	for _, s := range steps {
		if lack := f.name + ": " + s.lacks; !slices.Contains(out, lack) {
			out = append(out, lack)
		}
	}
	return out, err
}

// applyFilter makes the family's filter accept the traffic of links and bridges. After each round the rules are read again, so
// that what an engine did at the same time is seen.
func (h *Handle) applyFilter(ctx context.Context, f *family, p program, fw kernel.Firewall) (changed []string, err error) {
	var failed error
	for range rounds {
		have, steps, err := h.pending(ctx, f, p, fw)
		if err != nil {
			return changed, err
		}
		if len(steps) == 0 {
			f.before = len(ownRules(fw)) > 0 && (f.before || have.has(chainOwn))
			return changed, nil
		}
		if p.backend == NoIPTables {
			return changed, fmt.Errorf("%s: %s, and there is no program %s: install it, or let FORWARD accept %s",
				f.name, steps[0].lacks, f.name, strings.Join(slices.Concat(fw.Links, fw.Bridges), ", "))
		}
		failed = nil
		for _, s := range steps {
			if failed = h.inside(func() error { return p.do(ctx, s) }); failed != nil {
				h.log.Debug("ran iptables", slog.String("program", p.path), slog.Any("step", s.spec), slog.Any("err", failed))
				break // the rules are not as they were read: read again
			}
			done := f.name + ": " + f.say(s.done)
			if !slices.Contains(changed, done) {
				changed = append(changed, done)
			}
		}
	}
	return changed, errors.Join(fmt.Errorf("%s: rules are not as written after %d rounds: does another program remove them?", f.name, rounds), failed)
}

func (f *family) say(done string) string {
	back := ""
	if f.before {
		back = "back "
	}
	return strings.ReplaceAll(done, "%s", back)
}

// checkRemoved says what could not be removed.
func (h *Handle) checkRemoved(ctx context.Context, f *family, p program) error {
	if p.backend == NoIPTables {
		return nil
	}
	have, err := h.list(ctx, f, p)
	if err == nil && have.has(chainOwn) {
		return fmt.Errorf("remove chain FAIRWAY with %s: rules of chain %s, which are not ours, lead to it: remove them first",
			p.path, strings.Join(have.strays, ", "))
	}
	return err
}

// do runs one step.
func (p program) do(ctx context.Context, s step) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch s.op {
	case opNewChain:
		return p.run.NewChain(tableFilter, s.chain)
	case opInsert:
		return p.run.Insert(tableFilter, s.chain, s.at, s.spec...)
	case opDelete:
		return p.run.Delete(tableFilter, s.chain, s.spec...)
	case opDeleteAt:
		return p.run.DeleteById(tableFilter, s.chain, s.at)
	case opDeleteChain:
		return p.run.ClearAndDeleteChain(tableFilter, s.chain)
	}
	return nil
}
