package nft

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"fairway/internal/kernel"

	"golang.org/x/sys/unix"
)

// space is a network namespace of a test's own.
type space struct {
	h *Handle // only to run things inside
}

// newSpace makes a namespace that is gone at the end of the test.
func newSpace(tb testing.TB) space {
	tb.Helper()
	made := make(chan error, 1)
	var fd int
	go func() {
		runtime.LockOSThread() // and never unlocked
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- err
			return
		}
		var err error
		fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		made <- err
	}()
	if err := <-made; err != nil {
		if os.Getenv("FAIRWAY_REQUIRE_NETNS") != "" {
			tb.Fatalf("make network namespace: %v", err)
		}
		tb.Skipf("make network namespace: %v (root is needed)", err)
	}
	s := space{h: &Handle{ns: fd}}
	tb.Cleanup(func() { _ = unix.Close(fd) })
	s.run(tb, "ip link set lo up")
	return s
}

func (s space) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.h.ns) }

// run runs lines of commands, each of which must succeed, and returns what they print.
func (s space) run(tb testing.TB, lines ...string) string {
	tb.Helper()
	var all strings.Builder
	for _, line := range lines {
		out, err := s.try(tb, line)
		if err != nil {
			tb.Fatalf("%s: %v\n%s", line, err, out)
		}
		all.WriteString(out)
	}
	return all.String()
}

func (s space) try(tb testing.TB, line string) (string, error) {
	tb.Helper()
	var out []byte
	err := s.h.inside(func() error {
		cmd := exec.CommandContext(context.WithoutCancel(tb.Context()), "sh", "-c", line)
		var err error
		out, err = cmd.CombinedOutput()
		return err
	})
	return string(out), err
}

// open returns a handle on the namespace that runs iptables of a backend ("nft" or "legacy").
func (s space) open(tb testing.TB, backend string) *Handle {
	tb.Helper()
	c := Config{Namespace: s.h.ns, IPTables: "iptables-" + backend, IP6Tables: "ip6tables-" + backend}
	for _, p := range []string{c.IPTables, c.IP6Tables} {
		if _, err := exec.LookPath(p); err != nil {
			tb.Skipf("%v", err)
		}
	}
	h, err := Open(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(h.Close)
	return h
}

func wall() kernel.Firewall {
	return kernel.Firewall{Links: []string{"fw*"}, AntiSpoof: true, ClosedTCP: []uint16{179}, ClosedUDP: []uint16{3784}}
}

// apply applies and demands that it then holds and that a second time changes nothing.
func apply(tb testing.TB, h *Handle, fw kernel.Firewall) []string {
	tb.Helper()
	changed, err := h.Apply(tb.Context(), fw)
	if err != nil {
		tb.Fatalf("apply: %v (changed %q)", err, changed)
	}
	sound(tb, h, fw)
	again, err := h.Apply(tb.Context(), fw)
	if err != nil || len(again) > 0 {
		tb.Fatalf("second apply changed %q, error %v", again, err)
	}
	return changed
}

func sound(tb testing.TB, h *Handle, fw kernel.Firewall) {
	tb.Helper()
	ok, missing, err := h.Check(tb.Context(), fw)
	if !ok || err != nil || len(missing) > 0 {
		tb.Fatalf("check: %v, missing %q, error %v", ok, missing, err)
	}
}

// mended demands that Check finds something missing, and that Apply says it mended what is given.
func mended(tb testing.TB, h *Handle, fw kernel.Firewall, want ...string) {
	tb.Helper()
	ok, missing, err := h.Check(tb.Context(), fw)
	if ok || err != nil || len(missing) == 0 {
		tb.Fatalf("check finds nothing: %v, %q, error %v", ok, missing, err)
	}
	changed := apply(tb, h, fw)
	for _, w := range want {
		if !slices.ContainsFunc(changed, func(c string) bool { return strings.HasPrefix(c, w) }) {
			tb.Fatalf("changed %q, want in it %q", changed, w)
		}
	}
	if len(changed) != len(want) {
		tb.Fatalf("changed %q, want %q", changed, want)
	}
}

// eventually polls until a condition holds.
func eventually(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(10 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			tb.Fatalf("not within 10 s: %s", what)
		}
	}
}
