package rtnl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
)

// Messages of the connection tracking subsystem (linux/netfilter/nfnetlink_conntrack.h).
const (
	ctGet    = 1 // IPCTNL_MSG_CT_GET
	ctDelete = 2 // IPCTNL_MSG_CT_DELETE

	ctaTupleOrig  = 1  // CTA_TUPLE_ORIG
	ctaTupleReply = 2  // CTA_TUPLE_REPLY
	ctaID         = 12 // CTA_ID
	ctaZone       = 18 // CTA_ZONE

	ctaTupleIP = 1 // CTA_TUPLE_IP
	// CTA_IP_V4_SRC, _V4_DST, _V6_SRC and _V6_DST are 1 to 4.
	ctaSource4, ctaTarget4, ctaSource6, ctaTarget6 = 1, 2, 3, 4
)

// trackedFlow is a flow and what names it to the kernel.
type trackedFlow struct {
	kernel.Flow
	family   byte
	tuple    []byte // of CTA_TUPLE_ORIG, as the kernel told it
	id, zone []byte // zone: none when empty
}

// DeleteFlows makes the kernel forget the tracked connections that stale picks, and returns how many they were: their
// next packet begins a new connection, to which the rules apply as they are now. One that ends meanwhile is no error.
// A kernel that cannot list connections is an error.
func (h *Handle) DeleteFlows(ctx context.Context, stale func(kernel.Flow) bool) (int, error) {
	c, err := dialProtocol(h.ns, unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, err
	}
	defer c.close()
	var flows []trackedFlow
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		var some []trackedFlow
		// The kernel does not say that such a dump was interrupted; a flow that it leaves out began under the new rules.
		err := c.dump(ctx, func(w *builder) { beginConntrack(w, ctGet, family) }, func() { some = nil }, func(p []byte) bool {
			if f, ok := parseFlow(p); ok && f.family == family && stale(f.Flow) {
				some = append(some, f)
			}
			return true
		})
		if err != nil {
			return 0, fmt.Errorf("list tracked connections: %w", err)
		}
		flows = append(flows, some...)
	}
	deleted := 0
	var errs []error
	for _, f := range flows {
		err := c.do(func(w *builder) {
			beginConntrack(w, ctDelete, f.family)
			w.bytes(ctaTupleOrig|unix.NLA_F_NESTED, f.tuple)
			w.bytes(ctaID, f.id)
			if len(f.zone) > 0 {
				w.bytes(ctaZone, f.zone)
			}
		})
		switch {
		case err == nil:
			deleted++
			h.log.Debug("forgot a tracked connection", slog.String("src", f.Src.String()), slog.String("dst", f.Dst.String()))
		case !errors.Is(err, unix.ENOENT):
			errs = append(errs, fmt.Errorf("forget tracked connection from %s to %s: %w", f.Src, f.Dst, err))
		}
	}
	return deleted, errors.Join(errs...)
}

// beginConntrack starts a message with its struct nfgenmsg: family, version 0, resource 0.
func beginConntrack(w *builder, kind uint16, family byte) {
	w.begin(unix.NFNL_SUBSYS_CTNETLINK<<8|kind, 0, family, unix.NFNETLINK_V0, 0, 0)
}

// parseFlow reads one connection; false for what is none.
func parseFlow(p []byte) (trackedFlow, bool) {
	if len(p) < 4 {
		return trackedFlow{}, false
	}
	f := trackedFlow{family: p[0]}
	var replySrc, replyDst netip.Addr
	for t, v := range attributes(p[4:]) {
		switch t {
		case ctaTupleOrig:
			f.tuple = append([]byte(nil), v...) // the buffer is used again
			f.Src, _ = tupleAddrs(v)
		case ctaTupleReply:
			replySrc, replyDst = tupleAddrs(v)
		case ctaID:
			f.id = append([]byte(nil), v...)
		case ctaZone:
			if len(v) == 2 && binary.BigEndian.Uint16(v) != 0 {
				f.zone = append([]byte(nil), v...)
			}
		}
	}
	// What answers is where it really went, and whom it answers is whom it saw.
	f.Dst, f.Seen = replySrc, replyDst
	return f, f.Src.IsValid() && f.Dst.IsValid() && f.Seen.IsValid() && len(f.id) == 4
}

func tupleAddrs(b []byte) (src, dst netip.Addr) {
	for t, v := range attributes(b) {
		if t != ctaTupleIP {
			continue
		}
		for t, v := range attributes(v) {
			switch t {
			case ctaSource4, ctaSource6:
				src = address(v)
			case ctaTarget4, ctaTarget6:
				dst = address(v)
			}
		}
	}
	return src, dst
}
