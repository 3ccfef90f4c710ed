package router

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Options are the flags of `fairway router`. Check completes and checks them.
type Options struct {
	// Instance is which networks are this router's: those whose mark has this value. "" is the router of networks that are
	// marked "true".
	Instance string
	// Aggressive joins every network of the instance; otherwise only those with running containers of this host.
	Aggressive bool
	// IPOffset chooses the router's address in each network: 1 is the first usable one, -1 the last; 0 leaves it to
	// Docker's IPAM.
	IPOffset int
	// ContainerGateway leads all packets of containers through the router, but for those to their own links. Without it
	// only those to the router's networks and StaticRoutes.
	ContainerGateway bool
	// HostShortcut gives the host routes to the networks, over the host link.
	HostShortcut bool
	// HostGateway leads what the router has no route for to the host.
	HostGateway bool
	// Masquerade hides containers behind the host's address where their packets leave the host that way.
	Masquerade bool
	// HostLink is a veth pair between the router and the host, with the first two usable addresses of P2PNet (the host's,
	// the router's) and of P2PNet6.
	HostLink        bool
	P2PNet, P2PNet6 netip.Prefix // P2PNet6 may be zero: no IPv6 on the host link
	// StaticRoutes are led through the router by containers, and told of by no other router.
	StaticRoutes []netip.Prefix
	// TransitNet is a network, by name or ID, that is always joined; "" for none.
	TransitNet string
	// Peers are routers that multicast does not find.
	Peers []netip.Addr
	// Driver is the name of the fairway driver on this host, whose networks the node routes itself.
	Driver string
	// Resync is how often everything is looked at anew: 1s or more.
	Resync time.Duration
}

// DefaultP2PNet and DefaultP2PNet6 are the host link's subnets when none are given.
const (
	DefaultP2PNet  = "172.29.255.252/30"
	DefaultP2PNet6 = "fd72:6f75:7465::/126"
)

// Check completes what options imply, and refuses what contradicts: to masquerade means to leave through the host, and
// that the host knows the way back.
func (o *Options) Check() error {
	if o.Masquerade {
		o.HostGateway = true
	}
	if o.HostGateway {
		o.HostShortcut = true
	}
	if err := o.contradicts(); err != nil {
		return err
	}
	if o.HostLink {
		if err := checkP2P("--p2p-net", o.P2PNet, true); err != nil {
			return err
		}
		if err := checkP2P("--p2p-net6", o.P2PNet6, false); err != nil {
			return err
		}
	}
	for _, p := range o.StaticRoutes {
		if p != p.Masked() {
			return fmt.Errorf("--static-route %s: has host bits set; did you mean %s?", p, p.Masked())
		}
		if p.Bits() == 0 {
			return fmt.Errorf("--static-route %s: that is every destination: use --container-gateway", p)
		}
	}
	slices.SortFunc(o.StaticRoutes, netip.Prefix.Compare)
	o.StaticRoutes = slices.Compact(o.StaticRoutes)
	for _, a := range o.Peers {
		if !a.Is4() || !a.IsGlobalUnicast() {
			return fmt.Errorf("--peer %s: want the IPv4 unicast address of another router", a)
		}
	}
	return nil
}

// contradicts finds flags that cannot both be.
func (o *Options) contradicts() error {
	switch {
	case !o.HostLink && o.Masquerade:
		return errors.New("--no-p2p with --masquerade: what is masqueraded leaves over the link to the host; leave one of the two out")
	case !o.HostLink && o.HostGateway:
		return errors.New("--no-p2p with --host-gateway: the host is reached over the link to the host; leave one of the two out")
	case !o.HostLink && o.HostShortcut:
		return errors.New("--no-p2p with --host-shortcut: the host's routes lead over the link to the host; leave one of the two out")
	case o.Resync < time.Second:
		return fmt.Errorf("--resync %s: want 1s or more", o.Resync)
	}
	return nil
}

func checkP2P(flag string, p netip.Prefix, v4 bool) error {
	switch {
	case !p.IsValid() && !v4:
		return nil
	case !p.IsValid():
		return fmt.Errorf("%s is missing: want a subnet of four addresses or more, as %s", flag, DefaultP2PNet)
	case p.Addr().Is4() != v4:
		return fmt.Errorf("%s %s: is of the other family", flag, p)
	case p != p.Masked():
		return fmt.Errorf("%s %s: has host bits set; did you mean %s?", flag, p, p.Masked())
	case p.Addr().BitLen()-p.Bits() < 2:
		return fmt.Errorf("%s %s: has no two usable addresses; want a subnet of four addresses or more", flag, p)
	}
	return nil
}

// hostEnd and routerEnd are the two addresses of a host link's subnet, with its length.
func hostEnd(p netip.Prefix) netip.Prefix { return netip.PrefixFrom(p.Addr().Next(), p.Bits()) }

func routerEnd(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(p.Addr().Next().Next(), p.Bits())
}

// offset is the address of a subnet that IPOffset names.
func offset(subnet netip.Prefix, n int) (netip.Addr, error) {
	first, last := usable(subnet)
	a := first
	step := netip.Addr.Next
	if n < 0 {
		a, step, n = last, netip.Addr.Prev, -n
	}
	for range n - 1 {
		if a = step(a); !a.IsValid() {
			break
		}
	}
	if !a.IsValid() || a.Less(first) || last.Less(a) {
		return netip.Addr{}, fmt.Errorf("--ip-offset %d: subnet %s has no such address (%s to %s)", n, subnet, first, last)
	}
	return a, nil
}

// usable are the first and the last address of a subnet that a host can have.
func usable(p netip.Prefix) (first, last netip.Addr) {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ = netip.AddrFromSlice(b)
	first = p.Masked().Addr()
	if p.Addr().BitLen()-p.Bits() >= 2 {
		first = first.Next()
		last = last.Prev() // IPv4's broadcast address; IPv6's last one of a /64 is none that older engines can give
	}
	return first, last
}
