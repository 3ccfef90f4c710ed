package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fairway/internal/config"
	"fairway/internal/export"
)

// exportFlags are the flags of fairway export.
type exportFlags struct {
	format string
	router []string // --for
	config string
	output string
}

func newExportCommand(a *app) *cobra.Command {
	var f exportFlags
	var formats []string
	for _, x := range export.Formats() {
		formats = append(formats, string(x))
	}
	cmd := &cobra.Command{
		Use:   "export --format FORMAT",
		Short: "Print the routes for a router without fairway",
		Long: `Print the routes to the containers of all nodes that a router needs which does not run fairway, in the form of the program that keeps its routes. What the nodes have comes from the agent on this machine: its own prefixes, and those that it knows of others; with a store, what each node has by the store's records, reached through that node's address, whatever the fabric. With --config it comes from a config file instead: its nodes:, this node's blocks and part of Docker's bridge, and its routes: with announce.

--for says who the routes are for, and may be given several times: the name of a node, or the router's own address, whose prefixes are then left out. With the length of the subnet (10.77.1.1/24) only next hops inside it are used, and with the name of the link (eth0=10.77.1.1/24) the routes are put under it, which netplan needs. What is left out is said on standard error.

The routes change when blocks come and go. A node's block stays the same as long as the node has it, so this is for hosts whose blocks are set by hand or seldom change; a router that speaks BGP hears of changes by itself.`,
		Example: `  fairway export --format iproute2 | ssh router ip -batch -
  fairway export --format netplan --for eth0=10.77.1.1/24
  fairway export --format frr --config fairway.yaml --for router1 -o fairway.frr`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.format, "format", "", "`FORMAT` of the output: "+list(formats))
	flags.StringArrayVar(&f.router, "for", nil, "`ROUTER` that the routes are for: a node, or [LINK=]ADDRESS[/LENGTH]")
	flags.StringVar(&f.config, "config", "", "take the nodes from this config `FILE` and not from the agent")
	flags.StringVarP(&f.output, "output", "o", "", "write to this `FILE` and not to standard output")
	if err := errors.Join(cmd.MarkFlagRequired("format"), cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))); err != nil {
		panic(err) // the flag was made a few lines above
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !slices.Contains(formats, f.format) {
			return usagef("--format %q: want %s", f.format, list(formats))
		}
		return runExport(cmd, a, f)
	}
	return cmd
}

func runExport(cmd *cobra.Command, a *app, f exportFlags) error {
	router, err := parseRouter(f.router)
	if err != nil {
		return err
	}
	nodes, err := exportNodes(cmd, a, f.config)
	if err != nil {
		return err
	}
	if known := func(n export.Node) bool { return n.Name == router.Name }; router.Name != "" && !slices.ContainsFunc(nodes, known) {
		return usagef("--for %q: is no address, and no node of that name is known; want %s, or [LINK=]ADDRESS[/LENGTH]", router.Name, nodeNames(nodes))
	}
	routes, left := export.Routes(nodes, router)
	text, err := export.Text(export.Format(f.format), routes)
	if errors.Is(err, export.ErrLink) {
		return usagef("%w, as in --for eth0=10.77.1.1/24", err)
	}
	if err != nil {
		return err
	}
	for _, l := range left {
		cmd.PrintErrln("fairway: left out " + l)
	}
	if f.output == "" {
		_, err = fmt.Fprint(cmd.OutOrStdout(), text)
		return err
	}
	mode := os.FileMode(0o644)
	if f.format == string(export.Netplan) {
		mode = 0o600 // netplan warns of files that others may read
	}
	if err := os.WriteFile(f.output, []byte(text), mode); err != nil {
		return fmt.Errorf("write routes: %w", err)
	}
	return nil
}

// exportNodes asks the agent, or reads a config.
func exportNodes(cmd *cobra.Command, a *app, file string) ([]export.Node, error) {
	if file == "" {
		nodes, err := nodesOfAgent(cmd.Context(), a.client(), func(text string) { cmd.PrintErrln("fairway: " + text) })
		if err != nil {
			return nil, fmt.Errorf("%w\nWithout an agent, give the config: --config FILE", err)
		}
		return nodes, nil
	}
	cfg, err := config.Load(file, os.Environ(), nil)
	if err != nil {
		return nil, err
	}
	self := cfg.Node.Name
	if self == "" {
		if self, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("find own name: %w", err)
		}
	}
	return nodesOfConfig(cfg, self), nil
}

// parseRouter reads the values of --for: a node's name, or links.
func parseRouter(values []string) (export.Router, error) {
	var r export.Router
	for _, value := range values {
		name, text, named := strings.Cut(value, "=")
		if !named {
			name, text = "", value
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			var addr netip.Addr
			if addr, err = netip.ParseAddr(text); err == nil {
				prefix = netip.PrefixFrom(addr.WithZone(""), addr.BitLen())
			}
		}
		switch {
		case err == nil:
			r.Links = append(r.Links, export.Link{Name: name, Prefix: prefix})
		case named || text == "":
			return r, usagef("--for %q: want a node, or [LINK=]ADDRESS[/LENGTH] as in eth0=10.77.1.1/24", value)
		case r.Name != "":
			return r, usagef("--for %q: the router is %q already", value, r.Name)
		default:
			r.Name = text
		}
	}
	return r, nil
}

func nodeNames(nodes []export.Node) string {
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	if len(names) == 0 {
		return "a node"
	}
	return "one of " + strings.Join(slices.Compact(names), ", ")
}
