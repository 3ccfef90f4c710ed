package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"fairway/internal/api"
)

func newIPAMCheckCommand(a *app) *cobra.Command {
	var fix bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Find what is held for nobody",
		Long: `Compare addresses, endpoints and links with what the Docker engine and the kernel have, and list what is held for nobody. --fix ends that. With a store, blocks and explicit addresses are compared with it as well; what they do not agree on the agent settles by itself, or a person has to.

It exits with 1 when something was found and not ended.`,
		Example: `  fairway ipam check
  fairway ipam check --fix
  fairway ipam check -o json`,
		Args: cobra.NoArgs,
	}
	out := addOutput(cmd, formatTable, formatJSON)
	cmd.Flags().BoolVar(&fix, "fix", false, "end what is found")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		leaks, err := a.client().IPAMCheck(cmd.Context(), fix)
		if err != nil {
			return err
		}
		if out.json() {
			err = writeJSON(cmd.OutOrStdout(), leaks)
		} else {
			_, err = fmt.Fprint(cmd.OutOrStdout(), a.leakText(leaks, fix))
		}
		if err == nil && open(leaks) > 0 {
			return errSaid
		}
		return err
	}
	return cmd
}

// open counts the leaks that are still there.
func open(leaks []api.Leak) int {
	n := 0
	for _, l := range leaks {
		if !l.Fixed {
			n++
		}
	}
	return n
}

func (a *app) leakText(leaks []api.Leak, fix bool) string {
	if len(leaks) == 0 {
		return "Nothing is held for nobody.\n"
	}
	var b strings.Builder
	fixable := false
	for _, l := range leaks {
		b.WriteString(wrap("", cut(clean(leakName(l)), longName+20)+", seen for "+age(a.now(), l.SeenSince)))
		b.WriteString(wrap("  ", cut(clean(l.What), longText)))
		switch {
		case l.Error != "":
			b.WriteString(wrap("  ! ", l.Action+": "+l.Error))
		case l.Fixed:
			b.WriteString(wrap("  > ", "done: "+l.Action))
		case l.ByHand:
			b.WriteString(wrap("  - ", l.Action))
		default:
			b.WriteString(wrap("  > ", l.Action))
			fixable = true
		}
	}
	found := fmt.Sprintf("\n%s found", count(len(leaks), "leak"))
	left := open(leaks)
	switch {
	case left == 0:
		return b.String() + found + ", and ended.\n"
	case fix:
		return b.String() + fmt.Sprintf("%s, %d of them not ended.\n", found, left)
	case !fixable:
		return b.String() + found + ".\n"
	}
	return b.String() + found + ". `fairway ipam check --fix` does what stands behind \">\".\n"
}

func leakName(l api.Leak) string {
	parts := []string{l.Kind}
	switch {
	case l.Address.IsValid():
		parts = append(parts, l.Address.String())
	case l.Link != "":
		parts = append(parts, l.Link)
	case l.Endpoint != "":
		parts = append(parts, shortID(l.Endpoint))
	}
	if l.Network != "" {
		parts = append(parts, "of network", shortNetwork(l.Network))
	}
	return strings.Join(parts, " ")
}
