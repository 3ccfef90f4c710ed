package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/engine"
)

var update = flag.Bool("update", false, "write testdata/*.txt")

// serve answers on a unix socket and returns a client for it.
func serve(t *testing.T, h http.Handler) (c *engine.Client, socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "docker.sock")
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	_ = s.Listener.Close()
	s.Listener = ln
	s.Start()
	t.Cleanup(s.CloseClientConnections)
	t.Cleanup(s.Close)
	return engine.New(socket), socket
}

// answers is one engine's, by path without the version of the API; "api" is that version.
type answers map[string]json.RawMessage

func (a answers) api(t *testing.T) string {
	t.Helper()
	var v string
	if err := json.Unmarshal(a["api"], &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// handler serves answers; an engine refuses a version of the API that it does not know.
func (a answers) handler(t *testing.T) http.HandlerFunc {
	t.Helper()
	api := a.api(t)
	want := "/v" + api
	if api > "1.51" {
		want = "/v1.51"
	}
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/_ping" {
			w.Header().Set("Api-Version", api)
			_, _ = w.Write([]byte("OK"))
			return
		}
		path, ok := strings.CutPrefix(r.URL.Path, want)
		answer, known := a[path]
		switch {
		case !ok:
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"message":"client version is too new. Maximum supported API version is ` + api + `"}`))
		case !known:
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"message":"page not found"}`))
		case path == "/events":
			var all []json.RawMessage
			if err := json.Unmarshal(answer, &all); err != nil {
				t.Error(err)
			}
			for _, e := range all {
				_, _ = w.Write(append(e, '\n'))
			}
		default:
			_, _ = w.Write(answer)
		}
	}
}

// TestEngines reads what engines answered to a scene: c1 on lan, c2 stopped, c3 on zzz, after a connect, a disconnect and
// a stop. 20.10, 26.1 and 28.5 are recorded (with a network added to the first two whose IPv6 gateway is written with a
// prefix length, as these engines do for a subnet of their own choice); 29.7 is made from 28.5's by what 29 changed: c1's
// endpoint is joining.
func TestEngines(t *testing.T) {
	for _, version := range []string{"20.10", "26.1", "28.5", "29.7"} {
		t.Run(version, func(t *testing.T) {
			text, err := os.ReadFile("testdata/" + version + ".json")
			if err != nil {
				t.Fatal(err)
			}
			var a answers
			if err := json.Unmarshal(text, &a); err != nil {
				t.Fatal(err)
			}
			c, _ := serve(t, a.handler(t))
			got := describe(t, c)
			golden := "testdata/" + version + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Error(d)
			}
		})
	}
}

// describe writes everything that a client says.
func describe(t *testing.T, c *engine.Client) string {
	t.Helper()
	var b strings.Builder
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(c.Ping(t.Context()))
	v, err := c.Version(t.Context())
	check(err)
	fmt.Fprintf(&b, "version %s api %s\n", v.Engine, v.API)
	i, err := c.Info(t.Context())
	check(err)
	fmt.Fprintf(&b, "live-restore %v firewall %q rootless %v userns %v\n", i.LiveRestore, i.Firewall, i.Rootless, i.UserNS)
	networks, err := c.Networks(t.Context(), "")
	check(err)
	for _, n := range networks {
		fmt.Fprintf(&b, "network %.12s %s driver %s ipam %s scope %s internal %v options %v labels %v\n", n.ID, n.Name, n.Driver, n.IPAM, n.Scope, n.Internal, n.Options, n.Labels)
		for _, s := range n.Subnets {
			gw, ok := s.Gateway.Addr()
			fmt.Fprintf(&b, "  subnet %s range %q gateway %v %v\n", s.Subnet, s.Range, gw, ok)
		}
		describeEndpoints(&b, n.Endpoints)
	}
	containers, err := c.Containers(t.Context())
	check(err)
	for _, ct := range containers {
		fmt.Fprintf(&b, "container %.12s %s %s image %s labels %v\n", ct.ID, ct.Name, ct.State, ct.Image, ct.Labels)
		describeEndpoints(&b, ct.Endpoints)
	}
	events, err := c.Events(t.Context(), time.Unix(1, 0))
	check(err)
	for e := range events {
		check(e.Err)
		fmt.Fprintf(&b, "event %s %s %.12s name %s type %q container %.12q at %d\n", e.Type, e.Action, e.ID, e.Attributes["name"], e.Attributes["type"], e.Attributes["container"], e.Time.UnixNano())
	}
	return b.String()
}

func describeEndpoints(b *strings.Builder, endpoints []engine.Endpoint) {
	for _, e := range endpoints {
		fmt.Fprintf(b, "  endpoint %.12q on %.12s %s of %.12q %q %v mac %q\n", e.EndpointID, e.NetworkID, e.NetworkName, e.ContainerID, e.ContainerName, e.Addrs(), e.MAC)
	}
}

func TestText(t *testing.T) {
	for text, want := range map[engine.Text]string{
		"10.9.0.1": "10.9.0.1", "10.9.0.2/32": "10.9.0.2", "fd99::1/64": "fd99::1", "fd99::1": "fd99::1", "": "invalid IP", "nonsense/24": "invalid IP",
	} {
		if got, ok := text.Addr(); got.String() != want || ok != (got != netip.Addr{}) {
			t.Errorf("%q: %v %v", text, got, ok)
		}
	}
}

// ping answers /_ping, and everything else with h.
func ping(api string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/_ping" {
			h(w, r)
			return
		}
		if api != "" {
			w.Header().Set("Api-Version", api)
		}
		_, _ = w.Write([]byte("OK"))
	}
}

func TestNegotiation(t *testing.T) {
	for api, want := range map[string]string{"1.40": "/v1.40/version", "1.41": "/v1.41/version", "1.51": "/v1.51/version", "1.55": "/v1.51/version"} {
		var got string
		c, _ := serve(t, ping(api, func(w http.ResponseWriter, r *http.Request) { got = r.URL.Path; _, _ = w.Write([]byte("{}")) }))
		if _, err := c.Version(t.Context()); err != nil || got != want {
			t.Errorf("%s: %s %v", api, got, err)
		}
	}
	for _, api := range []string{"", "1.39", "2.0", "1.x", "junk"} {
		c, socket := serve(t, ping(api, nil))
		err := c.Ping(t.Context())
		if want := fmt.Sprintf("ask the engine at %s for /_ping: its API version is %q, want 1.40 (Docker 19.03) or later", socket, api); err == nil || err.Error() != want {
			t.Errorf("%q: %v", api, err)
		}
	}
}

func TestErrors(t *testing.T) {
	c, socket := serve(t, ping("1.41", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1.41/version":
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write([]byte(`{"message":"database is closed"}`))
		case "/v1.41/info":
			w.WriteHeader(http.StatusBadGateway)
		case "/v1.41/containers/json":
			_, _ = w.Write([]byte(`[{"Id":`))
		default:
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte("no\n"))
		}
	}))
	calls := map[string]func() error{
		"/v1.41/version: database is closed (status 500)":     func() error { _, err := c.Version(t.Context()); return err },
		"/v1.41/info: Bad Gateway (status 502)":               func() error { _, err := c.Info(t.Context()); return err },
		"/v1.41/containers/json: read answer: unexpected EOF": func() error { _, err := c.Containers(t.Context()); return err },
		"/v1.41/networks: no (status 403)":                    func() error { _, err := c.Networks(t.Context(), "fairway"); return err },
		"/v1.41/events: no (status 403)":                      func() error { _, err := c.Events(t.Context(), time.Time{}); return err },
	}
	for want, call := range calls {
		if err := call(); err == nil || err.Error() != "ask the engine at "+socket+" for "+want {
			t.Errorf("got %v, want ... %s", err, want)
		}
	}
	gone := engine.New("unix://" + filepath.Join(t.TempDir(), "none.sock"))
	if err := gone.Ping(t.Context()); !errors.Is(err, syscall.ENOENT) || !strings.Contains(err.Error(), "none.sock") {
		t.Errorf("no socket: %v", err)
	}
}

// A network that is being removed is in the list and not to be had.
func TestNetworkGoesAway(t *testing.T) {
	var asked string
	c, _ := serve(t, ping("1.41", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1.41/networks":
			asked = r.URL.Query().Get("filters")
			_, _ = w.Write([]byte(`[{"Id":"bb"},{"Id":"aa"}]`))
		case "/v1.41/networks/aa":
			_, _ = w.Write([]byte(`{"Id":"aa","Name":"lan"}`))
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"message":"network bb not found"}`))
		}
	}))
	networks, err := c.Networks(t.Context(), "fairway")
	if err != nil || len(networks) != 1 || networks[0].Name != "lan" {
		t.Errorf("%+v %v", networks, err)
	}
	if asked != `{"driver":["fairway"]}` {
		t.Errorf("filters %s", asked)
	}
}

// An engine that starts accepts connections and does not answer.
func TestEngineHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// A pipe stands for the socket, since a bubble's clock does not run while a real one is waited for.
		c := engine.New("/run/docker.sock")
		engine.SetDial(c, func() net.Conn {
			mine, theirs := net.Pipe()
			go func() {
				b := make([]byte, 4096)
				for {
					if _, err := theirs.Read(b); err != nil {
						return
					}
				}
			}()
			return mine
		})
		start := time.Now()
		err := c.Ping(t.Context())
		if err == nil || !strings.Contains(err.Error(), "no answer within 5s") || time.Since(start) != 5*time.Second {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("own deadline: %v", err)
		}
	})
}

func TestEvents(t *testing.T) {
	began := make(chan struct{})
	stop := make(chan struct{})
	var query string
	c, _ := serve(t, ping("1.41", func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.RawQuery
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-began // Events returns before anything happens
		for range 3 {
			_, _ = w.Write([]byte(`{"Type":"network","Action":"connect","Actor":{"ID":"aa","Attributes":{"container":"cc","name":"lan","type":"fairway"}},"timeNano":7}` + "\n"))
		}
		w.(http.Flusher).Flush()
		select {
		case <-stop:
			if _, err := w.Write([]byte(`{"Type":`)); err != nil {
				t.Error(err)
			}
		case <-r.Context().Done():
		}
	}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := c.Events(ctx, time.Unix(1795437909, 5))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(query, "since=1795437909.000000005") {
		t.Error(query)
	}
	close(began)
	want := engine.Event{Type: "network", Action: "connect", ID: "aa", Attributes: map[string]string{"container": "cc", "name": "lan", "type": "fairway"}, Time: time.Unix(0, 7)}
	for range 3 {
		if d := cmp.Diff(want, <-events); d != "" {
			t.Error(d)
		}
	}
	// The engine stops in the middle of an event: an end, not a fault.
	close(stop)
	if e, ok := <-events; ok {
		t.Errorf("after the end: %+v", e)
	}
}

// Ending the context ends the stream, also when nobody reads it any more.
func TestEventsContext(t *testing.T) {
	done := make(chan struct{})
	c, _ := serve(t, ping("1.41", func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		for r.Context().Err() == nil {
			if _, err := w.Write([]byte(`{"Type":"network"}` + "\n")); err != nil {
				return
			}
		}
	}))
	ctx, cancel := context.WithCancel(t.Context())
	events, err := c.Events(ctx, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	<-events
	cancel()
	<-done
	for e := range events {
		if e.Err != nil {
			t.Error(e.Err)
		}
	}
}

func TestEventsGarbled(t *testing.T) {
	c, _ := serve(t, ping("1.41", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>\n")) }))
	events, err := c.Events(t.Context(), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	var errs []string
	for e := range events {
		errs = append(errs, fmt.Sprint(e.Err))
	}
	if len(errs) != 1 || !slices.ContainsFunc(errs, func(s string) bool { return strings.Contains(s, "read event") }) {
		t.Errorf("%q", errs)
	}
}
