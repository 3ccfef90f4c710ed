package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fairway/internal/api"
)

func newNetworkListCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the networks",
		Long: `List the Docker networks of our driver on this node, and those of the cluster, a line for each of their subnets. -o wide adds gateways, this node's blocks, and the options.

NODES is on how many nodes a network of the cluster is ready, of those that should have it; a network of this node alone has "-". What is wrong on a node stands below the table.`,
		Example: `  fairway network ls
  fairway network ls -o wide
  fairway network ls -o json`,
		Args: cobra.NoArgs,
	}
	out := addOutput(cmd, formatTable, formatWide, formatJSON)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		all, err := a.client().Networks(cmd.Context())
		if err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		if out.json() {
			return writeJSON(w, all)
		}
		if len(all) == 0 {
			return say(w, "No networks of ours. Make one: docker network create -d fairway --ipam-driver fairway --subnet 10.9.0.0/16 NAME; or, with a store, one that every node has: fairway network create NAME --subnet 10.9.0.0/16")
		}
		t := networkTable(all, a.now())
		if out.wide() {
			t = networkWideTable(all, a.now())
		}
		if err := t.write(w, painterFor(w)); err != nil {
			return err
		}
		for _, n := range all {
			if err := networkNotes(w, n, a.now()); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// networkNotes says what is wrong with a network, here and on other nodes.
func networkNotes(w io.Writer, n api.Network, now time.Time) error {
	say := func(text string) error {
		_, err := io.WriteString(w, note(networkName(n), text))
		return err
	}
	if n.Problem != "" {
		if err := say(n.Problem); err != nil {
			return err
		}
	}
	if n.Cluster == nil {
		return nil
	}
	if !n.Cluster.Removing.IsZero() {
		if err := say("being removed since " + age(now, n.Cluster.Removing)); err != nil {
			return err
		}
	}
	for _, s := range n.Cluster.Nodes {
		if s.Problem == "" {
			continue
		}
		if err := say(fmt.Sprintf("%s on %s: %s", s.State, cut(s.Node, longName), s.Problem)); err != nil {
			return err
		}
	}
	return nil
}

// networkNodes is on how many nodes of the cluster a network is ready.
func networkNodes(n api.Network) string {
	if n.Cluster == nil {
		return "-"
	}
	ready, all := n.Cluster.Ready()
	return fmt.Sprintf("%d/%d", ready, all)
}

func mtuText(n api.Network) string {
	if n.MTU == 0 {
		return "-"
	}
	return strconv.Itoa(n.MTU)
}

// networkTable has a row for each subnet; what is the same as above it stays empty.
func networkTable(all []api.Network, now time.Time) *table {
	t := table{columns: []column{
		{title: "NETWORK", least: 8},
		{title: "MODE", least: 6},
		{title: "SUBNET"},
		{title: "MTU", right: true},
		{title: "CONTAINERS", right: true},
		{title: "NODES", right: true},
		{title: "AGE", right: true, optional: true},
	}}
	for _, n := range all {
		rest := []string{mtuText(n), strconv.Itoa(n.Endpoints), networkNodes(n), age(now, n.Created)}
		name, mode := networkName(n), networkMode(n)
		for _, s := range n.Subnets {
			t.add(append([]string{name, mode, s.Prefix.String()}, rest...)...)
			name, mode, rest = "", "", []string{"", "", "", ""}
		}
		if name != "" {
			t.add(append([]string{name, mode, "-"}, rest...)...)
		}
	}
	return &t
}

func networkWideTable(all []api.Network, now time.Time) *table {
	t := table{wide: true, columns: []column{
		{title: "NETWORK"},
		{title: "ID"},
		{title: "MODE"},
		{title: "SUBNETS"},
		{title: "GATEWAYS"},
		{title: "BLOCKS"},
		{title: "MTU", right: true},
		{title: "CONTAINERS", right: true},
		{title: "NODES", right: true},
		{title: "AGE", right: true},
		{title: "OPTIONS"},
	}}
	for _, n := range all {
		subnets, gateways := subnetTexts(n)
		t.add(networkName(n), or(shortID(n.ID)), networkMode(n), or(strings.Join(subnets, ",")), or(strings.Join(gateways, ",")), or(prefixTexts(n.Blocks)),
			mtuText(n), strconv.Itoa(n.Endpoints), networkNodes(n), age(now, n.Created), or(strings.Join(optionTexts(n), ",")))
	}
	return &t
}
