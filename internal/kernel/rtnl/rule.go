package rtnl

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
)

// sizeRule is the length of struct fib_rule_hdr (linux/fib_rules.h).
const sizeRule = 12

// rule is a rule of the routing policy, as far as ours go.
type rule struct {
	family   byte
	priority uint32
	table    uint32
	suppress uint32 // prefixes of this length and shorter do not count; noSuppress: all count
}

const noSuppress = ^uint32(0)

// lastRules is where the rules for default routes begin, below the main table's (32766).
const lastRules = 31000

// Lead makes lookups of a family come to the handle's own table, after all routes of the main table but its default
// routes; without, it makes them pass it by. Its rules have our protocol, and the priorities metric (the main table),
// metric+1 (the own table, but for its default routes) and one from 31000 on (the own table): so default routes of one
// program stand behind all other routes of another.
func (h *Handle) Lead(ctx context.Context, v4, v6 bool) (changed int, err error) {
	if h.table == 0 {
		return 0, errors.New("set rules: the handle has no table of its own")
	}
	want := map[rule]bool{}
	for fam, on := range map[byte]bool{unix.AF_INET: v4, unix.AF_INET6: v6} {
		if on {
			want[rule{fam, h.metric, unix.RT_TABLE_MAIN, 0}] = true
			want[rule{fam, h.metric + 1, h.table, 0}] = true
			want[rule{fam, lastRules + h.metric%1000, h.table, noSuppress}] = true
		}
	}
	err = h.with(ctx, func(c *conn) error {
		have, err := listRules(ctx, c, h.metric, h.table)
		if err != nil {
			return fmt.Errorf("list rules: %w", err)
		}
		// First the way to the own table, then the one past the default route: no packet finds no route.
		for r := range want {
			if !have[r] && r.table == h.table {
				err = errors.Join(err, h.setRule(ctx, c, r, true))
				changed++
			}
		}
		for r := range want {
			if !have[r] && r.table != h.table {
				err = errors.Join(err, h.setRule(ctx, c, r, true))
				changed++
			}
		}
		for r := range have {
			if !want[r] {
				err = errors.Join(err, h.setRule(ctx, c, r, false))
				changed++
			}
		}
		return err
	})
	return changed, err
}

// listRules lists the rules of our protocol that are the handle's.
func listRules(ctx context.Context, c *conn, metric, table uint32) (map[rule]bool, error) {
	out := map[rule]bool{}
	for _, fam := range []byte{unix.AF_INET, unix.AF_INET6} {
		list, err := dump(ctx, c, func(w *builder) {
			w.begin(unix.RTM_GETRULE, 0, fam, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		}, parseRule)
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
			continue // the kernel has no such family
		}
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			if r.priority == metric || r.table == table {
				out[r] = true
			}
		}
	}
	return out, nil
}

// parseRule reads an RTM_NEWRULE; false for strangers' rules.
func parseRule(p []byte) (rule, bool) {
	if len(p) < sizeRule {
		return rule{}, false
	}
	r := rule{family: p[0], table: uint32(p[4]), suppress: noSuppress}
	ours := false
	for t, v := range attributes(p[sizeRule:]) {
		switch t {
		case unix.FRA_PRIORITY:
			r.priority = uint32(number(v))
		case unix.FRA_TABLE:
			r.table = uint32(number(v))
		case unix.FRA_SUPPRESS_PREFIXLEN:
			r.suppress = uint32(number(v))
		case unix.FRA_PROTOCOL:
			ours = first(v) == kernel.RouteProtocol
		}
	}
	return r, ours
}

// setRule makes or deletes a rule.
func (h *Handle) setRule(ctx context.Context, c *conn, r rule, on bool) error {
	typ, flags, verb := uint16(unix.RTM_NEWRULE), uint16(unix.NLM_F_CREATE|unix.NLM_F_EXCL), "add"
	if !on {
		typ, flags, verb = unix.RTM_DELRULE, 0, "del"
	}
	err := c.do(func(w *builder) {
		w.begin(typ, flags, r.family, 0, 0, 0, unix.RT_TABLE_UNSPEC, 0, 0, unix.FR_ACT_TO_TBL, 0, 0, 0, 0)
		w.u32(unix.FRA_PRIORITY, r.priority)
		w.u32(unix.FRA_TABLE, r.table)
		if r.suppress != noSuppress {
			w.u32(unix.FRA_SUPPRESS_PREFIXLEN, r.suppress)
		}
		w.bytes(unix.FRA_PROTOCOL, []byte{kernel.RouteProtocol})
	})
	if errors.Is(err, unix.EEXIST) && on || errors.Is(err, unix.ENOENT) && !on {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%s rule %d to table %d: %w", verb, r.priority, r.table, err)
	}
	h.did(ctx, "ip rule %s pref %d lookup %d protocol %d", verb, r.priority, r.table, kernel.RouteProtocol)
	return nil
}
