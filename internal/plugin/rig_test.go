package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fairway/internal/cnm"
	"fairway/internal/ipam"
	"fairway/internal/store"
)

// memory is a saver that forgets with the test.
type memory struct {
	mu sync.Mutex
	m  map[string][]byte
}

func (m *memory) List(_ context.Context, prefix string) (store.Listing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out store.Listing
	for _, k := range slices.Sorted(maps.Keys(m.m)) {
		if strings.HasPrefix(k, prefix) {
			out.Records = append(out.Records, store.Record{Key: k, Value: m.m[k]})
		}
	}
	return out, nil
}

func (m *memory) Commit(_ context.Context, t store.Txn) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.Copy(m.m, t.Put)
	for _, k := range t.Delete {
		delete(m.m, k)
	}
	return 1, nil
}

// newBook is a real book, with some pools to choose subnets from.
func newBook(tb testing.TB) *cnm.Book {
	tb.Helper()
	book, err := cnm.Load(context.Background(), &memory{m: map[string][]byte{}}, ipam.Options{
		Now: time.Now,
		Plan: ipam.Plan{Alone: true, Pools: []ipam.PoolPlan{
			{CIDR: netip.MustParsePrefix("10.210.0.0/16"), Size: 20}, {CIDR: netip.MustParsePrefix("fdfa::/48"), Size: 64},
		}},
	}, cnm.Node{})
	if err != nil {
		tb.Fatal(err)
	}
	return book
}

// loop stands for the agent's loop: it notes for which endpoints it was asked, and does what the test says.
type loop struct {
	mu   sync.Mutex
	seen []string
	do   func(ctx context.Context, endpoint string) error
}

func (k *loop) Apply(ctx context.Context, endpoint string) error {
	k.mu.Lock()
	k.seen = append(k.seen, short(endpoint))
	do := k.do
	k.mu.Unlock()
	if do == nil {
		return nil
	}
	return do(ctx, endpoint)
}

func (k *loop) asked() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.seen)
}

// logText is a log that can be read while it is written.
type logText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// rig is a server without its socket.
type rig struct {
	*Server
	log     *logText
	handler http.Handler
}

func newRig(tb testing.TB, cfg Config) *rig {
	tb.Helper()
	r := &rig{log: &logText{}}
	cfg.Log = slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r.Server = New(cfg)
	base, cancel := context.WithCancelCause(context.Background())
	tb.Cleanup(func() { cancel(nil) })
	r.handler = r.Server.handler(base)
	return r
}

// call sends a request and returns the answer, without the newline.
func (r *rig) call(ctx context.Context, method, body string) (status int, answer string) {
	req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/"+method, strings.NewReader(body))
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	return w.Code, strings.TrimSuffix(w.Body.String(), "\n")
}

// fails is call for an answer that is an error, and returns it.
func (r *rig) fails(t *testing.T, method, body string) string {
	t.Helper()
	_, answer := r.call(t.Context(), method, body)
	var e refusal
	if err := json.Unmarshal([]byte(answer), &e); err != nil || e.Err == "" || e.Err != e.Error {
		t.Fatalf("%s answers %s, want the same error under Err and Error", method, answer)
	}
	return e.Err
}

// works is call for an answer that is no error.
func (r *rig) works(t *testing.T, method, body string) string {
	t.Helper()
	status, answer := r.call(t.Context(), method, body)
	var e refusal
	if err := json.Unmarshal([]byte(answer), &e); err != nil || e.Err+e.Error != "" || status != http.StatusOK {
		t.Errorf("%s answers %d %s, want no error", method, status, answer)
	}
	return answer
}

// IDs as the engine makes them.
const (
	netA = "1fec4f6bd0cd0f3e2a91e3d7a0b6c5d4e3f2a1b0c9d8e7f60514233241506978"
	ep1  = "cc1f00000000aaaa2a91e3d7a0b6c5d4e3f2a1b0c9d8e7f60514233241506978"
	ep2  = "dd2f00000000bbbb2a91e3d7a0b6c5d4e3f2a1b0c9d8e7f60514233241506978"
	box1 = "/var/run/docker/netns/476867e18868"
)

// ref is a body that names an endpoint of network A.
func ref(endpoint string) string {
	return `{"NetworkID":"` + netA + `","EndpointID":"` + endpoint + `"}`
}

func joinBody(endpoint string) string {
	return `{"NetworkID":"` + netA + `","EndpointID":"` + endpoint + `","SandboxKey":"` + box1 + `","Options":{}}`
}

func createBody(endpoint, address string) string {
	return `{"NetworkID":"` + netA + `","EndpointID":"` + endpoint + `","Interface":{"Address":"` + address + `","AddressIPv6":"","MacAddress":""},"Options":{}}`
}

// up makes network A, 10.92.0.0/24, as the engine does.
func (r *rig) up(t *testing.T) {
	t.Helper()
	r.works(t, "IpamDriver.RequestPool", `{"AddressSpace":"fairway-local","Pool":"10.92.0.0/24","SubPool":"","Options":null,"V6":false}`)
	r.works(t, "IpamDriver.RequestAddress", `{"PoolID":"v1/fairway-local/10.92.0.0/24","Address":"","Options":{"RequestAddressType":"com.docker.network.gateway"}}`)
	r.works(t, "NetworkDriver.CreateNetwork", `{"NetworkID":"`+netA+`","Options":{"com.docker.network.generic":{}},"IPv4Data":[{"AddressSpace":"fairway-local","Gateway":"10.92.0.1/24","Pool":"10.92.0.0/24"}],"IPv6Data":[]}`)
}

// endpoint makes an endpoint as the engine does, and returns its address.
func (r *rig) endpoint(t *testing.T, id string) string {
	t.Helper()
	var a addressAnswer
	if err := json.Unmarshal([]byte(r.works(t, "IpamDriver.RequestAddress", `{"PoolID":"v1/fairway-local/10.92.0.0/24","Address":"","Options":null}`)), &a); err != nil {
		t.Error(err)
	}
	r.works(t, "NetworkDriver.CreateEndpoint", createBody(id, a.Address))
	return a.Address
}
