package engine

import (
	"cmp"
	"context"
	"net/url"
	"slices"
	"strings"
)

// Container is a container as the engine has it.
type Container struct {
	ID        string
	Name      string // without the leading slash
	Image     string
	State     string // "running", "exited", "created", "paused", ...
	Labels    map[string]string
	Endpoints []Endpoint // one per network, by the network's name; also of a container that does not run
}

type containerAnswer struct {
	ID              string `json:"Id"`
	Names           []string
	Image           string
	State           string
	Labels          map[string]string
	NetworkSettings *struct {
		Networks map[string]*struct {
			NetworkID, EndpointID, MacAddress string
			IPAddress, GlobalIPv6Address      Text
		}
	}
}

// Containers lists all containers, running or not, by ID.
func (c *Client) Containers(ctx context.Context) ([]Container, error) {
	var list []containerAnswer
	if err := c.ask(ctx, "/containers/json", url.Values{"all": {"1"}}, &list); err != nil {
		return nil, err
	}
	out := make([]Container, 0, len(list))
	for _, a := range list {
		out = append(out, a.container())
	}
	slices.SortFunc(out, func(a, b Container) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

func (a containerAnswer) container() Container {
	ct := Container{ID: a.ID, Name: nameOf(a.Names), Image: a.Image, State: a.State, Labels: a.Labels}
	if a.NetworkSettings == nil {
		return ct
	}
	for name, e := range a.NetworkSettings.Networks {
		if e == nil {
			continue
		}
		ct.Endpoints = append(ct.Endpoints, Endpoint{
			NetworkID: e.NetworkID, NetworkName: name, EndpointID: e.EndpointID, ContainerID: a.ID, ContainerName: ct.Name,
			IPv4: e.IPAddress, IPv6: e.GlobalIPv6Address, MAC: e.MacAddress,
		})
	}
	slices.SortFunc(ct.Endpoints, func(x, y Endpoint) int { return cmp.Compare(x.NetworkName, y.NetworkName) })
	return ct
}

// nameOf is a container's own name: those with a second slash are names that linked containers have for it.
func nameOf(names []string) string {
	for _, n := range names {
		if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
			return n
		}
	}
	return ""
}
