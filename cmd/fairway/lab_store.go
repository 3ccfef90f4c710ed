package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"fairway/internal/lab"
)

// labStoreActions are what can be done to the lab's store, by name.
func labStoreActions() map[string]func(context.Context, *lab.Store) error {
	return map[string]func(context.Context, *lab.Store) error{
		"start":  func(ctx context.Context, s *lab.Store) error { return s.Start(ctx) },
		"stop":   func(ctx context.Context, s *lab.Store) error { return s.Stop(ctx, syscall.SIGTERM) },
		"kill9":  func(ctx context.Context, s *lab.Store) error { return s.Stop(ctx, syscall.SIGKILL) },
		"freeze": func(ctx context.Context, s *lab.Store) error { return s.Signal(ctx, syscall.SIGSTOP) },
		"thaw":   func(ctx context.Context, s *lab.Store) error { return s.Signal(ctx, syscall.SIGCONT) },
	}
}

func newLabStoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "store",
		Short: "Stop, start or restore the lab's store, or cut a host off from it",
		Long:  `The store of a lab that was made with --store etcd: this machine's etcd, in a namespace of its own on the lab's wire.`,
		Example: `  fairway lab store kill9
  fairway lab store start
  fairway lab store snapshot /tmp/before.db
  fairway lab store restore /tmp/before.db
  fairway lab store cut host2
  fairway lab exec store etcdctl get --prefix --keys-only /fairway`,
		Args: cobra.NoArgs,
	}
	for name, short := range map[string]string{
		"start":  "Start the store; its records are as they were",
		"stop":   "Stop the store as a shutdown does",
		"kill9":  "Kill the store",
		"freeze": "Make the store neither answer nor refuse",
		"thaw":   "End freeze",
	} {
		action := labStoreActions()[name]
		cmd.AddCommand(&cobra.Command{
			Use: name, Short: short, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return labStore(cmd, func(ctx context.Context, _ *lab.Lab, s *lab.Store) error { return action(ctx, s) })
			},
		})
	}
	cmd.AddCommand(
		labStoreFile("snapshot", "Write what the store has into a file", (*lab.Store).Snapshot),
		labStoreFile("restore", "Put what a snapshot has in the place of the store", (*lab.Store).Restore),
		labStoreHost("cut", "Lose every packet between the store and a host; all else goes on", (*lab.Store).Cut),
		labStoreHost("heal", "End cut", (*lab.Store).Heal),
		newLabStoreStatusCommand(),
	)
	return cmd
}

// labStore does something with the store of the lab.
func labStore(cmd *cobra.Command, do func(context.Context, *lab.Lab, *lab.Store) error) error {
	l, err := labOpen()
	if err != nil {
		return err
	}
	s := l.Store()
	if s == nil {
		return errors.New("this lab has no store; make one that has with: fairway lab up --store etcd")
	}
	ctx, stop := labContext(cmd)
	defer stop()
	return do(ctx, l, s)
}

func labStoreFile(name, short string, do func(*lab.Store, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use: name + " FILE", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := filepath.Abs(args[0])
			if err != nil {
				return fmt.Errorf("find %s: %w", args[0], err)
			}
			return labStore(cmd, func(ctx context.Context, _ *lab.Lab, s *lab.Store) error { return do(s, ctx, file) })
		},
	}
}

func labStoreHost(name, short string, do func(*lab.Store, context.Context, *lab.Host) error) *cobra.Command {
	return &cobra.Command{
		Use: name + " HOST", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return labStore(cmd, func(ctx context.Context, l *lab.Lab, s *lab.Store) error {
				h, err := l.Host(args[0])
				if err != nil {
					return err
				}
				return do(s, ctx, h)
			})
		},
	}
}

func newLabStoreStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [-o json]",
		Short: "Show the store; exit with 1 when it does not answer",
		Args:  cobra.NoArgs,
	}
	out := addOutput(cmd, formatTable, formatJSON)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return labStore(cmd, func(ctx context.Context, _ *lab.Lab, s *lab.Store) error {
			st, err := s.Status(ctx)
			if err != nil {
				return err
			}
			if out.json() {
				err = writeJSON(cmd.OutOrStdout(), st)
			} else {
				labSay(cmd, "%s\ndata: %s\nlog:  %s\n", st.Text(), st.Data, st.Log)
			}
			if err == nil && st.State != lab.StoreRunning {
				err = errSaid
			}
			return err
		})
	}
	return cmd
}
