package main

import (
	"io"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"fairway/internal/api"
)

func newRouteCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "route",
		Short:   "List the routes of this node",
		Long:    "List the routes that this node has made or heard.",
		Example: "  fairway route ls",
	}
	cmd.AddCommand(newRouteListCommand(a))
	return cmd
}

func newRouteListCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls [PREFIX|ADDRESS]",
		Short: "List the routes: to containers, of blocks, learned and static ones",
		Long: `List the routes of this node: to its containers, of its blocks and aggregates (a blackhole that stops loops), the subnets of Docker's bridges that it announces (kind docker; their routes are the kernel's own), and to what other nodes have. With a prefix or an address, only the routes that overlap it.

A route that is in use has "*" before it, one that could not be put into the kernel has "!" and the reason below the table, and one that was heard but not chosen has nothing. A prefix with several ways has a line for each.`,
		Example: `  fairway route ls
  fairway route ls 10.9.2.7
  fairway route ls 10.9.0.0/16 -o wide
  fairway route ls -o json`,
		Args: cobra.MaximumNArgs(1),
	}
	out := addOutput(cmd, formatTable, formatWide, formatJSON)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		only, err := prefixArg(args)
		if err != nil {
			return err
		}
		all, err := a.client().Routes(cmd.Context())
		if err != nil {
			return err
		}
		if only.IsValid() {
			all = overlapping(all, only)
		}
		w := cmd.OutOrStdout()
		switch {
		case out.json():
			return writeJSON(w, all)
		case len(all) == 0 && only.IsValid():
			return say(w, "No route overlaps "+only.String()+".")
		case len(all) == 0:
			return say(w, "No routes.")
		}
		if err := routeTable(all, a.now(), out.wide()).write(w, painterFor(w)); err != nil {
			return err
		}
		return routeNotes(w, all)
	}
	return cmd
}

// prefixArg reads an optional argument that is a prefix or an address; zero when there is none.
func prefixArg(args []string) (netip.Prefix, error) {
	if len(args) == 0 {
		return netip.Prefix{}, nil
	}
	if addr, err := netip.ParseAddr(args[0]); err == nil {
		return netip.PrefixFrom(addr.WithZone(""), addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(args[0])
	if err != nil {
		return netip.Prefix{}, usagef("%q is neither a prefix (10.9.0.0/16) nor an address (10.9.1.2)", args[0])
	}
	return p.Masked(), nil
}

func overlapping(all []api.Route, only netip.Prefix) []api.Route {
	out := []api.Route{}
	for _, r := range all {
		if r.Prefix.Overlaps(only) {
			out = append(out, r)
		}
	}
	return out
}

func routeTable(all []api.Route, now time.Time, wide bool) *table {
	t := table{wide: wide, columns: []column{
		{title: ""},
		{title: "PREFIX"},
		{title: "VIA", least: 15},
		{title: "LINK", least: 14},
		{title: "NODE", least: 4},
		{title: "KIND", optional: true},
		{title: "AGE", right: true, optional: true},
	}}
	if wide {
		t.columns = append(t.columns, column{title: "SOURCE"}, column{title: "PEER"})
	}
	for _, r := range all {
		via := "-"
		switch {
		case r.Via.IsValid():
			via = r.Via.String()
		case r.Link == "" && (r.Kind == "block" || r.Kind == "aggregate"):
			via = "blackhole"
		}
		cells := []string{routeMark(r), r.Prefix.String(), via, or(r.Link), or(r.Node), or(r.Kind), age(now, r.Since)}
		if wide {
			cells = append(cells, or(r.Source), or(r.Peer))
		}
		t.add(cells...)
	}
	return &t
}

func routeMark(r api.Route) string {
	switch {
	case r.Best && r.InKernel:
		return "*"
	case r.Problem != "":
		return "!"
	}
	return ""
}

// routeNotes says once for each prefix what is wrong with it.
func routeNotes(w io.Writer, all []api.Route) error {
	said := make(map[string]bool)
	for _, r := range all {
		text := note(r.Prefix.String(), r.Problem)
		if r.Problem == "" || said[text] {
			continue
		}
		said[text] = true
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	return nil
}
