package rtnl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
)

// makeBridge makes a bridge that forwards at once: no spanning tree, since it leads to containers only, and no multicast
// snooping, which without a querier forgets who listens and with it neighbour discovery (RFC 4541, 3). It does not learn
// from frames to the addresses of IEEE 802.1D, table 7-10 (01:80:c2:00:00:0x): they pass by the prerouting hook of
// nftables, and with one of them a container could draw on itself what is for another's MAC.
//
// A bridge takes the smallest MTU of its ports unless it was told one (br_mtu_auto_adjust), and what it is made with
// does not count as told: so it is made with another, and told then.
func (t links) makeBridge(ctx context.Context, c *conn, name string, want kernel.Link) error {
	if err := checkAlias(name, want.Alias); err != nil {
		return err
	}
	const smallest = 1280 // of a link with IPv6 (RFC 8200, 5)
	first := smallest
	if want.MTU == first {
		first++
	}
	t.h.fresh.add(name)
	errs := c.doAll(
		func(w *builder) {
			w.begin(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfo(0, 0, 0)...)
			endpoint(w, name, first, want.MAC)
			w.nest(unix.IFLA_LINKINFO, func() {
				w.str(unix.IFLA_INFO_KIND, string(kernel.Bridge))
				w.nest(unix.IFLA_INFO_DATA, func() {
					w.u32(unix.IFLA_BR_STP_STATE, 0)
					w.bytes(unix.IFLA_BR_MCAST_SNOOPING, []byte{0})
					w.bytes(unix.IFLA_BR_MULTI_BOOLOPT, onOnly(noLinkLocalLearn))
				})
			})
		},
		func(w *builder) {
			w.begin(unix.RTM_SETLINK, 0, ifinfo(0, unix.IFF_UP, unix.IFF_UP)...)
			w.str(unix.IFLA_IFNAME, name)
			w.str(unix.IFLA_IFALIAS, want.Alias)
			if want.MTU > 0 {
				w.u32(unix.IFLA_MTU, uint32(want.MTU))
			}
		})
	if errs[0] != nil {
		t.h.fresh.drop(name)
		return fmt.Errorf("make bridge %q: %w", name, errs[0])
	}
	if errs[1] != nil {
		t.h.fresh.drop(name)
		return errors.Join(fmt.Errorf("mark bridge %q with alias %q, mtu %d: %w", name, want.Alias, want.MTU, errs[1]), remove(c, name))
	}
	t.h.did(ctx, "ip link add %s mtu %d address %s alias %s up type bridge stp_state 0 mcast_snooping 0 no_linklocal_learn 1", name, want.MTU, want.MAC, want.Alias)
	return nil
}

// noLinkLocalLearn is the bit of BR_BOOLOPT_NO_LL_LEARN (linux/if_bridge.h). Kernels before 5.0 do not know it.
const noLinkLocalLearn = 1 << 0

// onOnly is a struct br_boolopt_multi that turns an option of a bridge on and leaves the others.
func onOnly(bit uint32) []byte {
	return binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, bit), bit)
}

// remove takes back a link that was made a moment ago.
func remove(c *conn, name string) error {
	return c.do(func(w *builder) {
		w.begin(unix.RTM_DELLINK, 0, ifinfo(0, 0, 0)...)
		w.str(unix.IFLA_IFNAME, name)
	})
}

// masterIndex finds the bridge that a link is to be a port of; 0 for none.
func masterIndex(c *conn, name, master string) (int, error) {
	if master == "" {
		return 0, nil
	}
	l, found, err := ourLink(c, master)
	switch {
	case err != nil:
		return 0, err
	case !found:
		return 0, fmt.Errorf("set link %q master %q: %w", name, master, unix.ENODEV)
	case l.kind != string(kernel.Bridge):
		return 0, fmt.Errorf("set link %q master %q: that is a %s, not a bridge", name, master, l.kind)
	}
	return l.index, nil
}

// inOrder puts bridges before what may become their ports.
func inOrder(set map[string]kernel.Link) []string {
	var bridges, others []string
	for name, l := range set {
		if l.Kind == kernel.Bridge {
			bridges = append(bridges, name)
		} else {
			others = append(others, name)
		}
	}
	return append(bridges, others...)
}
