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

func newNodeCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "List, drain and remove the nodes of the cluster",
		Long:  "List the nodes of the cluster, drain one before it goes, give back what one held that is gone for good, and join again after that. All but the drain of this node needs a store (store.etcd in fairway.yaml).",
		Example: `  fairway node ls
  fairway node drain
  fairway node rm host3`,
	}
	cmd.AddCommand(newNodeListCommand(a), newNodeDrainCommand(a), newNodeUndrainCommand(a), newNodeRemoveCommand(a), newNodeJoinCommand(a))
	return cmd
}

func newNodeListCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the nodes with their state, blocks and containers",
		Long: `List the nodes of the cluster. The node that is asked has "*" before it.

A node is "alive" while its agent keeps its word in the store, "down" some seconds after it does not, "draining" and then "drained" when it was asked to announce nothing, and "fenced" when it was removed and its agent runs all the same. While the store is unreachable the others are "unknown": that says nothing about their containers.

-o wide adds the second address, what the node is (a route reflector, a plain router), addresses held in static ranges, when it joined, and who drains it.`,
		Example: `  fairway node ls
  fairway node ls -o wide
  fairway node ls -o json`,
		Args: cobra.NoArgs,
	}
	out := addOutput(cmd, formatTable, formatWide, formatJSON)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		all, err := a.client().Nodes(cmd.Context())
		if err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		switch {
		case out.json():
			return writeJSON(w, all)
		case len(all) == 0:
			return say(w, "No nodes: the store has no record of one yet.")
		case out.wide():
			return nodeWideTable(all, a.now()).write(w, painterFor(w))
		}
		return nodeTable(all, a.now()).write(w, painterFor(w))
	}
	return cmd
}

func memberColour(state string) colour {
	switch state {
	case api.MemberAlive:
		return green
	case api.MemberDraining, api.MemberDrained, api.MemberUnknown:
		return yellow
	}
	return red
}

func nodeTable(all []api.Member, now time.Time) *table {
	t := table{columns: []column{
		{title: ""},
		{title: "NAME", least: 8},
		{title: "STATE", colour: memberColour},
		{title: "ADDRESS", least: 15},
		{title: "BLOCKS", right: true},
		{title: "CONTAINERS", right: true},
		{title: "LAST SEEN", right: true},
		{title: "AS", right: true, optional: true},
		{title: "ENGINE", least: 7, optional: true},
		{title: "VERSION", least: 7, optional: true},
	}}
	for _, m := range all {
		t.add(selfMark(m), m.Name, m.State, memberAddress(m), strconv.Itoa(m.Blocks), memberContainers(m), lastSeen(m, now),
			asn(m.ASN), memberEngine(m), or(m.Version))
	}
	return &t
}

func nodeWideTable(all []api.Member, now time.Time) *table {
	t := table{wide: true, columns: []column{
		{title: ""},
		{title: "NAME"},
		{title: "STATE", colour: memberColour},
		{title: "ADDRESSES"},
		{title: "AS", right: true},
		{title: "FABRIC"},
		{title: "BLOCKS", right: true},
		{title: "STATIC", right: true},
		{title: "CONTAINERS", right: true},
		{title: "ENGINE"},
		{title: "VERSION"},
		{title: "LAST SEEN", right: true},
		{title: "JOINED", right: true},
		{title: "ID"},
		{title: "NOTE"},
	}}
	for _, m := range all {
		addrs := memberAddress(m)
		if m.Address.IsValid() && m.Address6.IsValid() {
			addrs += "," + m.Address6.String()
		}
		t.add(selfMark(m), m.Name, m.State, addrs, asn(m.ASN), or(m.Fabric), strconv.Itoa(m.Blocks), strconv.Itoa(m.Addresses),
			memberContainers(m), memberEngine(m), or(m.Version), lastSeen(m, now), age(now, m.Joined), or(shortID(m.ID)), or(memberNote(m, now)))
	}
	return &t
}

func selfMark(m api.Member) string {
	if m.Self {
		return "*"
	}
	return ""
}

func memberAddress(m api.Member) string {
	switch {
	case m.Address.IsValid():
		return m.Address.String()
	case m.Address6.IsValid():
		return m.Address6.String()
	}
	return "-"
}

func memberEngine(m api.Member) string {
	if !m.Docker {
		return "none"
	}
	v, _, _ := strings.Cut(m.Engine, "+") // what a distribution adds says nothing here
	return or(v)
}

// memberContainers is how many there are; of a node that is not heard of nobody knows.
func memberContainers(m api.Member) string {
	switch m.State {
	case api.MemberDown, api.MemberUnknown, api.MemberUnregistered:
		return "-"
	}
	return strconv.Itoa(m.Containers)
}

func lastSeen(m api.Member, now time.Time) string {
	switch m.State {
	case api.MemberAlive, api.MemberDraining, api.MemberDrained:
		return "now"
	}
	return age(now, m.LastSeen)
}

func memberNote(m api.Member, now time.Time) string {
	var parts []string
	if m.RouteReflector {
		parts = append(parts, "route reflector")
	}
	if !m.Docker {
		parts = append(parts, "plain router")
	}
	if d := m.Drain; d != nil {
		parts = append(parts, drainText(*d, now))
	}
	return strings.Join(parts, "; ")
}

// drainText says since when a node drains and who asked for it.
func drainText(d api.Drain, now time.Time) string {
	text := "drain asked for " + age(now, d.Since) + " ago"
	if d.By != "" {
		text += " on " + d.By
	}
	if d.Refuse {
		text += ", new containers are refused"
	}
	return text
}

// completeNodes is asked by the shell; without an agent or a store it knows nothing, and says nothing.
func (a *app) completeNodes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, err := a.client().Nodes(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, m := range all {
		names = append(names, m.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// lines writes texts for people, each wrapped behind its head.
func lines(w io.Writer, head string, all []string) error {
	for _, s := range all {
		if _, err := fmt.Fprint(w, wrap(head, cut(clean(s), longText))); err != nil {
			return err
		}
	}
	return nil
}
