package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"fairway/internal/api"
)

func newNetworkCreateCommand(a *app) *cobra.Command {
	var subnets, gateways, options []string
	var internal, noWait bool
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a network on every node of the cluster",
		Long: `Record a network in the store; every node with Docker makes the Docker network of that name, and so does one that joins later. The flags are those of docker network create; without an IPv4 --subnet the next free subnet of the config's pools is taken. IPv6 is on when there is an IPv6 subnet.

The command waits up to 10 s until every node that is alive has the network, and shows how it stands on each. It exits with 1 when one has it not; what is recorded stays, and the node makes it once it can.`,
		Example: `  fairway network create front --subnet 10.9.0.0/16
  fairway network create back --subnet 10.8.0.0/16 --subnet fd00:8::/64
  fairway network create any -o mtu=1400 --no-wait`,
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringArrayVar(&subnets, "subnet", nil, "`PREFIX` of the network; may be given again")
	f.StringArrayVar(&gateways, "gateway", nil, "`ADDRESS` of the gateway of the subnet that has it (default: the subnet's first address)")
	f.StringArrayVarP(&options, "opt", "o", nil, "option of the network, as `KEY=VALUE`; may be given again")
	f.BoolVar(&internal, "internal", false, "no way out of the network")
	f.BoolVar(&noWait, "no-wait", false, "do not wait for the nodes")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := networkRequest(args[0], subnets, gateways, options)
		if err != nil {
			return err
		}
		req.Internal = internal
		client, w := a.client(), cmd.OutOrStdout()
		if err := client.CreateNetwork(cmd.Context(), req); err != nil {
			return err
		}
		if noWait {
			return say(w, fmt.Sprintf("Recorded: every node makes network %s. `fairway network ls` shows how far they are.", req.Name))
		}
		return a.awaitNetwork(cmd.Context(), w, progressFor(cmd.ErrOrStderr()), req.Name)
	}
	return cmd
}

// networkRequest reads the flags; the agent knows more of what makes sense.
func networkRequest(name string, subnets, gateways, options []string) (api.NetworkRequest, error) {
	req := api.NetworkRequest{Name: name, Options: map[string]string{}}
	for _, text := range subnets {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return req, usagef("--subnet %q: want a prefix, as 10.9.0.0/16 or fd00:9::/64", text)
		}
		req.Subnets = append(req.Subnets, api.Subnet{Prefix: p})
	}
	for _, text := range gateways {
		gw, err := netip.ParseAddr(text)
		if err != nil {
			return req, usagef("--gateway %q: want an address, as 10.9.0.1", text)
		}
		if err := setGateway(req.Subnets, gw); err != nil {
			return req, err
		}
	}
	for _, text := range options {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return req, usagef("--opt %q: want KEY=VALUE, as mtu=1400", text)
		}
		if was, twice := req.Options[key]; twice && was != value {
			return req, usagef("--opt %s is given twice, as %q and %q", key, was, value)
		}
		req.Options[key] = value
	}
	return req, nil
}

func setGateway(subnets []api.Subnet, gw netip.Addr) error {
	for i, s := range subnets {
		if !s.Prefix.Contains(gw) {
			continue
		}
		if s.Gateway.IsValid() {
			return usagef("--gateway %s and %s: subnet %s can have one", s.Gateway, gw, s.Prefix)
		}
		subnets[i].Gateway = gw
		return nil
	}
	return usagef("--gateway %s is in none of the subnets given", gw)
}

// awaitNetwork waits for the nodes that are alive, and shows how the network stands on each.
func (a *app) awaitNetwork(ctx context.Context, w io.Writer, p *progress, name string) error {
	began := a.now()
	var last api.NetworkCluster
	done, err := until(ctx, p, clusterWait, func(ctx context.Context) (bool, string, error) {
		n, err := a.clusterNetwork(ctx, name)
		if err != nil {
			return false, "", err
		}
		if n == nil {
			return false, "waiting for this node to hear of it", nil
		}
		last = *n.Cluster
		ready, all := last.Ready()
		return all > 0 && settled(last), fmt.Sprintf("%s: ready on %d of %s", name, ready, count(all, "node")), nil
	})
	if err != nil {
		return err
	}
	if err := nodesOfNetwork(last.Nodes, a.now()).write(w, painterFor(w)); err != nil {
		return err
	}
	ready, all := last.Ready()
	if err := say(w, fmt.Sprintf("Network %s is ready on %d of %s after %s.", name, ready, count(all, "node"), millis(a.now().Sub(began)))); err != nil {
		return err
	}
	if done && ready == all {
		return nil
	}
	if err := networkTrouble(w, last); err != nil {
		return err
	}
	return errors.Join(errSaid, say(w, "It is recorded, and each node makes it once it can."))
}

// settled says that every node that is alive has said something for good.
func settled(c api.NetworkCluster) bool {
	for _, s := range c.Nodes {
		if s.Alive && s.State != api.NetworkReady && s.State != api.NetworkConflict {
			return false
		}
	}
	return true
}

// networkTrouble says in full what the table may have cut.
func networkTrouble(w io.Writer, c api.NetworkCluster) error {
	for _, s := range c.Nodes {
		if s.Problem == "" {
			continue
		}
		if _, err := io.WriteString(w, note(s.Node, s.Problem)); err != nil {
			return err
		}
	}
	return nil
}

// clusterNetwork finds a network of the cluster; nil when there is none of the name.
func (a *app) clusterNetwork(ctx context.Context, name string) (*api.Network, error) {
	all, err := a.client().Networks(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range all {
		if n.Cluster != nil && n.Cluster.Name == name {
			return &n, nil
		}
	}
	return nil, nil //nolint:nilnil // none of the name is an answer
}
