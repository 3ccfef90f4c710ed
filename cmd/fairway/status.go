package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"fairway/internal/api"
)

// pollEvery is how often `status --wait` asks; a node is ready within a second or two.
const pollEvery = 200 * time.Millisecond

func newStatusCommand(a *app) *cobra.Command {
	var wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how this node is, on one screen",
		Long: `Show how this node is, on one screen: its underlay and why it was chosen, the Docker engine, pools, sessions with other nodes, and the conditions that stand with what to do about them.

It exits with 1 when the node is not ready or a condition is an error; a warning alone exits with 0.`,
		Example: `  fairway status
  fairway status --wait --timeout 30s
  fairway status -o json`,
		Args: cobra.NoArgs,
	}
	out := addOutput(cmd, formatTable, formatJSON)
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the node is ready")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long --wait waits")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client := a.client()
		if wait {
			if err := waitReady(cmd.Context(), client, timeout); err != nil {
				return err
			}
		}
		st, err := client.Status(cmd.Context())
		if err != nil {
			return err
		}
		if out.json() {
			err = writeJSON(cmd.OutOrStdout(), st)
		} else {
			s := statusScreen{Status: st, now: a.now(), painter: painterFor(cmd.OutOrStdout())}
			err = s.write(cmd.OutOrStdout())
		}
		if err == nil && st.Bad() {
			return errSaid
		}
		return err
	}
	return cmd
}

// waitReady asks until the node is ready; an agent that is not there yet is waited for as well.
func waitReady(ctx context.Context, client *api.Client, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	why := "no answer"
	for {
		h, err := client.Ready(ctx)
		switch {
		case err == nil && h.OK:
			return nil
		case err == nil:
			why = h.Reason
		case errors.Is(err, api.ErrNotRunning):
			why = err.Error()
		case ctx.Err() == nil:
			return err // as without --wait: no permission, for one
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("not ready after %v: %s", timeout, why)
			}
			return ctx.Err()
		case <-tick.C:
		}
	}
}
