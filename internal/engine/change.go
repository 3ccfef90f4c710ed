package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// changeTimeout bounds a request that changes something: the engine may have to ask a network driver, which has 30 s.
const changeTimeout = 40 * time.Second

// errSlowChange is the cause of the context's end then.
func errSlowChange() error { return fmt.Errorf("no answer within %s", changeTimeout) }

// send makes a request that changes something. The path is not escaped yet. A nil body sends none; a nil into reads none.
func (c *Client) send(ctx context.Context, method, path string, body, into any) error {
	prefix, err := c.negotiate(ctx)
	if err != nil {
		return err
	}
	path = prefix + path
	ctx, cancel := context.WithTimeoutCause(ctx, changeTimeout, errSlowChange())
	defer cancel()
	var content io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return c.wrap(ctx, path, err)
		}
		content = bytes.NewReader(text)
	}
	u := url.URL{Scheme: "http", Host: "docker", Path: path}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), content)
	if err != nil {
		return c.wrap(ctx, path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		if where, ok := errors.AsType[*url.Error](err); ok {
			err = where.Err // the address is made up
		}
		return c.wrap(ctx, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode/100 != 2 {
		return c.refused(ctx, path, resp)
	}
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(into); err != nil {
		return c.wrap(ctx, path, fmt.Errorf("read answer: %w", err))
	}
	return nil
}

// IsNotFound says that the engine does not have the object that was named.
func IsNotFound(err error) bool { return isNotFound(err) }

// Refused are the engine's own words when it did not do what was asked; false when it was not asked at all.
func Refused(err error) (message string, ok bool) {
	if s, is := errors.AsType[*statusError](err); is {
		return s.message, true
	}
	return "", false
}

// Attachment says how a container is to be on a network. Zero values are the engine's to choose. An address can be given
// only on networks whose subnet was given when they were made.
type Attachment struct {
	IPv4, IPv6 netip.Addr
	Options    map[string]string // of the driver (docker network connect --driver-opt)
}

// Connect puts a container on a network, both by name or ID.
func (c *Client) Connect(ctx context.Context, network, container string, at Attachment) error {
	type ipam struct {
		IPv4Address string `json:",omitempty"`
		IPv6Address string `json:",omitempty"`
	}
	type endpoint struct {
		IPAMConfig *ipam             `json:",omitempty"`
		DriverOpts map[string]string `json:",omitempty"`
	}
	e := endpoint{DriverOpts: at.Options}
	if at.IPv4.IsValid() || at.IPv6.IsValid() {
		e.IPAMConfig = &ipam{IPv4Address: text(at.IPv4), IPv6Address: text(at.IPv6)}
	}
	body := struct {
		Container      string
		EndpointConfig endpoint
	}{container, e}
	return c.send(ctx, http.MethodPost, "/networks/"+network+"/connect", body, nil)
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// Disconnect takes a container off a network; with force also one that does not answer any more.
func (c *Client) Disconnect(ctx context.Context, network, container string, force bool) error {
	body := struct {
		Container string
		Force     bool
	}{container, force}
	return c.send(ctx, http.MethodPost, "/networks/"+network+"/disconnect", body, nil)
}

// Process is a running container from inside: its main process, and how it came to its network namespace.
type Process struct {
	ID, Name    string
	PID         int    // of its main process in the engine's PID namespace; 0: it does not run
	NetworkMode string // "bridge", "none", "host", "container:<id>", a network's name
	Sandbox     string // path of its network namespace in the engine's mount namespace
	Command     []string
	Endpoints   []Endpoint // by the network's name
}

// Process inspects one container, by name or ID.
func (c *Client) Process(ctx context.Context, id string) (Process, error) {
	var a struct {
		ID         string `json:"Id"`
		Name       string
		Path       string
		Args       []string
		State      struct{ Pid int }
		HostConfig struct{ NetworkMode string }

		NetworkSettings struct {
			SandboxKey string
			Networks   map[string]*struct {
				NetworkID, EndpointID, MacAddress string
				IPAddress, GlobalIPv6Address      Text
			}
		}
	}
	if err := c.ask(ctx, "/containers/"+id+"/json", nil, &a); err != nil {
		return Process{}, err
	}
	p := Process{
		ID: a.ID, Name: strings.TrimPrefix(a.Name, "/"), PID: a.State.Pid, NetworkMode: a.HostConfig.NetworkMode,
		Sandbox: a.NetworkSettings.SandboxKey, Command: append([]string{a.Path}, a.Args...),
	}
	for name, e := range a.NetworkSettings.Networks {
		if e == nil {
			continue
		}
		p.Endpoints = append(p.Endpoints, Endpoint{
			NetworkID: e.NetworkID, NetworkName: name, EndpointID: e.EndpointID, ContainerID: a.ID, ContainerName: p.Name,
			IPv4: e.IPAddress, IPv6: e.GlobalIPv6Address, MAC: e.MacAddress,
		})
	}
	slices.SortFunc(p.Endpoints, func(x, y Endpoint) int { return strings.Compare(x.NetworkName, y.NetworkName) })
	return p, nil
}
