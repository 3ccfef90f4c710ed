package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fairway/internal/api"
)

func newNetworkInspectCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect NETWORK",
		Short: "Show all about one network",
		Long:  "Show all about one network, given by its name, its ID, or the beginning of its ID, with the containers on it, and how it stands on each node when it is one of the cluster.",
		Example: `  fairway network inspect front
  fairway network inspect 0f3a -o json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeNetworks,
	}
	out := addOutput(cmd, formatTable, formatJSON)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client := a.client()
		all, err := client.Networks(cmd.Context())
		if err != nil {
			return err
		}
		n, err := findNetwork(all, args[0])
		if err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		if out.json() {
			return writeJSON(w, n)
		}
		if _, err := fmt.Fprint(w, a.networkText(n)); err != nil {
			return err
		}
		if n.Cluster != nil {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
			if err := nodesOfNetwork(n.Cluster.Nodes, a.now()).write(w, painterFor(w)); err != nil {
				return err
			}
		}
		containers, err := client.Containers(cmd.Context())
		if err != nil {
			return err
		}
		on := slices.DeleteFunc(containers, func(c api.Container) bool { return c.NetworkID != n.ID })
		if len(on) == 0 {
			return nil
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
		if err := psTable(on).write(w, painterFor(w)); err != nil {
			return err
		}
		return psNotes(w, on)
	}
	return cmd
}

// findNetwork finds a network by name, then by the beginning of its ID.
func findNetwork(all []api.Network, ref string) (api.Network, error) {
	for _, n := range all {
		if n.Name == ref || n.ID == ref {
			return n, nil
		}
	}
	var found []api.Network
	for _, n := range all {
		if n.ID != "" && strings.HasPrefix(n.ID, ref) {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return api.Network{}, fmt.Errorf("no network %q of ours; `fairway network ls` lists them", ref)
	}
	return api.Network{}, fmt.Errorf("%q is the beginning of %d network IDs; give more of it", ref, len(found))
}

func (a *app) networkText(n api.Network) string {
	var b strings.Builder
	field := func(name, text string) {
		if text != "" {
			b.WriteString(wrap(fmt.Sprintf("  %-10s ", name), cut(clean(text), longText)))
		}
	}
	b.WriteString(wrap("", cut(clean(networkName(n)), screen)))
	field("ID", n.ID)
	field("Mode", networkMode(n))
	field("Bridge", n.Bridge)
	for _, s := range n.Subnets {
		text := s.Prefix.String()
		if s.Gateway.IsValid() {
			text += ", gateway " + s.Gateway.String()
		}
		field("Subnet", text)
	}
	field("Blocks", strings.ReplaceAll(or(prefixTexts(n.Blocks)), ",", ", ")+" (this node's)")
	if n.MTU != 0 {
		field("MTU", strconv.Itoa(n.MTU))
	}
	field("Options", strings.Join(optionTexts(n), ", "))
	created := fmt.Sprintf("%s (%s ago)", n.Created.UTC().Format(time.RFC3339), age(a.now(), n.Created))
	if n.Cluster != nil && n.Cluster.By != "" {
		created += " on " + n.Cluster.By
	}
	field("Created", created)
	field("Containers", strconv.Itoa(n.Endpoints))
	field("Problem", n.Problem)
	if c := n.Cluster; c != nil {
		ready, all := c.Ready()
		text := fmt.Sprintf("ready on %d of %s", ready, count(all, "node"))
		if !c.Removing.IsZero() {
			text += ", being removed since " + age(a.now(), c.Removing)
		}
		field("Cluster", text)
	}
	return b.String()
}

// nodesOfNetwork has a row for each node that has a network or should.
func nodesOfNetwork(all []api.NetworkNode, now time.Time) *table {
	t := table{indent: 2, columns: []column{
		{title: "NODE", least: 8},
		{title: "STATE", colour: networkColour},
		{title: "SINCE", right: true},
		{title: "NETWORK ID"},
		{title: "NOTE", least: 20},
	}}
	for _, s := range all {
		text := s.Problem
		if !s.Alive {
			text = "the node is not alive"
			if s.Problem != "" {
				text += "; " + s.Problem
			}
		}
		t.add(s.Node, s.State, age(now, s.Since), or(shortID(s.ID)), text)
	}
	return &t
}

func networkColour(state string) colour {
	switch state {
	case api.NetworkReady, api.NetworkGone:
		return green
	case api.NetworkAwaited, api.NetworkInUse:
		return yellow
	}
	return red
}
