package engine

import (
	"cmp"
	"context"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Text is an address as the engine writes it: plain, with a prefix length, or empty. Engines up to 28.0.0 write the
// gateway of a subnet that they chose as "fd99::1/64" where others write "fd99::1".
type Text string

// Addr reads the address, whichever way it is written; false when there is none.
func (t Text) Addr() (netip.Addr, bool) {
	s, _, _ := strings.Cut(string(t), "/")
	a, err := netip.ParseAddr(s)
	return a, err == nil
}

// Network is a network as the engine has it.
type Network struct {
	ID        string
	Name      string
	Driver    string
	Scope     string // "local", "swarm"
	Internal  bool
	Labels    map[string]string
	Options   map[string]string
	IPAM      string // its driver: "default", "fairway"
	Subnets   []Subnet
	Endpoints []Endpoint // of running containers, by container ID
}

// Subnet is one pool of a network.
type Subnet struct {
	Subnet  Text // with the prefix length
	Range   Text // --ip-range; empty: none
	Gateway Text
}

// Endpoint is a container's place on a network.
type Endpoint struct {
	NetworkID     string
	NetworkName   string
	EndpointID    string // "" while the container does not run
	ContainerID   string // "" when the engine knows of the endpoint but not yet of its container
	ContainerName string
	IPv4, IPv6    Text
	MAC           string
}

// Addrs are the endpoint's addresses, IPv4 before IPv6.
func (e Endpoint) Addrs() []netip.Addr {
	var out []netip.Addr
	for _, t := range []Text{e.IPv4, e.IPv6} {
		if a, ok := t.Addr(); ok {
			out = append(out, a)
		}
	}
	return out
}

// networkAnswer is what is read of GET /networks/{id}.
type networkAnswer struct {
	ID       string `json:"Id"`
	Name     string
	Driver   string
	Scope    string
	Internal bool
	Labels   map[string]string
	Options  map[string]string
	IPAM     struct {
		Driver string
		Config []struct{ Subnet, IPRange, Gateway Text }
	}
	Containers map[string]struct {
		Name, EndpointID, MacAddress string
		IPv4Address, IPv6Address     Text
	}
}

// Networks lists the networks of a driver, or all with "", by ID, with the endpoints of running containers. One that is
// removed meanwhile is left out.
func (c *Client) Networks(ctx context.Context, driver string) ([]Network, error) {
	var query url.Values
	if driver != "" {
		query = filters(map[string][]string{"driver": {driver}})
	}
	return c.networks(ctx, query)
}

// Labelled lists the networks of a driver that have a label, as Networks does. The label is "key" or "key=value".
func (c *Client) Labelled(ctx context.Context, driver, label string) ([]Network, error) {
	return c.networks(ctx, filters(map[string][]string{"driver": {driver}, "label": {label}}))
}

func (c *Client) networks(ctx context.Context, query url.Values) ([]Network, error) {
	prefix, err := c.negotiate(ctx)
	if err != nil {
		return nil, err
	}
	var list []struct {
		ID string `json:"Id"`
	}
	if err := c.get(ctx, prefix+"/networks", query, &list); err != nil {
		return nil, err
	}
	out := make([]Network, 0, len(list))
	for _, n := range list {
		var a networkAnswer
		err := c.get(ctx, prefix+"/networks/"+n.ID, nil, &a)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, a.network())
	}
	slices.SortFunc(out, func(a, b Network) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

func (a networkAnswer) network() Network {
	n := Network{
		ID: a.ID, Name: a.Name, Driver: a.Driver, Scope: a.Scope, Internal: a.Internal, Labels: a.Labels, Options: a.Options,
		IPAM: a.IPAM.Driver,
	}
	for _, s := range a.IPAM.Config {
		n.Subnets = append(n.Subnets, Subnet{Subnet: s.Subnet, Range: s.IPRange, Gateway: s.Gateway})
	}
	for id, e := range a.Containers {
		// Engine 29 lists an endpoint that joins as ep-<endpoint>.
		if strings.HasPrefix(id, "ep-") {
			id, e.Name = "", ""
		}
		n.Endpoints = append(n.Endpoints, Endpoint{
			NetworkID: a.ID, NetworkName: a.Name, EndpointID: e.EndpointID, ContainerID: id, ContainerName: e.Name,
			IPv4: e.IPv4Address, IPv6: e.IPv6Address, MAC: e.MacAddress,
		})
	}
	slices.SortFunc(n.Endpoints, func(x, y Endpoint) int {
		return cmp.Or(cmp.Compare(x.ContainerID, y.ContainerID), cmp.Compare(x.EndpointID, y.EndpointID))
	})
	return n
}
