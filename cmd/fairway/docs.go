package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func newDocsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "docs",
		Short:   "Write the reference of all commands as Markdown",
		Long:    "Write the reference of all commands as Markdown, as it stands in docs/commands.md.",
		Example: "  fairway docs > docs/commands.md",
		Args:    cobra.NoArgs,
		Hidden:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(cmd.OutOrStdout(), reference(cmd.Root()))
			return err
		},
	}
}

// reference is docs/commands.md: a section for each command that does something.
func reference(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString("# Commands\n\n<!-- Made by `fairway docs > docs/commands.md`; a test compares. -->\n\n")
	b.WriteString(reflow(root.Long) + "\n\n| command | does |\n|---|---|\n")
	var all []*cobra.Command
	for _, c := range tree(root) {
		if c == root || hidden(c) || c.HasSubCommands() {
			continue
		}
		all = append(all, c)
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", c.CommandPath(), strings.ReplaceAll(c.CommandPath(), " ", "-"), c.Short)
	}
	fmt.Fprintf(&b, "\nEvery command has these flags too:\n\n```\n%s```\n", flagText(root))
	for _, c := range all {
		fmt.Fprintf(&b, "\n## %s\n\n", c.CommandPath())
		if c.Long != "" {
			b.WriteString(c.Long + "\n\n")
		} else {
			b.WriteString(c.Short + ".\n\n")
		}
		fmt.Fprintf(&b, "```\n%s\n\n%s```\n", c.UseLine(), flagText(c))
		if c.Example != "" {
			fmt.Fprintf(&b, "\n```sh\n%s\n```\n", unindent(c.Example))
		}
	}
	return b.String()
}

// hidden says that a command is not for people: it, or one above it, is hidden, or cobra made it.
func hidden(c *cobra.Command) bool {
	for ; c != nil; c = c.Parent() {
		if c.Hidden || c.Name() == "help" {
			return true
		}
	}
	return false
}

// flagText is a command's own flags, and those of the commands above it but for the root's.
func flagText(c *cobra.Command) string {
	c.InitDefaultHelpFlag()
	if c.Root() == c {
		return c.PersistentFlags().FlagUsagesWrapped(screen)
	}
	var b strings.Builder
	b.WriteString(c.NonInheritedFlags().FlagUsagesWrapped(screen))
	for p := c.Parent(); p != nil && p.HasParent(); p = p.Parent() {
		b.WriteString(p.PersistentFlags().FlagUsagesWrapped(screen))
	}
	return b.String()
}

func unindent(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "  ")
	}
	return strings.Join(lines, "\n")
}
