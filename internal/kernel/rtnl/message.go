package rtnl

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
)

// Sizes in bytes of the fixed parts of messages (linux/netlink.h, linux/rtnetlink.h and their kin).
const (
	sizeHeader  = 16 // nlmsghdr
	sizeIfinfo  = 16 // ifinfomsg
	sizeIfaddr  = 8  // ifaddrmsg
	sizeNeigh   = 12 // ndmsg
	sizeRoute   = 12 // rtmsg
	sizeNextHop = 8  // rtnexthop
	sizeNetconf = 4  // netconfmsg, padded
)

// attrTypeMask takes NLA_F_NESTED and NLA_F_NET_BYTEORDER off an attribute's type.
const attrTypeMask = 0x3fff

// header is a netlink message header (struct nlmsghdr) without its length.
type header struct {
	typ, flags uint16
	seq, port  uint32
}

// builder appends netlink messages, native byte order, to a buffer.
type builder struct {
	b      []byte
	start  int    // of the message being built
	metric uint32 // of our routes; 0: kernel.RouteMetric
	table  uint32 // of our routes; 0: the main table
}

// prio is the metric of our routes.
func (w *builder) prio() uint32 {
	if w.metric == 0 {
		return kernel.RouteMetric
	}
	return w.metric
}

// routes is the table of our routes.
func (w *builder) routes() int {
	if w.table == 0 {
		return unix.RT_TABLE_MAIN
	}
	return int(w.table)
}

// putTable names the table of our routes where the byte in the fixed part cannot.
func (w *builder) putTable() {
	if w.table != 0 {
		w.u32(unix.RTA_TABLE, w.table)
	}
}

// shortTable is the table for the fixed part of a message.
func (w *builder) shortTable() byte {
	if w.table != 0 {
		return unix.RT_TABLE_UNSPEC
	}
	return unix.RT_TABLE_MAIN
}

func (w *builder) reset() { w.b = w.b[:0] }

// begin starts a message with its fixed part after the header.
func (w *builder) begin(typ, flags uint16, fixed ...byte) {
	w.start = len(w.b)
	w.b = append(w.b, 0, 0, 0, 0)
	w.b = binary.NativeEndian.AppendUint16(w.b, typ)
	w.b = binary.NativeEndian.AppendUint16(w.b, flags|unix.NLM_F_REQUEST)
	w.b = append(w.b, 0, 0, 0, 0, 0, 0, 0, 0)
	w.b = append(w.b, fixed...)
}

// end sets length and sequence number of the message.
func (w *builder) end(seq uint32) {
	binary.NativeEndian.PutUint32(w.b[w.start:], uint32(len(w.b)-w.start))
	binary.NativeEndian.PutUint32(w.b[w.start+8:], seq)
}

// addFlags adds to the flags of the message begun last.
func (w *builder) addFlags(flags uint16) {
	p := w.b[w.start+6:]
	binary.NativeEndian.PutUint16(p, binary.NativeEndian.Uint16(p)|flags)
}

func (w *builder) bytes(typ uint16, v []byte) {
	w.b = binary.NativeEndian.AppendUint16(w.b, uint16(4+len(v)))
	w.b = binary.NativeEndian.AppendUint16(w.b, typ)
	w.b = append(w.b, v...)
	w.pad()
}

func (w *builder) u32(typ uint16, v uint32) {
	w.b = binary.NativeEndian.AppendUint16(w.b, 8)
	w.b = binary.NativeEndian.AppendUint16(w.b, typ)
	w.b = binary.NativeEndian.AppendUint32(w.b, v)
}

func (w *builder) str(typ uint16, s string) { w.bytes(typ, append([]byte(s), 0)) }

func (w *builder) addr(typ uint16, a netip.Addr) {
	if a.Is4() {
		v := a.As4()
		w.bytes(typ, v[:])
		return
	}
	v := a.As16()
	w.bytes(typ, v[:])
}

// nest appends an attribute made of what fn appends.
func (w *builder) nest(typ uint16, fn func()) {
	at := len(w.b)
	w.b = append(w.b, 0, 0)
	w.b = binary.NativeEndian.AppendUint16(w.b, typ)
	fn()
	binary.NativeEndian.PutUint16(w.b[at:], uint16(len(w.b)-at))
	w.pad()
}

func (w *builder) pad() {
	for len(w.b)%4 != 0 {
		w.b = append(w.b, 0)
	}
}

// ifinfo is a struct ifinfomsg of no family.
func ifinfo(index int, flags, change uint32) []byte {
	b := []byte{unix.AF_UNSPEC, 0, 0, 0}
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, change)
}

// messages yields the messages of a datagram. A cut-off end is left out.
func messages(b []byte) iter.Seq2[header, []byte] {
	return func(yield func(header, []byte) bool) {
		for len(b) >= sizeHeader {
			l := int(binary.NativeEndian.Uint32(b))
			if l < sizeHeader || l > len(b) {
				return
			}
			h := header{
				typ:   binary.NativeEndian.Uint16(b[4:]),
				flags: binary.NativeEndian.Uint16(b[6:]),
				seq:   binary.NativeEndian.Uint32(b[8:]),
				port:  binary.NativeEndian.Uint32(b[12:]),
			}
			if !yield(h, b[sizeHeader:l]) {
				return
			}
			b = b[min((l+3)&^3, len(b)):]
		}
	}
}

// attributes yields type and payload of the attributes. A cut-off end is left out.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= 4 {
			l := int(binary.NativeEndian.Uint16(b))
			if l < 4 || l > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&attrTypeMask, b[4:l]) {
				return
			}
			b = b[min((l+3)&^3, len(b)):]
		}
	}
}

// number reads a 32-bit attribute; 0 when it is shorter.
func number(v []byte) int {
	if len(v) < 4 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(v)))
}

// first reads an 8-bit attribute; 0 when it is empty.
func first(v []byte) byte {
	if len(v) == 0 {
		return 0
	}
	return v[0]
}

// text reads a string attribute without its final zero.
func text(v []byte) string {
	for i, c := range v {
		if c == 0 {
			return string(v[:i])
		}
	}
	return string(v)
}

// address reads an address attribute of 4 or 16 bytes; the zero Addr for others.
func address(v []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(v)
	return a
}

// mac reads an Ethernet address; the zero MAC for others.
func mac(v []byte) kernel.MAC {
	var m kernel.MAC
	if len(v) == len(m) {
		copy(m[:], v)
	}
	return m
}

// family is the address family of an address.
func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// kernelError is the kernel's refusal: an error number and, from newer kernels, what it said to it (NLMSGERR_ATTR_MSG).
type kernelError struct {
	errno unix.Errno
	said  string
}

func (e *kernelError) Error() string {
	if e.said == "" {
		return e.errno.Error()
	}
	return fmt.Sprintf("%s (%s)", e.errno.Error(), e.said)
}

func (e *kernelError) Unwrap() error { return e.errno }

// parseError reads the payload of an NLMSG_ERROR; nil for an acknowledgement.
func parseError(h header, b []byte) error {
	if len(b) < 4 {
		return fmt.Errorf("netlink error message of %d bytes", len(b))
	}
	code := number(b)
	if code == 0 {
		return nil
	}
	e := &kernelError{errno: unix.Errno(-code)}
	if h.flags&unix.NLM_F_ACK_TLVS == 0 {
		return e
	}
	skip := 4 + sizeHeader
	if h.flags&unix.NLM_F_CAPPED == 0 && len(b) >= 8 {
		skip = 4 + (number(b[4:])+3)&^3
	}
	if skip < 0 || skip > len(b) {
		return e
	}
	for t, v := range attributes(b[skip:]) {
		if t == unix.NLMSGERR_ATTR_MSG {
			e.said = text(v)
		}
	}
	return e
}
