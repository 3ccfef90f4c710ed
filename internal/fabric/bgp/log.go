package bgp

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
)

// quiet is GoBGP's way into our log: its messages are news to developers, because we log what becomes of sessions
// ourselves. Its debug messages print every UPDATE and are dropped; the rest is logged for debugging, errors as warnings.
type quiet struct {
	next   slog.Handler
	called func(netip.Addr) // told of strangers who connect; nil: nobody is
}

// stranger is GoBGP's message about a connection from an address that is no peer's. It tells of that in no other way.
const stranger = "Can't find configuration for a new passive connection"

func quietLogger(log *slog.Logger) *slog.Logger {
	return slog.New(quiet{next: log.Handler().WithAttrs([]slog.Attr{slog.String("part", "gobgp")})})
}

// quietLogger is GoBGP's way into our log, and a stranger's into our queue.
func (f *Fabric) quietLogger() *slog.Logger {
	return slog.New(quiet{
		next:   f.log.Handler().WithAttrs([]slog.Attr{slog.String("part", "gobgp")}),
		called: func(a netip.Addr) { f.queue.put(event{caller: a}) },
	})
}

func demote(l slog.Level) slog.Level {
	if l >= slog.LevelError {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo && (q.called != nil || q.next.Enabled(ctx, demote(l)))
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	if q.called != nil && r.Message == stranger {
		r.Attrs(func(a slog.Attr) bool {
			if addr, err := netip.ParseAddr(a.Value.String()); a.Key == "Key" && err == nil {
				q.called(addr)
			}
			return true
		})
	}
	if !q.next.Enabled(ctx, demote(r.Level)) {
		return nil
	}
	demoted := slog.NewRecord(r.Time, demote(r.Level), r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		demoted.AddAttrs(snake(a))
		return true
	})
	return q.next.Handle(ctx, demoted)
}

func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler {
	renamed := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		renamed[i] = snake(a)
	}
	return quiet{q.next.WithAttrs(renamed), q.called}
}

func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.next.WithGroup(name), q.called} }

// snake writes GoBGP's keys ("Communicated-Reason", "Key") as ours.
func snake(a slog.Attr) slog.Attr {
	a.Key = strings.NewReplacer("-", "_", " ", "_").Replace(strings.ToLower(a.Key))
	return a
}
