package engine

import (
	"context"
	"net"
	"net/http"
)

// SetDial has a client connect some other way.
func SetDial(c *Client, dial func() net.Conn) {
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return dial(), nil },
		DisableKeepAlives: true,
	}}
}
