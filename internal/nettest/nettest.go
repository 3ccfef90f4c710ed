// Package nettest gives tests network namespaces of their own. It is for tests only.
//
// Code under test never relies on "the current namespace": it gets a namespace by file descriptor or path, or runs
// inside Namespace.Do. Nothing is left behind in the machine's own namespace.
package nettest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// RequireEnv is the environment variable that, set to 1, turns skipped tests into failures.
const RequireEnv = "FAIRWAY_REQUIRE_NETNS"

// Require skips the test where network namespaces cannot be made, or fails it when FAIRWAY_REQUIRE_NETNS=1.
func Require(tb testing.TB) {
	tb.Helper()
	ns, err := open()
	if err == nil {
		_ = ns.close()
		return
	}
	_ = ns.close()
	if os.Getenv(RequireEnv) == "1" {
		tb.Fatalf("%s=1, but: %v", RequireEnv, err)
	}
	tb.Skipf("needs a network namespace: %v", err)
}

// Namespace is a network namespace that lives until the test ends, with its loopback link up.
type Namespace struct {
	file *os.File
	tb   testing.TB
}

// New makes a namespace. Like Require, it skips or fails the test where that is not possible.
func New(tb testing.TB) *Namespace {
	tb.Helper()
	Require(tb)
	ns, err := open()
	if err != nil {
		tb.Fatalf("make network namespace: %v", err)
	}
	ns.tb = tb
	tb.Cleanup(func() { _ = ns.close() })
	return ns
}

// open makes a namespace: a thread unshares, and ends with its goroutine.
func open() (*Namespace, error) {
	ns := &Namespace{}
	err := onThrowAwayThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare network namespace: %w", err)
		}
		var err error
		if ns.file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		return loopbackUp()
	})
	return ns, err
}

// onThrowAwayThread runs fn on a thread that ends afterwards. It is never the main thread, which cannot end, and whose
// namespaces /proc/self shows as those of the process.
func onThrowAwayThread(fn func() error) (err error) {
	done := make(chan struct{})
	var run func()
	run = func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			go run() // on another thread, as long as this one is held
			<-done
			runtime.UnlockOSThread()
			return
		}
		defer close(done)
		err = fn() // the thread stays locked and ends with its goroutine
	}
	go run()
	<-done
	return err
}

// loopbackUp sets the loopback link of the thread's namespace up.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

func (n *Namespace) close() error {
	if n.file == nil {
		return nil
	}
	return n.file.Close()
}

// FD is the namespace's file descriptor, valid until the test ends.
func (n *Namespace) FD() int { return int(n.file.Fd()) }

// Path is a path by which any thread and command of this user can open the namespace.
func (n *Namespace) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.FD()) }

// Bind mounts the namespace over a new file, as Docker and ip(8) do, until the test ends.
func (n *Namespace) Bind(path string) {
	n.tb.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.tb.Fatalf("bind namespace: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		n.tb.Fatalf("bind namespace: %v", err)
	}
	if err := unix.Mount(n.Path(), path, "", unix.MS_BIND, ""); err != nil {
		n.tb.Fatalf("bind namespace to %s: %v", path, err)
	}
	n.tb.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
}

// Do runs fn on a thread inside the namespace. Goroutines that fn starts are outside. fn must not end the test
// (testing.TB.FailNow), as it runs on another goroutine; it returns an error instead.
func (n *Namespace) Do(fn func() error) error {
	return onThrowAwayThread(func() error {
		if err := unix.Setns(n.FD(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return fn()
	})
}

// Command runs a command inside the namespace and returns its standard output. An error has its standard error.
func (n *Namespace) Command(name string, args ...string) (string, error) {
	return n.command("", name, args...)
}

func (n *Namespace) command(stdin, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	err := n.Do(func() error {
		cmd := exec.Command(name, args...) //nolint:noctx // ends by itself; a test's own time limit ends the rest
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
		return cmd.Run()
	})
	if err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// IP runs ip(8) inside the namespace with the words of the line, and fails the test if that fails.
func (n *Namespace) IP(line string) string {
	n.tb.Helper()
	out, err := n.Command("ip", strings.Fields(line)...)
	if err != nil {
		n.tb.Fatalf("%v", err)
	}
	return out
}

// Batch runs the lines with "ip -batch" inside the namespace, and fails the test if one fails.
func (n *Namespace) Batch(lines string) {
	n.tb.Helper()
	if _, err := n.command(lines, "ip", "-batch", "-"); err != nil {
		n.tb.Fatalf("%v", err)
	}
}

// Veth joins two namespaces by a pair of veths that are up.
func Veth(tb testing.TB, a *Namespace, nameA string, b *Namespace, nameB string) {
	tb.Helper()
	a.IP(fmt.Sprintf("link add %s type veth peer name %s netns %s", nameA, nameB, b.Path()))
	a.IP("link set " + nameA + " up")
	b.IP("link set " + nameB + " up")
}

// Eventually polls until the condition holds, and fails the test with what it said last after ten seconds. A condition
// that holds returns "".
func Eventually(tb testing.TB, cond func() string) {
	tb.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		said := cond()
		if said == "" {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			tick.Stop()
			tb.Fatalf("condition did not come true: %s", said)
			return
		}
	}
}
