package cnm

import (
	"net/netip"
	"slices"

	"fairway/internal/kernel"
)

// NetworkRequest is a decoded NetworkDriver.CreateNetwork.
type NetworkRequest struct {
	ID       string
	Internal bool
	Options  map[string]string // -o key=value
	IPv4     []SubnetRequest   // empty for a network without IPv4
	IPv6     []SubnetRequest
}

// space is the address space that the engine had the subnets from; "" when it does not say.
func (r NetworkRequest) space() string {
	for _, s := range slices.Concat(r.IPv4, r.IPv6) {
		if s.Space != "" {
			return s.Space
		}
	}
	return ""
}

// SubnetRequest is one entry of IPv4Data or IPv6Data.
type SubnetRequest struct {
	Prefix  netip.Prefix // as given, host bits and all
	Gateway netip.Addr   // zero: none
	Space   string       // address space
}

// EndpointRequest is a decoded NetworkDriver.CreateEndpoint.
type EndpointRequest struct {
	Network string
	ID      string
	Addr4   netip.Prefix // zero: none
	Addr6   netip.Prefix // zero: none
	MAC     kernel.MAC   // zero: ours to choose
	Options map[string]string
}

// PoolRequest is a decoded IpamDriver.RequestPool.
type PoolRequest struct {
	Space   string
	Pool    netip.Prefix // zero: ours to choose
	Range   netip.Prefix // --ip-range; zero: none
	V6      bool
	Options map[string]string // --ipam-opt
}

// AddressRequest is a decoded IpamDriver.RequestAddress.
type AddressRequest struct {
	Pool    string
	Addr    netip.Addr // zero: ours to choose
	Gateway bool       // RequestAddressType is com.docker.network.gateway
	Options map[string]string
}

// JoinReply is what the engine is told at Join: which link to move, and how the container gets out.
type JoinReply struct {
	Link     string       // SrcName: the end of the veth that the engine moves
	Gateway4 netip.Addr   // zero: none
	Gateway6 netip.Addr   // zero: none
	OnLink   []netip.Addr // each gets a connected route, since no subnet is on the link
	// Routes are further ways, each through an address of OnLink: on an internal network, which has no gateway in the
	// engine's sense, the network's own subnets.
	Routes []JoinRoute
}

// JoinRoute is a static route of the container (NEXTHOP in the engine's words).
type JoinRoute struct {
	Dst netip.Prefix
	Via netip.Addr
}
