// Package kernel has the kernel's networking state as plain values: links, addresses, neighbours, routes, sysctls,
// firewall, and what belongs inside a container's sandbox. The values say what should be true or what was read back;
// nothing in here touches a kernel (internal/kernel/rtnl and internal/kernel/nft do).
//
// The text form (State.String) is sorted and reads like the output of ip(8), so that tests compare text.
package kernel

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Marks by which a freshly started agent knows its own objects.
const (
	// RouteProtocol is the rtm_protocol of all our routes (listed as "fairway" in /etc/iproute2/rt_protos.d).
	RouteProtocol = 200
	// RouteMetric is the metric (RTA_PRIORITY) of all our routes, so that a stranger's route of the same prefix,
	// whose metric is 0 (IPv4) or 1024 (IPv6) by default, is never replaced by ours.
	RouteMetric = 200
	// LinkPrefix begins the name of every link of ours that no option names.
	LinkPrefix = "fw"
	// AliasPrefix begins the alias (IFLA_IFALIAS) of every link of ours.
	AliasPrefix = "fairway:"
	// TableName is the name of our nftables table, family inet.
	TableName = "fairway"
	// RuleComment marks our rules in chains of others.
	RuleComment = "fairway"
)

// MAC is an Ethernet address. The zero value means "not given".
type MAC [6]byte

// ParseMAC reads six hexadecimal bytes, separated by ":" or "-".
func ParseMAC(s string) (MAC, error) {
	var m MAC
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == ':' || r == '-' })
	if len(parts) != len(m) {
		return MAC{}, fmt.Errorf("MAC address %q: want six hexadecimal bytes, as 02:42:ac:11:00:02", s)
	}
	for i, p := range parts {
		var b byte
		if n, err := fmt.Sscanf(p, "%02x", &b); n != 1 || err != nil || len(p) != 2 {
			return MAC{}, fmt.Errorf("MAC address %q: want six hexadecimal bytes, as 02:42:ac:11:00:02", s)
		}
		m[i] = b
	}
	return m, nil
}

// String is the usual form with colons.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// IsZero says that no address is given.
func (m MAC) IsZero() bool { return m == MAC{} }

// IsUnicast says that the address may stand on an interface: not zero, and the group bit (IEEE 802, I/G) not set.
func (m MAC) IsUnicast() bool { return !m.IsZero() && m[0]&1 == 0 }

// MarshalText makes JSON show the usual form; a zero address is empty.
func (m MAC) MarshalText() ([]byte, error) {
	if m.IsZero() {
		return nil, nil
	}
	return []byte(m.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (m *MAC) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*m = MAC{}
		return nil
	}
	v, err := ParseMAC(string(b))
	*m = v
	return err
}

// LinkKind is the kind of a link as ip(8) names it.
type LinkKind string

// The kinds of links that we make.
const (
	Veth   LinkKind = "veth"
	Bridge LinkKind = "bridge"
)

// Link is a link of ours on the node. Its key is its name (at most 15 bytes).
type Link struct {
	Kind  LinkKind
	Alias string // "fairway:<network>/<endpoint>"; a link without our alias is not ours, whatever its name
	MTU   int    // bytes of payload, the Ethernet header not counted
	MAC   MAC    // of this end
	Peer  Peer   // veth only; used when the link is made, not compared afterwards
	// Master is the bridge that the link is a port of; "" is none.
	Master string

	// Existing means: keep the link if it is there, do not make it (the engine is about to take the endpoint away).
	Existing bool
	// Down is read back only: somebody set the link down, which none of ours ever should be.
	Down bool
}

// Peer is the other end of a veth pair: the end that Docker moves into the container.
type Peer struct {
	Name string // in the node's namespace, until Docker moves and renames it
	MAC  MAC
	// Plug is what Docker gave the interface in the container, for the case that the pair has to be made anew there.
	Plug Plug
}

// Plug is an interface in a sandbox as the engine was told to make it. Its slices are not changed once it is made.
type Plug struct {
	Addrs  []netip.Prefix // with host bits; the whole of what is on the link
	OnLink []netip.Addr   // gateways: each gets a route on the link
	Routes []SandboxRoute // through gateways; a default route only where the sandbox has none of the family
}

// SandboxRoute is a route in a sandbox through a gateway.
type SandboxRoute struct {
	Dst netip.Prefix
	Via netip.Addr
}

// LinkEqual compares what can be read back: kind, alias, MTU, MAC, bridge, and up or down. (8: only fields that we set.)
func LinkEqual(want, have Link) bool {
	if want.Existing {
		return true
	}
	return want.Kind == have.Kind && want.Alias == have.Alias && want.MTU == have.MTU && want.Down == have.Down &&
		want.Master == have.Master &&
		(want.MAC.IsZero() || want.MAC == have.MAC)
}

// AddrKey is an address on a link of ours.
type AddrKey struct {
	Link   string
	Prefix netip.Prefix
}

// NeighKey is a permanent neighbour entry (ARP or ND) on a link of ours; its value is the MAC.
type NeighKey struct {
	Link string
	IP   netip.Addr
}

// RouteType is a route's type as ip(8) names it.
type RouteType string

// The types of routes that we make.
const (
	Unicast   RouteType = "unicast"
	Blackhole RouteType = "blackhole"
)

// RouteKey identifies a route of ours in the main table; protocol and metric are always ours.
type RouteKey struct {
	Dst netip.Prefix // masked; 0.0.0.0/0 and ::/0 for a default route
}

// NextHop is one way of a route. Without Via the destination is on the link itself.
type NextHop struct {
	Via  netip.Addr // may be of the other family than the route's (RFC 8950)
	Link string     // required with a link-local Via; otherwise "" lets the kernel find it
}

// Route is the value of a route: where it leads.
type Route struct {
	Type RouteType
	// NextHops are sorted (SortNextHops), unique, and none for a blackhole; more than one makes a multipath route.
	NextHops []NextHop
	Src      netip.Addr // preferred source of packets that the node itself sends; zero: the kernel's choice
}

// SortNextHops brings next hops into the order in which routes are compared, and drops repeated ones.
func SortNextHops(hops []NextHop) []NextHop {
	slices.SortFunc(hops, func(a, b NextHop) int {
		if c := a.Via.Compare(b.Via); c != 0 {
			return c
		}
		return strings.Compare(a.Link, b.Link)
	})
	return slices.Compact(hops)
}

// RouteEqual compares two routes. A next hop that names no link agrees with the same next hop on any link, since the
// kernel fills the link in.
func RouteEqual(want, have Route) bool {
	if want.Type != have.Type || want.Src != have.Src || len(want.NextHops) != len(have.NextHops) {
		return false
	}
	for i, w := range want.NextHops {
		h := have.NextHops[i]
		if w.Via != h.Via || (w.Link != "" && w.Link != h.Link) {
			return false
		}
	}
	return true
}

// SandboxKey names a container's interface: the sandbox (network namespace) it lives in and its MAC there. The name is
// the engine's to choose and is never used.
type SandboxKey struct {
	Path string // the sandbox key that the engine gave, a file in its netns directory
	MAC  MAC
}

// Sandbox is what we add to a container's interface beyond what Docker puts there. It is only ever added to: nothing in
// a sandbox is deleted, since it goes with the sandbox.
type Sandbox struct {
	Addrs  []netip.Prefix // further addresses, sorted
	Neighs []Neigh        // permanent entries for the gateways, sorted by IP
}

// Neigh is a permanent neighbour entry.
type Neigh struct {
	IP  netip.Addr
	MAC MAC
}

// SandboxEqual says that everything wanted is there; what else is there does not matter.
func SandboxEqual(want, have Sandbox) bool {
	for _, a := range want.Addrs {
		if !slices.Contains(have.Addrs, a) {
			return false
		}
	}
	for _, n := range want.Neighs {
		if !slices.Contains(have.Neighs, n) {
			return false
		}
	}
	return true
}

// Firewall is what our nftables table and our rules in Docker's chain do. The zero value means: none of it.
type Firewall struct {
	// Links are patterns of link names ("fw*") whose forwarded traffic is accepted, in both directions, in DOCKER-USER
	// (or in a FORWARD chain whose policy is drop, where there is no DOCKER-USER).
	Links []string
	// AntiSpoof drops what comes from Links with a source address that is not routed back over the same link.
	AntiSpoof bool
	// Siblings are addresses that AntiSpoof lets through on a link although they are routed over another one: those of
	// the same container on its other networks. Sorted, unique.
	Siblings []LinkAddr
	// Internal are the subnets of networks that are kept apart, a network a set: nothing is forwarded between them and
	// anywhere else. The node itself is no elsewhere.
	Internal [][]netip.Prefix
	// ClosedTCP and ClosedUDP are ports of the node that Links cannot reach (BGP 179, BFD 3784).
	ClosedTCP, ClosedUDP []uint16
	// Bridges are names of Docker's own bridges whose forwarded traffic is accepted like that of Links; nothing else of
	// the above is for them. What passes between one of them and another bridge of Docker's is left to Docker.
	// Sorted, unique.
	Bridges []string
	// Masquerade is the NAT of what leaves the cluster.
	Masquerade Masquerade
	// Unhidden is what Docker's NAT leaves alone.
	Unhidden Unhidden
	// Ports are ports of our bridges, each with what may come in through it. Sorted by link.
	Ports []BridgePort
}

// LinkAddr is an address on a link.
type LinkAddr struct {
	Link string
	Addr netip.Addr
}

// Compare orders by link, then by address.
func (a LinkAddr) Compare(b LinkAddr) int {
	if c := strings.Compare(a.Link, b.Link); c != 0 {
		return c
	}
	return a.Addr.Compare(b.Addr)
}

// Equal compares two firewalls.
func (f Firewall) Equal(o Firewall) bool {
	return slices.Equal(f.Links, o.Links) && f.AntiSpoof == o.AntiSpoof && slices.Equal(f.Siblings, o.Siblings) &&
		slices.EqualFunc(f.Internal, o.Internal, slices.Equal[[]netip.Prefix]) &&
		slices.Equal(f.ClosedTCP, o.ClosedTCP) && slices.Equal(f.ClosedUDP, o.ClosedUDP) &&
		slices.Equal(f.Bridges, o.Bridges) && f.Masquerade.Equal(o.Masquerade) &&
		f.Unhidden.Equal(o.Unhidden) &&
		slices.EqualFunc(f.Ports, o.Ports, BridgePort.Equal)
}

// State is a whole set of kernel state: what should be true of everything that is ours.
type State struct {
	Sysctls  map[string]string // path below /proc/sys, as "net/ipv4/ip_forward", to value
	Links    map[string]Link   // by name
	Addrs    map[AddrKey]struct{}
	Neighs   map[NeighKey]MAC
	Sandbox  map[SandboxKey]Sandbox
	Firewall Firewall
	Routes   map[RouteKey]Route
}

// NewState returns an empty state whose maps can be written to.
func NewState() State {
	return State{
		Sysctls: map[string]string{}, Links: map[string]Link{}, Addrs: map[AddrKey]struct{}{},
		Neighs: map[NeighKey]MAC{}, Sandbox: map[SandboxKey]Sandbox{}, Routes: map[RouteKey]Route{},
	}
}

// String is the sorted text form, a line an object.
func (s State) String() string {
	var out []string
	for k, v := range s.Sysctls {
		out = append(out, fmt.Sprintf("sysctl %s = %s", k, v))
	}
	for name, l := range s.Links {
		out = append(out, "link "+l.text(name))
	}
	for k := range s.Addrs {
		out = append(out, fmt.Sprintf("addr %s dev %s", k.Prefix, k.Link))
	}
	for k, mac := range s.Neighs {
		out = append(out, fmt.Sprintf("neigh %s lladdr %s dev %s permanent", k.IP, mac, k.Link))
	}
	for k, v := range s.Sandbox {
		out = append(out, fmt.Sprintf("sandbox %s %s addrs %v neighs %v", k.Path, k.MAC, v.Addrs, v.Neighs))
	}
	for k, r := range s.Routes {
		out = append(out, "route "+RouteText(k, r))
	}
	if f := s.Firewall; len(f.Links) > 0 {
		out = append(out, fmt.Sprintf("firewall accept %v anti-spoof %v closed tcp %v udp %v siblings %v internal %v", f.Links, f.AntiSpoof, f.ClosedTCP, f.ClosedUDP, f.Siblings, f.Internal))
	}
	if f := s.Firewall; len(f.Bridges) > 0 {
		out = append(out, fmt.Sprintf("firewall accept bridges %v", f.Bridges))
	}
	if u := s.Firewall.Unhidden; len(u.From) > 0 {
		out = append(out, fmt.Sprintf("unhidden from %v to %v", u.From, u.To))
	}
	for _, p := range s.Firewall.Ports {
		out = append(out, fmt.Sprintf("port %s of %s %s from %v", p.Link, p.Bridge, p.MAC, p.Addrs))
	}
	if m := s.Firewall.Masquerade; len(m.From) > 0 {
		out = append(out, fmt.Sprintf("masquerade from %v direct %v except %v", m.From, m.Direct, m.Except))
	}
	slices.Sort(out)
	return strings.Join(out, "\n") + "\n"
}

func (l Link) text(name string) string {
	t := fmt.Sprintf("%s type %s mtu %d address %s alias %s", name, l.Kind, l.MTU, l.MAC, l.Alias)
	if l.Peer.Name != "" {
		t += fmt.Sprintf(" peer %s %s", l.Peer.Name, l.Peer.MAC)
	}
	if l.Master != "" {
		t += " master " + l.Master
	}
	if l.Existing {
		t += " if existing"
	}
	if l.Down {
		t += " down"
	}
	return t
}

// RouteText is a route as ip(8) writes it.
func RouteText(k RouteKey, r Route) string {
	var b strings.Builder
	if r.Type == Blackhole {
		b.WriteString("blackhole ")
	}
	b.WriteString(k.Dst.String())
	for _, h := range r.NextHops {
		if len(r.NextHops) > 1 {
			b.WriteString(" nexthop")
		}
		if h.Via.IsValid() {
			fmt.Fprintf(&b, " via %s", h.Via)
		}
		if h.Link != "" {
			fmt.Fprintf(&b, " dev %s", h.Link)
		}
	}
	if r.Src.IsValid() {
		fmt.Fprintf(&b, " src %s", r.Src)
	}
	return b.String()
}
