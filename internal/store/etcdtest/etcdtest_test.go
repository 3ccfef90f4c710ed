package etcdtest_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"fairway/internal/store/etcdtest"
)

func get(s *etcdtest.Server, key string) string {
	return strings.TrimSpace(s.Ctl("get", "--print-value-only", key))
}

func TestServerComesBack(t *testing.T) {
	s := etcdtest.Start(t)
	s.Ctl("put", "k", "first")
	snap := s.Snapshot()
	s.Ctl("put", "k", "second")
	s.Kill()
	d := net.Dialer{Timeout: time.Second}
	if c, err := d.DialContext(t.Context(), "tcp", s.Address()); err == nil {
		c.Close()
		t.Fatal("it listens though it was killed")
	}
	s.Start()
	if v := get(s, "k"); v != "second" {
		t.Errorf("after kill -9: %q", v)
	}
	s.Stop()
	s.Restore(snap, "")
	if v := get(s, "k"); v != "first" {
		t.Errorf("restored: %q", v)
	}
	s.Pause()
	s.Resume()
	s.Wipe()
	if v := get(s, "k"); v != "" {
		t.Errorf("wiped: %q", v)
	}
}

func TestServerAsksWhoItIs(t *testing.T) {
	s, _ := etcdtest.StartTLS(t)
	s.Ctl("put", "/a/k", "v")
	s.EnableAuth("secret", "/a/")
	if v := get(s, "/a/k"); v != "v" {
		t.Errorf("read %q", v)
	}
}
