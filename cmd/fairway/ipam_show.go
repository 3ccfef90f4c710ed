package main

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"

	"github.com/spf13/cobra"

	"fairway/internal/api"
)

func newIPAMShowCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show [PREFIX|ADDRESS]",
		Short: "Show pools, blocks, and who holds which address",
		Long: `Show the pools with this node's blocks of them and how full they are, and who holds which address since when. With a prefix or an address, only what overlaps it.

With a store, the blocks of the other nodes are listed too, with their holders, and so are the explicit addresses that the others hold; what is in a block of another node, that node tells.

USED is the share of the addresses that this node may ever give out from the pool; HELD, RESTING and FREE count those in its blocks. A resting address was released lately and is not given out yet.`,
		Example: `  fairway ipam show
  fairway ipam show 10.9.1.7
  fairway ipam show -o wide
  fairway ipam show -o json`,
		Args: cobra.MaximumNArgs(1),
	}
	out := addOutput(cmd, formatTable, formatWide, formatJSON)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		only, err := prefixArg(args)
		if err != nil {
			return err
		}
		book, err := a.client().IPAM(cmd.Context())
		if err != nil {
			return err
		}
		if only.IsValid() {
			book = within(book, only)
		}
		w := cmd.OutOrStdout()
		switch {
		case out.json():
			return writeJSON(w, book)
		case len(book.Pools) == 0 && len(book.Holdings) == 0:
			return say(w, "No pools, and no addresses held.")
		}
		return a.writeBook(w, book, out.wide())
	}
	return cmd
}

func within(book api.IPAM, only netip.Prefix) api.IPAM {
	out := api.IPAM{Pools: []api.Pool{}, Holdings: []api.Holding{}}
	for _, p := range book.Pools {
		if !p.CIDR.Overlaps(only) {
			continue
		}
		blocks := []api.Block{}
		for _, b := range p.List {
			if b.CIDR.Overlaps(only) {
				blocks = append(blocks, b)
			}
		}
		p.List = blocks
		out.Pools = append(out.Pools, p)
	}
	for _, h := range book.Holdings {
		if only.Contains(h.Address) {
			out.Holdings = append(out.Holdings, h)
		}
	}
	return out
}

func (a *app) writeBook(w io.Writer, book api.IPAM, wide bool) error {
	p := painterFor(w)
	if len(book.Pools) > 0 {
		if err := a.poolTable(book.Pools, wide).write(w, p); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	if len(book.Holdings) == 0 {
		return say(w, "No addresses held.")
	}
	if err := a.holdingTable(book.Holdings, wide).write(w, p); err != nil {
		return err
	}
	for _, pool := range book.Pools {
		for _, b := range pool.List {
			if b.Problem == "" {
				continue
			}
			if _, err := io.WriteString(w, note(b.CIDR.String(), b.Problem)); err != nil {
				return err
			}
		}
	}
	return nil
}

// poolTable has a row for each pool, and below it one for each block of this node.
func (a *app) poolTable(pools []api.Pool, wide bool) *table {
	t := table{wide: wide, columns: []column{
		{title: "POOL"},
		{title: "NETWORK", least: 7},
		{title: "HELD", right: true},
		{title: "RESTING", right: true},
		{title: "FREE", right: true},
		{title: "USED", right: true},
		{title: "NODE", least: 6, optional: true},
		{title: "BLOCK FROM", optional: true},
	}}
	if wide {
		t.columns = append(t.columns, column{title: "CLAIMED", right: true}, column{title: "AGE", right: true})
	}
	add := func(more []string, cells ...string) {
		if wide {
			cells = append(cells, more...)
		}
		t.add(cells...)
	}
	for _, p := range pools {
		cells := append([]string{p.CIDR.String(), or(shortNetwork(p.Network))}, usage(p.PoolUsage)...)
		add([]string{claimedText(p), ""}, append(cells, "", "")...)
		for _, b := range p.List {
			add([]string{"", age(a.now(), b.Since)}, append([]string{"  " + b.CIDR.String(), ""}, blockCells(b)...)...)
		}
	}
	return &t
}

// claimedText is how many of the blocks that there are the nodes have together.
func claimedText(p api.Pool) string {
	if p.Most == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %s", p.Claimed, many(p.Most))
}

// blockCells are what is in a block, whose it is and why; what is in another node's is not known here.
func blockCells(b api.Block) []string {
	if b.Away {
		return []string{"-", "-", "-", "-", or(b.Node), b.Origin}
	}
	share := "-"
	if all := b.Held + b.Resting + b.Free; all > 0 {
		share = percent(float64(b.Held+b.Resting) / float64(all))
	}
	return []string{strconv.Itoa(b.Held), strconv.Itoa(b.Resting), many(b.Free), share, or(b.Node), b.Origin}
}

// shortNetwork cuts a network's ID, which stands where the name is unknown. A Docker ID has 64 digits.
func shortNetwork(s string) string {
	if len(s) == 64 {
		return shortID(s)
	}
	return s
}

func (a *app) holdingTable(all []api.Holding, wide bool) *table {
	t := table{wide: wide, columns: []column{
		{title: "ADDRESS"}, {title: "KIND"}, {title: "HELD BY", least: 9}, {title: "NETWORK", least: 7}, {title: "AGE", right: true},
	}}
	if wide {
		t.columns = append(t.columns, column{title: "NODE"}, column{title: "ENDPOINT"}, column{title: "GENERATION", right: true})
	}
	for _, h := range all {
		cells := []string{h.Address.String(), h.Kind, a.holder(h), or(shortNetwork(h.Network)), age(a.now(), h.Since)}
		if wide {
			cells = append(cells, or(h.Node), or(h.Endpoint), strconv.FormatUint(h.Generation, 10))
		}
		t.add(cells...)
	}
	return &t
}

func (a *app) holder(h api.Holding) string {
	switch {
	case h.State == "resting" && h.RestingUntil.After(a.now()):
		return "resting, " + short(h.RestingUntil.Sub(a.now())) + " left"
	case h.State == "resting":
		return "resting"
	case h.Away:
		return h.Node + "'s endpoint " + or(shortID(h.Endpoint))
	case h.Container != "":
		return shortNetwork(h.Container)
	case h.Endpoint != "":
		return "endpoint " + shortID(h.Endpoint)
	}
	return "-"
}
