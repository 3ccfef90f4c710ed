package rtnl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
)

// Plug gives a running container an interface again whose veth somebody deleted. linkName is the peer of a freshly made
// veth of ours, in the handle's namespace; it goes into the sandbox as the first free "ethN" with the key's MAC, gets
// the addresses, comes up, and gets the routes. A sandbox that has an interface with the MAC already keeps it, and what
// is missing on it is added. It returns ErrNotReady when there is no sandbox.
func (h *Handle) Plug(ctx context.Context, key kernel.SandboxKey, linkName string, p kernel.Plug) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := h.plug(ctx, key, linkName, p); err != nil {
		return fmt.Errorf("plug %q with MAC %s into sandbox %s: %w", linkName, key.MAC, key.Path, err)
	}
	h.did(ctx, "ip link set %s netns %s address %s up addrs %v on link %v routes %v", linkName, key.Path, key.MAC, p.Addrs, p.OnLink, p.Routes)
	return nil
}

func (h *Handle) plug(ctx context.Context, key kernel.SandboxKey, linkName string, p kernel.Plug) error {
	ns, err := openSandbox(key.Path)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(ns) }()
	c, err := dial(ns)
	if err != nil {
		return err
	}
	defer c.close()
	l, found, err := linkByMAC(ctx, c, key.MAC)
	if err == nil && !found {
		if err = h.move(ctx, linkName, ns, key.MAC); err == nil {
			l, found, err = linkByMAC(ctx, c, key.MAC)
		}
	}
	if err != nil {
		return err
	}
	if !found {
		return errors.New("the interface was moved and is not there")
	}
	if err := h.configure(ns, c, l, p.Addrs); err != nil {
		return err
	}
	return addSandboxRoutes(ctx, c, l, p)
}

// move takes the peer of one of our veths into the namespace. All in one message: where it cannot get a name, it stays.
func (h *Handle) move(ctx context.Context, name string, ns int, mac kernel.MAC) error {
	return h.with(ctx, func(c *conn) error {
		l, found, err := getLink(c, name)
		if err != nil {
			return fmt.Errorf("look up link %q: %w", name, err)
		}
		if !found {
			return fmt.Errorf("link %q: %w", name, unix.ENODEV)
		}
		host, err := getLinkAt(c, l.peer)
		if err != nil || l.kind != string(kernel.Veth) || l.peerNS >= 0 || !host.ours() {
			return fmt.Errorf("link %q is not the peer of a veth of ours", name)
		}
		err = c.do(func(w *builder) {
			w.begin(unix.RTM_SETLINK, 0, ifinfo(l.index, 0, 0)...)
			w.u32(unix.IFLA_NET_NS_FD, uint32(ns))
			w.str(unix.IFLA_IFNAME, "eth%d") // the kernel finds the first free number
			w.bytes(unix.IFLA_ADDRESS, mac[:])
		})
		if err != nil {
			return fmt.Errorf("move link %q: %w", name, err)
		}
		return nil
	})
}

// configure gives the interface its addresses and sets it up. Docker turns IPv6 off in its sandboxes, and on again for
// interfaces with an IPv6 address; so do we.
func (h *Handle) configure(ns int, c *conn, l linkMsg, addrs []netip.Prefix) error {
	if slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		path := filepath.Join(h.procSys, "net/ipv6/conf", l.name, "disable_ipv6")
		if err := inNamespace(ns, func() error { return writeSysctl(path, "0") }); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	for _, p := range addrs {
		if err := addAddr(c, l.index, p); err != nil {
			return addrError(p, err)
		}
	}
	err := c.do(func(w *builder) {
		w.begin(unix.RTM_SETLINK, 0, ifinfo(l.index, unix.IFF_UP, unix.IFF_UP)...)
	})
	if err != nil {
		return fmt.Errorf("set interface %s up: %w", l.name, err)
	}
	return nil
}

// addSandboxRoutes adds the routes that are missing. A default route is added only where there is none of the family:
// with several networks the engine has chosen which one has it.
func addSandboxRoutes(ctx context.Context, c *conn, l linkMsg, p kernel.Plug) error {
	add := func(dst netip.Prefix, via netip.Addr) error {
		err := c.do(func(w *builder) { sandboxRoute(w, dst, via, l.index) })
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add route %s: %w", dst, err)
		}
		return nil
	}
	for _, gw := range p.OnLink {
		if err := add(netip.PrefixFrom(gw, gw.BitLen()), netip.Addr{}); err != nil {
			return err
		}
	}
	for _, r := range p.Routes {
		if r.Dst.Bits() == 0 {
			defaults, err := dumpRoutes(ctx, c, family(r.Via), 0, (*routeMsg).isDefault)
			if err != nil {
				return fmt.Errorf("list routes: %w", err)
			}
			if len(defaults) > 0 {
				continue
			}
		}
		if err := add(r.Dst, r.Via); err != nil {
			return err
		}
	}
	return nil
}

// sandboxRoute appends a route as Docker makes them in sandboxes: protocol boot, no metric.
func sandboxRoute(w *builder, dst netip.Prefix, gw netip.Addr, index int) {
	scope := byte(unix.RT_SCOPE_UNIVERSE)
	if !gw.IsValid() && dst.Addr().Is4() {
		scope = unix.RT_SCOPE_LINK
	}
	w.begin(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, family(dst.Addr()), byte(dst.Bits()), 0, 0,
		unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST)
	w.b = binary.NativeEndian.AppendUint32(w.b, 0)
	w.addr(unix.RTA_DST, dst.Addr())
	w.u32(unix.RTA_OIF, uint32(index))
	if gw.IsValid() {
		w.addr(unix.RTA_GATEWAY, gw)
	}
}
