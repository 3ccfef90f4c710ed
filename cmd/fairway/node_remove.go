package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"fairway/internal/api"
)

func newNodeRemoveCommand(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "rm NAME",
		Short: "Give back what a node held that is gone for good",
		Long: `Remove a node that is gone for good: its blocks and addresses are given back, so that others may claim them, and its routes go. It first shows what the node held, and asks; --yes does not ask.

A node that is alive is refused: stop its agent first. Be sure that the node is off, or that nothing of it will be used again: its containers, if they still ran, would have addresses that others are given. If it comes back all the same it is fenced: it neither announces nor gives out addresses until ` + "`fairway node join`" + ` on it.`,
		Example: `  fairway node rm host3
  fairway node rm host3 --yes -o json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeNodes,
	}
	out := addOutput(cmd, formatTable, formatJSON)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, w, in := a.client(), cmd.OutOrStdout(), cmd.InOrStdin()
		const hint = "--yes to remove the node"
		if !yes && (out.json() || nobodyThere(in)) {
			return usagef("nobody is there to ask: give %s", hint)
		}
		if !yes {
			held, err := client.RemoveNode(cmd.Context(), args[0], true)
			if err != nil {
				return err
			}
			if _, err := io.WriteString(w, a.removalText(held)); err != nil {
				return err
			}
			if err := sure(in, w, "Is it off for good, and shall others have what it held?", hint, "nothing was removed"); err != nil {
				return err
			}
		}
		gone, err := client.RemoveNode(cmd.Context(), args[0], false)
		switch {
		case err != nil:
			return err
		case out.json():
			return writeJSON(w, gone)
		case yes:
			if _, err := io.WriteString(w, a.removalText(gone)); err != nil {
				return err
			}
		}
		return say(w, fmt.Sprintf("Removed %s: %s and %s were given back.", gone.Node.Name, count(len(gone.Blocks), "block"), addressCount(len(gone.Addresses))))
	}
	return cmd
}

func addressCount(n int) string { return fmt.Sprintf("%d %s", n, plural(n, "address", "addresses")) }

// removalText shows a node and what it held.
func (a *app) removalText(r api.Removal) string {
	var b strings.Builder
	m := r.Node
	b.WriteString(wrap("", fmt.Sprintf("%s at %s is %s, last seen %s ago.", cut(clean(m.Name), longName), memberAddress(m), m.State, age(a.now(), m.LastSeen))))
	field := func(name string, all []string) {
		if len(all) > 0 {
			b.WriteString(wrap(fmt.Sprintf("  %-10s ", name), clean(strings.Join(all, ", "))))
		}
	}
	field("Blocks", prefixList(r.Blocks))
	var addrs []string
	for _, c := range r.Addresses {
		addrs = append(addrs, claimText(c))
	}
	field("Addresses", addrs)
	field("Routes", prefixList(r.Routes))
	field("Networks", r.Networks)
	return b.String()
}

// claimText is a block or an address, and what is known of who uses it.
func claimText(c api.Claim) string {
	text := c.Prefix.String()
	if c.Prefix.IsSingleIP() {
		text = c.Prefix.Addr().String()
	}
	var by []string
	if c.Node != "" {
		by = append(by, "of "+c.Node)
	}
	switch {
	case c.Container != "":
		by = append(by, "container "+shortNetwork(c.Container))
	case c.Endpoint != "":
		by = append(by, "endpoint "+shortID(c.Endpoint))
	}
	if len(by) > 0 {
		text += " (" + strings.Join(by, ", ") + ")"
	}
	return text
}

func newNodeJoinCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "join",
		Short: "Make this node a member again after it was removed",
		Long: `Make this node a member again after ` + "`fairway node rm`" + ` removed it and it came back, fenced. It gets a new identity, takes back the blocks and addresses that are still free, and announces again.

What others have by now is listed with its holder and with the containers here that still use it: those cannot be reached until they are started anew, on another address. The command exits with 1 when there are any.`,
		Example: "  fairway node join",
		Args:    cobra.NoArgs,
	}
	out := addOutput(cmd, formatTable, formatJSON)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		j, err := a.client().Join(cmd.Context())
		if err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		if out.json() {
			err = writeJSON(w, j)
		} else {
			err = writeJoined(w, j)
		}
		if err == nil && len(j.Lost) > 0 {
			return errSaid
		}
		return err
	}
	return cmd
}

func writeJoined(w io.Writer, j api.Joined) error {
	if err := say(w, "Joined as "+shortID(j.ID)+"."); err != nil {
		return err
	}
	texts := func(all []api.Claim) []string {
		var out []string
		for _, c := range all {
			out = append(out, claimText(c))
		}
		return out
	}
	if err := lines(w, "  taken back  ", texts(j.Back)); err != nil {
		return err
	}
	if err := lines(w, "! not ours    ", texts(j.Lost)); err != nil {
		return err
	}
	if err := lines(w, "  being claimed ", texts(j.Open)); err != nil {
		return err
	}
	if len(j.Lost) == 0 {
		return nil
	}
	return say(w, "Start the containers named anew: what they use belongs to others now, and is not announced from here.")
}
