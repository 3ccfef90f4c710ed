package machine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"fairway/internal/lab/machine"
	"fairway/internal/nettest"
)

// TestMain lets the test program be PID 1 of the machines that it makes.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && strings.Join(os.Args[1:3], " ") == machine.InitCommand {
		fmt.Fprintln(os.Stderr, machine.Init(context.Background(), os.Args[3:]))
		os.Exit(1) //nolint:forbidigo // this is main, of PID 1
	}
	os.Exit(m.Run()) //nolint:forbidigo // this is main
}

// newSpec makes the directory and the cgroups of a machine named box, and sees to their end.
func newSpec(t *testing.T) machine.Spec {
	t.Helper()
	nettest.Require(t)
	dir, err := os.MkdirTemp("/tmp", "fl") //nolint:usetesting // sockets are in it: a short path
	if err != nil {
		t.Fatal(err)
	}
	group := "fairway-lab-test-" + filepath.Base(dir)
	groups, err := machine.NewCgroups(group, "box")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := machine.RemoveCgroups(context.Background(), group); err != nil {
			t.Error(err)
		}
		for _, g := range groups {
			if _, err := os.Stat(filepath.Dir(g.Dir)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("cgroup %s is left over: %v", filepath.Dir(g.Dir), err)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return machine.Spec{Name: "box", Dir: dir, Cgroups: groups}
}

func start(t *testing.T, spec machine.Spec) *machine.Machine {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m, err := machine.Start(t.Context(), self, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Kill(context.Background()); err != nil {
			t.Error(err)
		}
		if m.Alive() {
			t.Errorf("%s lives on after it was killed", spec.Name)
		}
	})
	return m
}

func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestServices(t *testing.T) {
	m := start(t, newSpec(t))
	ctx, log := t.Context(), filepath.Join(m.Dir, "log")

	if err := m.StartService(ctx, "echo", log, []string{"WHAT=world"}, "sh", "-c", "echo hello $WHAT; exit 3"); err != nil {
		t.Fatal(err)
	}
	if err := m.WaitService(ctx, "echo"); err != nil {
		t.Fatal(err)
	}
	if out, err := os.ReadFile(log); err != nil || string(out) != "hello world\n" {
		t.Errorf("log: %q, %v", out, err)
	}
	if err := m.StartService(ctx, "sleep", log, nil, "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	if err := m.StartService(ctx, "sleep", log, nil, "sleep", "1000"); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("second start: %v", err)
	}
	if err := m.StartService(ctx, "none", log, nil, "no-such-program"); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("start of nothing: %v", err)
	}
	services, err := m.Services(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if s := services["echo"]; s.Running || s.Status != "exit status 3" {
		t.Errorf("echo: %+v", s)
	}
	if s := services["sleep"]; !s.Running || s.PID < 2 {
		t.Errorf("sleep: %+v", s)
	}
	if err := m.SignalService(ctx, "sleep", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := m.WaitService(ctx, "sleep"); err != nil {
		t.Fatal(err)
	}
	if err := m.SignalService(ctx, "sleep", syscall.SIGKILL); err == nil || !strings.Contains(err.Error(), "not running") {
		t.Errorf("signal to the dead: %v", err)
	}
	if services, err = m.Services(ctx); err != nil || services["sleep"].Status != "signal: killed" {
		t.Errorf("sleep: %+v, %v", services["sleep"], err)
	}
}

// PID 1 inherits what its parents leave behind, and must not keep it as a zombie.
func TestOrphansAreReaped(t *testing.T) {
	m := start(t, newSpec(t))
	run(t, m.Command(t.Context(), machine.Whole, "sh", "-c", "(sleep 0.05 &)"))
	nettest.Eventually(t, func() string {
		out := run(t, m.Command(t.Context(), machine.Whole, "sh", "-c",
			`for f in /proc/[0-9]*/stat; do read -r pid name state rest <"$f"; echo "$name$state"; done`))
		if strings.Contains(out, "sleep") {
			return out
		}
		return ""
	})
}

func TestNetworkOnly(t *testing.T) {
	spec := newSpec(t)
	spec.Sysctls = []machine.Sysctl{
		{Path: "net/ipv4/conf/*/rp_filter", Value: "2"},
		{Path: "net/no/such/setting", Value: "1"},
	}
	m := start(t, spec)
	if out := run(t, m.Command(t.Context(), machine.NetworkOnly, "ip", "-o", "link")); strings.Count(out, "\n") > 0 && !strings.Contains(out, "lo") {
		t.Errorf("links: %s", out)
	}
	if out := run(t, m.Command(t.Context(), machine.NetworkOnly, "hostname")); out != "box" {
		t.Errorf("host name: %q", out)
	}
	if out := run(t, m.Command(t.Context(), machine.Whole, "cat", "/proc/sys/net/ipv4/conf/lo/rp_filter")); out != "2" {
		t.Errorf("rp_filter: %q", out)
	}
}

func TestRootFileSystem(t *testing.T) {
	spec := newSpec(t)
	shared := filepath.Join(spec.Dir, "shared")
	if err := os.Mkdir(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	spec.Rootfs = "/"
	spec.Tmpfs = []string{"/tmp", "/var/lib/thing"}
	spec.Binds = []machine.Bind{{From: shared, To: "/run"}}
	spec.Files = map[string]string{"/etc/resolv.conf": "nameserver 192.0.2.1\n", "/etc/new/file": "new\n"}
	spec.Links = map[string]string{"/etc/link": "new/file"}
	m := start(t, spec)
	inside := func(script string) string {
		return run(t, m.Command(t.Context(), machine.Whole, "sh", "-c", script))
	}
	for script, want := range map[string]string{
		"cat /etc/resolv.conf /etc/link":                           "nameserver 192.0.2.1\nnew",
		"hostname":                                                 "box",
		"echo inside >/run/file; cat /run/file":                    "inside",
		"ls /tmp /var/lib/thing | wc -l":                           "3", // two headings and the line between
		"echo x >/usr/fairway-lab-test; cat /usr/fairway-lab-test": "x",
		"ls /proc/1/cwd/oldroot 2>&1 | grep -c No":                 "1",
		"ls /sys/class/net":                                        "lo",
		"test -w /proc/sys/net/ipv4/ip_forward && echo 1 >/proc/sys/net/ipv4/ip_forward && cat /proc/sys/net/ipv4/ip_forward": "1",
		"echo 5 2>/dev/null >/proc/sys/kernel/printk_delay || echo refused":                                                   "refused",
		// Everything of this process is in the top of what the machine sees of the hierarchies, or in v2 just below.
		"grep -v -e ':/$' -e ':/init$' /proc/self/cgroup | grep -v '^0:' | wc -l": "0",
		"echo >/dev/null && dd if=/dev/zero bs=1 count=1 status=none | wc -c":     "1",
	} {
		if got := inside(script); got != want {
			t.Errorf("%s: got %q, want %q", script, got, want)
		}
	}
	if out, err := os.ReadFile(filepath.Join(shared, "file")); err != nil || string(out) != "inside\n" {
		t.Errorf("shared file outside: %q, %v", out, err)
	}
	if out, err := os.ReadFile(m.Root("/etc/new/file")); err != nil || string(out) != "new\n" {
		t.Errorf("file by its path outside: %q, %v", out, err)
	}
	if _, err := os.Stat("/usr/fairway-lab-test"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file written inside is outside: %v", err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), spec.Dir) {
		t.Errorf("the machine's mounts are outside (%v):\n%s", err, mounts)
	}
}

// The directory is all that is needed to find a machine again.
func TestOpen(t *testing.T) {
	spec := newSpec(t)
	if _, err := machine.Open(spec.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("open of nothing: %v", err)
	}
	m := start(t, spec)
	again, err := machine.Open(spec.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if again.Process != m.Process || !again.Alive() {
		t.Errorf("got %+v, want %+v", again.Process, m.Process)
	}
	other := machine.Process{PID: m.PID, Start: m.Start + 1}
	if other.Alive() {
		t.Error("a process with the same number but another start is taken for it")
	}
	if err := other.Kill(t.Context()); err != nil || !m.Alive() {
		t.Errorf("kill of another process: %v, the machine lives: %v", err, m.Alive())
	}
}

func TestStartFails(t *testing.T) {
	spec := newSpec(t)
	spec.Rootfs = "/no/such/tree"
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := machine.Start(t.Context(), self, spec); err == nil || !strings.Contains(err.Error(), "overlay") {
		t.Errorf("want the reason, got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	spec.Rootfs = ""
	if _, err := machine.Start(ctx, self, spec); !errors.Is(err, context.Canceled) {
		t.Errorf("want %v, got %v", context.Canceled, err)
	}
	if m, err := machine.Open(spec.Dir); err != nil || m.Alive() {
		t.Errorf("it runs all the same (%v)", err)
	}
}

// A maker that is killed before it has noted the machine takes it along: the pipe breaks.
func TestMakerDies(t *testing.T) {
	nettest.Require(t)
	spec := newSpec(t)
	file := filepath.Join(spec.Dir, "machine.json")
	if err := os.WriteFile(file, []byte(`{"name": "box", "dir": "`+spec.Dir+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd := exec.CommandContext(t.Context(), self, append(strings.Fields(machine.InitCommand), file)...)
	cmd.Stderr = &said
	cmd.ExtraFiles = []*os.File{read, read}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = read.Close()
	_ = write.Close() // as the kernel does for the dead
	if err := cmd.Wait(); err == nil || !strings.Contains(said.String(), "is gone") {
		t.Errorf("it ended with %v and said %q", err, said.String())
	}
}

func TestInitIsNotForPeople(t *testing.T) {
	if err := machine.Init(t.Context(), []string{"x"}); err == nil || !strings.Contains(err.Error(), "for the lab itself") {
		t.Errorf("got %v", err)
	}
}
