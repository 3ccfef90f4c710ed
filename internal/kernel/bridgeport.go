package kernel

import (
	"net/netip"
	"slices"
)

// BridgePort is a container's port of a bridge of ours: frames that come in through it must be from the container's MAC
// and one of its addresses.
type BridgePort struct {
	Link   string
	Bridge string // that it is a port of
	MAC    MAC
	Addrs  []netip.Addr // sorted, unique; link-local ones, which follow from the MAC, left out
}

// Equal compares two ports.
func (p BridgePort) Equal(o BridgePort) bool {
	return p.Link == o.Link && p.Bridge == o.Bridge && p.MAC == o.MAC && slices.Equal(p.Addrs, o.Addrs)
}
