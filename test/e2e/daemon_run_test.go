package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	frrDir   = "/usr/lib/frr/"
	examples = "../../examples/"
)

// needDaemon skips the test when a routing daemon is not installed on this machine, or fails it where it must be.
func needDaemon(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		if os.Getenv("FAIRWAY_REQUIRE_FRR") == "1" {
			t.Fatalf("%s is not installed, and FAIRWAY_REQUIRE_FRR=1 is set", p)
		}
		t.Skipf("%s is not installed", p)
	}
}

// asHost rewrites an example, which is host1's, for another host of two: each is the other's peer.
func asHost(h string, text string) string {
	if h == "host1" {
		return text
	}
	return strings.NewReplacer(
		"10.77.0.11", "10.77.0.12", "10.77.0.12", "10.77.0.11", "host1", "host2", "host2", "host1",
		"10.9.1.0/24", "10.9.2.0/24", "fd09:0:0:1::/64", "fd09:0:0:2::/64",
	).Replace(text)
}

// example reads a file of an example for a host.
func example(t *testing.T, host string, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{examples}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return asHost(host, string(text))
}

// background runs one of this machine's programs in the host's network until the test ends.
func (h *host) background(args ...string) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := h.NetCommand(ctx, args...)
	var out transcript
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		cancel()
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
		if h.t.Failed() {
			h.t.Logf("---- %s: %s:\n%s", h, strings.Join(args, " "), &out)
		}
	})
}

// startFRR runs zebra and the daemons that the example's daemons file names, with its frr.conf.
func (h *host) startFRR(dir string) (show func(words string) string) {
	h.t.Helper()
	run, err := os.MkdirTemp("/tmp", "frr")
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = os.RemoveAll(run) })
	for name, text := range map[string]string{"frr.conf": example(h.t, h.Name, dir, "frr.conf"), "empty.conf": "", "vtysh.conf": ""} {
		if err := os.WriteFile(filepath.Join(run, name), []byte(text), 0o644); err != nil {
			h.t.Fatal(err)
		}
	}
	// FRR drops its privileges, so its directory must be its own.
	local(h.t, "chown", "-R", "frr:frr", run)
	daemons := []string{"zebra"}
	for line := range strings.Lines(example(h.t, h.Name, dir, "daemons")) {
		if name, ok := strings.CutSuffix(strings.TrimSpace(line), "=yes"); ok && name != "vtysh_enable" {
			daemons = append(daemons, name)
		}
	}
	for _, d := range daemons {
		h.background(frrDir+d, "-f", run+"/empty.conf", "-i", run+"/"+d+".pid", "-z", run+"/zserv.api", "--vty_socket", run)
		eventually(h.t, 20*time.Second, func() error { _, err := os.Stat(run + "/" + d + ".vty"); return err })
	}
	vtysh := []string{"vtysh", "--config_dir", run, "--vty_socket", run}
	local(h.t, append(vtysh, "-f", run+"/frr.conf")...)
	return func(words string) string { return local(h.t, append(vtysh, "-c", words)...) }
}

// startBird runs BIRD with the example's bird.conf.
func (h *host) startBird(dir string) (show func(words string) string) {
	h.t.Helper()
	run := h.t.TempDir()
	conf := filepath.Join(run, "bird.conf")
	// No syslog is in the lab.
	text := strings.Replace(example(h.t, h.Name, dir, "bird.conf"), "log syslog", "log stderr", 1)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
	local(h.t, "bird", "-p", "-c", conf)
	h.background("bird", "-f", "-c", conf, "-s", run+"/bird.ctl")
	eventually(h.t, 20*time.Second, func() error { _, err := os.Stat(run + "/bird.ctl"); return err })
	return func(words string) string { return local(h.t, "birdc", "-s", run+"/bird.ctl", words) }
}

// local runs a command on this machine that has to succeed.
func local(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
