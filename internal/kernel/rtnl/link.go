package rtnl

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
	"fairway/internal/reconcile"
)

// Links is the table of our links by name: those whose alias begins with kernel.AliasPrefix. Listed values have no
// Peer, which may be in another namespace. Set makes a link complete or not at all, and changes one that is there in
// place; MTU and MAC of the peer are set only when the pair is made. A bridge has to be there before its ports.
func (h *Handle) Links() reconcile.Table[string, kernel.Link] { return links{h} }

type links struct{ h *Handle }

var _ reconcile.Batcher[string, kernel.Link] = links{}

// List implements reconcile.Table.
func (t links) List(ctx context.Context) (map[string]kernel.Link, error) {
	out := make(map[string]kernel.Link)
	err := t.h.with(ctx, func(c *conn) error {
		all, err := dumpLinks(ctx, c)
		name := namesOf(all)
		for _, l := range all {
			if l.ours() {
				out[l.name] = l.link(name)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return out, nil
}

// Set implements reconcile.Table.
func (t links) Set(ctx context.Context, name string, want kernel.Link) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("set link %q: a name has 1 to %d bytes", name, maxName)
	}
	return t.h.with(ctx, func(c *conn) error {
		have, found, err := getLink(c, name)
		switch {
		case err != nil:
			return fmt.Errorf("look up link %q: %w", name, err)
		case found && !have.ours():
			return stranger(have)
		case found && have.kind != string(want.Kind):
			return fmt.Errorf("set link %q: it is a %s, not a %s; remove it with \"ip link del %s\"", name, have.kind, want.Kind, name)
		case want.Existing:
			return nil
		case !found && want.Kind == kernel.Bridge:
			return t.makeBridge(ctx, c, name, want)
		case !found && want.Kind != kernel.Veth:
			return fmt.Errorf("make link %q: kind %q is not one of: %s, %s", name, want.Kind, kernel.Veth, kernel.Bridge)
		}
		master, err := masterIndex(c, name, want.Master)
		if err != nil {
			return err
		}
		if found {
			return t.change(ctx, c, have, want, master)
		}
		return t.make(ctx, c, name, want, master)
	})
}

func checkAlias(name, alias string) error {
	if len(alias) <= len(kernel.AliasPrefix) || alias[:len(kernel.AliasPrefix)] != kernel.AliasPrefix {
		return fmt.Errorf("make link %q: alias %q does not begin with %q", name, alias, kernel.AliasPrefix)
	}
	return nil
}

// make makes a veth pair. The kernel takes no alias in the message that makes a link, so a second one follows in the
// same system call: whoever is killed leaves no link behind that nobody owns.
func (t links) make(ctx context.Context, c *conn, name string, want kernel.Link, master int) error {
	if err := checkAlias(name, want.Alias); err != nil {
		return err
	}
	if want.Peer.Name == "" || len(want.Peer.Name) > maxName {
		return fmt.Errorf("make link %q: peer name %q does not have 1 to %d bytes", name, want.Peer.Name, maxName)
	}
	t.h.fresh.add(name, want.Peer.Name)
	errs := c.doAll(
		func(w *builder) {
			w.begin(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfo(0, 0, 0)...)
			endpoint(w, name, want.MTU, want.MAC)
			w.nest(unix.IFLA_LINKINFO, func() {
				w.str(unix.IFLA_INFO_KIND, string(kernel.Veth))
				w.nest(unix.IFLA_INFO_DATA, func() {
					w.nest(vethPeer, func() {
						w.b = append(w.b, ifinfo(0, 0, 0)...)
						endpoint(w, want.Peer.Name, want.MTU, want.Peer.MAC)
					})
				})
			})
		},
		func(w *builder) {
			w.begin(unix.RTM_SETLINK, 0, ifinfo(0, unix.IFF_UP, unix.IFF_UP)...)
			w.str(unix.IFLA_IFNAME, name)
			w.str(unix.IFLA_IFALIAS, want.Alias)
			if master != 0 {
				w.u32(unix.IFLA_MASTER, uint32(master))
			}
		})
	if errs[0] != nil {
		t.h.fresh.drop(name, want.Peer.Name)
		return fmt.Errorf("make link %q with peer %q, mtu %d: %w", name, want.Peer.Name, want.MTU, errs[0])
	}
	if errs[1] != nil {
		t.h.fresh.drop(name, want.Peer.Name)
		return errors.Join(fmt.Errorf("mark link %q with alias %q: %w", name, want.Alias, errs[1]), remove(c, name))
	}
	t.h.did(ctx, "ip link add %s mtu %d address %s alias %s%s up type veth peer name %s address %s",
		name, want.MTU, want.MAC, want.Alias, masterText(want), want.Peer.Name, want.Peer.MAC)
	return nil
}

// endpoint appends what both ends of a veth pair are made with. A given address also keeps udev from changing it.
func endpoint(w *builder, name string, mtu int, mac kernel.MAC) {
	w.str(unix.IFLA_IFNAME, name)
	if mtu > 0 {
		w.u32(unix.IFLA_MTU, uint32(mtu))
	}
	if !mac.IsZero() {
		w.bytes(unix.IFLA_ADDRESS, mac[:])
	}
}

// change sets what differs on a link that is there.
func (t links) change(ctx context.Context, c *conn, have linkMsg, want kernel.Link, master int) error {
	err := c.do(func(w *builder) {
		w.begin(unix.RTM_SETLINK, 0, ifinfo(have.index, unix.IFF_UP, unix.IFF_UP)...)
		if want.MTU > 0 && want.MTU != have.mtu {
			w.u32(unix.IFLA_MTU, uint32(want.MTU))
		}
		if !want.MAC.IsZero() && want.MAC != have.mac {
			w.bytes(unix.IFLA_ADDRESS, want.MAC[:])
		}
		if want.Alias != have.alias {
			w.str(unix.IFLA_IFALIAS, want.Alias)
		}
		if master != have.master {
			w.u32(unix.IFLA_MASTER, uint32(master))
		}
	})
	if err != nil {
		return fmt.Errorf("set link %q mtu %d address %s: %w", have.name, want.MTU, want.MAC, err)
	}
	t.h.did(ctx, "ip link set %s mtu %d address %s alias %s%s up", have.name, want.MTU, want.MAC, want.Alias, masterText(want))
	return nil
}

func masterText(l kernel.Link) string {
	if l.Master == "" {
		return ""
	}
	return " master " + l.Master
}

// Delete implements reconcile.Table. The peer goes with the link, wherever it is.
func (t links) Delete(ctx context.Context, name string) error {
	return t.h.with(ctx, func(c *conn) error {
		have, found, err := getLink(c, name)
		switch {
		case err != nil:
			return fmt.Errorf("look up link %q: %w", name, err)
		case !found:
			return nil
		case !have.ours():
			return stranger(have)
		}
		err = c.do(func(w *builder) {
			w.begin(unix.RTM_DELLINK, 0, ifinfo(have.index, 0, 0)...)
		})
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("delete link %q: %w", name, err)
		}
		t.h.did(ctx, "ip link del %s", name)
		return nil
	})
}

// SetAll implements reconcile.Batcher.
func (t links) SetAll(ctx context.Context, set map[string]kernel.Link) map[string]error {
	failed := make(map[string]error)
	for _, name := range inOrder(set) {
		if err := t.Set(ctx, name, set[name]); err != nil {
			failed[name] = err
		}
	}
	return failed
}

// DeleteAll implements reconcile.Batcher. To unregister a device, the kernel waits for tens of milliseconds until nobody
// can be using it (netdev_run_todo). It does so once for all that are deleted as a group, so they are put into one.
func (t links) DeleteAll(ctx context.Context, del []string) map[string]error {
	failed := make(map[string]error)
	if len(del) == 1 {
		if err := t.Delete(ctx, del[0]); err != nil {
			failed[del[0]] = err
		}
		return failed
	}
	err := t.h.with(ctx, func(c *conn) error {
		all, err := dumpLinks(ctx, c)
		if err != nil {
			return fmt.Errorf("list links: %w", err)
		}
		byName := make(map[string]linkMsg, len(all))
		for _, l := range all {
			byName[l.name] = l
		}
		var gone []linkMsg
		for _, name := range del {
			l, found := byName[name]
			switch {
			case !found:
			case !l.ours():
				failed[name] = stranger(l)
			default:
				gone = append(gone, l)
			}
		}
		t.deleteGroup(ctx, c, gone, failed)
		return nil
	})
	if err != nil {
		for _, name := range del {
			failed[name] = fmt.Errorf("delete link %q: %w", name, err)
		}
	}
	return failed
}

func (t links) deleteGroup(ctx context.Context, c *conn, gone []linkMsg, failed map[string]error) {
	if len(gone) == 0 {
		return
	}
	group := 1<<31 | rand.Uint32() // nobody else's: groups are small numbers, and that of almost all links is 0
	fail := func(i int, err error) {
		if !errors.Is(err, unix.ENODEV) {
			failed[gone[i].name] = fmt.Errorf("delete link %q: %w", gone[i].name, err)
		}
	}
	c.pipeline(ctx, len(gone), func(w *builder, i int) {
		w.begin(unix.RTM_SETLINK, 0, ifinfo(gone[i].index, 0, 0)...)
		w.u32(unix.IFLA_GROUP, group)
	}, fail)
	err := c.do(func(w *builder) {
		w.begin(unix.RTM_DELLINK, 0, ifinfo(0, 0, 0)...)
		w.u32(unix.IFLA_GROUP, group)
	})
	for i, l := range gone {
		if err != nil {
			fail(i, err)
		}
		if failed[l.name] == nil {
			t.h.did(ctx, "ip link del %s", l.name)
		}
	}
}

func stranger(l linkMsg) error {
	return fmt.Errorf("link %q is not ours: it is a %s with alias %q, ours begin with %q; remove or rename it", l.name, l.kind, l.alias, kernel.AliasPrefix)
}

// ourLink finds a link of ours; an absent one is an error only for who wants it.
func ourLink(c *conn, name string) (linkMsg, bool, error) {
	l, found, err := getLink(c, name)
	switch {
	case err != nil:
		return l, false, fmt.Errorf("look up link %q: %w", name, err)
	case found && !l.ours():
		return l, false, stranger(l)
	}
	return l, found, nil
}

// ourNames are the names of our links by index.
func ourNames(ctx context.Context, c *conn) (map[int]string, error) {
	all, err := dumpLinks(ctx, c)
	if err != nil {
		return nil, err
	}
	names := make(map[int]string)
	for _, l := range all {
		if l.ours() {
			names[l.index] = l.name
		}
	}
	return names, nil
}

// freshNames are links that this handle made and that the kernel speaks of as of anybody's: a link of ours before it has
// its alias, and its peer while it is in the handle's namespace. Watch does not take them for strangers', and forgets
// them when that is over. Facts leaves them out too. The zero value is empty.
type freshNames struct {
	mu    sync.Mutex
	names map[string]struct{}
}

func (f *freshNames) add(names ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.names == nil {
		f.names = make(map[string]struct{})
	}
	for _, name := range names {
		f.names[name] = struct{}{}
	}
}

func (f *freshNames) drop(names ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range names {
		delete(f.names, name)
	}
}

func (f *freshNames) has(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.names[name]
	return ok
}

func (f *freshNames) all() map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[string]bool, len(f.names))
	for name := range f.names {
		out[name] = true
	}
	return out
}
