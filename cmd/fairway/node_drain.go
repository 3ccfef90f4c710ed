package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"fairway/internal/api"
)

func newNodeDrainCommand(a *app) *cobra.Command {
	var refuse, noWait bool
	cmd := &cobra.Command{
		Use:   "drain [NAME]",
		Short: "Make a node announce nothing",
		Long: `Make a node announce nothing any more: this one, or the one named. First its routes are given the lowest preference and marked for a graceful shutdown (RFC 8326), so that whoever knows another way takes it; some seconds later they are withdrawn. Its containers go on running, and cannot be reached from elsewhere.

The command waits until that is so. A drain outlives a restart of the agent, and a boot; ` + "`fairway node undrain`" + ` ends it. Another node than this one needs a store.`,
		Example: `  fairway node drain
  fairway node drain host2 --refuse`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeNodes,
	}
	cmd.Flags().BoolVar(&refuse, "refuse", false, "take no new containers meanwhile")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until the routes are withdrawn")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := api.DrainRequest{Node: first(args), Drain: true, Refuse: refuse}
		return a.drain(cmd, req, noWait)
	}
	return cmd
}

func newNodeUndrainCommand(a *app) *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:   "undrain [NAME]",
		Short: "End the drain of a node",
		Long:  "End the drain of this node, or of the one named: it announces again, and takes new containers. Another node than this one needs a store.",
		Example: `  fairway node undrain
  fairway node undrain host2`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeNodes,
	}
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until the node has taken it in")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.drain(cmd, api.DrainRequest{Node: first(args)}, noWait)
	}
	return cmd
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// drain begins or ends a drain and waits for it.
func (a *app) drain(cmd *cobra.Command, req api.DrainRequest, noWait bool) error {
	client, w := a.client(), cmd.OutOrStdout()
	if err := client.Drain(cmd.Context(), req); err != nil {
		return err
	}
	name := cmp.Or(req.Node, "this node")
	if noWait {
		return say(w, fmt.Sprintf("Recorded: %s is to %s.", name, drainVerb(req.Drain)))
	}
	ok, err := until(cmd.Context(), progressFor(cmd.ErrOrStderr()), clusterWait, func(ctx context.Context) (bool, string, error) {
		state, err := drainState(ctx, client, req.Node)
		if err != nil {
			return false, "", err
		}
		done := state == api.MemberDrained
		if !req.Drain {
			done = state == ""
		}
		return done, fmt.Sprintf("%s: %s", name, cmp.Or(state, "not yet draining")), nil
	})
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("it is recorded that %s is to %s, and it has not done so within %v: is its agent alive? `fairway node ls` shows it", name, drainVerb(req.Drain), clusterWait)
	case req.Drain && req.Refuse:
		return say(w, fmt.Sprintf("Drained: %s announces nothing, and takes no new containers.", name))
	case req.Drain:
		return say(w, fmt.Sprintf("Drained: %s announces nothing.", name))
	}
	return say(w, fmt.Sprintf("The drain of %s has ended; it announces again.", name))
}

func drainVerb(drain bool) string {
	if drain {
		return "drain"
	}
	return "end its drain"
}

// drainState is "" for a node that does not drain, as the node itself says, or the store does of another one.
func drainState(ctx context.Context, client *api.Client, node string) (string, error) {
	if node == "" {
		st, err := client.Status(ctx)
		if err != nil || st.Drain == nil {
			return "", err
		}
		return st.Drain.State, nil
	}
	all, err := client.Nodes(ctx)
	if err != nil {
		return "", err
	}
	for _, m := range all {
		switch {
		case m.Name != node:
		case m.Drain == nil:
			return "", nil
		case m.State == api.MemberDrained:
			return m.State, nil
		default: // of a node that is down it is only recorded
			return cmp.Or(m.State, m.Drain.State), nil
		}
	}
	return "", fmt.Errorf("node %q is not there any more", node)
}
