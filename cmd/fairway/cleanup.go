package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"fairway/internal/agent"
	"fairway/internal/api"
	"fairway/internal/config"
)

// cleaner is agent.Cleanup.
type cleaner func(ctx context.Context, opt agent.CleanupOptions) ([]string, error)

func newCleanupCommand(a *app) *cobra.Command { return cleanupCommand(a, agent.Cleanup) }

func cleanupCommand(a *app, clean cleaner) *cobra.Command {
	var dry, yes bool
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove everything of ours from the kernel",
		Long: `Remove everything of ours from the kernel and nothing else: links, routes, firewall rules. Containers that still run on our networks lose them. What is on disk stays: an agent that is started again makes everything anew.

The agent must not run. Without --yes it lists what would go and asks.`,
		Example: `  systemctl stop fairway
  fairway cleanup --dry-run
  fairway cleanup --yes`,
		Args: cobra.NoArgs,
	}
	flags := addConfigFlags(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "list what would go, and leave it")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "yes")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := flags.load()
		if err != nil {
			return err
		}
		if err := a.refuseRunning(cmd.Context(), cfg); err != nil {
			return err
		}
		c := cleanup{clean: clean, in: cmd.InOrStdin(), out: cmd.OutOrStdout(), options: agent.CleanupOptions{
			Config: cfg, Log: slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn})),
		}}
		switch {
		case dry:
			_, err = c.preview(cmd.Context())
			return err
		case yes:
			return c.remove(cmd.Context())
		}
		return c.ask(cmd.Context())
	}
	return cmd
}

// refuseRunning looks for an agent that would make everything anew.
func (a *app) refuseRunning(ctx context.Context, cfg *config.Config) error {
	socket := filepath.Join(cfg.Run, api.SocketName)
	if a.socket != "" {
		socket = a.socket
	}
	_, err := api.NewClient(socket).Ready(ctx)
	if errors.Is(err, api.ErrNotRunning) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for an agent that runs: %w", err)
	}
	return fmt.Errorf("the agent runs here (it answers on %s) and would make everything anew: stop it first, with `systemctl stop fairway`", socket)
}

type cleanup struct {
	clean   cleaner
	options agent.CleanupOptions
	in      io.Reader
	out     io.Writer
}

// preview lists what would go.
func (c cleanup) preview(ctx context.Context) (int, error) {
	opt := c.options
	opt.DryRun = true
	would, err := c.clean(ctx, opt)
	if len(would) == 0 && err == nil {
		return 0, say(c.out, "Nothing of ours is in the kernel.")
	}
	return len(would), errors.Join(err, c.list("would remove ", would))
}

// remove removes it; what could be removed is listed even when something else could not.
func (c cleanup) remove(ctx context.Context) error {
	gone, err := c.clean(ctx, c.options)
	if len(gone) == 0 && err == nil {
		return say(c.out, "Nothing of ours is in the kernel.")
	}
	return errors.Join(err, c.list("removed ", gone))
}

func (c cleanup) ask(ctx context.Context) error {
	const hint = "--yes to remove, or --dry-run to look"
	if nobodyThere(c.in) {
		return usagef("nobody is there to ask: give %s", hint)
	}
	n, err := c.preview(ctx)
	if err != nil || n == 0 {
		return err
	}
	if err := sure(c.in, c.out, fmt.Sprintf("Remove %s?", plural(n, "it", "all of this")), hint, "nothing was removed"); err != nil {
		return err
	}
	return c.remove(ctx)
}

func (c cleanup) list(verb string, all []string) error {
	for _, s := range all {
		if _, err := io.WriteString(c.out, wrap(verb, s)); err != nil {
			return err
		}
	}
	return nil
}
