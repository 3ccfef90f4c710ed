package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fairway/internal/api"
)

// backend answers with what the test put into it.
type backend struct {
	mu       sync.Mutex
	status   api.Status
	err      error
	released []string
	fixed    bool
	asked    []string      // of the cluster
	hang     chan struct{} // Reload says on it that it was asked, and waits for its context
}

func (b *backend) Status(context.Context) (api.Status, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status, b.err
}
func (b *backend) Containers(context.Context) ([]api.Container, error) { return nil, b.err }
func (b *backend) Networks(context.Context) ([]api.Network, error)     { return nil, b.err }
func (b *backend) Routes(context.Context) ([]api.Route, error)         { return nil, b.err }
func (b *backend) Peers(context.Context) ([]api.Peer, error)           { return nil, b.err }
func (b *backend) Settings(context.Context) ([]api.Setting, error)     { return nil, b.err }
func (b *backend) IPAM(context.Context) (api.IPAM, error)              { return api.IPAM{}, b.err }

func (b *backend) IPAMCheck(_ context.Context, fix bool) ([]api.Leak, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fixed = fix
	return nil, b.err
}

func (b *backend) IPAMRelease(_ context.Context, a netip.Addr, force bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.released = append(b.released, fmt.Sprint(a, force))
	return b.err
}

func (b *backend) Nodes(context.Context) ([]api.Member, error) { return nil, b.err }

func (b *backend) note(what string, args ...any) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, what+fmt.Sprintf("%+v", args))
	return b.err
}

func (b *backend) Drain(_ context.Context, req api.DrainRequest) error { return b.note("drain", req) }

func (b *backend) RemoveNode(_ context.Context, name string, dry bool) (api.Removal, error) {
	return api.Removal{}, b.note("remove", name, dry)
}

func (b *backend) Announce(_ context.Context, g api.Guest) error { return b.note("announce", g) }

func (b *backend) Join(context.Context) (api.Joined, error) {
	return api.Joined{ID: "new"}, b.note("join")
}

func (b *backend) CreateNetwork(_ context.Context, req api.NetworkRequest) error {
	return b.note("create", req)
}

func (b *backend) RemoveNetwork(_ context.Context, name string) error {
	return b.note("remove network", name)
}

func (b *backend) Reload(ctx context.Context) (api.ReloadResult, error) {
	if b.hang != nil {
		b.hang <- struct{}{}
		<-ctx.Done()
	}
	return api.ReloadResult{}, b.err
}

func (b *backend) Ready() (bool, string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status.Ready, b.status.Reason
}

// serve runs a server until stop is called, which returns what Run returned. It has no TCP listener unless tcp is set.
func serve(t *testing.T, b api.Backend, socket string, tcp netip.AddrPort) (stop func() error) {
	t.Helper()
	s := api.NewServer(api.ServerConfig{
		Backend: b, Metrics: api.NewMetrics("v1.2.3"), Socket: socket, Listen: tcp, Log: slog.New(slog.DiscardHandler),
	})
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(5 * time.Second):
			return errors.New("Run did not end")
		}
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return stop
}

// ask makes one request on the socket.
func ask(t *testing.T, socket, method, path, body string) (status int, answer string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://fairway"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSuffix(string(b), "\n")
}

func TestAnswers(t *testing.T) {
	plain := errors.New("kernel said no")
	for _, tt := range []struct {
		name, method, path, body string
		err                      error
		status                   int
		answer                   string
	}{
		{"a list is never null", "GET", "/v1/routes", "", nil, 200, "[]"},
		{"no list in it is null", "GET", "/v1/ipam", "", nil, 200, `{"pools":[],"holdings":[]}`},
		{"no leaks", "GET", "/v1/ipam/check", "", nil, 200, "[]"},
		{"release", "POST", "/v1/ipam/release", `{"address":"10.9.1.2"}`, nil, 200, `{"ok":true}`},
		{"no nodes", "GET", "/v1/nodes", "", nil, 200, "[]"},
		{"drain", "POST", "/v1/nodes/drain", `{"node":"host2","drain":true}`, nil, 200, `{"ok":true}`},
		{"join", "POST", "/v1/nodes/join", "", nil, 200, `{"id":"new","back":[],"lost":[],"open":[]}`},
		{"no store", "POST", "/v1/networks/create", `{"name":"net1"}`, api.Unavailable(plain), 503, `{"error":"kernel said no"}`},
		{"network in use", "POST", "/v1/networks/remove", `{"name":"net1"}`, api.Conflict(plain), 409, `{"error":"kernel said no"}`},
		{"unknown key of a node", "POST", "/v1/nodes/remove", `{"node":"host2"}`, nil, 400, `{"error":"read request: json: unknown field \"node\""}`},
		{"healthy", "GET", "/healthz", "", nil, 200, `{"ok":true}`},
		{"failure", "GET", "/v1/peers", "", plain, 500, `{"error":"kernel said no"}`},
		{"not found", "POST", "/v1/ipam/release", `{"address":"10.9.1.2"}`, api.NotFound(plain), 404, `{"error":"kernel said no"}`},
		{"conflict, wrapped", "POST", "/v1/ipam/release", `{"address":"10.9.1.2"}`, fmt.Errorf("no: %w", api.Conflict(plain)), 409, `{"error":"no: kernel said no"}`},
		{"no address", "POST", "/v1/ipam/release", `{}`, nil, 400, `{"error":"address is missing"}`},
		{"unknown key", "POST", "/v1/ipam/release", `{"addr":"10.9.1.2"}`, nil, 400, `{"error":"read request: json: unknown field \"addr\""}`},
		{"too long", "POST", "/v1/ipam/release", `{"address":"` + strings.Repeat("1", 1<<17) + `"}`, nil, 400, `{"error":"read request: http: request body too large"}`},
		{"fix without POST", "GET", "/v1/ipam/check?fix=1", "", nil, 400, `{"error":"fix=1 changes things: want POST"}`},
		{"bad fix", "POST", "/v1/ipam/check?fix=yes", "", nil, 400, `{"error":"fix=yes: want 0 or 1"}`},
		{"method", "GET", "/v1/reload", "", nil, 405, `{"error":"GET /v1/reload: allowed is POST"}`},
		{"method of metrics", "POST", "/metrics", "", nil, 405, `{"error":"POST /metrics: allowed is GET"}`},
		{"path", "GET", "/v2/status", "", nil, 404, `{"error":"no such path \"/v2/status\""}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), api.SocketName)
			serve(t, &backend{err: tt.err}, socket, netip.AddrPort{})
			status, answer := ask(t, socket, tt.method, tt.path, tt.body)
			if status != tt.status || answer != tt.answer {
				t.Errorf("%s %s: got %d %s, want %d %s", tt.method, tt.path, status, answer, tt.status, tt.answer)
			}
		})
	}
}

func TestReadiness(t *testing.T) {
	b := &backend{status: api.Status{Reason: "waiting for the engine"}}
	socket := filepath.Join(t.TempDir(), api.SocketName)
	serve(t, b, socket, netip.AddrPort{})
	if status, answer := ask(t, socket, "GET", "/readyz", ""); status != 503 || answer != `{"ok":false,"reason":"waiting for the engine"}` {
		t.Errorf("not ready: got %d %s", status, answer)
	}
	h, err := api.NewClient(socket).Ready(t.Context())
	if err != nil || h.OK || h.Reason != "waiting for the engine" {
		t.Errorf("client, not ready: got %+v, %v", h, err)
	}
	b.mu.Lock()
	b.status.Ready, b.status.Reason = true, ""
	b.mu.Unlock()
	if status, answer := ask(t, socket, "GET", "/readyz", ""); status != 200 || answer != `{"ok":true}` {
		t.Errorf("ready: got %d %s", status, answer)
	}
}

func TestSocket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "fairway")
	socket := filepath.Join(dir, api.SocketName)
	stopOld := serve(t, &backend{}, socket, netip.AddrPort{})
	fi, err := os.Lstat(socket)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fi.Mode(), os.ModeSocket|0o660; got != want {
		t.Errorf("mode of the socket: got %v, want %v", got, want)
	}
	// Another agent takes the name over; when the first one ends, the socket stays.
	stopNew := serve(t, &backend{status: api.Status{Networks: 2}}, socket, netip.AddrPort{})
	if err := stopOld(); err != nil {
		t.Fatal(err)
	}
	st, err := api.NewClient(socket).Status(t.Context())
	if err != nil || st.Networks != 2 {
		t.Errorf("after the old agent ended: got %d networks, %v; want those of the new agent", st.Networks, err)
	}
	if err := stopNew(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left in the run directory: %v, %v", left, err)
	}
}

func TestStaleSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), api.SocketName)
	for _, name := range []string{socket, socket + ".new"} { // what an agent leaves that was killed
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	serve(t, &backend{}, socket, netip.AddrPort{})
	if _, err := api.NewClient(socket).Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStopIsQuick(t *testing.T) {
	b := &backend{hang: make(chan struct{})}
	socket := filepath.Join(t.TempDir(), api.SocketName)
	stop := serve(t, b, socket, netip.AddrPort{})
	go func() { _, _ = api.NewClient(socket).Reload(context.Background()) }()
	<-b.hang
	begin := time.Now()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("stop with a request open took %v, want less than 2s", d)
	}
}

func TestTCPOnlyReads(t *testing.T) {
	free, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(free.Addr().String())
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	serve(t, &backend{status: api.Status{Ready: true}}, filepath.Join(t.TempDir(), api.SocketName), addr)
	for path, want := range map[string]int{
		"/metrics": 200, "/healthz": 200, "/readyz": 200,
		"/v1/status": 404, "/v1/reload": 404, "/v1/ipam/release": 404, "/": 404,
	} {
		for _, method := range []string{"GET", "POST"} {
			req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr.String()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if method == "POST" && want == 200 {
				want = 405
			}
			if resp.StatusCode != want {
				t.Errorf("%s %s over TCP: got %d, want %d", method, path, resp.StatusCode, want)
			}
		}
	}
}

func TestListenFails(t *testing.T) {
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	socket := filepath.Join(t.TempDir(), api.SocketName)
	err = api.NewServer(api.ServerConfig{
		Backend: &backend{}, Metrics: api.NewMetrics("v0"), Socket: socket,
		Listen: netip.MustParseAddrPort(taken.Addr().String()), Log: slog.New(slog.DiscardHandler),
	}).Open(t.Context())
	if err == nil || !strings.Contains(err.Error(), "metrics.listen") {
		t.Errorf("listen on a taken port: got %v, want an error that names metrics.listen", err)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there after Open failed: %v", err)
	}
}

func TestClientRequests(t *testing.T) {
	b := &backend{}
	socket := filepath.Join(t.TempDir(), api.SocketName)
	serve(t, b, socket, netip.AddrPort{})
	c := api.NewClient(socket)
	if _, err := c.IPAMCheck(t.Context(), true); err != nil || !b.fixed {
		t.Errorf("IPAMCheck with fix: asked for fix %v, %v", b.fixed, err)
	}
	if _, err := c.IPAMCheck(t.Context(), false); err != nil || b.fixed {
		t.Errorf("IPAMCheck without fix: asked for fix %v, %v", b.fixed, err)
	}
	if err := c.IPAMRelease(t.Context(), netip.MustParseAddr("fd00:9::5"), true); err != nil {
		t.Error(err)
	}
	if len(b.released) != 1 || b.released[0] != "fd00:9::5 true" {
		t.Errorf("released %q", b.released)
	}
	b.err = api.Conflict(errors.New("10.9.1.2 is held by web"))
	err := c.IPAMRelease(t.Context(), netip.MustParseAddr("10.9.1.2"), false)
	var e *api.Error
	if !errors.As(err, &e) || e.Status != http.StatusConflict || e.Error() != "10.9.1.2 is held by web" {
		t.Errorf("refused release: got %v", err)
	}
}

func TestClientErrors(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.sock")
	dead := filepath.Join(dir, "dead.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for socket, want := range map[string]string{
		missing: "the agent is not running here (no socket " + missing + "): start it with `systemctl start fairway` or `fairway agent`",
		dead:    "the agent is not running here (nobody answers on " + dead + "): start it with `systemctl start fairway` or `fairway agent`",
	} {
		_, err := api.NewClient(socket).Status(t.Context())
		if err == nil || err.Error() != want || !errors.Is(err, api.ErrNotRunning) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestSeconds(t *testing.T) {
	in := api.Kernel{LastPass: api.Seconds(1200 * time.Microsecond)}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), `"last_pass_seconds":0.0012`) {
		t.Errorf("got %s", b)
	}
	var out api.Kernel
	if err := json.Unmarshal(b, &out); err != nil || out.LastPass != in.LastPass {
		t.Errorf("read back: %v, %v", time.Duration(out.LastPass), err)
	}
}

// What the client asks for arrives as it was asked, and errors of the backend keep their status.
func TestClusterCalls(t *testing.T) {
	b := &backend{}
	socket := filepath.Join(t.TempDir(), api.SocketName)
	serve(t, b, socket, netip.AddrPort{})
	c := api.NewClient(socket)
	gateway := netip.MustParseAddr("10.9.0.1")
	_, removeErr := c.RemoveNode(t.Context(), "host3", true)
	_, joinErr := c.Join(t.Context())
	_, nodesErr := c.Nodes(t.Context())
	if err := errors.Join(
		c.Drain(t.Context(), api.DrainRequest{Node: "host2", Drain: true, Refuse: true}),
		c.CreateNetwork(t.Context(), api.NetworkRequest{
			Name: "front", Internal: true, Options: map[string]string{"mtu": "1400"},
			Subnets: []api.Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/16"), Gateway: gateway}},
		}),
		c.RemoveNetwork(t.Context(), "front"), removeErr, joinErr, nodesErr,
	); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"remove[host3 true]", "join[]", "drain[{Node:host2 Drain:true Refuse:true}]",
		"create[{Name:front Subnets:[{Prefix:10.9.0.0/16 Gateway:10.9.0.1}] Internal:true Options:map[mtu:1400]}]", "remove network[front]",
	}, "\n")
	if got := strings.Join(b.asked, "\n"); got != want {
		t.Errorf("asked for:\n%s\nwant:\n%s", got, want)
	}
	b.mu.Lock()
	b.err = api.Unavailable(errors.New("the store is unreachable since noon"))
	b.mu.Unlock()
	var refused *api.Error
	if err := c.RemoveNetwork(t.Context(), "front"); !errors.As(err, &refused) || refused.Status != http.StatusServiceUnavailable {
		t.Errorf("an unreachable store: got %v, want status 503", err)
	}
}
