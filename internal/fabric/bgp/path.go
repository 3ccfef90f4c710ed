package bgp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"fairway/internal/rib"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// nodeFunction is the function number of the large community (RFC 8092) that names the node which holds a prefix:
// <our AS>:200:<router ID as a number>.
const nodeFunction = 200

// origin makes paths of our own prefixes.
type origin struct {
	shared []bgp.PathAttributeInterface // of all paths
	next4  []bgp.PathAttributeInterface // of IPv4 paths
}

func newOrigin(asn uint32, routerID netip.Addr) (origin, error) {
	// An unspecified next hop is filled in for each peer with our address on its session.
	next4, err := bgp.NewPathAttributeNextHop(netip.IPv4Unspecified())
	if err != nil {
		return origin{}, fmt.Errorf("make next hop: %w", err)
	}
	id := routerID.As4()
	node := &bgp.LargeCommunity{ASN: asn, LocalData1: nodeFunction, LocalData2: binary.BigEndian.Uint32(id[:])}
	return origin{
		shared: []bgp.PathAttributeInterface{
			bgp.NewPathAttributeOrigin(bgp.BGP_ORIGIN_ATTR_TYPE_IGP),
			bgp.NewPathAttributeLargeCommunities([]*bgp.LargeCommunity{node}),
		},
		next4: []bgp.PathAttributeInterface{next4},
	}, nil
}

// parting is the origin of paths that are about to be withdrawn (RFC 8326): the community says so to every AS, and inside
// of ours the lowest preference does, too, for who does not know the community.
func (o origin) parting() origin {
	o.shared = append(slices.Clone(o.shared),
		bgp.NewPathAttributeLocalPref(0),
		bgp.NewPathAttributeCommunities([]uint32{uint32(bgp.COMMUNITY_PLANNED_SHUT)}),
	)
	return o
}

func (o origin) path(p netip.Prefix) (*apiutil.Path, error) {
	nlri, err := bgp.NewIPAddrPrefix(p.Masked())
	if err != nil {
		return nil, fmt.Errorf("announce %v: %w", p, err)
	}
	if p.Addr().Is4() {
		return &apiutil.Path{Family: bgp.RF_IPv4_UC, Nlri: nlri, Attrs: slices.Concat(o.shared, o.next4)}, nil
	}
	reach, err := bgp.NewPathAttributeMpReachNLRI(bgp.RF_IPv6_UC, []bgp.PathNLRI{{NLRI: nlri}}, netip.IPv6Unspecified())
	if err != nil {
		return nil, fmt.Errorf("announce %v: %w", p, err)
	}
	return &apiutil.Path{Family: bgp.RF_IPv6_UC, Nlri: nlri, Attrs: append(slices.Clone(o.shared), reach)}, nil
}

// attrCache keeps what was made of the last UPDATE's attributes: its paths come one after the other and share them.
type attrCache struct {
	asPath  bgp.PathAttributeInterface
	numbers []uint32
	peer    netip.Addr
	name    string
}

// parse reads one of GoBGP's paths; link is the one to its peer, if known. The prefix is zero for a path of another kind, and ok is false for a path without a next
// hop that the kernel could use.
func (c *attrCache) parse(p *apiutil.Path, link string) (prefix netip.Prefix, path rib.Path, ok bool) {
	nlri, is := p.Nlri.(*bgp.IPAddrPrefix)
	if !is {
		return netip.Prefix{}, rib.Path{}, false
	}
	prefix = nlri.Prefix.Masked()
	if !p.PeerAddress.IsValid() || p.Withdrawal {
		return prefix, rib.Path{}, false
	}
	peer := p.PeerAddress.Unmap()
	if c.peer != peer || c.name == "" {
		c.peer, c.name = peer, peer.String()
	}
	path = rib.Path{Source: rib.BGP, Peer: c.name}
	var hop, hopLocal netip.Addr
	for _, a := range p.Attrs {
		switch a := a.(type) {
		case *bgp.PathAttributeNextHop:
			hop = a.Value
		case *bgp.PathAttributeMpReachNLRI:
			hop, hopLocal = a.Nexthop, a.LinkLocalNexthop
		case *bgp.PathAttributeAsPath:
			if c.asPath != a {
				c.asPath, c.numbers = a, asNumbers(a)
			}
			path.ASPath = c.numbers
		case *bgp.PathAttributeMultiExitDisc:
			path.MED = a.Value
		case *bgp.PathAttributeLargeCommunities:
			path.Node = nodeOf(a)
		}
	}
	if n := len(path.ASPath); n > 0 {
		path.OriginAS = path.ASPath[n-1]
	}
	path.NextHop, path.Link, ok = usable(prefix, hop, hopLocal, peer, link)
	return prefix, path, ok
}

// usable chooses the next hop. On an unnumbered session it is the link-local one: nothing says that we can reach another. An
// IPv6 route cannot go over an IPv4 next hop in Linux.
func usable(prefix netip.Prefix, hop, hopLocal, peer netip.Addr, link string) (netip.Addr, string, bool) {
	hop = hop.Unmap().WithZone("")
	if hopLocal.IsLinkLocalUnicast() && (peer.Zone() != "" || !hop.IsValid() || hop.IsUnspecified()) {
		hop = hopLocal.WithZone("")
	}
	if !hop.IsValid() || hop.IsUnspecified() || hop.IsMulticast() || prefix.Addr().Is6() && hop.Is4() {
		return netip.Addr{}, "", false
	}
	if hop.Is6() && hop.IsLinkLocalUnicast() {
		return hop, link, link != ""
	}
	return hop, "", true
}

func asNumbers(a *bgp.PathAttributeAsPath) []uint32 {
	var all []uint32
	for _, segment := range a.Value {
		all = append(all, segment.GetAS()...)
	}
	return all
}

// nodeOf reads the node from its community. The AS in it is not compared with the path's: fabrics that replace private AS
// numbers would make two ways to one node look like two nodes.
func nodeOf(a *bgp.PathAttributeLargeCommunities) netip.Addr {
	for _, c := range a.Values {
		if c.LocalData1 == nodeFunction && c.LocalData2 != 0 {
			var id [4]byte
			binary.BigEndian.PutUint32(id[:], c.LocalData2)
			return netip.AddrFrom4(id)
		}
	}
	return netip.Addr{}
}
