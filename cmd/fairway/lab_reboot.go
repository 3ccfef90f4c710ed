package main

import (
	"time"

	"github.com/spf13/cobra"
)

// newLabRebootCommand is `fairway lab reboot`.
func newLabRebootCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reboot HOST",
		Short: "Cut a host's power and start it again; only its disk stays",
		Long:  `Cut a host's power and start it again: its processes end at once, and its namespaces, links, routes, rules and /run are made anew, with another boot ID. What stays is its disk, which the hosts of a lab have that was made with --disk. The agent is started before the engine, as its systemd unit has it.`,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := labOpen()
			if err != nil {
				return err
			}
			h, err := l.Host(args[0])
			if err != nil {
				return err
			}
			ctx, stop := labContext(cmd)
			defer stop()
			start := time.Now()
			if err := h.Reboot(ctx); err != nil {
				return err
			}
			labSay(cmd, "%s is back after %.1f s\n", h.Name, time.Since(start).Seconds())
			return nil
		},
	}
}
