package main

import (
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"
)

func newIPAMCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ipam",
		Short: "Show, check and release addresses",
		Long:  "Show who holds which address, find what is held for nobody, and release it.",
		Example: `  fairway ipam show
  fairway ipam check --fix
  fairway ipam release 10.9.1.7`,
	}
	cmd.AddCommand(newIPAMShowCommand(a), newIPAMCheckCommand(a), newIPAMReleaseCommand(a))
	return cmd
}

func newIPAMReleaseCommand(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "release ADDRESS",
		Short: "Release one address",
		Long: `Release one address that is held for nobody. It rests for a while (ipam.holdDown) before it is given out again.

An address whose endpoint is still there is refused: stop its container instead. --force releases it all the same; a container that still uses it loses its route.`,
		Example: `  fairway ipam release 10.9.1.7
  fairway ipam release fd00:9::7 --force`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&force, "force", false, "also when its endpoint is still there")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		addr, err := netip.ParseAddr(args[0])
		if err != nil {
			return usagef("%q is not an address, such as 10.9.1.7 or fd00:9::7", args[0])
		}
		if err := a.client().IPAMRelease(cmd.Context(), addr, force); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "released %s\n", addr)
		return err
	}
	return cmd
}
