package rtnl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
)

// Given is what the far end of a veth of ours is in another namespace.
type Given struct {
	Name  string // up to 15 bytes
	Alias string // must not begin with kernel.AliasPrefix: an agent there would take it for its own
	Addrs []netip.Prefix
}

// GivePeer moves the peer of a veth of ours into the namespace of another handle, where it gets its name, alias and
// addresses, and comes up. It goes with its other end. One that is there already only gets what it lacks.
func (h *Handle) GivePeer(ctx context.Context, peer string, to *Handle, g Given) error {
	err := to.with(ctx, func(there *conn) error {
		l, found, err := getLink(there, g.Name)
		if err == nil && !found {
			if err = h.give(ctx, peer, to, g); err == nil {
				l, found, err = getLink(there, g.Name)
			}
		}
		switch {
		case err != nil:
			return err
		case !found:
			return errors.New("the link was moved and is not there")
		case l.alias != "" && l.alias != g.Alias:
			return fmt.Errorf("a link of that name is there already, with alias %q", l.alias)
		}
		return to.dress(there, l, g)
	})
	if err != nil {
		return fmt.Errorf("give link %s away as %s: %w", peer, g.Name, err)
	}
	return nil
}

// give moves the peer; it is named in the same message, or stays.
func (h *Handle) give(ctx context.Context, peer string, to *Handle, g Given) error {
	return h.with(ctx, func(c *conn) error {
		l, found, err := getLink(c, peer)
		switch {
		case err != nil:
			return err
		case !found:
			return fmt.Errorf("link %q: %w", peer, unix.ENODEV)
		}
		host, err := getLinkAt(c, l.peer)
		if err != nil || l.kind != string(kernel.Veth) || l.peerNS >= 0 || !host.ours() {
			return fmt.Errorf("link %q is not the peer of a veth of ours", peer)
		}
		err = c.do(func(w *builder) {
			w.begin(unix.RTM_SETLINK, 0, ifinfo(l.index, 0, 0)...)
			w.u32(unix.IFLA_NET_NS_FD, uint32(to.ns))
			w.str(unix.IFLA_IFNAME, g.Name)
		})
		if err == nil {
			h.did(ctx, "ip link set %s netns %d name %s", peer, to.ns, g.Name)
		}
		return err
	})
}

// dress marks the link, gives it its addresses and sets it up.
func (h *Handle) dress(c *conn, l linkMsg, g Given) error {
	if l.alias != g.Alias || !l.up() {
		err := c.do(func(w *builder) {
			w.begin(unix.RTM_SETLINK, 0, ifinfo(l.index, unix.IFF_UP, unix.IFF_UP)...)
			w.str(unix.IFLA_IFALIAS, g.Alias)
		})
		if err != nil {
			return fmt.Errorf("mark it and set it up: %w", err)
		}
	}
	have, err := dumpAddrs(context.Background(), c)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, p := range g.Addrs {
		if slices.ContainsFunc(have, func(a addrMsg) bool { return a.index == l.index && a.prefix == p }) {
			continue
		}
		if err := addAddr(c, l.index, p); err != nil {
			return addrError(p, err)
		}
	}
	return nil
}

// OpenAt opens a handle on the network namespace at a path, as /proc/PID/ns/net. While it is open the namespace stays,
// even when its last process is gone.
func OpenAt(path string, cfg Config) (*Handle, error) {
	ns, err := openSandbox(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(ns) }()
	cfg.Namespace = ns
	return Open(cfg)
}

// SameNamespace says whether two paths name one network namespace.
func SameNamespace(a, b string) (bool, error) {
	var x, y unix.Stat_t
	if err := unix.Stat(a, &x); err != nil {
		return false, fmt.Errorf("examine %s: %w", a, err)
	}
	if err := unix.Stat(b, &y); err != nil {
		return false, fmt.Errorf("examine %s: %w", b, err)
	}
	return x.Ino == y.Ino && x.Dev == y.Dev, nil
}

// Namespace is the file descriptor of the handle's namespace; it is the handle's, and closed with it.
func (h *Handle) Namespace() int { return h.ns }
