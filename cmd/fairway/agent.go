package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"fairway/internal/agent"
	"fairway/internal/config"
)

// newAgentCommand runs the agent of this node in the foreground.
func newAgentCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run this node's agent",
		Long: `Run the agent of this node: Docker's network and IPAM driver, the routes in the kernel, and the sessions with
other nodes.

With no config file at all it serves one node with the default pools. Stopping it (SIGTERM, Ctrl-C) changes
nothing in the kernel: running containers go on. SIGHUP reads the config again without cutting a session.`,
		Example: `  fairway agent
  fairway agent --config /etc/fairway/fairway.yaml --log-level debug`,
		Args: cobra.NoArgs,
	}
	flags := addConfigFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return runAgent(cmd.Context(), flags.load, cmd.ErrOrStderr())
	}
	return cmd
}

func runAgent(ctx context.Context, load func() (*config.Config, error), out io.Writer) error {
	cfg, err := load()
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	level.Set(cfg.Log.Level)
	log := slog.New(logHandler(out, cfg.Log.Format, level))
	a := agent.New(agent.Options{Config: cfg, Load: load, Level: level, Log: log, Version: buildVersion(), Notify: notifier(log)})

	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-hup:
				// What came of it is in the log; the caller of SIGHUP does not listen.
				if _, err := a.Reload(ctx); err != nil {
					log.Error("reload", slog.Any("err", err))
				}
			}
		}
	}()
	return a.Run(ctx)
}

// logHandler writes without times under systemd, whose journal has them.
func logHandler(out io.Writer, format config.LogFormat, level slog.Leveler) slog.Handler {
	opts := &slog.HandlerOptions{Level: level}
	if os.Getenv("JOURNAL_STREAM") != "" {
		opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	if format == config.LogJSON {
		return slog.NewJSONHandler(out, opts)
	}
	return slog.NewTextHandler(out, opts)
}

// notifier tells systemd of the agent's state (sd_notify(3)); nobody when NOTIFY_SOCKET is not set.
func notifier(log *slog.Logger) func(string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	return func(state string) {
		conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
		if err == nil {
			_, err = fmt.Fprint(conn, state)
			_ = conn.Close()
		}
		if err != nil {
			log.Warn("tell systemd", slog.String("state", state), slog.Any("err", err))
		}
	}
}
