package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

func TestReference(t *testing.T) {
	compare(t, filepath.Join("..", "..", "docs", "commands.md"), reference(newRoot(&app{now: time.Now})))
}

// Every command says what it does and how it is used, and its help fits the screen.
func TestHelp(t *testing.T) {
	for _, c := range tree(newRoot(&app{now: time.Now})) {
		if hidden(c) {
			continue
		}
		if c.Short == "" || c.HasParent() && !c.HasSubCommands() && c.RunE == nil {
			t.Errorf("%s has no short text or does nothing", c.CommandPath())
		}
		args := strings.Fields(c.CommandPath() + " --help")[1:]
		if passesArgs(c) {
			continue // --help goes to what it starts
		}
		out, errOut, code := command(t, "", args...)
		if code != exitOK || !strings.Contains(out, "Usage:") {
			t.Errorf("%v: exit code %d, %s%s", args, code, out, errOut)
		}
		checkWidth(t, out)
	}
}

func passesArgs(c *cobra.Command) bool { return c.DisableFlagParsing }
