package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The versions of the API that this client reads, as minor numbers of 1.x: 1.40 is Docker 19.03, 1.51 is 28.5. Engines
// up to 29 serve one of them.
const (
	minAPI = 40
	maxAPI = 51
)

// requestTimeout bounds each request to the engine, until the answer is read; of the event stream, until it begins.
const requestTimeout = 5 * time.Second

// maxAnswer bounds an answer: a listing has some kilobytes per container.
const maxAnswer = 256 << 20

// Client asks one engine. It is safe for concurrent use and remembers nothing: an engine may be replaced by one of
// another version between two calls.
type Client struct {
	socket string
	http   *http.Client
}

// New returns a client for the engine at a unix socket: a path, or unix:// and a path. It does not connect yet. Where nobody
// listens there, the others are tried: a socket that is mounted into a container stays that of the engine that made it, and
// one that starts again makes another.
func New(socket string, others ...string) *Client {
	c := &Client{socket: strings.TrimPrefix(socket, "unix://")}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", c.socket)
		for _, other := range others {
			if err == nil {
				break
			}
			if again, failed := d.DialContext(ctx, "unix", other); failed == nil {
				return again, nil
			}
		}
		return conn, err
	}
	c.http = &http.Client{Transport: &http.Transport{DialContext: dial, DisableCompression: true, MaxIdleConns: 2, IdleConnTimeout: 30 * time.Second}}
	return c
}

// statusError is an answer other than 200.
type statusError struct {
	code    int
	message string // the engine's words
}

func (e *statusError) Error() string { return fmt.Sprintf("%s (status %d)", e.message, e.code) }

func isNotFound(err error) bool {
	s, ok := errors.AsType[*statusError](err)
	return ok && s.code == http.StatusNotFound
}

// open sends a request and returns the answer's body, which the caller closes. The context bounds the body too.
func (c *Client) open(ctx context.Context, path string, query url.Values) (io.ReadCloser, http.Header, error) {
	u := url.URL{Scheme: "http", Host: "docker", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, nil, c.wrap(ctx, path, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if where, ok := errors.AsType[*url.Error](err); ok {
			err = where.Err // the address is made up
		}
		return nil, nil, c.wrap(ctx, path, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, resp.Header, nil
	}
	defer func() { _ = resp.Body.Close() }()
	return nil, nil, c.refused(ctx, path, resp)
}

// refused reads the engine's words of why it did not do what was asked.
func (c *Client) refused(ctx context.Context, path string, resp *http.Response) error {
	var said struct{ Message string }
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return c.wrap(ctx, path, err)
	}
	if json.Unmarshal(text, &said) != nil || said.Message == "" {
		said.Message = cmp.Or(strings.TrimSpace(string(text)), http.StatusText(resp.StatusCode))
	}
	return c.wrap(ctx, path, &statusError{code: resp.StatusCode, message: said.Message})
}

// wrap names the engine. A context that was ended for a reason has the reason told.
func (c *Client) wrap(ctx context.Context, path string, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return fmt.Errorf("ask the engine at %s for %s: %w", c.socket, path, err)
}

func errSlow() error { return fmt.Errorf("no answer within %s", requestTimeout) }

// get reads a JSON answer.
func (c *Client) get(ctx context.Context, path string, query url.Values, into any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, requestTimeout, errSlow())
	defer cancel()
	body, _, err := c.open(ctx, path, query)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(into); err != nil {
		return c.wrap(ctx, path, fmt.Errorf("read answer: %w", err))
	}
	return nil
}

// Ping returns without an error when the engine serves its API, in a version that this client reads.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.negotiate(ctx)
	return err
}

// negotiate returns the head of all paths: the version of the API that both sides know.
func (c *Client) negotiate(ctx context.Context) (prefix string, err error) {
	const path = "/_ping"
	ctx, cancel := context.WithTimeoutCause(ctx, requestTimeout, errSlow())
	defer cancel()
	body, header, err := c.open(ctx, path, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = body.Close() }()
	if _, err := io.Copy(io.Discard, io.LimitReader(body, 4<<10)); err != nil {
		return "", c.wrap(ctx, path, err)
	}
	has := header.Get("Api-Version")
	major, minor, ok := strings.Cut(has, ".")
	n, err := strconv.Atoi(minor)
	if !ok || major != "1" || err != nil || n < minAPI {
		return "", c.wrap(ctx, path, fmt.Errorf("its API version is %q, want 1.%d (Docker 19.03) or later", has, minAPI))
	}
	return fmt.Sprintf("/v1.%d", min(n, maxAPI)), nil
}

// ask is get with the version of the API before the path.
func (c *Client) ask(ctx context.Context, path string, query url.Values, into any) error {
	prefix, err := c.negotiate(ctx)
	if err != nil {
		return err
	}
	return c.get(ctx, prefix+path, query, into)
}

// filters are the engine's way to choose; every key has to match one of its values.
func filters(f map[string][]string) url.Values {
	b, err := json.Marshal(f)
	if err != nil { // strings only
		return nil
	}
	return url.Values{"filters": {string(b)}}
}
