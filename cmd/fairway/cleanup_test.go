package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"fairway/internal/agent"
	"fairway/internal/api"
)

func TestCleanup(t *testing.T) {
	ours := []string{"route 10.9.0.3/32 dev fwa1b2c3d4e5f6", "link fwa1b2c3d4e5f6 fairway:0f3a/a1b2"}
	for _, tt := range []struct {
		name, args, typed string
		have              []string
		err               error
		out               string
		removed           bool
		code              int
	}{
		{"yes", "--yes", "", ours, nil, "removed " + ours[0] + "\nremoved " + ours[1] + "\n", true, 0},
		{"look", "--dry-run", "", ours, nil, "would remove " + ours[0] + "\nwould remove " + ours[1] + "\n", false, 0},
		{"nothing", "--yes", "", nil, nil, "Nothing of ours is in the kernel.\n", true, 0},
		{"asked, yes", "", "yes\n", ours, nil, "would remove " + ours[0] + "\nwould remove " + ours[1] + "\nRemove all of this? Type yes: removed " + ours[0] + "\nremoved " + ours[1] + "\n", true, 0},
		{"asked, no", "", "n\n", ours[:1], nil, "would remove " + ours[0] + "\nRemove it? Type yes: ", false, 1},
		{"nobody there", "", "", ours[:1], nil, "would remove " + ours[0] + "\nRemove it? Type yes: ", false, 1},
		{"some fail", "--yes", "", ours[:1], errors.New("delete link fwb: busy"), "removed " + ours[0] + "\n", true, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			removed := false
			clean := func(_ context.Context, opt agent.CleanupOptions) ([]string, error) {
				if opt.Config.Run != dir || opt.Log == nil {
					t.Errorf("asked with the run directory %q and the log %v", opt.Config.Run, opt.Log)
				}
				removed = removed || !opt.DryRun
				return tt.have, tt.err
			}
			out, errOut, code := cleanupWith(t, clean, tt.typed, append(strings.Fields(tt.args), "--run", dir)...)
			if out != tt.out || code != tt.code || removed != tt.removed {
				t.Errorf("got %q, exit code %d, removed %v; want %q, %d, %v; on standard error: %s", out, code, removed, tt.out, tt.code, tt.removed, errOut)
			}
		})
	}
}

// cleanupWith runs the command without the machine's own config.
func cleanupWith(t *testing.T, clean cleaner, typed string, args ...string) (out, errOut string, code int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "fairway.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FAIRWAY_CONFIG", file)
	root := &cobra.Command{Use: "fairway", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(cleanupCommand(&app{now: time.Now}, clean))
	var o, e bytes.Buffer
	root.SetOut(&o)
	root.SetErr(&e)
	root.SetIn(strings.NewReader(typed))
	code = run(t.Context(), root, append([]string{"cleanup"}, args...))
	return o.String(), e.String(), code
}

func TestCleanupRefusesWhileAnAgentRuns(t *testing.T) {
	socket := serve(t, usual())
	if filepath.Base(socket) != api.SocketName {
		t.Fatalf("socket %s", socket)
	}
	clean := func(context.Context, agent.CleanupOptions) ([]string, error) {
		t.Error("cleaned while an agent runs")
		return nil, nil
	}
	_, errOut, code := cleanupWith(t, clean, "", "--yes", "--run", filepath.Dir(socket))
	if code != exitBad || !strings.Contains(errOut, "stop it first, with `systemctl stop fairway`") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
}
