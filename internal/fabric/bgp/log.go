package bgp

import (
	"context"
	"log/slog"
	"strings"
)

// quiet is GoBGP's way into our log: its messages are news to developers, because we log what becomes of sessions
// ourselves. Its debug messages print every UPDATE and are dropped; the rest is logged for debugging, errors as warnings.
type quiet struct {
	next slog.Handler
}

func quietLogger(log *slog.Logger) *slog.Logger {
	return slog.New(quiet{log.Handler().WithAttrs([]slog.Attr{slog.String("part", "gobgp")})})
}

func demote(l slog.Level) slog.Level {
	if l >= slog.LevelError {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo && q.next.Enabled(ctx, demote(l))
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
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
	return quiet{q.next.WithAttrs(renamed)}
}

func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.next.WithGroup(name)} }

// snake writes GoBGP's keys ("Communicated-Reason", "Key") as ours.
func snake(a slog.Attr) slog.Attr {
	a.Key = strings.NewReplacer("-", "_", " ", "_").Replace(strings.ToLower(a.Key))
	return a
}
