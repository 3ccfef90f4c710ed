// Command fairway is routed networking for Docker: the agent of a node, and everything that asks it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"fairway/internal/api"
)

// The exit codes.
const (
	exitOK    = 0
	exitBad   = 1 // something is wrong, with the node or with what was asked of it
	exitUsage = 2 // the command line makes no sense
)

// errSaid ends a command with exitBad when what is wrong has been shown already.
var errSaid = errors.New("something is wrong")

// usageError is a mistake on the command line that only the command itself can see.
type usageError struct{ error }

func usagef(text string, args ...any) error { return usageError{fmt.Errorf(text, args...)} }

// app is what the commands share.
type app struct {
	socket string // --socket; "" when not given
	now    func() time.Time
}

// client asks the agent that the flag, the environment or the default names.
func (a *app) client() *api.Client { return api.NewClient(a.socketPath()) }

func (a *app) socketPath() string {
	if a.socket != "" {
		return a.socket
	}
	if s := os.Getenv("FAIRWAY_SOCKET"); s != "" {
		return s
	}
	return "/run/fairway/" + api.SocketName
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the program at once, whatever it waits for.
	context.AfterFunc(ctx, stop)
	code := run(ctx, newRoot(&app{now: time.Now}), os.Args[1:])
	stop()
	os.Exit(code)
}

// run runs one command line and says what to exit with. Errors go to the root's error output.
func run(ctx context.Context, root *cobra.Command, args []string) int {
	started := false
	for _, c := range tree(root) {
		if body := c.RunE; body != nil {
			c.RunE = func(cmd *cobra.Command, args []string) error {
				started = true
				return body(cmd, args)
			}
		}
	}
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errSaid):
		return exitBad
	case !started || errors.As(err, &usage):
		cmd.PrintErrf("fairway: %v\nSee `%s --help`.\n", err, cmd.CommandPath())
		return exitUsage
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	cmd.PrintErrf("fairway: %v\n", err)
	return exitBad
}

// newRoot is the whole command tree.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "fairway",
		Short: "Routed networking for Docker",
		Long: `Routed networking for Docker: every container gets an address that is real everywhere, and each host is a router that tells the others which addresses live where.

` + "`fairway agent`" + ` runs a node; the other commands ask the agent on this machine, over its socket. They exit with 0 when all is well, with 1 when something is wrong, and with 2 when the command line makes no sense.`,
		Example: `  fairway status
  fairway ps -o wide
  docker network create -d fairway --ipam-driver fairway --subnet 10.9.0.0/16 n1`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.PersistentFlags().StringVar(&a.socket, "socket", a.socket, "socket `FILE` of the agent (default $FAIRWAY_SOCKET or /run/fairway/"+api.SocketName+")")
	root.AddCommand(
		newAgentCommand(), newStatusCommand(a), newPsCommand(a), newNetworkCommand(a), newNodeCommand(a), newIPAMCommand(a), newRouteCommand(a), newPeerCommand(a),
		newExportCommand(a), newRouterCommand(a),
		newConfigCommand(), newDockerBridgeCommand(a), newLabCommand(), newCleanupCommand(a), newVersionCommand(), newCompletionCommand(), newDocsCommand(),
	)
	root.SetUsageTemplate(strings.NewReplacer(
		"FlagUsages", fmt.Sprintf("FlagUsagesWrapped %d", screen),
		"for more information about a command", "for more about a command",
		"{{if .Runnable}}", "{{if and .Runnable (not .HasAvailableSubCommands)}}", // a group only shows its help
	).Replace(root.UsageTemplate()))
	for _, c := range tree(root) {
		finish(c)
	}
	return root
}

// tree lists a command and all below it.
func tree(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		all = append(all, tree(sub)...)
	}
	return all
}

// finish gives every command the manners that all have: help that fits the screen, and a group of commands that is given
// an unknown one says so.
func finish(c *cobra.Command) {
	c.Long = reflow(c.Long)
	if !c.HasSubCommands() || c.Runnable() {
		return
	}
	c.Args = nil
	if c.HasParent() {
		c.Args = cobra.ArbitraryArgs
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		cmd.SuggestionsMinimumDistance = 2 // as cobra has it for the root
		text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			text += fmt.Sprintf("; did you mean %q?", near[0])
		}
		return usagef("%s", text)
	}
}
