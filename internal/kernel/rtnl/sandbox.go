package rtnl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
)

// ErrNotReady means that the sandbox, or the container's interface in it, is not there or not up yet. Docker up to 27
// makes both only after it asked us.
var ErrNotReady = errors.New("sandbox is not ready")

// Sandboxes reads and completes containers' interfaces.
func (h *Handle) Sandboxes() Sandboxes { return Sandboxes{h} }

// Sandboxes are the interfaces of containers, found by the path of their network namespace and their MAC. Things are
// only added to them. Safe for concurrent use.
type Sandboxes struct{ h *Handle }

// Read returns what interfaces have: all addresses but IPv6 link-local ones, and permanent neighbour entries, sorted.
// Those that are not ready are left out.
func (s Sandboxes) Read(ctx context.Context, keys []kernel.SandboxKey) (map[kernel.SandboxKey]kernel.Sandbox, error) {
	out := make(map[kernel.SandboxKey]kernel.Sandbox, len(keys))
	var errs []error
	for _, key := range keys {
		err := inSandbox(ctx, key, func(b *sandbox) error {
			v, err := b.read(ctx)
			out[key] = v
			return err
		})
		if err != nil {
			delete(out, key)
		}
		if err != nil && !errors.Is(err, ErrNotReady) {
			errs = append(errs, fmt.Errorf("read sandbox %s: %w", key.Path, err))
		}
	}
	return out, errors.Join(errs...)
}

// Set adds what is missing, and replaces neighbour entries. It returns ErrNotReady when it is too early.
func (s Sandboxes) Set(ctx context.Context, key kernel.SandboxKey, want kernel.Sandbox) error {
	err := inSandbox(ctx, key, func(b *sandbox) error {
		have, err := b.read(ctx)
		if err != nil {
			return err
		}
		var errs []error
		for _, p := range want.Addrs {
			if slices.Contains(have.Addrs, p) {
				continue
			}
			if err := addAddr(b.c, b.link.index, p); err != nil {
				errs = append(errs, addrError(p, err))
				continue
			}
			s.h.did(ctx, "nsenter --net=%s ip addr add %s dev %s", key.Path, p, b.link.name)
		}
		for _, n := range want.Neighs {
			if slices.Contains(have.Neighs, n) {
				continue
			}
			if err := setNeigh(b.c, b.link.index, n); err != nil {
				errs = append(errs, fmt.Errorf("set neighbour %s lladdr %s: %w", n.IP, n.MAC, err))
				continue
			}
			s.h.did(ctx, "nsenter --net=%s ip neigh replace %s lladdr %s dev %s nud permanent", key.Path, n.IP, n.MAC, b.link.name)
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return fmt.Errorf("complete interface %s in sandbox %s: %w", key.MAC, key.Path, err)
	}
	return nil
}

func addrError(p netip.Prefix, err error) error {
	if p.Addr().Is6() && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)) {
		return fmt.Errorf("add address %s: %w; the container has IPv6 turned off (sysctl disable_ipv6)", p, err)
	}
	return fmt.Errorf("add address %s: %w", p, err)
}

// sandbox is a container's interface that is up, and a socket beside it.
type sandbox struct {
	c    *conn
	link linkMsg
}

// inSandbox runs fn with the interface of the key. No thread stays in the sandbox.
func inSandbox(ctx context.Context, key kernel.SandboxKey, fn func(*sandbox) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
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
	switch {
	case err != nil:
		return err
	case !found:
		return fmt.Errorf("no interface has MAC %s: %w", key.MAC, ErrNotReady)
	case !l.up():
		return fmt.Errorf("interface %s is down: %w", l.name, ErrNotReady)
	}
	return fn(&sandbox{c: c, link: l})
}

// openSandbox opens a network namespace by its path. Docker makes an empty file first and mounts the namespace over it.
func openSandbox(path string) (int, error) {
	ns, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return -1, fmt.Errorf("open %s: %w", path, ErrNotReady)
	}
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(ns, &st); err != nil {
		_ = unix.Close(ns)
		return -1, fmt.Errorf("examine %s: %w", path, err)
	}
	if int64(st.Type) != unix.NSFS_MAGIC { //nolint:unconvert // 32 bits wide on some platforms
		_ = unix.Close(ns)
		return -1, fmt.Errorf("%s is no namespace: %w", path, ErrNotReady)
	}
	kind, err := unix.IoctlRetInt(ns, unix.NS_GET_NSTYPE) // Linux 4.11; older ones refuse in setns
	if err == nil && kind != unix.CLONE_NEWNET {
		_ = unix.Close(ns)
		return -1, fmt.Errorf("%s is a namespace, but none of networks", path)
	}
	return ns, nil
}

// linkByMAC finds the interface of a container. Interfaces stacked upon it (macvlan, VLAN) may have its address too,
// so that a veth comes first.
func linkByMAC(ctx context.Context, c *conn, want kernel.MAC) (out linkMsg, found bool, err error) {
	if want.IsZero() {
		return out, false, errors.New("no MAC given")
	}
	all, err := dumpLinks(ctx, c)
	for _, l := range all {
		if l.mac != want || l.flags&unix.IFF_LOOPBACK != 0 {
			continue
		}
		if !found || out.kind != string(kernel.Veth) && l.kind == string(kernel.Veth) {
			out, found = l, true
		}
	}
	return out, found, err
}

func (b *sandbox) read(ctx context.Context) (kernel.Sandbox, error) {
	var out kernel.Sandbox
	addrs, err := dumpAddrs(ctx, b.c)
	if err != nil {
		return out, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if a.index == b.link.index && !a.ignored() {
			out.Addrs = append(out.Addrs, a.prefix)
		}
	}
	neighs, err := dumpNeighs(ctx, b.c, b.link.index)
	if err != nil {
		return out, fmt.Errorf("list neighbours: %w", err)
	}
	for _, n := range neighs {
		out.Neighs = append(out.Neighs, kernel.Neigh{IP: n.ip, MAC: n.mac})
	}
	slices.SortFunc(out.Addrs, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	slices.SortFunc(out.Neighs, func(a, b kernel.Neigh) int { return a.IP.Compare(b.IP) })
	return out, nil
}
