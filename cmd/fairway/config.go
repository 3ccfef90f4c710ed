package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"fairway/internal/config"

	"github.com/spf13/cobra"
)

// configFlags are the flags of commands that read the config: where it is, and the few keys
// that are worth saying on a command line.
type configFlags struct {
	cmd  *cobra.Command
	file string
	keys []string
}

// addConfigFlags gives cmd, and what is below it, the flags of the config.
func addConfigFlags(cmd *cobra.Command) *configFlags {
	f := &configFlags{cmd: cmd, keys: []string{"node.name", "state", "run", "log.level", "log.format"}}
	flags := cmd.PersistentFlags()
	flags.StringVar(&f.file, "config", "", "config `FILE` (default $FAIRWAY_CONFIG or "+config.DefaultPath+")")
	for _, key := range f.keys {
		flags.String(config.FlagName(key), "", "instead of "+key+" in the file")
	}
	return f
}

// load reads the config with the environment and the flags that were given. A file that
// was named has to be there, also in the default place.
func (f *configFlags) load() (*config.Config, error) {
	if f.file != "" {
		if _, err := os.Stat(f.file); err != nil {
			return nil, fmt.Errorf("read config: %w", err)
		}
	}
	given := map[string]string{}
	for _, key := range f.keys {
		if flag := f.cmd.PersistentFlags().Lookup(config.FlagName(key)); flag.Changed {
			given[flag.Name] = flag.Value.String()
		}
	}
	return config.Load(f.file, os.Environ(), given)
}

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check the config, or show the effective settings",
		Args:  cobra.NoArgs,
	}
	flags := addConfigFlags(cmd)
	cmd.AddCommand(newConfigCheckCommand(flags), newConfigShowCommand(flags))
	return cmd
}

func newConfigCheckCommand(flags *configFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say what is wrong with the config, with line and column",
		Long: "Check reads the config as the agent would, with the environment, and lists all that is\n" +
			"wrong. It exits with 1 if anything is.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				flags.file = args[0]
			}
			_, err := flags.load()
			if wrong, ok := errors.AsType[config.Errors](err); ok {
				cmd.PrintErrln(wrong)
				return fmt.Errorf("check config: %d %s", len(wrong), plural(len(wrong), "error", "errors"))
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "ok:", describeSource(flags.file))
			return err
		},
	}
}

// describeSource says which file the config came from.
func describeSource(file string) string {
	if file == "" {
		file = os.Getenv("FAIRWAY_CONFIG")
	}
	if file != "" {
		return file
	}
	if _, err := os.Stat(config.DefaultPath); err != nil {
		return "no " + config.DefaultPath + ", so the defaults and the environment"
	}
	return config.DefaultPath
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func newConfigShowCommand(flags *configFlags) *cobra.Command {
	output := ""
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the effective settings and where each came from",
		Long: "Show lists every setting with its value and its origin: default, file:LINE, env NAME or\n" +
			"flag --NAME. Long values are cut in the table; -o json has them whole.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("show config: -o %q: want table or json", output)
			}
			c, err := flags.load()
			if err != nil {
				return err
			}
			if output == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(c.Settings())
			}
			return writeSettings(cmd.OutOrStdout(), c.Settings())
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "form of the output: table or json")
	return cmd
}

// writeSettings writes a table that fits 80 columns. Keys are never cut.
func writeSettings(w io.Writer, settings []config.Setting) error {
	const columns, gaps, maxOrigin = 80, 4, 24
	key, origin := len("KEY"), len("ORIGIN")
	for _, s := range settings {
		key = max(key, utf8.RuneCountInString(s.Key))
		origin = max(origin, utf8.RuneCountInString(s.Origin))
	}
	origin = min(origin, maxOrigin)
	value := max(columns-gaps-key-origin, len("VALUE"))

	var b strings.Builder
	line := func(k, v, o string) {
		fmt.Fprintf(&b, "%-*s  %-*s  %s\n", key, k, value, cut(v, value), cut(o, origin))
	}
	line("KEY", "VALUE", "ORIGIN")
	for _, s := range settings {
		v := s.Value
		if v == "" {
			v = "-"
		}
		line(s.Key, v, s.Origin)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cut makes a text at most width columns wide, and shows that something is missing.
func cut(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	return string(r[:width-1]) + "…"
}
