package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// clientTimeout bounds one request; a check that fixes many leaks is the longest.
const clientTimeout = time.Minute

// Client asks an agent over its unix socket. It is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the agent whose socket this is; it connects at the first request.
func NewClient(socket string) *Client {
	var d net.Dialer
	return &Client{
		socket: socket,
		http: &http.Client{
			Timeout: clientTimeout,
			Transport: &http.Transport{
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return d.DialContext(ctx, "unix", socket)
				},
				DisableKeepAlives: true, // a command asks once; an agent that stops need not wait for us
			},
		},
	}
}

// ErrNotRunning is what every method returns (wrapped) when no agent answers on the socket.
var ErrNotRunning = errors.New("the agent is not running here")

// Status is the node on one screen.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "/v1/status")
}

// Containers are the containers on our networks.
func (c *Client) Containers(ctx context.Context) ([]Container, error) {
	return get[[]Container](ctx, c, "/v1/containers")
}

// Networks are the Docker networks of our driver.
func (c *Client) Networks(ctx context.Context) ([]Network, error) {
	return get[[]Network](ctx, c, "/v1/networks")
}

// Routes are all paths known, the node's own too.
func (c *Client) Routes(ctx context.Context) ([]Route, error) {
	return get[[]Route](ctx, c, "/v1/routes")
}

// Peers are the fabric's sessions.
func (c *Client) Peers(ctx context.Context) ([]Peer, error) {
	return get[[]Peer](ctx, c, "/v1/peers")
}

// Settings are the effective settings of the running agent.
func (c *Client) Settings(ctx context.Context) ([]Setting, error) {
	return get[[]Setting](ctx, c, "/v1/settings")
}

// IPAM is the node's address book.
func (c *Client) IPAM(ctx context.Context) (IPAM, error) {
	return get[IPAM](ctx, c, "/v1/ipam")
}

// IPAMCheck finds what is held for nobody; with fix it also ends that.
func (c *Client) IPAMCheck(ctx context.Context, fix bool) ([]Leak, error) {
	if fix {
		return call[[]Leak](ctx, c, http.MethodPost, "/v1/ipam/check?fix=1", nil)
	}
	return get[[]Leak](ctx, c, "/v1/ipam/check")
}

// IPAMRelease lets go of one address; with force also when its endpoint is still there.
func (c *Client) IPAMRelease(ctx context.Context, addr netip.Addr, force bool) error {
	_, err := call[done](ctx, c, http.MethodPost, "/v1/ipam/release", releaseRequest{Address: addr, Force: force})
	return err
}

// Nodes are the nodes of the cluster.
func (c *Client) Nodes(ctx context.Context) ([]Member, error) {
	return get[[]Member](ctx, c, "/v1/nodes")
}

// Drain begins or ends the drain of a node.
func (c *Client) Drain(ctx context.Context, req DrainRequest) error {
	_, err := call[done](ctx, c, http.MethodPost, "/v1/nodes/drain", req)
	return err
}

// RemoveNode says what a node holds and, unless dry, removes it.
func (c *Client) RemoveNode(ctx context.Context, name string, dry bool) (Removal, error) {
	return call[Removal](ctx, c, http.MethodPost, "/v1/nodes/remove", removeRequest{Name: name, Dry: dry})
}

// Join makes the fenced node that is asked a member again.
func (c *Client) Join(ctx context.Context) (Joined, error) {
	return call[Joined](ctx, c, http.MethodPost, "/v1/nodes/join", nil)
}

// CreateNetwork records a network that every node makes.
func (c *Client) CreateNetwork(ctx context.Context, req NetworkRequest) error {
	_, err := call[done](ctx, c, http.MethodPost, "/v1/networks/create", req)
	return err
}

// RemoveNetwork records that every node shall remove a network.
func (c *Client) RemoveNetwork(ctx context.Context, name string) error {
	_, err := call[done](ctx, c, http.MethodPost, "/v1/networks/remove", removeRequest{Name: name})
	return err
}

// Announce makes the agent tell other nodes of a guest's prefixes, for GuestTime.
func (c *Client) Announce(ctx context.Context, g Guest) error {
	_, err := call[done](ctx, c, http.MethodPost, "/v1/guests", g)
	return err
}

// Reload makes the agent read its config again.
func (c *Client) Reload(ctx context.Context) (ReloadResult, error) {
	return call[ReloadResult](ctx, c, http.MethodPost, "/v1/reload", nil)
}

// Ready says whether the node serves containers, and what is awaited when it does not.
func (c *Client) Ready(ctx context.Context) (Health, error) {
	body, status, err := c.do(ctx, http.MethodGet, "/readyz", nil)
	if err != nil {
		return Health{}, err
	}
	if status != http.StatusOK && status != http.StatusServiceUnavailable {
		return Health{}, refusal(status, body)
	}
	var h Health
	if err := json.Unmarshal(body, &h); err != nil {
		return Health{}, fmt.Errorf("read the agent's answer to /readyz: %w", err)
	}
	return h, nil
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	return call[T](ctx, c, http.MethodGet, path, nil)
}

func call[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	var out T
	body, status, err := c.do(ctx, method, path, in)
	if err != nil {
		return out, err
	}
	if status != http.StatusOK {
		return out, refusal(status, body)
	}
	if err := json.Unmarshal(body, &out); err != nil {
		return out, fmt.Errorf("read the agent's answer to %s (is it of another version?): %w", path, err)
	}
	return out, nil
}

func (c *Client) do(ctx context.Context, method, path string, in any) (body []byte, status int, err error) {
	var reader io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, 0, fmt.Errorf("write request: %w", err)
		}
		reader = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://fairway"+path, reader)
	if err != nil {
		return nil, 0, fmt.Errorf("make request: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, 0, c.explain(ctx, err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read to the end, or that failed
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		return nil, 0, fmt.Errorf("read the agent's answer to %s: %w", path, err)
	}
	return body, resp.StatusCode, nil
}

// refusal is what the agent answered instead.
func refusal(status int, body []byte) error {
	var f failure
	if err := json.Unmarshal(body, &f); err != nil || f.Error == "" {
		f.Error = fmt.Sprintf("the agent answered with status %d", status)
	}
	return &Error{Status: status, Err: errors.New(f.Error)}
}

// explain turns a failed connection into what is the case and what to do.
func (c *Client) explain(ctx context.Context, err error) error {
	const start = "start it with `systemctl start fairway` or `fairway agent`"
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("ask the agent: %w", context.Cause(ctx))
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w (no socket %s): %s", ErrNotRunning, c.socket, start)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (nobody answers on %s): %s", ErrNotRunning, c.socket, start)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("connect to %s: permission denied: run this as root", c.socket)
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("the agent did not answer on %s within %v: see its log (journalctl -u fairway)", c.socket, clientTimeout)
	}
	return fmt.Errorf("ask the agent: %w", err)
}
