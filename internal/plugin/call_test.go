package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/cnm"
)

// withContent are the methods that the engine sends content to and that need it.
var withContent = []string{
	"NetworkDriver.CreateNetwork", "NetworkDriver.DeleteNetwork", "NetworkDriver.CreateEndpoint", "NetworkDriver.DeleteEndpoint",
	"NetworkDriver.Join", "NetworkDriver.Leave", "NetworkDriver.ProgramExternalConnectivity",
	"IpamDriver.RequestPool", "IpamDriver.ReleasePool", "IpamDriver.RequestAddress", "IpamDriver.ReleaseAddress",
}

// Edge case 1: the connection broke, and the engine repeats the request with an empty body.
func TestEmptyBody(t *testing.T) {
	book := newBook(t)
	r := newRig(t, Config{})
	r.Open(book, &loop{})
	r.up(t)
	before := bookText(book.Snapshot().Endpoints, book.Snapshot().Networks, book.Holdings())
	for _, m := range withContent {
		for _, body := range []string{"", " \n"} {
			if got := r.fails(t, m, body); !strings.Contains(got, "has no content") {
				t.Errorf("%s: %s", m, got)
			}
		}
	}
	if got := r.works(t, "NetworkDriver.EndpointOperInfo", ""); !strings.Contains(got, `"Value":{}`) {
		t.Errorf("EndpointOperInfo: %s; engines before 28 fail the container without a value", got)
	}
	if d := cmp.Diff(before, bookText(book.Snapshot().Endpoints, book.Snapshot().Networks, book.Holdings())); d != "" {
		t.Errorf("the book has changed: %s", d)
	}
}

func TestApplyOrder(t *testing.T) {
	k := &loop{}
	r := newRig(t, Config{})
	r.Open(newBook(t), k)
	r.up(t)
	r.endpoint(t, ep1)
	if got := k.asked(); len(got) != 0 {
		t.Errorf("before Join, the kernel was asked for %q", got)
	}
	r.works(t, "NetworkDriver.Join", joinBody(ep1))
	r.works(t, "NetworkDriver.EndpointOperInfo", ref(ep1))
	r.works(t, "NetworkDriver.Leave", ref(ep1))
	r.works(t, "NetworkDriver.DeleteEndpoint", ref(ep1))
	r.works(t, "NetworkDriver.DeleteNetwork", `{"NetworkID":"`+netA+`"}`)
	if d := cmp.Diff([]string{short(ep1), short(ep1), short(ep1), short(ep1), ""}, k.asked()); d != "" {
		t.Error(d)
	}
}

// A join whose kernel part fails is taken back before the answer, since engines up to 28 do not say Leave then.
func TestJoinIsTakenBack(t *testing.T) {
	book := newBook(t)
	k := &loop{}
	r := newRig(t, Config{})
	r.Open(book, k)
	r.up(t)
	r.endpoint(t, ep1)
	var states []cnm.State
	k.do = func(context.Context, string) error {
		e, _ := book.Endpoint(ep1)
		states = append(states, e.State)
		if e.State == cnm.Joined {
			return errors.New("no buffer space available")
		}
		return nil
	}
	if got, want := r.fails(t, "NetworkDriver.Join", joinBody(ep1)), "bring the kernel to agree on endpoint cc1f00000000: no buffer space available"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if d := cmp.Diff([]cnm.State{cnm.Joined, cnm.Left}, states); d != "" {
		t.Error(d)
	}
	// The engine may try again.
	k.do = nil
	r.works(t, "NetworkDriver.Join", joinBody(ep1))
	if e, _ := book.Endpoint(ep1); e.State != cnm.Joined {
		t.Errorf("state %s", e.State)
	}
}

// What the engine does not hear of an endpoint that cannot be taken away from the kernel, the log says.
func TestLeaveFails(t *testing.T) {
	k := &loop{do: func(context.Context, string) error { return errors.New("operation not permitted") }}
	r := newRig(t, Config{})
	book := newBook(t)
	r.Open(book, k)
	r.up(t)
	r.endpoint(t, ep1)
	for _, m := range []string{"NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint"} {
		if got := r.fails(t, m, ref(ep1)); !strings.Contains(got, "operation not permitted") {
			t.Errorf("%s: %s", m, got)
		}
		if !strings.Contains(r.log.String(), "level=WARN msg=\"driver call\" op="+m+" network=1fec4f6bd0cd endpoint=cc1f00000000") {
			t.Errorf("log:\n%s", r.log)
		}
	}
	if _, ok := book.Endpoint(ep1); ok {
		t.Error("the endpoint is still in the book")
	}
	r.works(t, "NetworkDriver.EndpointOperInfo", ref(ep1))
	if !strings.Contains(r.log.String(), "endpoint is not complete yet") {
		t.Errorf("log:\n%s", r.log)
	}
}

// Edge case 17: what is below hangs. Every call ends within the deadline, and what was begun is taken back.
func TestHangingKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		book := newBook(t)
		k := &loop{do: func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }}
		r := newRig(t, Config{})
		r.Open(book, k)
		r.up(t)
		r.endpoint(t, ep1)
		for method, body := range map[string]string{
			"NetworkDriver.Join":             joinBody(ep1),
			"NetworkDriver.Leave":            ref(ep1),
			"NetworkDriver.EndpointOperInfo": ref(ep1),
			"NetworkDriver.DeleteEndpoint":   ref(ep2),
			"NetworkDriver.DeleteNetwork":    `{"NetworkID":"ffff"}`,
		} {
			start := time.Now()
			if method == "NetworkDriver.EndpointOperInfo" {
				r.works(t, method, body)
			} else if got := r.fails(t, method, body); !strings.Contains(got, "no result within 20s") {
				t.Errorf("%s: %s", method, got)
			}
			if d := time.Since(start); d > DefaultDeadline {
				t.Errorf("%s took %s", method, d)
			}
		}
		if e, _ := book.Endpoint(ep1); e.State == cnm.Joined {
			t.Error("the join was not taken back")
		}
	})
}

// stuck is a book that does not heed the context, as one on a dead disk.
type stuck struct {
	Book
	release chan struct{}
}

func (s stuck) Leave(context.Context, string, string) error {
	<-s.release
	return nil
}

// Even work that cannot be interrupted is answered, and later calls for the same endpoint wait for it, in vain too; those
// for others do not.
func TestStuckBook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		book := stuck{newBook(t), make(chan struct{})}
		r := newRig(t, Config{})
		r.Open(book, &loop{})
		r.up(t)
		r.endpoint(t, ep2)
		for _, m := range []string{"NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint"} {
			start := time.Now()
			if got := r.fails(t, m, ref(ep1)); !strings.Contains(got, "no result within 20s") {
				t.Errorf("%s: %s", m, got)
			}
			if d := time.Since(start); d > DefaultDeadline {
				t.Errorf("%s took %s", m, d)
			}
		}
		r.works(t, "NetworkDriver.DeleteEndpoint", ref(ep2))
		close(book.release)
		synctest.Wait()
		r.works(t, "NetworkDriver.Leave", ref(ep1))
		r.locks.mu.Lock()
		defer r.locks.mu.Unlock()
		if len(r.locks.held) != 0 {
			t.Errorf("locks left: %v", r.locks.held)
		}
	})
}

func TestOneEndpointAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var events []string
		k := &loop{}
		r := newRig(t, Config{})
		r.Open(newBook(t), k)
		r.up(t)
		r.endpoint(t, ep1)
		r.endpoint(t, ep2)
		k.do = func(_ context.Context, ep string) error {
			mu.Lock()
			events = append(events, short(ep)+" begins")
			mu.Unlock()
			if ep == ep1 {
				<-time.After(time.Second) // the bubble's clock
			}
			mu.Lock()
			events = append(events, short(ep)+" ends")
			mu.Unlock()
			return nil
		}
		var wg sync.WaitGroup
		for _, c := range [][2]string{{"NetworkDriver.Join", joinBody(ep1)}, {"NetworkDriver.Leave", ref(ep1)}, {"NetworkDriver.DeleteEndpoint", ref(ep1)}, {"NetworkDriver.Join", joinBody(ep2)}} {
			wg.Go(func() { r.works(t, c[0], c[1]) })
			synctest.Wait()
		}
		wg.Wait()
		one := []string{"cc1f00000000 begins", "cc1f00000000 ends"}
		want := slices.Concat(one[:1], []string{"dd2f00000000 begins", "dd2f00000000 ends"}, one[1:], one, one)
		if d := cmp.Diff(want, events); d != "" {
			t.Error(d)
		}
	})
}

// An engine that starts gets its handshake at once; what needs the book waits, and says why it waited in vain.
func TestBeforeOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		r.Waiting("reading the state file")
		start := time.Now()
		for _, m := range []string{
			"Plugin.Activate", "NetworkDriver.GetCapabilities", "IpamDriver.GetCapabilities", "IpamDriver.GetDefaultAddressSpaces",
			"NetworkDriver.DiscoverNew", "NetworkDriver.RevokeExternalConnectivity",
		} {
			r.works(t, m, "")
		}
		r.works(t, "NetworkDriver.EndpointOperInfo", ref(ep1))
		r.works(t, "NetworkDriver.ProgramExternalConnectivity", ref(ep1))
		r.fails(t, "NetworkDriver.Join", "{}")
		if d := time.Since(start); d != 0 {
			t.Errorf("the handshake took %s", d)
		}
		got := r.fails(t, "NetworkDriver.Leave", ref(ep1))
		if !strings.Contains(got, "still starting (reading the state file)") {
			t.Error(got)
		}
		if d := time.Since(start); d > DefaultDeadline {
			t.Errorf("took %s", d)
		}
		var wg sync.WaitGroup
		wg.Go(func() { r.works(t, "NetworkDriver.Leave", ref(ep1)) })
		synctest.Wait()
		r.Open(newBook(t), &loop{})
		wg.Wait()
	})
}

// A call that waits for an agent that starts does not hold up its stop.
func TestStopBeforeOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{})
		var wg sync.WaitGroup
		begin := time.Now()
		wg.Go(func() {
			if _, got := r.call(t.Context(), "NetworkDriver.Leave", ref(ep1)); !strings.Contains(got, "the fairway agent is stopping") {
				t.Error(got)
			}
		})
		synctest.Wait()
		close(r.stopping)
		wg.Wait()
		if d := time.Since(begin); d != 0 {
			t.Errorf("took %s", d)
		}
	})
}

// panics is a book with a bug.
type panics struct{ Book }

func (panics) Join(context.Context, string, string, string) (cnm.JoinReply, error) {
	panic("assignment to entry in nil map")
}

func TestPanicIsAnError(t *testing.T) {
	var seen []string
	r := newRig(t, Config{Observe: func(m string, _ time.Duration, err error) { seen = append(seen, fmt.Sprint(m, " ", err != nil)) }})
	r.Open(panics{newBook(t)}, &loop{})
	if got := r.fails(t, "NetworkDriver.Join", joinBody(ep1)); !strings.Contains(got, "internal error") {
		t.Error(got)
	}
	if log := r.log.String(); !strings.Contains(log, "assignment to entry in nil map") || !strings.Contains(log, "call_test.go") {
		t.Errorf("the log has no stack:\n%s", log)
	}
	// The lock of the endpoint is free again.
	r.works(t, "NetworkDriver.Leave", ref(ep1))
	if d := cmp.Diff([]string{"NetworkDriver.Join true", "NetworkDriver.Leave false"}, seen); d != "" {
		t.Error(d)
	}
}

// hangUp is a book whose caller's connection breaks while it works.
type hangUp struct {
	Book
	cut context.CancelFunc
}

func (h hangUp) CreateEndpoint(ctx context.Context, req cnm.EndpointRequest) (cnm.Endpoint, error) {
	e, err := h.Book.CreateEndpoint(ctx, req)
	h.cut()
	return e, err
}

func (h hangUp) RequestAddress(ctx context.Context, req cnm.AddressRequest) (netip.Prefix, error) {
	p, err := h.Book.RequestAddress(ctx, req)
	h.cut()
	return p, err
}

func (h hangUp) RequestPool(ctx context.Context, req cnm.PoolRequest) (string, netip.Prefix, error) {
	id, p, err := h.Book.RequestPool(ctx, req)
	h.cut()
	return id, p, err
}

func (h hangUp) Leave(ctx context.Context, network, endpoint string) error {
	h.cut()
	if err := ctx.Err(); err != nil {
		return err
	}
	return h.Book.Leave(ctx, network, endpoint)
}

// When the engine dies, what it asked for and does not get is given back; what it ended stays ended.
func TestEngineHangsUp(t *testing.T) {
	book := newBook(t)
	r := newRig(t, Config{})
	var cut context.CancelFunc
	connection := func() context.Context {
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		cut = cancel
		return ctx
	}
	r.Open(hangUp{book, func() { cut() }}, &loop{})
	pool := `{"AddressSpace":"fairway-local","Pool":"10.92.0.0/24","SubPool":"","Options":null,"V6":false}`
	refused := func(method, body string) {
		t.Helper()
		if _, answer := r.call(connection(), method, body); !strings.Contains(answer, "context canceled") {
			t.Errorf("%s: %s", method, answer)
		}
	}
	refused("IpamDriver.RequestPool", pool)
	if p := book.Snapshot().Pools; len(p) != 0 {
		t.Errorf("pool left: %+v", p)
	}
	if _, _, err := book.RequestPool(t.Context(), cnm.PoolRequest{Space: spaceLocal, Pool: netip.MustParsePrefix("10.92.0.0/24")}); err != nil {
		t.Fatal(err)
	}
	const id = "v1/fairway-local/10.92.0.0/24"
	gw, err := book.RequestAddress(t.Context(), cnm.AddressRequest{Pool: id, Gateway: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := book.CreateNetwork(t.Context(), cnm.NetworkRequest{ID: netA, IPv4: []cnm.SubnetRequest{{Prefix: netip.MustParsePrefix("10.92.0.0/24"), Gateway: gw.Addr()}}}); err != nil {
		t.Fatal(err)
	}
	refused("IpamDriver.RequestAddress", `{"PoolID":"`+id+`","Address":"","Options":null}`)
	want := "network 1fec4f6bd0cd; held 10.92.0.1"
	if d := cmp.Diff(want, bookText(book.Snapshot().Endpoints, book.Snapshot().Networks, book.Holdings())); d != "" {
		t.Error(d)
	}
	a, err := book.RequestAddress(t.Context(), cnm.AddressRequest{Pool: id})
	if err != nil {
		t.Fatal(err)
	}
	refused("NetworkDriver.CreateEndpoint", createBody(ep1, a.String()))
	if _, ok := book.Endpoint(ep1); ok {
		t.Error("the endpoint is left")
	}
	// Its address went with the endpoint that was taken back.
	if a, err = book.RequestAddress(t.Context(), cnm.AddressRequest{Pool: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := book.CreateEndpoint(t.Context(), cnm.EndpointRequest{Network: netA, ID: ep1, Addr4: a}); err != nil {
		t.Fatal(err)
	}
	if _, err := book.Join(t.Context(), netA, ep1, box1); err != nil {
		t.Fatal(err)
	}
	if _, answer := r.call(connection(), "NetworkDriver.Leave", ref(ep1)); answer != "{}" {
		t.Error(answer)
	}
	if e, _ := book.Endpoint(ep1); e.State != cnm.Left {
		t.Errorf("state %s", e.State)
	}
}

func TestLimits(t *testing.T) {
	r := newRig(t, Config{})
	r.Open(newBook(t), &loop{})
	if got := r.fails(t, "NetworkDriver.CreateNetwork", `{"NetworkID":"`+strings.Repeat("a", maxBody)+`"}`); !strings.Contains(got, "too large") {
		t.Errorf("%.200s", got)
	}
	if got := r.fails(t, "NetworkDriver.Leave", strings.Repeat("[", 100_000)); !strings.Contains(got, "read request") {
		t.Errorf("%.200s", got)
	}
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/NetworkDriver.Leave", http.NoBody))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d %s", w.Code, w.Body)
	}
	if s := New(Config{Deadline: time.Hour}); s.cfg.Deadline != MaxDeadline {
		t.Errorf("deadline %s", s.cfg.Deadline)
	}
}

// Fifty at once, each for itself: nothing is left.
func TestManyAtOnce(t *testing.T) {
	book := newBook(t)
	r := newRig(t, Config{})
	r.Open(book, &loop{})
	r.up(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			id := fmt.Sprintf("%012x%052x", 0xabc000+i, i)
			a := r.endpoint(t, id)
			r.works(t, "NetworkDriver.Join", joinBody(id))
			r.works(t, "NetworkDriver.EndpointOperInfo", ref(id))
			r.works(t, "NetworkDriver.Leave", ref(id))
			r.works(t, "NetworkDriver.DeleteEndpoint", ref(id))
			r.works(t, "IpamDriver.ReleaseAddress", `{"PoolID":"v1/fairway-local/10.92.0.0/24","Address":"`+strings.TrimSuffix(a, "/32")+`"}`)
		})
	}
	wg.Wait()
	if got, want := bookText(book.Snapshot().Endpoints, book.Snapshot().Networks, book.Holdings()), "network 1fec4f6bd0cd; held 10.92.0.1"; got != want {
		t.Error(got)
	}
}
