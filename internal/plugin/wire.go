package plugin

import "encoding/json"

// The requests and answers as they stand on the wire. Field names are the keys. Unknown keys are ignored: engines add
// some, and 28 sent keys that 26 did not.

type activateAnswer struct{ Implements []string }

type networkCapabilities struct{ Scope, ConnectivityScope string }

type ipamCapabilities struct{ RequiresMACAddress, RequiresRequestReplay bool }

type addressSpaces struct{ LocalDefaultAddressSpace, GlobalDefaultAddressSpace string }

// refusal has both keys: network drivers are read for Err, IPAM drivers for Error.
type refusal struct{ Err, Error string }

type networkRef struct{ NetworkID string }

type endpointRef struct{ NetworkID, EndpointID string }

type createNetwork struct {
	NetworkID          string
	Options            map[string]json.RawMessage
	IPv4Data, IPv6Data []ipamData
}

type ipamData struct{ AddressSpace, Pool, Gateway string }

type createEndpoint struct {
	NetworkID, EndpointID string
	Interface             *struct{ Address, AddressIPv6, MacAddress string }
	Options               map[string]json.RawMessage
}

type endpointAnswer struct {
	Interface *macAnswer `json:",omitempty"`
}

// macAnswer has no addresses: the engine refuses an answer that repeats those it gave.
type macAnswer struct{ MacAddress string }

type joinRequest struct{ NetworkID, EndpointID, SandboxKey string }

type joinAnswer struct {
	InterfaceName         interfaceName
	Gateway               string        `json:",omitempty"`
	GatewayIPv6           string        `json:",omitempty"`
	StaticRoutes          []staticRoute `json:",omitempty"`
	DisableGatewayService bool
}

type interfaceName struct{ SrcName, DstPrefix string }

// staticRoute is a route in the container. Types: 0 through a next hop, 1 connected.
type staticRoute struct {
	Destination string
	RouteType   int
	NextHop     string `json:",omitempty"`
}

const (
	routeNextHop   = 0
	routeConnected = 1
)

type operInfoAnswer struct{ Value map[string]string }

type connectivityRequest struct {
	NetworkID, EndpointID string
	Options               map[string]json.RawMessage
}

// portBinding is one -p: Proto is the IP protocol's number, Port the container's.
type portBinding struct {
	Proto    uint8
	Port     uint16
	HostIP   string
	HostPort uint16
}

type requestPool struct {
	AddressSpace, Pool, SubPool string
	Options                     map[string]json.RawMessage
	V6                          bool
}

type poolAnswer struct {
	PoolID, Pool string
	Data         map[string]string
}

type poolRef struct{ PoolID string }

type requestAddress struct {
	PoolID, Address string
	Options         map[string]json.RawMessage
}

type addressAnswer struct {
	Address string
	Data    map[string]string
}

type releaseAddress struct{ PoolID, Address string }
