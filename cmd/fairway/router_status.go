package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fairway/internal/router"
)

// newRouterStatusCommand shows a router from inside its container.
func newRouterStatusCommand(a *app) *cobra.Command {
	var run string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the router of this container",
		Long: `Show the networks that the router of this container has joined, the containers whose packets it leads, its routes, and the routers of other hosts.

It exits with 1 when something is wrong.`,
		Example: `  docker exec fairway-router fairway router status
  docker exec fairway-router fairway router status -o json`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&run, "run", "/run/fairway", "`DIRECTORY` of the router's status socket")
	out := addOutput(cmd, formatTable, formatJSON)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := router.Ask(cmd.Context(), run)
		if err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		if out.json() {
			err = writeJSON(w, s)
		} else {
			err = writeRouter(w, s, a.now())
		}
		if err == nil && len(s.Problems) > 0 {
			err = errSaid
		}
		return err
	}
	return cmd
}

// writeRouter writes the router's tables.
func writeRouter(w io.Writer, s router.Status, now time.Time) error {
	instance := "instance " + s.Instance
	if s.Instance == "" {
		instance = "no instance name"
	}
	head := fmt.Sprintf("router %s, AS %d, %s, container %s\n", s.RouterID, s.ASN, instance, shortID(s.Container))
	if _, err := io.WriteString(w, head); err != nil {
		return err
	}
	for _, t := range []*table{routerNetworks(s), routerContainers(s), routerRoutes(s), routerPeers(s, now)} {
		if len(t.rows) == 0 {
			continue
		}
		if _, err := io.WriteString(w, "\n"); err != nil {
			return err
		}
		if err := t.write(w, painterFor(w)); err != nil {
			return err
		}
	}
	for _, p := range s.Problems {
		if _, err := io.WriteString(w, note("problem", p)); err != nil {
			return err
		}
	}
	return nil
}

func routerNetworks(s router.Status) *table {
	t := &table{columns: []column{
		{title: "NETWORK", least: 12}, {title: "DRIVER"}, {title: "SUBNETS", least: 14}, {title: "ADDRESSES", least: 11}, {title: "STATE"},
	}}
	for _, n := range s.Networks {
		state := n.State
		if n.Transit {
			state += ", transit"
		}
		t.add(n.Name, n.Driver, texts(n.Subnets), or(texts(n.Addresses)), state)
	}
	return t
}

func routerContainers(s router.Status) *table {
	t := &table{columns: []column{{title: "CONTAINER", least: 20}, {title: "ID"}, {title: "VIA"}, {title: "ROUTES", right: true}}}
	for _, c := range s.Containers {
		t.add(c.Name, shortID(c.ID), c.Via.String(), strconv.Itoa(c.Routes))
	}
	return t
}

func routerRoutes(s router.Status) *table {
	t := &table{columns: []column{{title: "ROUTE"}, {title: "VIA"}, {title: "OF"}}}
	for _, r := range s.Routes {
		t.add(r.Prefix.String(), or(texts(r.Via)), "router")
	}
	for _, r := range s.Host {
		t.add(r.Prefix.String(), or(texts(r.Via)), "host")
	}
	return t
}

func routerPeers(s router.Status, now time.Time) *table {
	t := &table{columns: []column{
		{title: "PEER"},
		{title: "AS", right: true, optional: true},
		{title: "STATE", colour: stateColour},
		{title: "AGE", right: true},
		{title: "BFD", optional: true},
		{title: "RECEIVED", right: true},
		{title: "SENT", right: true},
	}}
	for _, p := range s.Peers {
		t.add(p.Address.String(), asn(p.ASN), p.State, age(now, p.Since), or(p.BFD), strconv.Itoa(p.Received), strconv.Itoa(p.Sent))
	}
	return t
}

func texts[T fmt.Stringer](list []T) string {
	out := make([]string, 0, len(list))
	for _, v := range list {
		out = append(out, v.String())
	}
	return strings.Join(out, ", ")
}
