package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"fairway/internal/api"
)

func newPeerCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "peer",
		Short:   "List the sessions with other routers",
		Long:    "List the sessions with other nodes and routers.",
		Example: "  fairway peer ls",
	}
	cmd.AddCommand(newPeerListCommand(a))
	return cmd
}

func newPeerListCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the sessions with their state and prefixes",
		Long: `List the sessions with other nodes and routers: state (RFC 4271, 8.2.2), since when, BFD, prefixes received and sent. Below the table stands why a session that is down last ended.

NODE is the fairway node behind a session, when it is known. -o wide adds its router ID, the prefixes that the import filter refused, and the hold time.`,
		Example: `  fairway peer ls
  fairway peer ls -o wide
  fairway peer ls -o json`,
		Args: cobra.NoArgs,
	}
	out := addOutput(cmd, formatTable, formatWide, formatJSON)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		peers, err := a.client().Peers(cmd.Context())
		if err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		if out.json() {
			return writeJSON(w, peers)
		}
		if len(peers) == 0 {
			return say(w, "No sessions: the config names no peers (bgp.peers), and there is no mesh (bgp.mesh, with a store) with another node in it.")
		}
		t := peerTable(peers, a.now())
		if out.wide() {
			t = peerWideTable(peers, a.now())
		}
		if err := t.write(w, painterFor(w)); err != nil {
			return err
		}
		return peerNotes(w, peers)
	}
	return cmd
}

// say writes one text for people.
func say(w io.Writer, text string) error {
	_, err := io.WriteString(w, wrap("", text))
	return err
}

func stateColour(text string) colour {
	if text == "established" {
		return green
	}
	return red
}

func peerTable(peers []api.Peer, now time.Time) *table {
	t := table{columns: []column{
		{title: "PEER", least: 30},
		{title: "NODE", least: 6, optional: true},
		{title: "AS", right: true, optional: true},
		{title: "STATE", colour: stateColour},
		{title: "AGE", right: true},
		{title: "BFD", optional: true},
		{title: "RECEIVED", right: true},
		{title: "SENT", right: true},
	}}
	for _, p := range peers {
		t.add(p.Name, or(p.Node), asn(p.ASN), p.State, age(now, p.Since), or(p.BFD), strconv.Itoa(p.Received), strconv.Itoa(p.Sent))
	}
	return &t
}

func peerWideTable(peers []api.Peer, now time.Time) *table {
	t := table{wide: true, columns: []column{
		{title: "PEER"},
		{title: "NODE"},
		{title: "ROUTER ID"},
		{title: "LINK"},
		{title: "AS", right: true},
		{title: "STATE", colour: stateColour},
		{title: "AGE", right: true},
		{title: "BFD"},
		{title: "RECEIVED", right: true},
		{title: "REFUSED", right: true},
		{title: "SENT", right: true},
		{title: "HOLD TIME", right: true},
	}}
	for _, p := range peers {
		id := "-"
		if p.RouterID.IsValid() {
			id = p.RouterID.String()
		}
		t.add(p.Name, or(p.Node), id, or(p.Link), asn(p.ASN), p.State, age(now, p.Since), or(p.BFD), strconv.Itoa(p.Received),
			strconv.Itoa(p.Refused), strconv.Itoa(p.Sent), time.Duration(p.HoldTime).String())
	}
	return &t
}

// asn is the number of an autonomous system, which is unknown until an unnumbered peer has told it.
func asn(n uint32) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatUint(uint64(n), 10)
}

// peerNotes says why sessions are down.
func peerNotes(w io.Writer, peers []api.Peer) error {
	for _, p := range peers {
		text := p.Problem
		if text == "" && !p.Established() && p.LastError != "" {
			text = "last ended because: " + p.LastError
		}
		if text == "" {
			continue
		}
		if _, err := fmt.Fprint(w, note(p.Name, text)); err != nil {
			return err
		}
	}
	return nil
}
