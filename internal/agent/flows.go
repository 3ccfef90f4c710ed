package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"fairway/internal/kernel"
)

// sides is which flows were masqueraded before the firewall is set.
type sides struct {
	settings *kernel.Masquerade    // in force until now; nil after a start
	source   func(netip.Addr) bool // after a start: sources that the table in the kernel is about; nil: none
	pending  bool                  // flows that changed side are still there, since they could not be forgotten
	err      error
}

// flowsBefore takes down how it was. After a start the kernel is asked: an earlier run may have masqueraded otherwise.
func (m *machinery) flowsBefore(ctx context.Context) sides {
	m.mu.Lock()
	s := sides{settings: m.masquerade}
	if m.unswept != nil {
		s = *m.unswept
	}
	m.mu.Unlock()
	if !s.pending && s.settings == nil {
		s.source, s.err = m.fw.Masqueraded(ctx)
	}
	return s
}

// flowsAfter makes the kernel forget the flows that changed side, once the rules are in force. What a connection's first
// packet met decides for all that follow, so that it would go on as it began: with an address that is no longer the
// right one. Where the table was as it should be, nothing has changed side.
func (m *machinery) flowsAfter(ctx context.Context, was sides, now kernel.Masquerade, changed []string) error {
	if was.err != nil {
		return was.err
	}
	written := slices.ContainsFunc(changed, func(c string) bool { return strings.HasPrefix(c, "nftables: ") })
	n, err := 0, error(nil)
	if (written || was.pending) && was.any(now) {
		n, err = m.rt.DeleteFlows(ctx, func(f kernel.Flow) bool { return was.stale(f, now) })
	}
	if n > 0 {
		m.log.Info("connections begin anew, since their source is masqueraded otherwise now", slog.Int("connections", n))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		was.pending = true
		m.unswept = &was
		return fmt.Errorf("after a change of what is masqueraded: %w", err)
	}
	kept := now.Clone()
	m.masquerade, m.unswept = &kept, nil
	return nil
}

// any says whether anything can have changed side.
func (s sides) any(now kernel.Masquerade) bool {
	return len(now.From) > 0 || s.source != nil || s.settings != nil && len(s.settings.From) > 0
}

// stale says whether a flow has the wrong source by what is in force now. Of two known settings only the flows that they
// treat differently count: what others' rules do to the rest is their affair.
func (s sides) stale(f kernel.Flow, now kernel.Masquerade) bool {
	hidden, hide := f.Seen != f.Src, now.Hides(f.Src, f.Dst)
	switch {
	case hidden == hide:
		return false
	case s.settings == nil:
		return hide || s.source != nil && s.source(f.Src)
	case s.settings.Equal(now): // somebody had taken the rules away
		return hide
	}
	return s.settings.Hides(f.Src, f.Dst) != hide
}

// stillKnown adds the destinations of learned routes of ours that are in the kernel to those that see a container's own
// address. As such routes are left alone until every source has reported, so are the flows over them: a restart of the
// agent turns none of them over.
func (m *machinery) stillKnown(ctx context.Context, want kernel.Masquerade) kernel.Masquerade {
	if len(want.From) == 0 {
		return want
	}
	have, err := m.routes.List(ctx)
	if err != nil {
		return want // the routes' stage meets the same error and reports it
	}
	want.Direct = slices.Clone(want.Direct)
	for key, r := range have {
		if learned(r) && key.Dst.Bits() > 0 {
			want.Direct = append(want.Direct, key.Dst)
		}
	}
	slices.SortFunc(want.Direct, netip.Prefix.Compare)
	want.Direct = slices.Compact(want.Direct)
	return want
}
