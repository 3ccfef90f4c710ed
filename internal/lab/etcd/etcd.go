// Package etcd runs the lab's store: this machine's own etcd, alone in a machine of the lab. It knows nothing of the
// lab's network plan.
package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"fairway/internal/lab/machine"
)

const (
	// Port is where clients connect.
	Port      = 2379
	service   = "etcd"
	member    = "lab"
	local     = "http://127.0.0.1:2379"
	peer      = "http://127.0.0.1:2380"
	dataDir   = "data"
	limit     = 30 * time.Second // for anything that is asked of it
	logLength = 8                // lines of the log that go into an error
)

// Server is an etcd server of one member in a machine. Its data and its log are in Dir, which outlives its ends.
type Server struct {
	Machine   *machine.Machine
	Dir       string   // absolute
	Addresses []string // by which clients reach the machine
}

// Installed says what is missing to run a server on this machine.
func Installed() error {
	for tool, pkg := range map[string]string{"etcd": "etcd-server", "etcdctl": "etcd-client"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("use etcd as store: %w; install it with: apt-get install %s", err, pkg)
		}
	}
	return nil
}

// Log is the path of the server's log.
func (s *Server) Log() string { return filepath.Join(s.Dir, "etcd.log") }

// Start starts the server and returns when it answers.
func (s *Server) Start(ctx context.Context) error {
	var urls []string
	for _, a := range s.Addresses {
		urls = append(urls, fmt.Sprintf("http://%s:%d", a, Port))
	}
	err := s.Machine.StartService(ctx, service, s.Log(), nil, "etcd",
		"--name", member, "--data-dir", filepath.Join(s.Dir, dataDir),
		"--listen-client-urls", fmt.Sprintf("http://0.0.0.0:%d", Port), "--advertise-client-urls", strings.Join(urls, ","),
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", member+"="+peer,
		"--auto-compaction-retention", "1h", "--logger", "zap", "--log-outputs", "stderr", "--log-level", "warn")
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	return s.await(ctx)
}

// await returns when the server answers, or has ended.
func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.Answers(ctx)
		if err == nil {
			return nil
		}
		running, listErr := s.Running(ctx)
		switch {
		case listErr == nil && !running:
			return fmt.Errorf("start etcd: it ended%s", s.logTail())
		case ctx.Err() != nil:
			return fmt.Errorf("start etcd: %w%s", err, s.logTail())
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// logTail is the end of the log, to be put into an error.
func (s *Server) logTail() string {
	data, err := os.ReadFile(s.Log())
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return "\nlast lines of " + s.Log() + ":\n  " + strings.Join(lines[max(0, len(lines)-logLength):], "\n  ")
}

// Running says whether the server runs, be it frozen.
func (s *Server) Running(ctx context.Context) (bool, error) {
	services, err := s.Machine.Services(ctx)
	return services[service].Running, err
}

// Answers asks the server for a sign of life.
func (s *Server) Answers(ctx context.Context) error {
	return s.ctl(ctx, "etcdctl", "--endpoints", local, "--dial-timeout", "1s", "--command-timeout", "2s", "endpoint", "health")
}

// Signal sends a signal to the server. SIGSTOP freezes it: it neither answers nor refuses, until SIGCONT.
func (s *Server) Signal(ctx context.Context, sig syscall.Signal) error {
	return s.Machine.SignalService(ctx, service, sig)
}

// Stop sends a signal that ends the server (SIGTERM, SIGKILL) and waits until it has ended.
func (s *Server) Stop(ctx context.Context, sig syscall.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := s.Signal(ctx, sig); err != nil {
		return fmt.Errorf("stop etcd: %w", err)
	}
	return s.Machine.WaitService(ctx, service)
}

// Snapshot writes what the running server has into a file (absolute), for Restore.
func (s *Server) Snapshot(ctx context.Context, file string) error {
	return s.ctl(ctx, "etcdctl", "--endpoints", local, "snapshot", "save", file)
}

// Restore kills the server, if it runs, and starts it with what the file of a Snapshot has: an older copy, which to
// clients is the same store.
func (s *Server) Restore(ctx context.Context, file string) error {
	fresh, data := filepath.Join(s.Dir, "restored"), filepath.Join(s.Dir, dataDir)
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("restore etcd: %w", err)
	}
	tool := "etcdctl"
	if _, err := exec.LookPath("etcdutl"); err == nil {
		tool = "etcdutl" // from etcd 3.6 on the only one that restores
	}
	err := s.ctl(ctx, tool, "snapshot", "restore", file, "--name", member, "--data-dir", fresh,
		"--initial-cluster", member+"="+peer, "--initial-advertise-peer-urls", peer)
	if err != nil {
		return err
	}
	running, err := s.Running(ctx)
	if err != nil {
		return fmt.Errorf("restore etcd: %w", err)
	}
	if running {
		if err := s.Stop(ctx, syscall.SIGKILL); err != nil {
			return err
		}
	}
	if err := errors.Join(os.RemoveAll(data), os.Rename(fresh, data)); err != nil {
		return fmt.Errorf("restore etcd: %w", err)
	}
	return s.Start(ctx)
}

// ctl runs one of etcd's own tools in the machine's network.
func (s *Server) ctl(ctx context.Context, tool string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := s.Machine.Command(ctx, machine.NetworkOnly, append([]string{tool}, args...)...)
	if cmd.Env != nil {
		cmd.Env = append(cmd.Env, "ETCDCTL_API=3")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", tool, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
