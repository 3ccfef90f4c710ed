// Package etcdtest runs real etcd servers of one member for tests. It is for tests only.
//
// Each server listens on an address of its own in 127.0.0.0/8, keeps its data in the test's directory, and is killed when
// the test ends, even if the test binary dies before. It knows nothing of the packages that it is used to test.
package etcdtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// RequireEnv is the environment variable that, set to 1, turns tests skipped for a missing etcd into failures.
const RequireEnv = "FAIRWAY_REQUIRE_FRR"

const (
	patience   = 60 * time.Second
	clientPort = "2379"
	peerPort   = "2380"
	memberName = "test"
)

// Server is an etcd server. Its methods end the test when they fail; they are to be called from one goroutine at a time.
type Server struct {
	tb   testing.TB
	host string // its address of 127.0.0.0/8
	dir  string
	data string // data directory; another one after each Restore
	args []string
	tls  *Certificates
	user string // "name:password" for Ctl, once auth is on
	made int    // restored data directories and snapshots so far

	cmd  *exec.Cmd
	gone chan struct{} // closed when the process of cmd has ended
	log  *bytes.Buffer // of the process of cmd; read it only when gone is closed
}

// Require skips the test where etcd or its tools are not installed, or fails it when FAIRWAY_REQUIRE_FRR=1.
func Require(tb testing.TB) {
	tb.Helper()
	for _, tool := range []string{"etcd", "etcdctl"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv(RequireEnv) == "1" {
				tb.Fatalf("%s=1, but: %v (packages etcd-server and etcd-client)", RequireEnv, err)
			}
			tb.Skipf("needs etcd: %v (packages etcd-server and etcd-client)", err)
		}
	}
}

// Start starts a server that takes requests without TLS from anybody when it returns. Args are further flags of etcd.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	Require(tb)
	s := &Server{tb: tb, host: freeAddress(tb), dir: tb.TempDir(), args: args}
	s.data = filepath.Join(s.dir, "data")
	tb.Cleanup(s.end)
	s.Start()
	return s
}

// freeAddress is an address of this machine on which nobody listens at etcd's ports. Ports of a well-known address could
// be somebody else's by the time the server starts again.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	var lc net.ListenConfig
	for range 100 {
		b := make([]byte, 3)
		_, _ = rand.Read(b) // never fails
		host := fmt.Sprintf("127.%d.%d.%d", 1+b[0]%254, b[1], 1+b[2]%254)
		l, err := lc.Listen(tb.Context(), "tcp", net.JoinHostPort(host, clientPort))
		if err == nil {
			_ = l.Close()
			return host
		}
	}
	tb.Fatal("found no loopback address to listen on")
	return ""
}

// Endpoint is the server's URL for clients. It stays the same over all that happens to the server.
func (s *Server) Endpoint() string { return s.url(clientPort) }

// Address is the server's host:port for clients.
func (s *Server) Address() string { return net.JoinHostPort(s.host, clientPort) }

func (s *Server) url(port string) string {
	scheme := "http"
	if s.tls != nil && port == clientPort {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(s.host, port)
}

// Start starts the server after Stop, Kill or Restore, and waits until it takes requests.
func (s *Server) Start() {
	s.tb.Helper()
	if s.cmd != nil {
		s.tb.Fatal("start etcd: it is running")
	}
	args := append([]string{
		"--name", memberName, "--data-dir", s.data,
		"--listen-client-urls", s.Endpoint(), "--advertise-client-urls", s.Endpoint(),
		"--listen-peer-urls", s.url(peerPort), "--initial-advertise-peer-urls", s.url(peerPort),
		"--initial-cluster", memberName + "=" + s.url(peerPort),
		// Alone, nobody can call an election; and leases of a second are possible.
		"--heartbeat-interval", "10", "--election-timeout", "100",
		"--logger", "zap", "--log-outputs", "stderr",
	}, s.tls.serverArgs()...)
	cmd := exec.CommandContext(context.Background(), "etcd", append(args, s.args...)...) // ended by its methods
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "ETCD_UNSUPPORTED_ARCH=" + runtime.GOARCH}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log := &bytes.Buffer{}
	cmd.Stderr = log
	gone, started := make(chan struct{}), make(chan error)
	go func() {
		// The signal above comes when this thread ends, which must not be before the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(gone)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // killed, mostly
		}
	}()
	if err := <-started; err != nil {
		s.tb.Fatalf("start etcd: %v", err)
	}
	s.cmd, s.gone, s.log = cmd, gone, log
	s.await()
}

// await waits until the server listens; from then on it answers, at the latest when it has elected itself.
func (s *Server) await() {
	s.tb.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	d := net.Dialer{Timeout: time.Second}
	for {
		c, err := d.DialContext(context.Background(), "tcp", s.Address())
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-s.gone:
			s.tb.Fatalf("start etcd: it ended: %s", s.log)
		case <-deadline.C:
			s.tb.Fatalf("start etcd: no answer at %s after %v", s.Address(), patience)
		case <-tick.C:
		}
	}
}

// Stop ends the server as a shutdown does, and waits until it is gone.
func (s *Server) Stop() { s.signal(syscall.SIGTERM); s.wait() }

// Kill ends the server as kill -9 does, and waits until it is gone.
func (s *Server) Kill() { s.signal(syscall.SIGKILL); s.wait() }

// Pause makes the server neither answer nor refuse: its connections stay open, as if the network had lost all packets.
func (s *Server) Pause() {
	s.tb.Helper()
	s.signal(syscall.SIGSTOP)
	// The signal stops a thread at a time; what one of them still answers would be no pause.
	deadline := time.Now().Add(patience)
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
		_, after, _ := strings.Cut(string(stat), ") ")
		if err == nil && strings.HasPrefix(after, "T") {
			return
		}
		if time.Now().After(deadline) {
			s.tb.Fatalf("stop etcd: its state is %q: %v", after, err)
		}
		runtime.Gosched()
	}
}

// Resume ends Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.tb.Helper()
	if s.cmd == nil {
		s.tb.Fatalf("%v for etcd: it is not running", sig)
	}
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.tb.Fatalf("%v for etcd: %v", sig, err)
	}
}

func (s *Server) wait() {
	<-s.gone
	s.cmd = nil
}

// end kills what is left at the end of the test, and shows the log's end if the test failed.
func (s *Server) end() {
	if s.cmd == nil {
		return
	}
	s.Kill()
	if s.tb.Failed() {
		lines := strings.Split(s.log.String(), "\n")
		s.tb.Logf("etcd's last words:\n%s", strings.Join(lines[max(0, len(lines)-20):], "\n"))
	}
}

// Snapshot writes what the running server has into a file for Restore, and returns its path.
func (s *Server) Snapshot() string {
	s.tb.Helper()
	s.made++
	file := filepath.Join(s.dir, fmt.Sprintf("snapshot-%d.db", s.made))
	s.Ctl("snapshot", "save", file)
	return file
}

// Restore kills the server, if it runs, and starts it with the records and the revision of the snapshot. As far as a
// client can tell, it is the same store as before, or, with another token than "", another one.
func (s *Server) Restore(file, token string) {
	s.tb.Helper()
	if s.cmd != nil {
		s.Kill()
	}
	s.made++
	s.data = filepath.Join(s.dir, fmt.Sprintf("restored-%d", s.made))
	args := []string{
		"snapshot", "restore", file, "--name", memberName, "--data-dir", s.data,
		"--initial-cluster", memberName + "=" + s.url(peerPort), "--initial-advertise-peer-urls", s.url(peerPort),
	}
	if token != "" {
		args = append(args, "--initial-cluster-token", token)
	}
	tool := "etcdctl"
	if _, err := exec.LookPath("etcdutl"); err == nil {
		tool = "etcdutl" // from etcd 3.6 on the only one that restores
	}
	s.run(tool, args...)
	s.Start()
}

// Wipe kills the server, if it runs, and starts it without any record, as after the loss of its disk.
func (s *Server) Wipe() {
	s.tb.Helper()
	if s.cmd != nil {
		s.Kill()
	}
	s.made++
	s.data = filepath.Join(s.dir, fmt.Sprintf("wiped-%d", s.made))
	s.Start()
}

// Ctl runs etcdctl against the server and returns what it printed.
func (s *Server) Ctl(args ...string) string {
	s.tb.Helper()
	args = append([]string{"--endpoints", s.Endpoint(), "--command-timeout", "30s", "--dial-timeout", "30s"}, args...)
	if s.user != "" {
		args = append(args, "--user", s.user)
	}
	return s.run("etcdctl", append(args, s.tls.clientArgs()...)...)
}

func (s *Server) run(tool string, args ...string) string {
	s.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "ETCDCTL_API=3"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.tb.Fatalf("%s %s: %v: %s", tool, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// EnableAuth makes the server ask for a user and password: "root" may do all, and "fairway" all below the prefix. Both
// have the password. Ctl is root from then on.
func (s *Server) EnableAuth(password, prefix string) {
	s.tb.Helper()
	s.Ctl("user", "add", "root:"+password)
	s.Ctl("user", "grant-role", "root", "root")
	s.Ctl("role", "add", "fairway")
	s.Ctl("role", "grant-permission", "fairway", "--prefix=true", "readwrite", prefix)
	s.Ctl("user", "add", "fairway:"+password)
	s.Ctl("user", "grant-role", "fairway", "fairway")
	s.Ctl("auth", "enable")
	s.user = "root:" + password
}
