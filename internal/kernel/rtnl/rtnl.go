// Package rtnl lists, sets, deletes and watches the kernel's links, addresses, neighbours and routes over rtnetlink, and
// reads and writes sysctls. It is the only package that speaks netlink or touches /proc/sys. It decides nothing: what
// should be true comes as values of package kernel, what is true goes back as such.
//
// Only what is ours is ever changed: links with our alias (kernel.AliasPrefix), addresses and neighbour entries on such
// links, routes of our protocol and metric (kernel.RouteProtocol, kernel.RouteMetric) in the main table.
//
// A Handle is bound to one network namespace by its file descriptor, whatever thread calls it. Threads enter another
// namespace only to make a socket or to open a file there, locked, and come back or end.
package rtnl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Config says where a Handle works.
type Config struct {
	// Log gets every kernel operation at debug level, in the form of ip(8). nil logs nothing.
	Log *slog.Logger
	// Namespace is a file descriptor of a network namespace, which Open duplicates; 0 or less means the namespace of
	// the thread that calls Open.
	Namespace int
	// Metric is the metric of the routes that the handle lists and makes; 0 means kernel.RouteMetric. Two programs in one
	// namespace keep apart by it.
	Metric uint32
	// Table is the routing table that the handle lists and makes routes in; 0 means the main table. Lookups come to
	// another one only by rules: see Handle.Lead.
	Table uint32
	// ProcSys is the directory of the sysctls; "" means /proc/sys.
	ProcSys string
}

// Handle works on one network namespace. It is safe for concurrent use; each of its tables is used by one goroutine at
// a time.
type Handle struct {
	log     *slog.Logger
	ns      int // owned
	procSys string
	metric  uint32
	table   uint32

	mu     sync.Mutex
	idle   []*conn
	closed bool

	fresh freshNames

	// watchBuffer is the receive buffer of Watch in bytes.
	watchBuffer int
}

const (
	// maxIdle is how many sockets a handle keeps for later.
	maxIdle = 4
	// watchBuffer takes some 30,000 messages: what a change of many routes at once causes before Watch has read it.
	watchBuffer = 32 << 20
)

// errClosed is returned by a handle after Close.
var errClosed = errors.New("netlink handle is closed")

// Open returns a handle. The caller closes it.
func Open(cfg Config) (*Handle, error) {
	h := &Handle{log: cfg.Log, procSys: cfg.ProcSys, metric: cfg.Metric, table: cfg.Table, watchBuffer: watchBuffer}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.procSys == "" {
		h.procSys = "/proc/sys"
	}
	var err error
	if cfg.Namespace > 0 {
		h.ns, err = unix.FcntlInt(uintptr(cfg.Namespace), unix.F_DUPFD_CLOEXEC, 0)
	} else {
		h.ns, err = openOwnNamespace()
	}
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	if err := h.with(context.Background(), func(*conn) error { return nil }); err != nil {
		_ = unix.Close(h.ns)
		return nil, err
	}
	return h, nil
}

// Close frees the handle's sockets. It does not end a Watch; its context does. Nothing in the kernel changes.
func (h *Handle) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.closed = true
	for _, c := range h.idle {
		c.close()
	}
	h.idle = nil
	_ = unix.Close(h.ns)
}

// with lends a socket of the handle's namespace to fn. A socket on which something unexpected happened is not used again.
func (h *Handle) with(ctx context.Context, fn func(*conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := h.take()
	if err != nil {
		return err
	}
	defer h.put(c)
	return fn(c)
}

func (h *Handle) take() (*conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errClosed
	}
	if n := len(h.idle); n > 0 {
		c := h.idle[n-1]
		h.idle = h.idle[:n-1]
		return c, nil
	}
	c, err := dial(h.ns)
	if err == nil {
		c.w.metric, c.w.table = h.metric, h.table
	}
	return c, err
}

func (h *Handle) put(c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.broken || h.closed || len(h.idle) >= maxIdle {
		c.close()
		return
	}
	h.idle = append(h.idle, c)
}

// debugging says whether operations need to be put into words.
func (h *Handle) debugging(ctx context.Context) bool { return h.log.Enabled(ctx, slog.LevelDebug) }

// did logs an operation in the form of ip(8).
func (h *Handle) did(ctx context.Context, format string, args ...any) {
	if h.debugging(ctx) {
		h.log.DebugContext(ctx, "changed the kernel", slog.String("op", fmt.Sprintf(format, args...)))
	}
}

func openOwnNamespace() (int, error) {
	return unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// inNamespace runs fn on a thread that is in the network namespace of the file descriptor. The thread comes back to
// where it was; if it cannot, it ends with its goroutine instead of being used again.
func inNamespace(ns int, fn func() error) (err error) {
	done := make(chan struct{})
	var run func()
	run = func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end, and /proc/self shows its namespaces as the process's. While it is held here,
			// another goroutine has another thread.
			go run()
			<-done
			runtime.UnlockOSThread()
			return
		}
		defer close(done)
		back, failed := enter(ns)
		if failed != nil {
			runtime.UnlockOSThread()
			err = failed
			return
		}
		err = fn()
		if back() == nil {
			runtime.UnlockOSThread()
		}
	}
	go run()
	<-done
	return err
}

// enter takes the calling thread into the namespace, unless it is there already, which needs no privilege.
func enter(ns int) (back func() error, err error) {
	own, err := openOwnNamespace()
	if err != nil {
		return nil, fmt.Errorf("open own network namespace: %w", err)
	}
	var a, b unix.Stat_t
	if unix.Fstat(own, &a) == nil && unix.Fstat(ns, &b) == nil && a.Ino == b.Ino && a.Dev == b.Dev {
		_ = unix.Close(own)
		return func() error { return nil }, nil
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		_ = unix.Close(own)
		return nil, fmt.Errorf("enter network namespace: %w", err)
	}
	return func() error {
		defer func() { _ = unix.Close(own) }()
		return unix.Setns(own, unix.CLONE_NEWNET)
	}, nil
}
