package rtnl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
	"fairway/internal/reconcile"
)

// Event is one thing that the kernel said; one field is set. What its pointers lead to is not changed by the receiver.
type Event struct {
	// Lost means that anything may have changed unheard, facts and sysctls too: list everything.
	Lost bool
	// Facts means that a link, an address or a default route that is not ours changed (Handle.Facts).
	Facts bool
	// Sysctl means that a forwarding setting, of a link or of all, was written.
	Sysctl bool
	// Link, Addr, Neigh and Route are what their tables would now list.
	Link  *reconcile.Change[string, kernel.Link]
	Addr  *reconcile.Change[kernel.AddrKey, struct{}]
	Neigh *reconcile.Change[kernel.NeighKey, kernel.MAC]
	Route *reconcile.Change[kernel.RouteKey, kernel.Route]
	// Sandbox is the name of a veth of ours whose peer went into another namespace, or came up or down there.
	Sandbox string
}

const (
	// retryWatch is how long Watch waits when it cannot subscribe.
	retryWatch = time.Second
	// burst is after how many messages in a row facts and sysctls are reported, though more wait.
	burst = 256
)

// errLost is the end of a subscription in which messages were lost.
var errLost = errors.New("netlink messages were lost")

// Watch tells fn of changes, from the calling goroutine, until ctx ends; then it returns nil. It begins, once it is
// subscribed, with Event{Lost: true}, and repeats that whenever messages were lost (ENOBUFS) or the subscription broke.
// Changes made through this handle are told too. An error means that it could not begin.
func (h *Handle) Watch(ctx context.Context, fn func(Event)) error {
	began := false
	for ctx.Err() == nil {
		started, err := h.watchOnce(ctx, fn)
		began = began || started
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of the context is how it ends
		}
		switch {
		case !began:
			return fmt.Errorf("watch the kernel: %w", err)
		case errors.Is(err, errLost):
			h.log.Info("subscribing to the kernel again", slog.Any("err", err))
			continue
		}
		h.log.Warn("subscription to the kernel broke", slog.Any("err", err))
		timer := time.NewTimer(retryWatch)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// watchOnce is one subscription.
func (h *Handle) watchOnce(ctx context.Context, fn func(Event)) (started bool, err error) {
	f, err := h.subscribe()
	if err != nil {
		return false, fmt.Errorf("subscribe: %w", err)
	}
	defer func() { _ = f.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	w := &watcher{h: h, fn: fn}
	if err := w.load(ctx); err != nil {
		return false, err
	}
	fn(Event{Lost: true})
	raw, err := f.SyscallConn()
	if err != nil {
		return true, err
	}
	return true, w.run(ctx, raw)
}

// subscribe returns a socket that hears of everything that Watch tells.
func (h *Handle) subscribe() (*os.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errClosed
	}
	fd := -1
	err := inNamespace(h.ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "netlink")
	setBuffer(fd, h.watchBuffer)
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, routeFilter()); err != nil {
		h.log.Debug("hearing of every route", slog.Any("err", err))
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	for _, group := range []int{
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_NETCONF,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_NETCONF,
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			return nil, errors.Join(fmt.Errorf("join netlink group %d: %w", group, err), f.Close())
		}
	}
	return f, nil
}

// routeFilter keeps strangers' routes away in the kernel, of which a router may have a million: only those of our
// protocol, default routes, and those that took the place of another come through.
func routeFilter() *unix.SockFprog {
	const (
		loadHalf = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
		loadByte = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		equal    = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		anyBit   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		ret      = unix.BPF_RET | unix.BPF_K
	)
	prog := []unix.SockFilter{
		{Code: loadHalf, K: 4}, // nlmsg_type
		{Code: equal, K: swap16(unix.RTM_NEWROUTE), Jt: 1},
		{Code: equal, K: swap16(unix.RTM_DELROUTE), Jf: 6},
		{Code: loadByte, K: sizeHeader + 5}, // rtm_protocol
		{Code: equal, K: kernel.RouteProtocol, Jt: 4},
		{Code: loadByte, K: sizeHeader + 1}, // rtm_dst_len
		{Code: equal, K: 0, Jt: 2},
		{Code: loadHalf, K: 6}, // nlmsg_flags
		{Code: anyBit, K: swap16(unix.NLM_F_REPLACE), Jf: 1},
		{Code: ret, K: 1 << 30},
		{Code: ret, K: 0},
	}
	return &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
}

// run reads messages until the context ends or something is lost.
func (w *watcher) run(ctx context.Context, raw syscall.RawConn) error {
	buf := make([]byte, readBuffer)
	for since := 0; ; since++ {
		n, err := w.recv(raw, buf)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			return errors.Join(errLost, err)
		case err != nil:
			return err
		}
		for h, p := range messages(buf[:n]) {
			w.take(h, p)
		}
		if n == 0 {
			if err := w.settle(ctx); err != nil {
				return err
			}
		}
		if n == 0 || since >= burst {
			since = 0
			w.flush()
		}
	}
}

// recv reads one datagram. When none waits it returns 0 if there is something to settle first, or else waits.
func (w *watcher) recv(raw syscall.RawConn, buf []byte) (n int, err error) {
	waitErr := raw.Read(func(fd uintptr) bool {
		var from unix.Sockaddr
		for {
			n, from, err = unix.Recvfrom(int(fd), buf, unix.MSG_TRUNC)
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case errors.Is(err, unix.EAGAIN):
				n, err = 0, nil
				return w.unsettled()
			case err != nil:
				return true
			case n > len(buf):
				err = errLost
				return true
			}
			if sa, ok := from.(*unix.SockaddrNetlink); ok && sa.Pid == 0 {
				return true
			}
		}
	})
	return n, errors.Join(waitErr, err)
}
