package main

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"fairway/internal/api"
)

func newPsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List the containers on our networks with their addresses",
		Long: `List the containers of this node that are on our networks: address, network, the node's end of the link, and the route by which others find the address: "block" when it is inside a block of this node that is announced as one prefix, else its own prefix length. A container whose sandbox is not plugged in shows its state instead.

-o wide adds IDs, the MAC address, the state and since when, and the prefixes announced.`,
		Example: `  fairway ps
  fairway ps -o wide
  fairway ps -o json`,
		Args: cobra.NoArgs,
	}
	out := addOutput(cmd, formatTable, formatWide, formatJSON)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		all, err := a.client().Containers(cmd.Context())
		if err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		switch {
		case out.json():
			return writeJSON(w, all)
		case len(all) == 0:
			return say(w, "No containers on our networks.")
		case out.wide():
			err = a.psWide(all).write(w, painterFor(w))
		default:
			err = psTable(all).write(w, painterFor(w))
		}
		if err != nil {
			return err
		}
		return psNotes(w, all)
	}
	return cmd
}

// containerName is what a person knows a container by.
func containerName(c api.Container) string {
	if c.Name == "" && c.ID == "" {
		return "endpoint " + shortID(c.EndpointID)
	}
	return cmp.Or(c.Name, shortID(c.ID))
}

// psTable has a row for each address; what is the same as above it stays empty.
func psTable(all []api.Container) *table {
	t := table{columns: []column{{title: "CONTAINER", least: 9}, {title: "NETWORK", least: 7}, {title: "ADDRESS"}, {title: "LINK"}, {title: "ROUTE"}}}
	for _, c := range all {
		name, network, link := containerName(c), cmp.Or(c.Network, shortID(c.NetworkID)), c.Link
		for _, addr := range append(append([]netip.Addr{}, c.Addresses...), c.Further...) {
			t.add(name, network, addr.String(), link, routeOf(c, addr))
			name, network, link = "", "", ""
		}
		if name != "" { // no address at all
			t.add(name, network, "-", or(link), c.State)
		}
	}
	return &t
}

// routeOf says by which route others find an address of a container.
func routeOf(c api.Container, addr netip.Addr) string {
	if c.State != "joined" {
		return c.State
	}
	best := api.Announced{}
	for _, a := range c.AnnouncedAs {
		if a.Prefix.Contains(addr) && (!best.Prefix.IsValid() || a.Prefix.Bits() > best.Prefix.Bits()) {
			best = a
		}
	}
	switch {
	case !best.Prefix.IsValid():
		return "-"
	case best.Kind == "block":
		return "block"
	}
	return "/" + strconv.Itoa(best.Prefix.Bits())
}

func (a *app) psWide(all []api.Container) *table {
	t := table{wide: true, columns: []column{
		{title: "CONTAINER"},
		{title: "ID"},
		{title: "NODE"},
		{title: "NETWORK"},
		{title: "ADDRESS"},
		{title: "MAC"},
		{title: "LINK"},
		{title: "STATE"},
		{title: "AGE", right: true},
		{title: "ANNOUNCED"},
	}}
	for _, c := range all {
		var addrs, announced []string
		for _, addr := range append(append([]netip.Addr{}, c.Addresses...), c.Further...) {
			addrs = append(addrs, addr.String())
		}
		for _, p := range c.AnnouncedAs {
			if text := p.Kind + " " + p.Prefix.String(); len(announced) == 0 || announced[len(announced)-1] != text {
				announced = append(announced, text)
			}
		}
		t.add(containerName(c), or(shortID(c.ID)), or(c.Node), cmp.Or(c.Network, shortID(c.NetworkID)), or(strings.Join(addrs, ",")), or(c.MAC), or(c.Link),
			c.State, age(a.now(), c.Since), or(strings.Join(announced, ",")))
	}
	return &t
}

func psNotes(w io.Writer, all []api.Container) error {
	for _, c := range all {
		if c.Problem == "" {
			continue
		}
		if _, err := fmt.Fprint(w, note(containerName(c), c.Problem)); err != nil {
			return err
		}
	}
	return nil
}
