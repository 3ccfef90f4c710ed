package plugin

import (
	"errors"
	"log/slog"
)

// The address spaces. All pools of a node are in the local one; the engine asks in the global one only for drivers of
// global scope.
const (
	spaceLocal  = "fairway-local"
	spaceGlobal = "fairway-global"
)

// table has every method that is served. Others get 404, which engines take for "optional and not here".
func (s *Server) table() map[string]method {
	return map[string]method{
		// The handshake: no content, answered at once.
		"Plugin.Activate":               always(activateAnswer{Implements: []string{"NetworkDriver", "IpamDriver"}}),
		"NetworkDriver.GetCapabilities": always(networkCapabilities{Scope: "local", ConnectivityScope: "local"}),
		// No replay: the book outlives the engine. No MAC address: addresses do not depend on it.
		"IpamDriver.GetCapabilities":         always(ipamCapabilities{}),
		"IpamDriver.GetDefaultAddressSpaces": always(addressSpaces{LocalDefaultAddressSpace: spaceLocal, GlobalDefaultAddressSpace: spaceGlobal}),

		"NetworkDriver.CreateNetwork":               networkCreate,
		"NetworkDriver.DeleteNetwork":               networkDelete,
		"NetworkDriver.CreateEndpoint":              endpointCreate,
		"NetworkDriver.DeleteEndpoint":              endpointDelete,
		"NetworkDriver.Join":                        join,
		"NetworkDriver.Leave":                       leave,
		"NetworkDriver.EndpointOperInfo":            operInfo,
		"NetworkDriver.ProgramExternalConnectivity": connectivity,
		"NetworkDriver.RevokeExternalConnectivity":  always(nil),
		"NetworkDriver.DiscoverNew":                 always(nil),
		"NetworkDriver.DiscoverDelete":              always(nil),
		"NetworkDriver.AllocateNetwork":             never("networks of global scope are not served: fairway is a driver of local scope; leave out --scope, or create the network on each node"),
		"NetworkDriver.FreeNetwork":                 always(nil),

		"IpamDriver.RequestPool":    poolRequest,
		"IpamDriver.ReleasePool":    poolRelease,
		"IpamDriver.RequestAddress": addressRequest,
		"IpamDriver.ReleaseAddress": addressRelease,
	}
}

// always answers the same, whatever the request says.
func always(answer any) method {
	return func([]byte) (job, error) { return job{answer: answer}, nil }
}

// never refuses, whatever the request says.
func never(why string) method {
	return func([]byte) (job, error) { return job{}, errors.New(why) }
}

// aboutNetwork and aboutEndpoint are a call's objects as the log names them.
func aboutNetwork(id string) []slog.Attr { return []slog.Attr{slog.String("network", short(id))} }

func aboutEndpoint(network, endpoint string) []slog.Attr {
	return []slog.Attr{slog.String("network", short(network)), slog.String("endpoint", short(endpoint))}
}
