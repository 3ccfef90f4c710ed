package rtnl_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
	"fairway/internal/kernel/rtnl"
	"fairway/internal/nettest"
)

// Without a namespace given, a handle is bound to that of the thread that opens it, and works from anywhere.
func TestOpenInOwnNamespace(t *testing.T) {
	ns := nettest.New(t)
	ns.IP("link add up1 type bridge")
	var h *rtnl.Handle
	err := ns.Do(func() (err error) {
		h, err = rtnl.Open(rtnl.Config{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	f, err := h.Facts(t.Context())
	if err != nil || len(f.Links) != 2 || f.Links["up1"].Kind != "bridge" {
		t.Errorf("links %v, error %v", f.Links, err)
	}
	h.Close() // twice is once
	if _, err := h.Links().List(t.Context()); err == nil {
		t.Error("a closed handle lists")
	}
}

func TestOpenFails(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if h, err := rtnl.Open(rtnl.Config{Namespace: int(f.Fd())}); err == nil {
		h.Close()
		t.Error("opened in /dev/null")
	}
	if h, err := rtnl.Open(rtnl.Config{Namespace: 1 << 20}); err == nil || !strings.Contains(err.Error(), "network namespace") {
		h.Close()
		t.Errorf("opened in a closed file: %v", err)
	}
}

// Handles of two namespaces and many goroutines do not get in each other's way.
func TestHandlesTogether(t *testing.T) {
	var wait sync.WaitGroup
	for range 4 {
		h, ns := open(t)
		uplinks(ns)
		s := mustState(t, endpoint)
		wait.Go(func() {
			for range 20 {
				if _, err := apply(t.Context(), h, s); err != nil {
					t.Error(err)
				}
			}
		})
		for range 2 {
			wait.Go(func() {
				for range 20 {
					if f, err := h.Facts(t.Context()); err != nil || len(f.Links) != 5 {
						t.Errorf("%d links, error %v", len(f.Links), err)
					}
					if v, err := h.Sysctls().Read(t.Context(), []string{"net/ipv4/conf/up1/forwarding"}); err != nil || len(v) != 1 {
						t.Errorf("sysctls %v, error %v", v, err)
					}
				}
			})
		}
	}
	wait.Wait()
}

func TestLog(t *testing.T) {
	ns := nettest.New(t)
	var out bytes.Buffer
	h, err := rtnl.Open(rtnl.Config{
		Namespace: ns.FD(),
		Log:       slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	mustApply(t, h, endpoint)
	mustApply(t, h, "")
	for _, want := range []string{
		`op="ip link add fwaaaaaaaaaaaa mtu 1400`, `op="ip addr replace 10.9.0.1/32 dev fwaaaaaaaaaaaa"`,
		`op="ip neigh replace 10.9.0.2 lladdr 02:00:00:00:00:02`, `op="ip route replace blackhole 10.9.0.0/26 proto 200 metric 200"`,
		`op="ip route del 10.9.0.2/32 proto 200 metric 200"`, `op="ip link del fwaaaaaaaaaaaa"`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("not logged: %s", want)
		}
	}
}

func TestSysctlsReadOnly(t *testing.T) {
	ns := nettest.New(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err := os.WriteFile(dir+"/some", []byte("0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	h, err := rtnl.Open(rtnl.Config{Namespace: ns.FD(), ProcSys: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	v, err := h.Sysctls().Read(t.Context(), []string{"some", "other"})
	if err != nil || len(v) != 1 || v["some"] != "0" {
		t.Errorf("read %v, error %v", v, err)
	}
	err = h.Sysctls().Set(t.Context(), "some", "1")
	if !errors.Is(err, unix.EROFS) || !strings.Contains(fmt.Sprint(err), dir+"/some") || !strings.Contains(fmt.Sprint(err), "read-write") {
		t.Errorf("error %v", err)
	}
	for _, key := range []string{"", ".", "/some", "../some", "a/../some", "a//b", "some/"} {
		if err := h.Sysctls().Set(t.Context(), key, "1"); err == nil || !strings.Contains(err.Error(), "want a path") {
			t.Errorf("key %q: error %v", key, err)
		}
	}
}

// Sandboxes are found by path, as Docker mounts them; what is not ready is left out, what is wrong is said.
func TestSandboxesRead(t *testing.T) {
	h, ns := open(t)
	box := nettest.New(t)
	dir := t.TempDir()
	box.Bind(dir + "/box")
	if err := os.WriteFile(dir+"/empty", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	mustApply(t, h, endpoint)
	ns.IP("link set fwpaaa netns " + box.Path() + " name eth0")
	box.IP("link set eth0 up")
	box.IP("addr add 10.9.0.2/32 dev eth0")
	mac := kernel.MAC{2, 0, 0, 0, 0, 2}
	good := kernel.SandboxKey{Path: dir + "/box", MAC: mac}
	keys := []kernel.SandboxKey{
		good, {Path: dir + "/absent", MAC: mac}, {Path: dir + "/empty", MAC: mac}, {Path: dir + "/box", MAC: kernel.MAC{2, 9}},
	}
	got, err := h.Sandboxes().Read(t.Context(), keys)
	if err != nil || len(got) != 1 || len(got[good].Addrs) != 1 || got[good].Addrs[0] != netip.MustParsePrefix("10.9.0.2/32") {
		t.Errorf("read %v, error %v", got, err)
	}
	for _, key := range keys[1:] {
		if err := h.Sandboxes().Set(t.Context(), key, kernel.Sandbox{}); !errors.Is(err, rtnl.ErrNotReady) {
			t.Errorf("%v: error %v", key, err)
		}
	}
	wrong := kernel.SandboxKey{Path: "/proc/self/ns/uts", MAC: mac}
	if _, err := h.Sandboxes().Read(t.Context(), []kernel.SandboxKey{wrong}); err == nil || !strings.Contains(err.Error(), "none of networks") {
		t.Errorf("another kind of namespace: error %v", err)
	}
}
