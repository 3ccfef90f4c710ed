package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// engine asks a Docker engine over its socket: what docker run does, without the time that a client takes to start.
type engine struct{ http *http.Client }

func newEngine(socket string) *engine {
	var d net.Dialer
	return &engine{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
	}}}
}

// container is what to make.
type container struct {
	Name, Image string
	Cmd         []string
	Network     string
	Address     string // "" lets the network choose
	Binds       []string
	CapAdd      []string
	Sysctls     map[string]string
}

// create makes a container and returns its ID.
func (e *engine) create(ctx context.Context, c container) (string, error) {
	endpoint := map[string]any{}
	if c.Address != "" {
		endpoint["IPAMConfig"] = map[string]string{"IPv4Address": c.Address}
	}
	in := map[string]any{
		"Image": c.Image, "Cmd": c.Cmd,
		"HostConfig":       map[string]any{"NetworkMode": c.Network, "Binds": c.Binds, "CapAdd": c.CapAdd, "Sysctls": c.Sysctls},
		"NetworkingConfig": map[string]any{"EndpointsConfig": map[string]any{c.Network: endpoint}},
	}
	path := "/containers/create"
	if c.Name != "" {
		path += "?name=" + url.QueryEscape(c.Name)
	}
	body, err := e.ask(ctx, http.MethodPost, path, in)
	if err != nil {
		return "", err
	}
	var out struct{ ID string }
	if err := json.Unmarshal(body, &out); err != nil {
		return "", fmt.Errorf("read the engine's answer: %w", err)
	}
	return out.ID, nil
}

func (e *engine) start(ctx context.Context, id string) error {
	_, err := e.ask(ctx, http.MethodPost, "/containers/"+id+"/start", nil)
	return err
}

// remove kills a container and removes it, as docker rm -f does.
func (e *engine) remove(ctx context.Context, id string) error {
	_, err := e.ask(ctx, http.MethodDelete, "/containers/"+id+"?force=1", nil)
	return err
}

// address is the container's on a network.
func (e *engine) address(ctx context.Context, id, network string) (string, error) {
	body, err := e.ask(ctx, http.MethodGet, "/containers/"+id+"/json", nil)
	if err != nil {
		return "", err
	}
	var out struct {
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress string }
		}
	}
	if err := json.Unmarshal(body, &out); err != nil {
		return "", fmt.Errorf("read the engine's answer: %w", err)
	}
	a := out.NetworkSettings.Networks[network].IPAddress
	if a == "" {
		return "", fmt.Errorf("container %.12s has no address on network %q", id, network)
	}
	return a, nil
}

func (e *engine) ask(ctx context.Context, method, path string, in any) ([]byte, error) {
	var body io.Reader = http.NoBody
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("write request: %w", err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the engine: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read the engine's answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s: %.300s", method, path, resp.Status, bytes.TrimSpace(answer))
	}
	return answer, nil
}
