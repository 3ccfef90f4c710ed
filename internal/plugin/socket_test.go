package plugin

import (
	"bufio"
	"context"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// served is a server at its socket.
type served struct {
	*Server
	log  *logText
	path string
	stop context.CancelFunc
	done chan error
}

func newServer(t *testing.T, dir string) *served {
	t.Helper()
	s := &served{log: &logText{}, path: filepath.Join(dir, "fairway.sock"), done: make(chan error, 1)}
	s.Server = New(Config{Name: "fairway", Dir: dir, Log: slog.New(slog.NewTextHandler(s.log, nil))})
	return s
}

func start(t *testing.T, dir string) *served {
	t.Helper()
	s := newServer(t, dir)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, s.stop = context.WithCancel(t.Context())
	go func() { s.done <- s.Serve(ctx) }()
	t.Cleanup(s.stop)
	return s
}

// end stops the server and returns how long it took.
func (s *served) end(t *testing.T) time.Duration {
	t.Helper()
	begin := time.Now()
	s.stop()
	select {
	case err := <-s.done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Serve does not end")
	}
	return time.Since(begin)
}

func post(t *testing.T, path, method, body string) (string, error) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://plugin.moby.localhost/"+method, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func TestSocket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "plugins")
	s := start(t, dir)
	fi, err := os.Lstat(s.path)
	if err != nil || fi.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("socket %v %v", fi.Mode(), err)
	}
	// The engine takes every other socket here for a plugin.
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("in the plugin directory: %v %v", entries, err)
	}
	if got, err := post(t, s.path, "Plugin.Activate", ""); err != nil || got != `{"Implements":["NetworkDriver","IpamDriver"]}`+"\n" {
		t.Errorf("%s %v", got, err)
	}
	if d := s.end(t); d > time.Second {
		t.Errorf("an idle server took %s to stop", d)
	}
	if _, err := os.Lstat(s.path); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

// Engine 20.10 sends an empty Host, and keeps its connection.
func TestEmptyHost(t *testing.T) {
	s := start(t, t.TempDir())
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for _, body := range []string{"", `{"NetworkID":"` + netA + `","EndpointID":"` + ep1 + `"}`} {
		req := "POST /NetworkDriver.EndpointOperInfo HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: " +
			strconv.Itoa(len(body)) + "\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\r\n" + body
		if _, err := io.WriteString(conn, req); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || resp.Close {
			t.Errorf("%v %s %v", resp.Status, b, err)
		}
		resp.Body.Close()
	}
}

// An agent that was killed left its socket; the next one replaces it.
func TestStaleSocket(t *testing.T) {
	dir := t.TempDir()
	var lc net.ListenConfig
	old, err := lc.Listen(t.Context(), "unix", filepath.Join(dir, "fairway.sock"))
	if err != nil {
		t.Fatal(err)
	}
	old.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	s := start(t, dir)
	if _, err := post(t, s.path, "Plugin.Activate", ""); err != nil {
		t.Error(err)
	}
}

func TestSocketTaken(t *testing.T) {
	dir := t.TempDir()
	first := start(t, dir)
	err := newServer(t, dir).Listen()
	if err == nil || !strings.Contains(err.Error(), "is served by process ") || !strings.Contains(err.Error(), first.path) {
		t.Errorf("second: %v", err)
	}
	if _, err := post(t, first.path, "Plugin.Activate", ""); err != nil {
		t.Errorf("the first does not answer any more: %v", err)
	}
	for name, put := range map[string]func(string) error{
		"file":      func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"fifo":      func(p string) error { return syscall.Mkfifo(p, 0o600) },
	} {
		dir := t.TempDir()
		if err := put(filepath.Join(dir, "fairway.sock")); err != nil {
			t.Fatal(err)
		}
		if err := newServer(t, dir).Listen(); err == nil || !strings.Contains(err.Error(), "something else of that name") {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := newServer(t, long).Listen(); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("long path: %v", err)
	}
	if err := New(Config{Name: "../x", Dir: t.TempDir()}).Listen(); err == nil {
		t.Error("a name with a slash is accepted")
	}
	if err := New(Config{Name: "x", Dir: t.TempDir()}).Serve(t.Context()); err == nil {
		t.Error("Serve without Listen")
	}
}

// An agent that is replaced leaves the socket of its successor alone.
func TestNewerSocketStays(t *testing.T) {
	dir := t.TempDir()
	old := start(t, dir)
	if err := os.Remove(old.path); err != nil {
		t.Fatal(err)
	}
	next := start(t, dir)
	old.end(t)
	if got, err := post(t, next.path, "Plugin.Activate", ""); err != nil {
		t.Errorf("%s %v", got, err)
	}
}

// A call that is under way when the agent stops is finished and answered.
func TestStopFinishesCalls(t *testing.T) {
	s := start(t, t.TempDir())
	begun, finish := make(chan struct{}), make(chan struct{})
	s.Open(newBook(t), &loop{do: func(context.Context, string) error { close(begun); <-finish; return nil }})
	answer := make(chan string, 1)
	go func() {
		got, err := post(t, s.path, "NetworkDriver.DeleteNetwork", `{"NetworkID":"ffff"}`)
		if err != nil {
			got = err.Error()
		}
		answer <- got
	}()
	<-begun
	s.stop()
	<-s.stopping
	// Who dials now finds no socket and retries, until the next agent is there.
	if _, err := post(t, s.path, "Plugin.Activate", ""); err == nil {
		t.Error("still served")
	}
	close(finish)
	if got := <-answer; got != "{}\n" {
		t.Error(got)
	}
	s.end(t)
}

// One that does not come to an end is answered with an error; a connection that broke would make the engine repeat it
// without content.
func TestStopEndsCalls(t *testing.T) {
	s := start(t, t.TempDir())
	begun := make(chan struct{})
	s.Open(newBook(t), &loop{do: func(ctx context.Context, _ string) error { close(begun); <-ctx.Done(); return ctx.Err() }})
	answer := make(chan string, 1)
	go func() {
		got, err := post(t, s.path, "NetworkDriver.DeleteNetwork", `{"NetworkID":"ffff"}`)
		if err != nil {
			got = err.Error()
		}
		answer <- got
	}()
	<-begun
	if d := s.end(t); d > 2*time.Second {
		t.Errorf("took %s to stop", d)
	}
	if got := <-answer; !strings.Contains(got, "the fairway agent is stopping") {
		t.Error(got)
	}
}
