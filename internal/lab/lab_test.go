package lab_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"fairway/internal/lab"
	"fairway/internal/lab/rootfs"
	"fairway/internal/nettest"
)

// options are those of a lab without agents, in a directory of its own. The test is skipped, or fails, without root
// and where no root file system is in the cache.
func options(t *testing.T) lab.Options {
	t.Helper()
	nettest.Require(t)
	o := lab.Options{NoAgent: true, Hosts: 2}.Environment(os.Getenv)
	if o.Cache == "" {
		o.Cache = rootfs.DefaultCache
	}
	suites := os.Getenv("FAIRWAY_TEST_ROOTFS")
	if suites == "" {
		suite, err := rootfs.MachineSuite()
		if err != nil {
			t.Fatal(err)
		}
		suites = suite
	}
	o.Rootfs = strings.Split(suites, ",")
	for _, suite := range o.Rootfs {
		if _, ok := (rootfs.Cache{Dir: o.Cache}).Lookup(suite); ok || strings.Contains(suite, "/") {
			continue
		}
		if os.Getenv(nettest.RequireEnv) == "1" {
			t.Fatalf("no root file system of %s in %s; build it with: fairway lab rootfs %s", suite, o.Cache, suite)
		}
		t.Skipf("no root file system of %s in %s; build it with: fairway lab rootfs %s", suite, o.Cache, suite)
	}
	dir, err := os.MkdirTemp("/tmp", "fl") //nolint:usetesting // sockets are in it: a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	o.Dir = filepath.Join(dir, "lab")
	return o
}

// nothingLeft fails the test when there is anything of the lab in dir.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left over: %v", err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("mounts are left over (%v):\n%s", err, mounts)
	}
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range found {
		words, _ := os.ReadFile(file) // it may have ended
		if strings.Contains(string(words), dir) {
			t.Errorf("a process is left over: %q", words)
		}
	}
}

func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestLab(t *testing.T) {
	ctx, o := t.Context(), options(t)
	start := time.Now()
	l, err := lab.Up(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("up after %v", time.Since(start))
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
		nothingLeft(t, o.Dir)
	})
	if _, err := lab.Up(ctx, o); !errors.Is(err, lab.ErrExists) || !strings.Contains(err.Error(), "fairway lab down") {
		t.Errorf("second up: %v", err)
	}
	if l, err = lab.Open(o.Dir); err != nil {
		t.Fatal(err)
	}
	t.Run("hosts", func(t *testing.T) { testHosts(t, l) })
	t.Run("links", func(t *testing.T) { testLinks(t, l) })
	t.Run("engine", func(t *testing.T) { testEngine(t, l) })
	t.Run("add", func(t *testing.T) { testAdd(t, l) })
}

func host(t *testing.T, l *lab.Lab, name string) *lab.Host {
	t.Helper()
	h, err := l.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func testHosts(t *testing.T, l *lab.Lab) {
	t.Helper()
	ctx := t.Context()
	s := l.Status(ctx)
	if !s.OK || len(s.Hosts) != 2 || s.Hosts[0].Engine == "" || s.Hosts[0].Agent != lab.AgentNone {
		t.Errorf("status: %+v", s)
	}
	h := host(t, l, "1")
	if _, err := l.Host("host3"); err == nil || !strings.Contains(err.Error(), "host1 host2") {
		t.Errorf("host that is not there: %v", err)
	}
	output(t, h.Command(ctx, "ping", "-c", "1", "-W", "2", "host2"))
	output(t, h.Command(ctx, "ping", "-6", "-c", "1", "-W", "2", "fd77::12"))
	if out := output(t, h.Command(ctx, "ip", "route", "show", "default")); out != "" {
		t.Errorf("there is a way out: %s", out)
	}
	if out := output(t, h.Docker(ctx, "run", "--rm", rootfs.ImageName, "sh", "-c", "echo $((6*7))")); out != "42" {
		t.Errorf("container said %q", out)
	}
	out := output(t, exec.CommandContext(ctx, "ip", "-o", "link"))
	for _, name := range []string{"host1", "host2", "segment0"} {
		if strings.Contains(out, name) {
			t.Errorf("link %s is in this machine's own network:\n%s", name, out)
		}
	}
}

func testLinks(t *testing.T, l *lab.Lab) {
	t.Helper()
	ctx := t.Context()
	one, two := host(t, l, "host1"), host(t, l, "host2")
	reach := func() bool { return one.Command(ctx, "ping", "-c", "1", "-W", "1", "10.77.0.12").Run() == nil }
	carrier := func() string { return output(t, two.Command(ctx, "cat", "/sys/class/net/eth0/carrier")) }
	for _, c := range []struct {
		set     func() error
		link    string
		carrier string
	}{
		{func() error { return two.SetLink(ctx, false) }, lab.LinkDown, "0"},
		{func() error { return two.SetLink(ctx, true) }, lab.LinkUp, "1"},
		{func() error { return two.Silence(ctx, true) }, lab.LinkSilent, "1"},
		{func() error { return two.Silence(ctx, false) }, lab.LinkUp, "1"},
	} {
		if err := c.set(); err != nil {
			t.Fatal(err)
		}
		if got := l.Status(ctx).Hosts[1].Links["eth0"]; got != c.link {
			t.Errorf("link is %s, want %s", got, c.link)
		}
		if got := carrier(); got != c.carrier {
			t.Errorf("%s: carrier is %s, want %s", c.link, got, c.carrier)
		}
		nettest.Eventually(t, func() string {
			if got, want := reach(), c.link == lab.LinkUp; got != want {
				return c.link + ": reachable is " + strconv.FormatBool(got)
			}
			return ""
		})
	}
}

func testEngine(t *testing.T, l *lab.Lab) {
	t.Helper()
	ctx, h := t.Context(), host(t, l, "host2")
	output(t, h.Docker(ctx, "run", "-d", "--name", "sleeper", "--stop-timeout", "1", rootfs.ImageName, "sleep", "1000"))
	pid := output(t, h.Docker(ctx, "inspect", "-f", "{{.State.Pid}}", "sleeper"))
	for name, stop := range map[string]func(context.Context) error{"stop": h.StopEngine, "kill": h.KillEngine} {
		if err := stop(ctx); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if s := l.Status(ctx); s.OK || !strings.Contains(strings.Join(s.Hosts[1].Trouble, ""), "engine does not answer") {
			t.Errorf("%s: status does not tell: %+v", name, s.Hosts[1])
		}
		output(t, h.Command(ctx, "kill", "-0", pid)) // the container runs on
		if err := h.StartEngine(ctx); err != nil {
			t.Fatalf("start after %s: %v", name, err)
		}
		if got := output(t, h.Docker(ctx, "inspect", "-f", "{{.State.Pid}}", "sleeper")); got != pid {
			t.Errorf("after %s the container is process %s, was %s", name, got, pid)
		}
	}
	if s := l.Status(ctx); s.Hosts[1].Containers != 1 {
		t.Errorf("%d containers, want 1", s.Hosts[1].Containers)
	}
}

func testAdd(t *testing.T, l *lab.Lab) {
	t.Helper()
	ctx := t.Context()
	h, err := l.AddHost(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if h.Name != "host3" || len(l.Hosts()) != 3 {
		t.Errorf("added %s, the lab has %d", h.Name, len(l.Hosts()))
	}
	output(t, host(t, l, "host1").Command(ctx, "ping", "-c", "1", "-W", "2", "host3"))
}

// A lab that is not finished leaves nothing behind.
func TestInterrupted(t *testing.T) {
	for _, step := range []string{"making namespaces", "starting engine", "loading image"} {
		o := options(t)
		ctx, cancel := context.WithCancel(t.Context())
		o.Progress = func(e lab.Event) {
			if e.Step == step {
				cancel()
			}
		}
		if _, err := lab.Up(ctx, o); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: want %v, got %v", step, context.Canceled, err)
		}
		cancel()
		nothingLeft(t, o.Dir)
	}
}

// With two segments, the router carries what goes from one to the other.
func TestTwoSegments(t *testing.T) {
	ctx, o := t.Context(), options(t)
	o.Topology, o.Rootfs = lab.TwoSegments, o.Rootfs[:1]
	l, err := lab.Up(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Down(context.Background(), o.Dir); err != nil {
			t.Error(err)
		}
		nothingLeft(t, o.Dir)
	})
	for _, dst := range []string{"10.77.2.12", "fd77:0:0:2::12"} {
		out := output(t, host(t, l, "host1").Command(ctx, "traceroute", "-n", "-q", "1", dst))
		if strings.Count(out, "\n") != 2 || (!strings.Contains(out, "10.77.1.1 ") && !strings.Contains(out, "fd77:0:0:1::1 ")) {
			t.Errorf("way to %s:\n%s", dst, out)
		}
	}
	if err := l.Router().StartEngine(ctx); err == nil {
		t.Error("the router has an engine")
	}
}
