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

// Neighs is the table of permanent neighbour entries (ARP, ND) on our links.
func (h *Handle) Neighs() reconcile.Table[kernel.NeighKey, kernel.MAC] { return neighs{h} }

type neighs struct{ h *Handle }

// neighMsg is what an RTM_NEWNEIGH says.
type neighMsg struct {
	index     int
	ip        netip.Addr
	mac       kernel.MAC
	permanent bool
}

// parseNeigh reads the payload of RTM_NEWNEIGH and RTM_DELNEIGH; false for proxy entries and those of bridges.
func parseNeigh(p []byte) (neighMsg, bool) {
	if len(p) < sizeNeigh || p[0] != unix.AF_INET && p[0] != unix.AF_INET6 || p[10]&unix.NTF_PROXY != 0 {
		return neighMsg{}, false
	}
	n := neighMsg{index: number(p[4:]), permanent: binary.NativeEndian.Uint16(p[8:])&unix.NUD_PERMANENT != 0}
	for t, v := range attributes(p[sizeNeigh:]) {
		switch t {
		case unix.NDA_DST:
			n.ip = address(v)
		case unix.NDA_LLADDR:
			n.mac = mac(v)
		}
	}
	return n, n.ip.IsValid()
}

// dumpNeighs lists the permanent entries on the link, or on all links when index is 0.
func dumpNeighs(ctx context.Context, c *conn, index int) ([]neighMsg, error) {
	return dump(ctx, c, func(w *builder) {
		w.begin(unix.RTM_GETNEIGH, 0, make([]byte, sizeNeigh)...)
		if index != 0 && c.strict {
			w.u32(unix.NDA_IFINDEX, uint32(index))
		}
	}, func(p []byte) (neighMsg, bool) {
		n, ok := parseNeigh(p)
		return n, ok && n.permanent && (index == 0 || n.index == index)
	})
}

// List implements reconcile.Table.
func (t neighs) List(ctx context.Context) (map[kernel.NeighKey]kernel.MAC, error) {
	out := make(map[kernel.NeighKey]kernel.MAC)
	err := t.h.with(ctx, func(c *conn) error {
		all, err := dumpNeighs(ctx, c, 0)
		if err != nil {
			return err
		}
		names, err := ourNames(ctx, c)
		for _, n := range all {
			if name, ok := names[n.index]; ok {
				out[kernel.NeighKey{Link: name, IP: n.ip}] = n.mac
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	return out, nil
}

// Set implements reconcile.Table.
func (t neighs) Set(ctx context.Context, key kernel.NeighKey, mac kernel.MAC) error {
	return t.h.with(ctx, func(c *conn) error {
		l, found, err := ourLink(c, key.Link)
		if err == nil && !found {
			err = unix.ENODEV
		}
		if err == nil {
			err = setNeigh(c, l.index, kernel.Neigh{IP: key.IP, MAC: mac})
		}
		if err != nil {
			return fmt.Errorf("set neighbour %s lladdr %s on link %q: %w", key.IP, mac, key.Link, err)
		}
		t.h.did(ctx, "ip neigh replace %s lladdr %s dev %s nud permanent", key.IP, mac, key.Link)
		return nil
	})
}

// Delete implements reconcile.Table.
func (t neighs) Delete(ctx context.Context, key kernel.NeighKey) error {
	return t.h.with(ctx, func(c *conn) error {
		l, found, err := ourLink(c, key.Link)
		if err == nil && !found {
			return nil
		}
		if err == nil {
			err = c.do(func(w *builder) {
				neighFixed(w, unix.RTM_DELNEIGH, 0, l.index, key.IP, 0)
			})
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("delete neighbour %s on link %q: %w", key.IP, key.Link, err)
		}
		t.h.did(ctx, "ip neigh del %s dev %s", key.IP, key.Link)
		return nil
	})
}

// setNeigh makes or replaces a permanent entry.
func setNeigh(c *conn, index int, n kernel.Neigh) error {
	return c.do(func(w *builder) {
		neighFixed(w, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, n.IP, unix.NUD_PERMANENT)
		w.bytes(unix.NDA_LLADDR, n.MAC[:])
	})
}

func neighFixed(w *builder, typ, flags uint16, index int, ip netip.Addr, state uint16) {
	fixed := []byte{family(ip), 0, 0, 0}
	fixed = binary.NativeEndian.AppendUint32(fixed, uint32(index))
	fixed = binary.NativeEndian.AppendUint16(fixed, state)
	w.begin(typ, flags, append(fixed, 0, 0)...)
	w.addr(unix.NDA_DST, ip)
}
