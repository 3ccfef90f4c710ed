package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"fairway/internal/cnm"
)

// Book is where requests are kept; *cnm.Book is one. Its methods save before they return, succeed when repeated, and
// take the end of something unknown for done.
type Book interface {
	networks
	endpoints
	pools
}

type networks interface {
	CreateNetwork(ctx context.Context, req cnm.NetworkRequest) error
	DeleteNetwork(ctx context.Context, id string) error
}

type endpoints interface {
	CreateEndpoint(ctx context.Context, req cnm.EndpointRequest) (cnm.Endpoint, error)
	DeleteEndpoint(ctx context.Context, network, endpoint string) error
	Join(ctx context.Context, network, endpoint, sandbox string) (cnm.JoinReply, error)
	Leave(ctx context.Context, network, endpoint string) error
}

type pools interface {
	RequestPool(ctx context.Context, req cnm.PoolRequest) (id string, cidr netip.Prefix, err error)
	ReleasePool(ctx context.Context, id string) error
	RequestAddress(ctx context.Context, req cnm.AddressRequest) (netip.Prefix, error)
	ReleaseAddress(ctx context.Context, pool string, addr netip.Addr) error
}

// Applier makes the kernel agree with the book as it is at the call, waits for it, and returns what went wrong with that
// endpoint; "" stands for no endpoint in particular.
type Applier interface {
	Apply(ctx context.Context, endpoint string) error
}

// DefaultDeadline is within what managed plugins get (30 s), and MaxDeadline still is.
const (
	DefaultDeadline = 20 * time.Second
	MaxDeadline     = 25 * time.Second
)

// Times of a stop: what is under way may finish, then is told to end, then is cut off. Together 1.5 s.
const (
	stopFinish = 1200 * time.Millisecond
	stopAnswer = 300 * time.Millisecond
)

// Config is what a Server needs.
type Config struct {
	Name string // of the driver: what users give to -d and --ipam-driver
	Dir  string // the engine's plugin directory
	Log  *slog.Logger
	// Deadline is the time within which every call is answered, come what may; 0 is DefaultDeadline, at most MaxDeadline.
	// Work on a request ends after four fifths of it, so that a failed one can be undone.
	Deadline time.Duration
	// Observe is told of each call once it is answered: "NetworkDriver.Join", the time from its first byte to its answer,
	// and the error that was answered. It may be nil, and is called from many goroutines.
	Observe func(method string, d time.Duration, err error)
}

// Server answers the engine. Its life: Listen, Serve and, when the agent is ready, Open.
type Server struct {
	cfg     Config
	log     *slog.Logger
	methods map[string]method
	locks   locks
	sock    *socket

	ready    chan struct{} // closed by Open
	stopping chan struct{} // closed when Serve ends

	mu    sync.Mutex
	world world
	why   string
}

// New returns a server that does nothing yet.
func New(cfg Config) *Server {
	cfg.Deadline = min(cmp.Or(cfg.Deadline, DefaultDeadline), MaxDeadline)
	if cfg.Observe == nil {
		cfg.Observe = func(string, time.Duration, error) {}
	}
	s := &Server{cfg: cfg, log: cfg.Log, ready: make(chan struct{}), stopping: make(chan struct{})}
	s.methods = s.table()
	return s
}

// Listen binds the socket, so that an engine that starts finds it; Serve then answers. It fails when another process
// serves there.
func (s *Server) Listen() error {
	sock, err := listenAt(s.cfg.Dir, s.cfg.Name)
	if err != nil {
		return err
	}
	s.sock = sock
	return nil
}

// Waiting says why Open has not been called yet ("reading the state file"), for the answers to calls that wait for it.
func (s *Server) Waiting(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why = why
}

// Open lets the calls through that need the book. A second Open changes nothing.
func (s *Server) Open(book Book, applier Applier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.world.Book != nil {
		return
	}
	s.world = world{Book: book, Applier: applier, log: s.log, brief: s.cfg.Deadline / 10}
	close(s.ready)
}

// Serve answers until the context ends, then lets calls under way finish for at most 1.5 s. The socket's file is removed
// unless another agent has put its own there.
func (s *Server) Serve(ctx context.Context) error {
	if s.sock == nil {
		return errors.New("serve plugin socket: Listen comes first")
	}
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	srv := &http.Server{
		Handler:     s.handler(base),
		BaseContext: func(net.Listener) context.Context { return base },
		// No ReadTimeout or IdleTimeout: the engine keeps connections open, and one that is closed just as it sends makes
		// it repeat the request without its content.
		ReadHeaderTimeout: s.cfg.Deadline,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(s.sock.ln) }()
	var err error
	select {
	case err = <-ended:
		err = fmt.Errorf("serve plugin socket %s: %w", s.sock.path, err)
	case <-ctx.Done():
	}
	// The name goes first: who dials from now on retries until the next agent is there.
	err = errors.Join(err, s.sock.remove())
	close(s.stopping)
	s.stop(srv, cancel)
	return err
}

// stop waits for calls under way. Those that do not come to an end get an error answered, which the engine handles
// better than a connection that breaks.
func (s *Server) stop(srv *http.Server, cancel context.CancelCauseFunc) {
	for _, phase := range []time.Duration{stopFinish, stopAnswer} {
		ctx, done := context.WithTimeout(context.Background(), phase)
		err := srv.Shutdown(ctx)
		done()
		if err == nil {
			return
		}
		cancel(errStopping)
	}
	if err := srv.Close(); err != nil {
		s.log.Debug("close plugin connections", slog.Any("err", err))
	}
}
