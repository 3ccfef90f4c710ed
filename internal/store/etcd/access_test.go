package etcd_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fairway/internal/store"
	"fairway/internal/store/etcd"
	"fairway/internal/store/etcdtest"
)

func passwordFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestClientCertificate(t *testing.T) {
	srv, files := etcdtest.StartTLS(t)
	for _, endpoint := range []string{srv.Endpoint(), srv.Address()} {
		s := open(t, etcd.Config{Endpoints: []string{endpoint}, CA: files.CA, Cert: files.ClientCert, Key: files.ClientKey})
		rev := commit(t, s, put("k", endpoint))
		watch := s.Watch(t.Context(), "", rev)
		commit(t, s, put("k", "again"))
		watched(t, watch, 1)
	}
	others := etcdtest.NewCertificates(t, "127.0.0.1")
	for name, cfg := range map[string]etcd.Config{
		"no certificate":               {CA: files.CA},
		"certificate of somebody else": {CA: files.CA, Cert: others.ClientCert, Key: others.ClientKey},
		"server of somebody else":      {CA: others.CA, Cert: files.ClientCert, Key: files.ClientKey},
		"authorities of the system":    {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg.Endpoints = []string{srv.Endpoint()}
			s := open(t, cfg)
			unreachable(t, s, time.Now(), func(ctx context.Context) error {
				_, err := s.Get(ctx, "k")
				if err == nil || !strings.Contains(err.Error(), "tls:") && !strings.Contains(err.Error(), "x509:") {
					t.Errorf("the error does not say what is wrong: %v", err)
				}
				return err
			})
		})
	}
}

func TestUserAndPassword(t *testing.T) {
	srv := etcdtest.Start(t, "--auth-token-ttl", "1")
	srv.EnableAuth("secret", "/fairway/")
	file := passwordFile(t, "secret\r\nignored")
	cfg := etcd.Config{Endpoints: []string{srv.Endpoint()}, User: "fairway", PasswordFile: file}
	s := open(t, cfg)
	rev := commit(t, s, store.Txn{Put: map[string][]byte{"k": []byte("1")}, Live: map[string][]byte{"alive": []byte("1")}})
	watch := s.Watch(t.Context(), "", rev)
	commit(t, s, put("k", "2"))
	watched(t, watch, 1)

	// etcd forgets a token that is not used, and all of them when it restarts.
	idle := time.NewTimer(3 * time.Second)
	defer idle.Stop()
	<-idle.C
	commit(t, s, put("k", "2"))
	srv.Kill()
	srv.Start()
	answers(t, s)
	commit(t, s, put("k", "3"))

	t.Run("password changed", func(t *testing.T) {
		cfg := cfg
		cfg.PasswordFile = passwordFile(t, "wrong")
		s := open(t, cfg)
		denied(t, s, `user "fairway"`, cfg.PasswordFile)
		if err := end(t, s.Watch(t.Context(), "", 0)); !errors.Is(err, store.ErrDenied) {
			t.Errorf("watch: %v", err)
		}
		if err := os.WriteFile(cfg.PasswordFile, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		commit(t, s, put("k", "4"))
	})
	t.Run("other prefix", func(t *testing.T) {
		cfg := cfg
		cfg.Prefix = "/elsewhere"
		s := open(t, cfg)
		denied(t, s, `user "fairway"`, "/elsewhere/")
		if err := end(t, s.Watch(t.Context(), "", 0)); !errors.Is(err, store.ErrDenied) {
			t.Errorf("watch: %v", err)
		}
	})
	t.Run("no user", func(t *testing.T) {
		s := open(t, etcd.Config{Endpoints: cfg.Endpoints})
		denied(t, s, "store.etcd.user", "passwordFile")
	})
	t.Run("role taken away", func(t *testing.T) {
		s := open(t, cfg)
		watch := s.Watch(t.Context(), "", list(t, s, "").Revision)
		commit(t, s, put("k", "5"))
		watched(t, watch, 1)
		srv.Ctl("user", "revoke-role", "fairway", "fairway")
		denied(t, s, `user "fairway"`, "/fairway/")
	})
}

func denied(t *testing.T, s *etcd.Store, hints ...string) {
	t.Helper()
	_, err := s.Commit(t.Context(), put("k", "v"))
	if !errors.Is(err, store.ErrDenied) || errors.Is(err, store.ErrUnreachable) {
		t.Fatalf("%v, want that access is denied", err)
	}
	for _, hint := range hints {
		if !strings.Contains(err.Error(), hint) {
			t.Errorf("%v: it does not say %q", err, hint)
		}
	}
	t.Log(err)
}

func TestOpenRefuses(t *testing.T) {
	files := etcdtest.NewCertificates(t, "127.0.0.1")
	junk := passwordFile(t, "no certificate")
	for name, cfg := range map[string]etcd.Config{
		"no etcd endpoints": {},
		"whole seconds":     {Endpoints: []string{"127.0.0.1:1"}, TTL: 1500 * time.Millisecond},
		"no certificate in": {Endpoints: []string{"127.0.0.1:1"}, CA: junk},
		"write https":       {Endpoints: []string{"http://127.0.0.1:1"}, CA: files.CA},
		"before all":        {Endpoints: []string{"https://127.0.0.1:1", "127.0.0.1:1"}},
		"needs its key":     {Endpoints: []string{"127.0.0.1:1"}, Cert: files.ClientCert},
		"read client certificate": {
			Endpoints: []string{"127.0.0.1:1"}, Cert: files.ClientCert, Key: files.ServerKey,
		},
		"no such file": {Endpoints: []string{"127.0.0.1:1"}, CA: filepath.Join(t.TempDir(), "missing")},
		"first line":   {Endpoints: []string{"127.0.0.1:1"}, User: "u", PasswordFile: passwordFile(t, "\nsecret")},
		`user "u"`:     {Endpoints: []string{"127.0.0.1:1"}, User: "u", PasswordFile: filepath.Join(t.TempDir(), "missing")},
	} {
		if _, err := etcd.Open(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error with %q, got %v", name, err)
		}
	}
}

// TestNothingOnStandardError checks that the libraries keep quiet, and that an outage is logged once.
func TestNothingOnStandardError(t *testing.T) {
	srv := etcdtest.Start(t)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr := os.Stderr
	os.Stderr = writer
	defer func() { os.Stderr = stderr }()
	var logged strings.Builder
	s := open(t, etcd.Config{Endpoints: []string{srv.Endpoint()}, Log: slog.New(slog.NewTextHandler(&logged, nil))})
	rev := commit(t, s, put("k", "v"))
	watch := s.Watch(t.Context(), "", rev)
	commit(t, s, put("k", "v"))
	watched(t, watch, 1)
	srv.Kill()
	end(t, watch)
	for range 2 {
		if _, err := s.Get(t.Context(), "k"); !errors.Is(err, store.ErrUnreachable) {
			t.Errorf("%v", err)
		}
	}
	srv.Start()
	answers(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	os.Stderr = stderr
	writer.Close()
	said := make([]byte, 1<<16)
	if n, _ := reader.Read(said); n != 0 {
		t.Errorf("on standard error: %s", said[:n])
	}
	if lines := strings.Split(strings.TrimSpace(logged.String()), "\n"); len(lines) != 2 ||
		!strings.Contains(lines[0], "does not answer") || !strings.Contains(lines[1], "answers again") {
		t.Errorf("logged:\n%s", logged.String())
	}
}
