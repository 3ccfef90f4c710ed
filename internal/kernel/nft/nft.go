// Package nft makes the kernel's packet filters agree with a kernel.Firewall. It is the only package that touches
// nftables and iptables.
//
// Three things are ours: the nftables tables "inet fairway" and, for the ports of our bridges, "bridge fairway", written
// over netlink, each in one transaction; and, with
// the host's own iptables programs, one jump with a comment in Docker's chain DOCKER-USER to our chain FAIRWAY. Both
// are known by their names and compared with what the kernel says, never with what was written before. Nothing else is
// changed, and no iptables table is made on a host that has none.
package nft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"fairway/internal/kernel"

	"golang.org/x/sys/unix"
)

// Config is what a Handle is opened with.
type Config struct {
	// Log may be nil.
	Log *slog.Logger
	// Namespace is a file descriptor of the network namespace to work in; 0 and below mean the process's own. It is
	// duplicated: the caller may close it after Open.
	Namespace int
	// IPTables and IP6Tables are the programs to run; empty means "iptables" and "ip6tables" in PATH or /usr/sbin, which is
	// what Docker runs, so that both agree on the backend.
	IPTables, IP6Tables string
}

// Handle works on the filters of one network namespace. It is safe for concurrent use; one caller at a time is served.
type Handle struct {
	log *slog.Logger
	ns  int // our own descriptor; 0: the process's namespace

	mu       sync.Mutex
	closed   bool
	nl       *socket
	families [2]*family
	// reversePath makes the expressions of the reverse path rule; a test puts in what no kernel knows.
	reversePath expressions
	// noReversePath says that the kernel refused that rule, so the table stands without it.
	noReversePath bool
	// made says that the table was once as it should be: from then on it is put back, not made.
	made bool
	// madeBridge is the same for the table of bridges, and noBridge says that the kernel has none of these.
	madeBridge, noBridge bool
	// sound is the generation of the nftables ruleset in which everything that nftables can tell was as soundFor wants.
	sound    uint32
	soundFor kernel.Firewall
	isSound  bool
}

// Open returns a handle. Nothing is read or written yet.
func Open(c Config) (*Handle, error) {
	h := &Handle{log: c.Log, reversePath: reversePath}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if c.Namespace > 0 {
		fd, err := unix.FcntlInt(uintptr(c.Namespace), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, fmt.Errorf("open network namespace, descriptor %d: %w", c.Namespace, err)
		}
		h.ns = fd
	}
	h.families = [2]*family{
		{name: "iptables", path: c.IPTables, nf: unix.NFPROTO_IPV4, names: "/proc/thread-self/net/ip_tables_names"},
		{name: "ip6tables", path: c.IP6Tables, nf: unix.NFPROTO_IPV6, names: "/proc/thread-self/net/ip6_tables_names"},
	}
	nl, err := h.dial()
	if err != nil {
		h.closeNamespace()
		return nil, err
	}
	h.nl = nl
	return h, nil
}

// errClosed is what every method returns after Close: without its descriptor a handle would work on another namespace.
var errClosed = errors.New("nftables handle is closed")

// Close gives the handle's descriptors back. The kernel keeps what it has.
func (h *Handle) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.closed = true
	h.nl.close()
	h.closeNamespace()
}

func (h *Handle) closeNamespace() {
	if h.ns > 0 {
		_ = unix.Close(h.ns)
	}
}

// Apply makes the kernel agree with fw. It compares first and writes only what differs; changed says in words what was
// made or mended, also when there is an error for something else.
func (h *Handle) Apply(ctx context.Context, fw kernel.Firewall) (changed []string, err error) {
	if err := validate(fw); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errClosed
	}
	h.isSound = false
	changed, err = h.applyTable(ctx, fw)
	bridged, e := h.applyBridge(ctx, fw)
	changed, err = append(changed, bridged...), errors.Join(err, e)
	for _, f := range h.families {
		c, e := h.applyFilter(ctx, f, h.program(ctx, f), fw)
		changed = append(changed, c...)
		err = errors.Join(err, e)
	}
	return changed, err
}

// Check says whether the kernel agrees with fw, and if not, what is missing. It writes nothing and is cheap: while the
// nftables ruleset is in the generation that was checked last, one message to the kernel is all, and only for
// iptables-legacy, which tells of no changes, a program is run (one a family).
func (h *Handle) Check(ctx context.Context, fw kernel.Firewall) (ok bool, missing []string, err error) {
	if err := validate(fw); err != nil {
		return false, nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false, nil, errClosed
	}
	gen, genErr := h.nl.generation(ctx)
	if genErr != nil || !h.isSound || h.sound != gen || !h.soundFor.Equal(fw) {
		missing, err = h.checkNFTables(ctx, fw)
		after, e := h.nl.generation(ctx)
		// What was read in two generations holds in neither.
		h.isSound = len(missing) == 0 && errors.Join(err, genErr, e) == nil && after == gen
		h.sound, h.soundFor = gen, clone(fw)
	}
	lacks, e := h.checkFilters(ctx, fw, func(b Backend) bool { return b == Legacy })
	missing, err = append(missing, lacks...), errors.Join(err, e)
	return err == nil && len(missing) == 0, missing, err
}

// checkNFTables says what is missing of all that nftables can tell.
func (h *Handle) checkNFTables(ctx context.Context, fw kernel.Firewall) (missing []string, err error) {
	lacks, err := h.checkTable(ctx, fw)
	for _, l := range lacks {
		missing = append(missing, "nftables: table inet "+kernel.TableName+": "+l)
	}
	bridge, e := h.checkBridge(ctx, fw)
	for _, l := range bridge.lacks {
		missing = append(missing, "nftables: table bridge "+kernel.TableName+": "+l)
	}
	err = errors.Join(err, e)
	more, e := h.checkFilters(ctx, fw, func(b Backend) bool { return b != Legacy })
	return append(missing, more...), errors.Join(err, e)
}

// checkFilters says what is missing in the filters of some backends.
func (h *Handle) checkFilters(ctx context.Context, fw kernel.Firewall, of func(Backend) bool) (missing []string, err error) {
	for _, f := range h.families {
		p := h.program(ctx, f)
		if !of(p.backend) {
			continue
		}
		lacks, e := h.checkFilter(ctx, f, p, fw)
		missing = append(missing, lacks...)
		err = errors.Join(err, e)
	}
	return missing, err
}

// Remove takes away everything of ours, in each backend of iptables that the host has, and nothing else.
func (h *Handle) Remove(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errClosed
	}
	h.isSound, h.made, h.madeBridge = false, false, false
	_, err := h.applyTable(ctx, kernel.Firewall{})
	_, e := h.applyBridge(ctx, kernel.Firewall{})
	err = errors.Join(err, e)
	for _, f := range h.families {
		for _, p := range h.programs(ctx, f) {
			_, e := h.applyFilter(ctx, f, p, kernel.Firewall{})
			if e == nil {
				e = h.checkRemoved(ctx, f, p)
			}
			err = errors.Join(err, e)
		}
	}
	return err
}

// inside runs fn in the handle's namespace. In another namespace than the process's own it has a thread for itself,
// which is thrown away afterwards: a thread that went elsewhere must never serve another goroutine.
func (h *Handle) inside(fn func() error) error {
	if h.ns <= 0 {
		return fn()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked, so that the thread ends with this goroutine
		if err := unix.Setns(h.ns, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace, descriptor %d: %w", h.ns, err)
			return
		}
		done <- fn()
	}()
	return <-done
}
