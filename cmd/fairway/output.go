package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// format is the value of -o; it refuses what its command does not have.
type format struct {
	value   string
	allowed []string
}

const (
	formatTable = "table"
	formatWide  = "wide"
	formatJSON  = "json"
)

// addOutput gives cmd the flag -o with the forms it has, the default first.
func addOutput(cmd *cobra.Command, allowed ...string) *format {
	f := &format{value: allowed[0], allowed: allowed}
	cmd.Flags().VarP(f, "output", "o", "form of the output: "+list(allowed))
	if err := cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(allowed, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag was made a line above
	}
	return f
}

func list(all []string) string {
	if len(all) < 2 {
		return strings.Join(all, "")
	}
	return strings.Join(all[:len(all)-1], ", ") + " or " + all[len(all)-1]
}

// String is the form chosen.
func (f *format) String() string { return f.value }

// Set takes one of the forms allowed.
func (f *format) Set(s string) error {
	if !slices.Contains(f.allowed, s) {
		return fmt.Errorf("want %s", list(f.allowed))
	}
	f.value = s
	return nil
}

// Type names the value in help.
func (f *format) Type() string { return "FORM" }

func (f *format) json() bool { return f.value == formatJSON }
func (f *format) wide() bool { return f.value == formatWide }

// writeJSON writes a value for programs, indented for people who look all the same.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
