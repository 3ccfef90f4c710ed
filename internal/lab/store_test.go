package lab_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"fairway/internal/lab"
	"fairway/internal/nettest"
	"fairway/internal/store/etcdtest"
)

// TestStore does to a lab's store what `fairway lab store` can do.
func TestStore(t *testing.T) {
	etcdtest.Require(t)
	ctx, o := t.Context(), options(t)
	o.Topology, o.Store, o.Rootfs = lab.TwoSegments, lab.StoreEtcd, o.Rootfs[:1]
	l, err := lab.Up(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
		nothingLeft(t, o.Dir)
	})
	if l, err = lab.Open(o.Dir); err != nil {
		t.Fatal(err)
	}
	s, one, two := l.Store(), host(t, l, "host1"), host(t, l, "host2")
	if s.Endpoint(one.HostInfo) != "10.77.1.250:2379" || s.Endpoint(two.HostInfo) != "10.77.2.250:2379" {
		t.Errorf("endpoints %s, %s", s.Endpoint(one.HostInfo), s.Endpoint(two.HostInfo))
	}
	etcdctl := func(h *lab.Host, args ...string) (string, error) {
		args = append([]string{"env", "ETCDCTL_API=3", "etcdctl", "--dial-timeout", "1s", "--command-timeout", "1s", "--endpoints", s.Endpoint(h.HostInfo)}, args...)
		out, err := h.NetCommand(ctx, args...).Output()
		return strings.TrimSpace(string(out)), err
	}
	state := func(want string, cut ...string) {
		t.Helper()
		st, err := s.Status(ctx)
		if err != nil || st.State != want || !slices.Equal(st.Cut, cut) {
			t.Errorf("%+v, %v, want %s, cut off from %v", st, err, want, cut)
		}
		if whole := l.Status(ctx); whole.OK != (want == lab.StoreRunning) || whole.Store == nil {
			t.Errorf("status of the lab: %+v", whole)
		}
	}
	value := func(h *lab.Host, want string) {
		t.Helper()
		if got, err := etcdctl(h, "get", "--print-value-only", "k"); err != nil || got != want {
			t.Errorf("%s reads %q, %v; want %q", h.Name, got, err, want)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(v string) {
		t.Helper()
		_, err := etcdctl(one, "put", "k", v)
		do(err)
	}
	state(lab.StoreRunning)
	put("first")
	value(two, "first")

	do(s.Cut(ctx, two))
	do(s.Cut(ctx, two)) // again changes nothing
	state(lab.StoreRunning, "host2")
	if out, err := etcdctl(two, "get", "k"); err == nil {
		t.Errorf("host2 is cut off and reads %q", out)
	}
	value(one, "first")
	output(t, two.Command(ctx, "ping", "-c", "1", "-W", "2", "host1"))
	do(s.Heal(ctx, two))
	if err := s.Heal(ctx, two); err == nil {
		t.Error("healed what was not cut off")
	}
	value(two, "first")

	file := filepath.Join(t.TempDir(), "snapshot.db")
	do(s.Snapshot(ctx, file))
	put("second")
	do(s.Stop(ctx, syscall.SIGKILL))
	state(lab.StoreStopped)
	do(s.Start(ctx))
	value(one, "second")
	do(s.Signal(ctx, syscall.SIGSTOP))
	state(lab.StoreSilent)
	do(s.Signal(ctx, syscall.SIGCONT))
	nettest.Eventually(t, func() string {
		if err := s.Answers(ctx); err != nil {
			return err.Error()
		}
		return ""
	})
	for range 2 { // while it runs, and when it is stopped
		do(s.Restore(ctx, file))
		value(two, "first")
		put("third")
		do(s.Stop(ctx, syscall.SIGTERM))
	}
	do(s.Start(ctx))
	value(one, "third")
	state(lab.StoreRunning)

	words, err := l.ExecArgs("store", []string{"etcdctl", "endpoint", "health"})
	do(err)
	if out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Errorf("%v: %v: %s", words, err, out)
	}
}

func TestStoreRefused(t *testing.T) {
	for want, change := range map[string]func(*lab.Options){
		`"consul" is not "etcd"`: func(o *lab.Options) { o.Store = "consul" },
		"give --store etcd":      func(o *lab.Options) { o.Fabric = "store" },
		"nodes on one segment":   func(o *lab.Options) { o.Store, o.Fabric, o.Topology = lab.StoreEtcd, "store", lab.TwoSegments },
		`"ospf" is neither`:      func(o *lab.Options) { o.Fabric = "ospf" },
	} {
		o := lab.Options{Dir: filepath.Join(t.TempDir(), "lab")}
		change(&o)
		if _, err := lab.Up(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}
