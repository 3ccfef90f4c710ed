package rtnl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// answerBuffer is the receive buffer of a request socket, bytes: room for the errors of a whole chunk.
	answerBuffer = 8 << 20
	// readBuffer holds one datagram; the kernel fills at most 32 KiB of it with a dump.
	readBuffer = 128 << 10
	// chunk is how many bytes of messages go out with one system call.
	chunk = 48 << 10
	// dumpTries bounds how often an interrupted dump is begun again; each try takes milliseconds.
	dumpTries = 100
	// answerSeconds is how long an answer may take; the kernel answers within the sending system call.
	answerSeconds = 30
)

// errInterrupted is a dump during which what was listed changed.
var errInterrupted = errors.New("dump interrupted by a change")

// conn is a netlink socket in one network namespace, used by one goroutine at a time.
type conn struct {
	fd     int
	seq    uint32
	strict bool // the kernel checks and obeys filters in dump requests (Linux 4.20)
	broken bool // answers may be under way that nobody waits for
	buf    []byte
	w      builder
}

// dial makes a route netlink socket in the namespace.
func dial(ns int) (*conn, error) { return dialProtocol(ns, unix.NETLINK_ROUTE) }

func dialProtocol(ns, protocol int) (*conn, error) {
	fd := -1
	err := inNamespace(ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("bind netlink socket: %w", err)
	}
	setBuffer(fd, answerBuffer)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: answerSeconds})
	// Older kernels lack these; what they give is a shorter answer, a text to an error, a filter.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	strict := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1) == nil
	return &conn{fd: fd, strict: strict, buf: make([]byte, readBuffer)}, nil
}

// setBuffer asks for a receive buffer beyond the system's limit, or else as large as allowed.
func setBuffer(fd, bytes int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
	}
}

func (c *conn) close() { _ = unix.Close(c.fd) }

func (c *conn) next() uint32 {
	c.seq++
	return c.seq
}

func (c *conn) send(b []byte) error {
	for {
		err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			c.broken = true
			return os.NewSyscallError("send to netlink", err)
		}
		return nil
	}
}

// recv returns the next datagram from the kernel, valid until the next call.
func (c *conn) recv() ([]byte, error) {
	for {
		n, from, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			c.broken = true
			if errors.Is(err, unix.EAGAIN) {
				return nil, fmt.Errorf("netlink gave no answer within %d s", answerSeconds)
			}
			return nil, os.NewSyscallError("receive from netlink", err)
		case n > len(c.buf):
			c.broken = true
			return nil, fmt.Errorf("netlink message of %d bytes is longer than %d", n, len(c.buf))
		}
		if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
			continue // not from the kernel
		}
		return c.buf[:n], nil
	}
}

// do sends one message and returns the kernel's verdict.
func (c *conn) do(build func(w *builder)) error {
	return c.doAll(build)[0]
}

// doAll sends messages with one system call, and returns the verdict on each, in order.
func (c *conn) doAll(build ...func(w *builder)) []error {
	c.w.reset()
	first := c.seq + 1
	for _, fn := range build {
		fn(&c.w)
		c.w.addFlags(unix.NLM_F_ACK)
		c.w.end(c.next())
	}
	errs := make([]error, len(build))
	err := c.send(c.w.b)
	for left := len(build); left > 0 && err == nil; {
		var b []byte
		if b, err = c.recv(); err != nil {
			break
		}
		for h, p := range messages(b) {
			if i := int(h.seq - first); h.typ == unix.NLMSG_ERROR && i >= 0 && i < len(errs) {
				errs[i] = parseError(h, p)
				left--
			}
		}
	}
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
	}
	return errs
}

// get sends one request that is answered with one object.
func get[T any](c *conn, build func(w *builder), parse func(payload []byte) (T, bool)) (T, error) {
	var out T
	c.w.reset()
	build(&c.w)
	seq := c.next()
	c.w.end(seq)
	if err := c.send(c.w.b); err != nil {
		return out, err
	}
	for {
		b, err := c.recv()
		if err != nil {
			return out, err
		}
		for h, p := range messages(b) {
			switch {
			case h.seq != seq:
			case h.typ == unix.NLMSG_ERROR:
				return out, parseError(h, p)
			default:
				out, _ = parse(p)
				return out, nil
			}
		}
	}
}

// dump lists objects; parse picks and reads them.
func dump[T any](ctx context.Context, c *conn, build func(w *builder), parse func(payload []byte) (T, bool)) ([]T, error) {
	var out []T
	err := c.dump(ctx, build, func() { out = out[:0] }, func(p []byte) bool {
		if v, ok := parse(p); ok {
			out = append(out, v)
		}
		return true
	})
	return out, err
}

// dump lists objects until each returns false. A dump that was interrupted by a change (NLM_F_DUMP_INTR, EINTR) may lack
// objects that were there all the time, and is begun again; restart is called before every try.
func (c *conn) dump(ctx context.Context, build func(w *builder), restart func(), each func(payload []byte) bool) error {
	for range dumpTries {
		if err := ctx.Err(); err != nil {
			return err
		}
		restart()
		if err := c.dumpOnce(build, each); !errors.Is(err, errInterrupted) {
			return err
		}
	}
	return fmt.Errorf("%w, %d times in a row", errInterrupted, dumpTries)
}

// dumpOnce lists objects until each returns false.
func (c *conn) dumpOnce(build func(w *builder), each func(payload []byte) bool) error {
	c.w.reset()
	build(&c.w)
	c.w.addFlags(unix.NLM_F_DUMP)
	seq := c.next()
	c.w.end(seq)
	if err := c.send(c.w.b); err != nil {
		return err
	}
	interrupted := false
	for {
		b, err := c.recv()
		if err != nil {
			return err
		}
		for h, p := range messages(b) {
			if h.seq != seq {
				continue
			}
			interrupted = interrupted || h.flags&unix.NLM_F_DUMP_INTR != 0
			switch h.typ {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				return dumpEnd(h, p, interrupted)
			default:
				if !each(p) {
					c.broken = true // the rest of the dump goes with the socket
					return nil
				}
			}
		}
	}
}

func dumpEnd(h header, p []byte, interrupted bool) error {
	err := error(nil)
	if h.typ == unix.NLMSG_ERROR || len(p) >= 4 {
		err = parseError(h, p)
	}
	if interrupted || errors.Is(err, unix.EINTR) {
		return errInterrupted
	}
	return err
}

// pipeline sends n messages, hundreds with one system call, and calls fail for each that the kernel refused. The kernel
// answers errors always, successes only when asked: the last message of a chunk asks, so that its answer ends the wait.
func (c *conn) pipeline(ctx context.Context, n int, build func(w *builder, i int), fail func(i int, err error)) {
	for i := 0; i < n; {
		if err := ctx.Err(); err != nil {
			failRest(i, n, err, fail)
			return
		}
		c.w.reset()
		from, first := i, c.seq+1
		for i < n && len(c.w.b) < chunk {
			build(&c.w, i)
			c.w.end(c.next())
			i++
		}
		c.w.addFlags(unix.NLM_F_ACK)
		err := c.send(c.w.b)
		if err == nil {
			err = c.verdicts(first, func(k int, err error) { fail(from+k, err) })
		}
		if err != nil {
			failRest(from, n, err, fail)
			return
		}
	}
}

func failRest(from, n int, err error, fail func(i int, err error)) {
	for ; from < n; from++ {
		fail(from, err)
	}
}

// verdicts reads answers until that to the last message sent, whose number is c.seq.
func (c *conn) verdicts(first uint32, fail func(k int, err error)) error {
	for {
		b, err := c.recv()
		if err != nil {
			return err
		}
		done := false
		for h, p := range messages(b) {
			if h.typ != unix.NLMSG_ERROR || h.seq-first > c.seq-first {
				continue
			}
			if err := parseError(h, p); err != nil {
				fail(int(h.seq-first), err)
			}
			done = done || h.seq == c.seq
		}
		if done {
			return nil
		}
	}
}

// swap16 turns a native 16-bit number into what a socket filter loads, which is in network order.
func swap16(v uint16) uint32 {
	return uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, v)))
}
