package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"fairway/internal/lab"
	"fairway/internal/lab/machine"
	"fairway/internal/lab/rootfs"
)

// newLabCommand is `fairway lab`: several Docker hosts on this machine.
func newLabCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Run several Docker hosts on this machine, to try things out",
		Long: `Run several Docker hosts on this machine, each in namespaces of its own with its own Docker engine and fairway agent, joined by a switch. Nothing in a lab can reach anything outside of it, and ` + "`fairway lab down`" + ` leaves nothing behind but the root file systems it has built. Needs root.

Environment:

  FAIRWAY_LAB_DIR     the lab's directory, ` + lab.DefaultDir + ` by default; labs in
                      different directories run side by side
  FAIRWAY_LAB_CACHE   where root file systems are kept, by default
                      ` + rootfs.DefaultCache + `
  FAIRWAY_LAB_MIRROR  the archive to build them from; this machine's by default`,
		Example: `  fairway lab up --hosts 3
  fairway lab demo
  fairway lab docker host1 ps
  fairway lab exec host1 ip route
  fairway lab down`,
	}
	cmd.AddCommand(newLabUpCommand(), newLabDownCommand(), newLabStatusCommand(), newLabExecCommand(),
		newLabDockerCommand(), newLabAgentCommand(), newLabEngineCommand(), newLabLinkCommand(),
		newLabAddCommand(), newLabStoreCommand(), newLabRebootCommand(), newLabDemoCommand(), newLabRootfsCommand(), newLabInitCommand())
	return cmd
}

// labContext ends with the command's context or with a signal. The signal stays caught until stop is called: a second
// Ctrl-C must not keep the lab from being taken down.
func labContext(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
}

// labSay prints a line for people; that nobody reads it is no failure of the lab.
func labSay(cmd *cobra.Command, text string, args ...any) {
	_, _ = fmt.Fprintf(cmd.OutOrStdout(), text, args...)
}

func labOpen() (*lab.Lab, error) {
	l, err := lab.Open(lab.Options{}.Environment(os.Getenv).Dir)
	if errors.Is(err, lab.ErrNoLab) {
		return nil, fmt.Errorf("%w; make one with: fairway lab up", err)
	}
	return l, err
}

func labPrinter(w io.Writer) *lab.Printer {
	terminal := false
	if f, ok := w.(*os.File); ok {
		st, err := f.Stat()
		terminal = err == nil && st.Mode()&os.ModeCharDevice != 0
	}
	return lab.NewPrinter(w, terminal)
}

func newLabUpCommand() *cobra.Command {
	var o lab.Options
	var topology, daemon string
	cmd := &cobra.Command{
		Use:   "up [--hosts N] [--topology FORM] [--store KIND]",
		Short: "Make the lab",
		Long:  `Make the lab: hosts, switch, engines, agents. What is missing of root file systems is built first, once, by mmdebstrap. When it fails or is interrupted, what there is of the lab is taken down.`,
		Example: `  fairway lab up
  fairway lab up --hosts 4 --topology two-segments
  fairway lab up --rootfs bookworm,trixie,forky
  fairway lab up --store etcd`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := labContext(cmd)
			defer stop()
			o.Topology = lab.Topology(topology)
			if o.Agent != "" {
				path, err := filepath.Abs(o.Agent)
				if err != nil {
					return fmt.Errorf("find agent %s: %w", o.Agent, err)
				}
				o.Agent = path
			}
			if daemon != "" {
				if err := json.Unmarshal([]byte(daemon), &o.DaemonJSON); err != nil {
					return usagef("--daemon-json %s: %v", daemon, err)
				}
			}
			p := labPrinter(cmd.ErrOrStderr())
			o.Progress = p.Show
			start := time.Now()
			l, err := lab.Up(ctx, o.Environment(os.Getenv))
			p.Close()
			if errors.Is(err, context.Canceled) {
				return fmt.Errorf("interrupted, and what there was of the lab is taken down (%w)", err)
			}
			if err != nil {
				return err
			}
			labSay(cmd, "lab is up after %.1f s\n\n", time.Since(start).Seconds())
			return l.Status(ctx).Write(cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Hosts, "hosts", 3, "`N` Docker hosts")
	f.StringVar(&topology, "topology", string(lab.Flat), "`FORM` of the network: flat, or two-segments with a router between them")
	f.StringVar(&o.Store, "store", "", "`KIND` of store the hosts agree in: etcd; default: none")
	f.StringVar(&o.Fabric, "fabric", "", "`FABRIC` that carries routes between the hosts: bgp, or store; default: bgp")
	f.StringSliceVar(&o.Rootfs, "rootfs", nil, "`LIST` of suites (bookworm) or directories, given to the hosts in turn; "+
		"default: this machine's own files if it has Docker, else its suite")
	f.BoolVar(&o.NoAgent, "no-agent", false, "do not start fairway agents")
	f.StringVar(&o.Agent, "agent", "", "`PROGRAM` to run as agent; default: this one")
	f.StringVar(&daemon, "daemon-json", "", "`JSON` of engine settings that differ, like '{\"live-restore\": false}' to try Swarm")
	f.BoolVar(&o.Disk, "disk", false, "keep the state of engines and agents on disk, in the lab's directory, so that hosts can be rebooted")
	f.BoolVar(&o.IPForward, "ip-forward", false, "turn IPv4 forwarding on before the engines start, so that they leave FORWARD at ACCEPT")
	return cmd
}

func newLabDownCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Take the lab down and remove all of it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			start := time.Now()
			err := lab.Down(cmd.Context(), lab.Options{}.Environment(os.Getenv).Dir)
			if errors.Is(err, lab.ErrNoLab) {
				labSay(cmd, "%v: nothing to do\n", err)
				return nil
			}
			if err == nil {
				labSay(cmd, "lab is down after %.1f s\n", time.Since(start).Seconds())
			}
			return err
		},
	}
}

func newLabStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [-o json]",
		Short: "Show the hosts; exit with 1 when something does not run",
		Args:  cobra.NoArgs,
	}
	out := addOutput(cmd, formatTable, formatJSON)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		l, err := labOpen()
		if err != nil {
			return err
		}
		s := l.Status(cmd.Context())
		if out.json() {
			err = writeJSON(cmd.OutOrStdout(), s)
		} else {
			err = s.Write(cmd.OutOrStdout())
		}
		if err == nil && !s.OK {
			err = errSaid
		}
		return err
	}
	return cmd
}

// labReplace executes words in place of this process: terminal, signals and exit status are the command's own.
func labReplace(host string, args []string) error {
	l, err := labOpen()
	if err != nil {
		return err
	}
	words, err := l.ExecArgs(host, args)
	if err != nil {
		return err
	}
	if err := syscall.Exec(words[0], words, machine.Environ()); err != nil {
		return fmt.Errorf("execute %s: %w", words[0], err)
	}
	return nil
}

// labWantsHelp answers --help in front of a command line that is otherwise passed on as it is.
func labWantsHelp(args []string) bool {
	return len(args) > 0 && slices.Contains([]string{"-h", "--help"}, args[0])
}

func newLabExecCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "exec HOST COMMAND [ARG...]",
		Short:              "Run a command on a host (host1 or 1, router, switch, store)",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if labWantsHelp(args) {
				return cmd.Help()
			}
			if len(args) < 2 {
				return usagef("give a host and a command, like: fairway lab exec host1 ip route")
			}
			if args[1] == "--" && len(args) > 2 { // as other tools have it before a command
				args = slices.Delete(args, 1, 2)
			}
			return labReplace(args[0], args[1:])
		},
	}
}

func newLabDockerCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "docker HOST ARG...",
		Short:              "Run the docker client on a host",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if labWantsHelp(args) {
				return cmd.Help()
			}
			if len(args) < 2 {
				return usagef("give a host and docker's arguments, like: fairway lab docker host1 ps")
			}
			return labReplace(args[0], append([]string{"docker"}, args[1:]...))
		},
	}
}

// labAction runs one of a host's named actions.
func labAction(cmd *cobra.Command, args []string, actions map[string]func(context.Context, *lab.Host) error) error {
	action := actions[args[1]]
	if action == nil {
		var names []string
		for name := range actions {
			names = append(names, name)
		}
		slices.Sort(names)
		return usagef("unknown action %q: want %s", args[1], list(names))
	}
	l, err := labOpen()
	if err != nil {
		return err
	}
	h, err := l.Host(args[0])
	if err != nil {
		return err
	}
	ctx, stop := labContext(cmd)
	defer stop()
	return action(ctx, h)
}

func newLabAgentCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "agent HOST stop|start|kill9|reload|replace [PATH]",
		Short: "Stop, start, kill or replace a host's agent",
		Args:  cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (args[1] == "replace") != (len(args) == 3) {
				return usagef("replace, and only replace, takes the path of another program")
			}
			return labAction(cmd, args, map[string]func(context.Context, *lab.Host) error{
				"start":   func(ctx context.Context, h *lab.Host) error { return h.StartAgent(ctx) },
				"stop":    func(ctx context.Context, h *lab.Host) error { return h.StopAgent(ctx, syscall.SIGTERM) },
				"kill9":   func(ctx context.Context, h *lab.Host) error { return h.StopAgent(ctx, syscall.SIGKILL) },
				"reload":  func(ctx context.Context, h *lab.Host) error { return h.SignalAgent(ctx, syscall.SIGHUP) },
				"replace": func(_ context.Context, h *lab.Host) error { return h.ReplaceAgent(args[2]) },
			})
		},
	}
}

func newLabEngineCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "engine HOST stop|start|kill9",
		Short: "Stop, start or kill a host's Docker engine; containers run on",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return labAction(cmd, args, map[string]func(context.Context, *lab.Host) error{
				"start": func(ctx context.Context, h *lab.Host) error { return h.StartEngine(ctx) },
				"stop":  func(ctx context.Context, h *lab.Host) error { return h.StopEngine(ctx) },
				"kill9": func(ctx context.Context, h *lab.Host) error { return h.KillEngine(ctx) },
			})
		},
	}
}

func newLabLinkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "link HOST up|down|silent|heard",
		Short: "Unplug a host from the switch, or drop its frames silently",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return labAction(cmd, args, map[string]func(context.Context, *lab.Host) error{
				"up":     func(ctx context.Context, h *lab.Host) error { return h.SetLink(ctx, true) },
				"down":   func(ctx context.Context, h *lab.Host) error { return h.SetLink(ctx, false) },
				"silent": func(ctx context.Context, h *lab.Host) error { return h.Silence(ctx, true) },
				"heard":  func(ctx context.Context, h *lab.Host) error { return h.Silence(ctx, false) },
			})
		},
	}
}

func newLabAddCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "add",
		Short: "Add one more host to the lab",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := labOpen()
			if err != nil {
				return err
			}
			ctx, stop := labContext(cmd)
			defer stop()
			h, err := l.AddHost(ctx)
			if err != nil {
				return err
			}
			labSay(cmd, "%s is up, at %s\n", h.Name, h.Address())
			return nil
		},
	}
}

func newLabRootfsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rootfs SUITE...",
		Short: "Build root file systems of Debian or Ubuntu suites and keep them",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := labContext(cmd)
			defer stop()
			o := lab.Options{Cache: rootfs.DefaultCache}
			if dir := os.Getenv("FAIRWAY_LAB_CACHE"); dir != "" {
				o.Cache = dir
			}
			cache := rootfs.Cache{Dir: o.Cache, Mirror: os.Getenv("FAIRWAY_LAB_MIRROR")}
			p := labPrinter(cmd.ErrOrStderr())
			defer p.Close()
			for _, suite := range args {
				dir, err := cache.Build(ctx, suite, func(step string) { p.Show(lab.Event{Subject: suite, Step: step}) })
				if err != nil {
					return err
				}
				p.Show(lab.Event{Subject: suite, Step: "ready in " + dir, Done: true})
			}
			return nil
		},
	}
}

// newLabInitCommand is the first process of every lab host: machine.InitCommand.
func newLabInitCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "init",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE:               func(cmd *cobra.Command, args []string) error { return machine.Init(cmd.Context(), args) },
	}
}

func newLabDemoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Run a container on every host and show who reaches whom, and how",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := labOpen()
			if err != nil {
				return err
			}
			ctx, stop := labContext(cmd)
			defer stop()
			command := os.Args[0]
			if os.Getenv("SUDO_USER") != "" {
				command = "sudo " + command
			}
			return l.Demo(ctx, cmd.OutOrStdout(), command)
		},
	}
}
