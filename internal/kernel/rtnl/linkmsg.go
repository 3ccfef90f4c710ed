package rtnl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"fairway/internal/kernel"
)

const (
	// skipStats (RTEXT_FILTER_SKIP_STATS) leaves counters out of answers, half of their length.
	skipStats = 1 << 3
	// vethPeer is VETH_INFO_PEER of linux/veth.h.
	vethPeer = 1
	// Operational states of RFC 2863 in which frames pass (IF_OPER_UNKNOWN, IF_OPER_UP of linux/if.h).
	operUnknown, operUp = 0, 6
	// maxName is the longest name of a link, bytes (IFNAMSIZ less its zero).
	maxName = 15
)

// linkMsg is what an RTM_NEWLINK says.
type linkMsg struct {
	index   int
	name    string
	alias   string
	kind    string
	mtu     int
	mac     kernel.MAC
	flags   uint32
	oper    byte
	carrier bool
	peer    int // IFLA_LINK: index of the other end of a veth, in the namespace of peerNS
	peerNS  int // IFLA_LINK_NETNSID; -1: this namespace
	master  int // IFLA_MASTER: index of the bridge that it is a port of; 0: none
	moved   bool
	full    bool // names the link: all but a few messages of wireless drivers
}

func (l linkMsg) up() bool { return l.flags&unix.IFF_UP != 0 }

// ours says that the link is marked as ours.
func (l linkMsg) ours() bool { return strings.HasPrefix(l.alias, kernel.AliasPrefix) }

// link is the message's link as a value of the table. Its bridge is named by what knows the names of links.
func (l linkMsg) link(name func(index int) (string, bool)) kernel.Link {
	out := kernel.Link{Kind: kernel.LinkKind(l.kind), Alias: l.alias, MTU: l.mtu, MAC: l.mac, Down: !l.up()}
	if l.master == 0 {
		return out
	}
	bridge, ok := name(l.master)
	if !ok {
		bridge = fmt.Sprintf("link %d", l.master) // just made, and nobody's wish
	}
	out.Master = bridge
	return out
}

// namesOf finds the names of listed links by their index.
func namesOf(links []linkMsg) func(index int) (string, bool) {
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.index] = l.name
	}
	return func(index int) (string, bool) {
		name, ok := names[index]
		return name, ok
	}
}

// parseLink reads the payload of RTM_NEWLINK and RTM_DELLINK. False for what is said of a bridge's port.
func parseLink(p []byte) (linkMsg, bool) {
	if len(p) < sizeIfinfo || p[0] != unix.AF_UNSPEC {
		return linkMsg{}, false
	}
	l := linkMsg{
		index:  number(p[4:]),
		flags:  binary.NativeEndian.Uint32(p[8:]),
		kind:   "device",
		peerNS: -1,
	}
	for t, v := range attributes(p[sizeIfinfo:]) {
		switch t {
		case unix.IFLA_IFNAME:
			l.name, l.full = text(v), true
		case unix.IFLA_IFALIAS:
			l.alias = text(v)
		case unix.IFLA_MTU:
			l.mtu = number(v)
		case unix.IFLA_ADDRESS:
			l.mac = mac(v)
		case unix.IFLA_OPERSTATE:
			l.oper = first(v)
		case unix.IFLA_CARRIER:
			l.carrier = first(v) != 0
		case unix.IFLA_LINK:
			l.peer = number(v)
		case unix.IFLA_MASTER:
			l.master = number(v)
		case unix.IFLA_LINK_NETNSID:
			l.peerNS = number(v)
		case unix.IFLA_NEW_NETNSID:
			l.moved = true
		case unix.IFLA_LINKINFO:
			l.kind = infoKind(v)
		}
	}
	return l, true
}

// infoKind is the kind of a link that is not hardware.
func infoKind(info []byte) string {
	for t, v := range attributes(info) {
		if t == unix.IFLA_INFO_KIND {
			return text(v)
		}
	}
	return ""
}

// dumpLinks lists all links of the socket's namespace.
func dumpLinks(ctx context.Context, c *conn) ([]linkMsg, error) {
	return dump(ctx, c, func(w *builder) {
		w.begin(unix.RTM_GETLINK, 0, ifinfo(0, 0, 0)...)
		w.u32(unix.IFLA_EXT_MASK, skipStats)
	}, parseLink)
}

// getLink finds a link by its name; found is false when there is none.
func getLink(c *conn, name string) (l linkMsg, found bool, err error) {
	if name == "" || len(name) > maxName {
		return l, false, nil // the kernel would refuse to look
	}
	l, err = get(c, func(w *builder) {
		w.begin(unix.RTM_GETLINK, 0, ifinfo(0, 0, 0)...)
		w.str(unix.IFLA_IFNAME, name)
		w.u32(unix.IFLA_EXT_MASK, skipStats)
	}, parseLink)
	if errors.Is(err, unix.ENODEV) {
		return l, false, nil
	}
	return l, err == nil, err
}

// getLinkAt finds a link by its index.
func getLinkAt(c *conn, index int) (linkMsg, error) {
	return get(c, func(w *builder) {
		w.begin(unix.RTM_GETLINK, 0, ifinfo(index, 0, 0)...)
		w.u32(unix.IFLA_EXT_MASK, skipStats)
	}, parseLink)
}
