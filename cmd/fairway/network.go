package main

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fairway/internal/api"
)

func newNetworkCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "network",
		Short: "Make, list, inspect and remove networks",
		Long: `Make and remove networks of the cluster, which every node has, and list and inspect all Docker networks of our driver.

A network of one node is made by Docker: docker network create -d fairway.`,
		Example: `  fairway network create front --subnet 10.9.0.0/16
  fairway network ls
  fairway network inspect front`,
	}
	cmd.AddCommand(newNetworkCreateCommand(a), newNetworkListCommand(a), newNetworkInspectCommand(a), newNetworkRemoveCommand(a))
	return cmd
}

func networkName(n api.Network) string { return cmp.Or(n.Name, shortID(n.ID)) }

func networkMode(n api.Network) string {
	if n.Internal {
		return n.Mode + ", internal"
	}
	return n.Mode
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

func prefixTexts(all []netip.Prefix) string { return strings.Join(prefixList(all), ",") }

func prefixList(all []netip.Prefix) []string {
	out := make([]string, 0, len(all))
	for _, p := range all {
		out = append(out, p.String())
	}
	return out
}

func optionTexts(n api.Network) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(n.Options)) {
		out = append(out, k+"="+n.Options[k])
	}
	return out
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
