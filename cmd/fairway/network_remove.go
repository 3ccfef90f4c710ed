package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"fairway/internal/api"
)

func newNetworkRemoveCommand(a *app) *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:   "rm NAME",
		Short: "Remove a network from every node of the cluster",
		Long: `Record that a network of the cluster is to go; every node removes its Docker network, unless containers are on it. The command waits up to 10 s, and says which nodes still use it and for what: there it goes when the last container is off. It exits with 1 when it is still there.

A network of this node alone is removed by docker network rm.`,
		Example:           "  fairway network rm front",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeNetworks,
	}
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for the nodes")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		w := cmd.OutOrStdout()
		if err := a.client().RemoveNetwork(cmd.Context(), args[0]); err != nil {
			return err
		}
		if noWait {
			return say(w, fmt.Sprintf("Recorded: every node removes network %s.", args[0]))
		}
		return a.awaitRemoval(cmd.Context(), w, progressFor(cmd.ErrOrStderr()), args[0])
	}
	return cmd
}

// removeGrace is how long a network may be said to be in use by a container that is being taken off it.
const removeGrace = 2 * time.Second

func (a *app) awaitRemoval(ctx context.Context, w io.Writer, p *progress, name string) error {
	var last api.NetworkCluster
	began := time.Now()
	gone, err := until(ctx, p, clusterWait, func(ctx context.Context) (bool, string, error) {
		n, err := a.clusterNetwork(ctx, name)
		if err != nil {
			return false, "", err
		}
		if n == nil {
			last = api.NetworkCluster{}
			return true, "", nil
		}
		last = *n.Cluster
		left := leftOn(last)
		return onlyInUse(left) && time.Since(began) > removeGrace, fmt.Sprintf("%s: left on %s", name, count(len(left), "node")), nil
	})
	if err != nil {
		return err
	}
	left := leftOn(last)
	if gone && len(left) == 0 {
		return say(w, fmt.Sprintf("Removed network %s.", name))
	}
	if err := nodesOfNetwork(left, a.now()).write(w, painterFor(w)); err != nil {
		return err
	}
	if err := networkTrouble(w, last); err != nil {
		return err
	}
	return errors.Join(errSaid, say(w, fmt.Sprintf("Network %s is still on %s. It is recorded that it goes: from a node where containers use it, once the last one is off it.", name, count(len(left), "node"))))
}

// leftOn are the nodes that still have a network that is being removed.
func leftOn(c api.NetworkCluster) []api.NetworkNode {
	var out []api.NetworkNode
	for _, s := range c.Nodes {
		if s.State != api.NetworkGone {
			out = append(out, s)
		}
	}
	return out
}

func onlyInUse(all []api.NetworkNode) bool {
	for _, s := range all {
		if s.Alive && s.State != api.NetworkInUse {
			return false
		}
	}
	return len(all) > 0
}
