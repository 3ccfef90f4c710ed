package agent

import (
	"context"
	"log/slog"

	"fairway/internal/api"
	"fairway/internal/config"
)

// Reload reads the config again and takes in what can change while running. A config with a mistake changes nothing.
func (a *Agent) Reload(ctx context.Context) (api.ReloadResult, error) {
	next, err := a.opt.Load()
	if err != nil {
		a.log.Error("the config is not taken in; the one before stays in force", slog.Any("err", err))
		return api.ReloadResult{}, api.Invalid(err)
	}
	old := a.config()
	live, restart := config.Diff(old, next)
	res := api.ReloadResult{Applied: changes(live), Restart: changes(restart)}
	for _, c := range res.Applied {
		a.log.Info("setting changed", slog.String("key", c.Key), slog.String("old", c.Old), slog.String("new", c.New))
	}
	for _, c := range res.Restart {
		a.log.Warn("setting changed, and takes effect when the agent is restarted", slog.String("key", c.Key), slog.String("old", c.Old), slog.String("new", c.New))
	}
	a.opt.Level.Set(next.Log.Level)
	a.mu.Lock()
	a.cfg = config.Reloaded(old, next)
	book := a.book
	a.mu.Unlock()
	a.staticRoutes(next)
	if book == nil {
		return res, nil // still starting: it begins with the new one
	}
	book.SetOptions(a.ipamOptions(next))
	_, err = a.loop.wait(ctx)
	return res, err
}

func changes(list []config.Change) []api.Change {
	out := make([]api.Change, 0, len(list))
	for _, c := range list {
		out = append(out, api.Change{Key: c.Key, Old: c.Old, New: c.New})
	}
	return out
}

// Settings implements api.Controller.
func (a *Agent) Settings(context.Context) ([]api.Setting, error) {
	var out []api.Setting
	for _, s := range a.config().Settings() {
		out = append(out, api.Setting{Key: s.Key, Value: s.Value, Origin: s.Origin})
	}
	return out, nil
}
