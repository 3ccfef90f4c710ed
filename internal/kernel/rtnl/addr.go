package rtnl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
	"fairway/internal/reconcile"
)

// Addrs is the table of addresses on our links. IPv6 link-local ones are the kernel's and never listed. Addresses are
// set without duplicate address detection (IFA_F_NODAD), so that they work at once, and without a route to their subnet
// (IFA_F_NOPREFIXROUTE): whoever wants one has it among the routes, where it is looked after.
func (h *Handle) Addrs() reconcile.Table[kernel.AddrKey, struct{}] { return addrs{h} }

type addrs struct{ h *Handle }

// addrMsg is what an RTM_NEWADDR says.
type addrMsg struct {
	index  int
	prefix netip.Prefix // with host bits
}

// parseAddr reads the payload of RTM_NEWADDR and RTM_DELADDR.
func parseAddr(p []byte) (addrMsg, bool) {
	if len(p) < sizeIfaddr {
		return addrMsg{}, false
	}
	var ip netip.Addr
	for t, v := range attributes(p[sizeIfaddr:]) {
		// IFA_ADDRESS is the other end's on a point-to-point link; IFA_LOCAL then is ours.
		if t == unix.IFA_LOCAL || t == unix.IFA_ADDRESS && !ip.IsValid() {
			ip = address(v)
		}
	}
	if !ip.IsValid() {
		return addrMsg{}, false
	}
	return addrMsg{index: number(p[4:]), prefix: netip.PrefixFrom(ip, int(p[1]))}, true
}

// ignored says that the address is the kernel's own.
func (a addrMsg) ignored() bool { return a.prefix.Addr().Is6() && a.prefix.Addr().IsLinkLocalUnicast() }

// dumpAddrs lists all addresses of the socket's namespace, of both families.
func dumpAddrs(ctx context.Context, c *conn) ([]addrMsg, error) {
	return dump(ctx, c, func(w *builder) {
		w.begin(unix.RTM_GETADDR, 0, make([]byte, sizeIfaddr)...)
	}, parseAddr)
}

// List implements reconcile.Table.
func (t addrs) List(ctx context.Context) (map[kernel.AddrKey]struct{}, error) {
	out := make(map[kernel.AddrKey]struct{})
	err := t.h.with(ctx, func(c *conn) error {
		all, err := dumpAddrs(ctx, c)
		if err != nil {
			return err
		}
		names, err := ourNames(ctx, c)
		for _, a := range all {
			if name, ok := names[a.index]; ok && !a.ignored() {
				out[kernel.AddrKey{Link: name, Prefix: a.prefix}] = struct{}{}
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return out, nil
}

// Set implements reconcile.Table.
func (t addrs) Set(ctx context.Context, key kernel.AddrKey, _ struct{}) error {
	return t.h.with(ctx, func(c *conn) error {
		l, found, err := ourLink(c, key.Link)
		if err == nil && !found {
			err = unix.ENODEV
		}
		if err == nil {
			err = c.do(func(w *builder) {
				addrBody(w, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, l.index, key.Prefix)
				if !key.Prefix.IsSingleIP() {
					w.u32(unix.IFA_FLAGS, addrFlags(key.Prefix)|unix.IFA_F_NOPREFIXROUTE)
				}
			})
		}
		if err != nil {
			return fmt.Errorf("add address %s to link %q: %w", key.Prefix, key.Link, err)
		}
		t.h.did(ctx, "ip addr replace %s dev %s", key.Prefix, key.Link)
		return nil
	})
}

// Delete implements reconcile.Table.
func (t addrs) Delete(ctx context.Context, key kernel.AddrKey) error {
	return t.h.with(ctx, func(c *conn) error {
		l, found, err := ourLink(c, key.Link)
		if err == nil && !found {
			return nil
		}
		if err == nil {
			err = c.do(func(w *builder) { addrBody(w, unix.RTM_DELADDR, 0, l.index, key.Prefix) })
		}
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("delete address %s of link %q: %w", key.Prefix, key.Link, err)
		}
		t.h.did(ctx, "ip addr del %s dev %s", key.Prefix, key.Link)
		return nil
	})
}

func addrFlags(p netip.Prefix) uint32 {
	if p.Addr().Is6() {
		return unix.IFA_F_NODAD
	}
	return 0
}

// addAddr adds an address, and with it the kernel's route to its subnet; one that is there is no error.
func addAddr(c *conn, index int, p netip.Prefix) error {
	return c.do(func(w *builder) {
		addrBody(w, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, p)
	})
}

func addrBody(w *builder, typ, flags uint16, index int, p netip.Prefix) {
	fixed := []byte{family(p.Addr()), byte(p.Bits()), byte(addrFlags(p)), unix.RT_SCOPE_UNIVERSE}
	w.begin(typ, flags, binary.NativeEndian.AppendUint32(fixed, uint32(index))...)
	w.addr(unix.IFA_LOCAL, p.Addr())
	w.addr(unix.IFA_ADDRESS, p.Addr())
}
