package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// answerTime bounds the wait for one answer of the kernel, which has no reason to take any time at all.
const answerTime = 5 * time.Second

// sizeofGenmsg is the size of struct nfgenmsg: family, version, resource (linux/netfilter/nfnetlink.h).
const sizeofGenmsg = 4

// errInterrupted is a dump during which the ruleset changed: what was read may be half of each.
var errInterrupted = errors.New("ruleset changed while it was read")

// socket is a netlink socket of the netfilter family. It reads the ruleset as the kernel tells it, every expression of
// it: a library that skips the expressions that it does not know would find an edited rule unchanged.
type socket struct {
	file *os.File
	raw  syscall.RawConn
	seq  uint32
	buf  []byte
}

// message is one message of the kernel about nftables.
type message struct {
	kind   uint8 // NFT_MSG_*
	family uint8 // NFPROTO_*
	attrs  []byte
}

// dial opens a socket in the handle's namespace and joins the given multicast groups (NFNLGRP_*).
func (h *Handle) dial(groups ...int) (*socket, error) {
	s := &socket{buf: make([]byte, 64<<10)}
	err := h.inside(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
		if err != nil {
			return fmt.Errorf("open netfilter socket: %w", err)
		}
		s.file = os.NewFile(uintptr(fd), "netfilter")
		if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return fmt.Errorf("bind netfilter socket: %w", err)
		}
		for _, g := range groups {
			if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
				return fmt.Errorf("join netfilter group %d: %w", g, err)
			}
		}
		s.raw, err = s.file.SyscallConn()
		return err
	})
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *socket) close() {
	if s.file != nil {
		_ = s.file.Close()
	}
}

// receive waits for a datagram. It is valid until the next call.
func (s *socket) receive() ([]byte, error) {
	var n int
	var err error
	waited := s.raw.Read(func(fd uintptr) bool {
		for err = unix.EINTR; errors.Is(err, unix.EINTR); {
			n, _, err = unix.Recvfrom(int(fd), s.buf, 0)
		}
		return !errors.Is(err, unix.EAGAIN)
	})
	if waited != nil {
		return nil, waited
	}
	if err != nil {
		return nil, err
	}
	return s.buf[:n], nil
}

// request asks the kernel and returns its answers. With NLM_F_DUMP in flags that is all there is of a kind.
func (s *socket) request(ctx context.Context, kind uint8, family uint8, flags uint16, attrs ...[]byte) ([]message, error) {
	deadline := time.Now().Add(answerTime)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.file.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	s.seq++
	if err := s.send(encode(kind, family, flags, s.seq, attrs)); err != nil {
		return nil, err
	}
	var all []message
	for {
		b, err := s.receive()
		if err != nil {
			return nil, err
		}
		done, err := s.answers(b, &all)
		if done || err != nil {
			return all, err
		}
	}
}

func (s *socket) send(b []byte) error {
	var err error
	if waited := s.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return !errors.Is(err, unix.EAGAIN)
	}); waited != nil {
		return waited
	}
	return err
}

// answers adds the messages of a datagram that answer the last request, and says whether that was all of them.
func (s *socket) answers(b []byte, all *[]message) (done bool, err error) {
	for h, body := range messages(b) {
		if h.Seq != s.seq {
			continue // of a request that was given up
		}
		if h.Flags&unix.NLM_F_DUMP_INTR != 0 {
			return true, errInterrupted
		}
		switch h.Type {
		case unix.NLMSG_ERROR, unix.NLMSG_DONE:
			if len(body) >= 4 {
				if n := int32(binary.NativeEndian.Uint32(body)); n != 0 {
					return true, syscall.Errno(-n)
				}
			}
			return true, nil
		default:
			if len(body) >= sizeofGenmsg {
				m := message{kind: uint8(h.Type), family: body[0]}
				m.attrs = append(m.attrs, body[sizeofGenmsg:]...) // the buffer is used again
				*all = append(*all, m)
			}
		}
	}
	return false, nil
}

// messages yields header and body of each netlink message in a datagram.
func messages(b []byte) iter.Seq2[unix.NlMsghdr, []byte] {
	return func(yield func(unix.NlMsghdr, []byte) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			h := unix.NlMsghdr{
				Len:   binary.NativeEndian.Uint32(b),
				Type:  binary.NativeEndian.Uint16(b[4:]),
				Flags: binary.NativeEndian.Uint16(b[6:]),
				Seq:   binary.NativeEndian.Uint32(b[8:]),
			}
			if h.Len < unix.SizeofNlMsghdr || int(h.Len) > len(b) {
				return
			}
			if !yield(h, b[unix.SizeofNlMsghdr:h.Len]) {
				return
			}
			b = b[min(align(int(h.Len)), len(b)):]
		}
	}
}

// attributes yields type (without its flags) and value of each netlink attribute.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			n := int(binary.NativeEndian.Uint16(b))
			t := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if n < unix.SizeofNlAttr || n > len(b) {
				return
			}
			if !yield(t, b[unix.SizeofNlAttr:n]) {
				return
			}
			b = b[min(align(n), len(b)):]
		}
	}
}

func align(n int) int { return (n + 3) &^ 3 }

// encode is a request about nftables.
func encode(kind, family uint8, flags uint16, seq uint32, attrs [][]byte) []byte {
	n := unix.SizeofNlMsghdr + sizeofGenmsg
	for _, a := range attrs {
		n += len(a)
	}
	b := make([]byte, unix.SizeofNlMsghdr, n)
	binary.NativeEndian.PutUint32(b, uint32(n))
	binary.NativeEndian.PutUint16(b[4:], unix.NFNL_SUBSYS_NFTABLES<<8|uint16(kind))
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	binary.NativeEndian.PutUint32(b[8:], seq)
	b = append(b, family, unix.NFNETLINK_V0, 0, 0)
	for _, a := range attrs {
		b = append(b, a...)
	}
	return b
}

// text is an attribute that holds a string.
func text(kind uint16, s string) []byte {
	n := unix.SizeofNlAttr + len(s) + 1
	b := make([]byte, align(n))
	binary.NativeEndian.PutUint16(b, uint16(n))
	binary.NativeEndian.PutUint16(b[2:], kind)
	copy(b[unix.SizeofNlAttr:], s)
	return b
}
