package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fairway/internal/api"
)

func newNetworkCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "network",
		Short: "List and inspect the Docker networks of this node",
		Long:  "List and inspect the Docker networks of our driver on this node. Docker makes and removes them: docker network create -d fairway, docker network rm.",
		Example: `  fairway network ls
  fairway network inspect front`,
	}
	cmd.AddCommand(newNetworkListCommand(a), newNetworkInspectCommand(a))
	return cmd
}

func newNetworkListCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the networks",
		Long:  "List the Docker networks of our driver on this node, a line for each of their subnets. -o wide adds gateways, this node's blocks, and the options.",
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
			return say(w, "No networks of ours. Make one: docker network create -d fairway --ipam-driver fairway --subnet 10.9.0.0/16 NAME")
		}
		t := networkTable(all, a.now())
		if out.wide() {
			t = networkWideTable(all, a.now())
		}
		if err := t.write(w, painterFor(w)); err != nil {
			return err
		}
		for _, n := range all {
			if n.Problem == "" {
				continue
			}
			if _, err := fmt.Fprint(w, note(networkName(n), n.Problem)); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

func networkName(n api.Network) string { return cmp.Or(n.Name, shortID(n.ID)) }

func networkMode(n api.Network) string {
	if n.Internal {
		return n.Mode + ", internal"
	}
	return n.Mode
}

// networkTable has a row for each subnet; what is the same as above it stays empty.
func networkTable(all []api.Network, now time.Time) *table {
	t := table{columns: []column{
		{title: "NETWORK", least: 8},
		{title: "MODE", least: 6},
		{title: "SUBNET"},
		{title: "MTU", right: true},
		{title: "CONTAINERS", right: true},
		{title: "AGE", right: true, optional: true},
	}}
	for _, n := range all {
		rest := []string{strconv.Itoa(n.MTU), strconv.Itoa(n.Endpoints), age(now, n.Created)}
		name, mode := networkName(n), networkMode(n)
		for _, s := range n.Subnets {
			t.add(append([]string{name, mode, s.Prefix.String()}, rest...)...)
			name, mode, rest = "", "", []string{"", "", ""}
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
		{title: "AGE", right: true},
		{title: "OPTIONS"},
	}}
	for _, n := range all {
		subnets, gateways := subnetTexts(n)
		t.add(networkName(n), shortID(n.ID), networkMode(n), or(strings.Join(subnets, ",")), or(strings.Join(gateways, ",")), or(prefixTexts(n.Blocks)),
			strconv.Itoa(n.MTU), strconv.Itoa(n.Endpoints), age(now, n.Created), or(strings.Join(optionTexts(n), ",")))
	}
	return &t
}

func subnetTexts(n api.Network) (subnets, gateways []string) {
	for _, s := range n.Subnets {
		subnets = append(subnets, s.Prefix.String())
		if s.Gateway.IsValid() {
			gateways = append(gateways, s.Gateway.String())
		}
	}
	return subnets, gateways
}

func prefixTexts(all []netip.Prefix) string {
	out := make([]string, 0, len(all))
	for _, p := range all {
		out = append(out, p.String())
	}
	return strings.Join(out, ",")
}

func optionTexts(n api.Network) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(n.Options)) {
		out = append(out, k+"="+n.Options[k])
	}
	return out
}

func newNetworkInspectCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect NETWORK",
		Short: "Show all about one network",
		Long:  "Show all about one network, given by its name, its ID, or the beginning of its ID, with the containers on it.",
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
		if strings.HasPrefix(n.ID, ref) {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return api.Network{}, fmt.Errorf("no network %q of ours on this node; `fairway network ls` lists them", ref)
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
	field("MTU", strconv.Itoa(n.MTU))
	field("Options", strings.Join(optionTexts(n), ", "))
	field("Created", fmt.Sprintf("%s (%s ago)", n.Created.UTC().Format(time.RFC3339), age(a.now(), n.Created)))
	field("Containers", strconv.Itoa(n.Endpoints))
	field("Problem", n.Problem)
	return b.String()
}

// completeNetworks is asked by the shell; without an agent it knows nothing, and says nothing.
func (a *app) completeNetworks(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, err := a.client().Networks(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, n := range all {
		names = append(names, networkName(n))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
