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

	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
)

// space is a network namespace of a test's own.
type space struct {
	h *Handle // only to run things inside
}

// newSpace makes a namespace that is gone at the end of the test.
func newSpace(t testing.TB) space {
	t.Helper()
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
			t.Fatalf("make network namespace: %v", err)
		}
		t.Skipf("make network namespace: %v (root is needed)", err)
	}
	s := space{h: &Handle{ns: fd}}
	t.Cleanup(func() { _ = unix.Close(fd) })
	s.run(t, "ip link set lo up")
	return s
}

func (s space) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.h.ns) }

// run runs lines of commands, each of which must succeed, and returns what they print.
func (s space) run(t testing.TB, lines ...string) string {
	t.Helper()
	var all strings.Builder
	for _, line := range lines {
		out, err := s.try(t, line)
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		all.WriteString(out)
	}
	return all.String()
}

func (s space) try(t testing.TB, line string) (string, error) {
	t.Helper()
	var out []byte
	err := s.h.inside(func() error {
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "sh", "-c", line)
		var err error
		out, err = cmd.CombinedOutput()
		return err
	})
	return string(out), err
}

// open returns a handle on the namespace that runs iptables of a backend ("nft" or "legacy").
func (s space) open(t testing.TB, backend string) *Handle {
	t.Helper()
	c := Config{Namespace: s.h.ns, IPTables: "iptables-" + backend, IP6Tables: "ip6tables-" + backend}
	for _, p := range []string{c.IPTables, c.IP6Tables} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%v", err)
		}
	}
	h, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func wall() kernel.Firewall {
	return kernel.Firewall{Links: []string{"fw*"}, AntiSpoof: true, ClosedTCP: []uint16{179}, ClosedUDP: []uint16{3784}}
}

// apply applies and demands that it then holds and that a second time changes nothing.
func apply(t testing.TB, h *Handle, fw kernel.Firewall) []string {
	t.Helper()
	changed, err := h.Apply(t.Context(), fw)
	if err != nil {
		t.Fatalf("apply: %v (changed %q)", err, changed)
	}
	sound(t, h, fw)
	again, err := h.Apply(t.Context(), fw)
	if err != nil || len(again) > 0 {
		t.Fatalf("second apply changed %q, error %v", again, err)
	}
	return changed
}

func sound(t testing.TB, h *Handle, fw kernel.Firewall) {
	t.Helper()
	ok, missing, err := h.Check(t.Context(), fw)
	if !ok || err != nil || len(missing) > 0 {
		t.Fatalf("check: %v, missing %q, error %v", ok, missing, err)
	}
}

// mended demands that Check finds something missing, and that Apply says it mended what is given.
func mended(t testing.TB, h *Handle, fw kernel.Firewall, want ...string) {
	t.Helper()
	ok, missing, err := h.Check(t.Context(), fw)
	if ok || err != nil || len(missing) == 0 {
		t.Fatalf("check finds nothing: %v, %q, error %v", ok, missing, err)
	}
	changed := apply(t, h, fw)
	for _, w := range want {
		if !slices.ContainsFunc(changed, func(c string) bool { return strings.HasPrefix(c, w) }) {
			t.Fatalf("changed %q, want in it %q", changed, w)
		}
	}
	if len(changed) != len(want) {
		t.Fatalf("changed %q, want %q", changed, want)
	}
}

// eventually polls until a condition holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(10 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}
