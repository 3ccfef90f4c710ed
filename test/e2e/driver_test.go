package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// driverCall sends the host's driver a request, as the engine does. A reply with an error in it is an error.
func (h *host) driverCall(ctx context.Context, method string, request, reply any) error {
	body := []byte{}
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			return err
		}
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(h.PluginDir(), "fairway.sock"))
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://plugin/"+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var failure struct{ Err, Error string }
	if err := json.Unmarshal(text, &failure); err != nil {
		return fmt.Errorf("%s: %w: %s", method, err, text)
	}
	if says := failure.Err + failure.Error; says != "" || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", method, resp.Status, says)
	}
	if reply == nil {
		return nil
	}
	return json.Unmarshal(text, reply)
}

// Requests that the engine repeats, sends for what is gone, or sends cut off: none fails that may not, and none makes
// anything.
func TestDriverIsIdempotent(t *testing.T) {
	s := newSite(t)
	h := s.hosts[0]
	call := func(method string, request map[string]any) map[string]any {
		t.Helper()
		reply := map[string]any{}
		if err := h.driverCall(t.Context(), method, request, &reply); err != nil {
			t.Error(err)
		}
		return reply
	}
	before := h.everything()
	unknown := strings.Repeat("0123456789abcdef", 4)
	for _, method := range []string{"NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint", "NetworkDriver.RevokeExternalConnectivity", "NetworkDriver.DeleteNetwork"} {
		for range 2 {
			call(method, map[string]any{"NetworkID": unknown, "EndpointID": unknown})
		}
	}
	pool := map[string]any{"AddressSpace": "fairway", "Pool": "10.91.0.0/24", "SubPool": "10.91.0.0/26", "Options": nil, "V6": false}
	id := call("IpamDriver.RequestPool", pool)["PoolID"]
	if again := call("IpamDriver.RequestPool", pool)["PoolID"]; again != id {
		t.Errorf("the same request gave pool %v and then %v", id, again)
	}
	call("IpamDriver.ReleaseAddress", map[string]any{"PoolID": id, "Address": "10.91.0.1"})
	call("IpamDriver.ReleasePool", map[string]any{"PoolID": id})
	call("IpamDriver.ReleasePool", map[string]any{"PoolID": id})
	// The engine repeats a request whose connection broke without its body: that must not do anything with defaults.
	for _, method := range []string{
		"NetworkDriver.CreateNetwork", "NetworkDriver.CreateEndpoint", "NetworkDriver.Join", "NetworkDriver.Leave",
		"NetworkDriver.DeleteEndpoint", "NetworkDriver.DeleteNetwork", "IpamDriver.RequestPool", "IpamDriver.RequestAddress",
		"IpamDriver.ReleaseAddress", "IpamDriver.ReleasePool",
	} {
		if err := h.driverCall(t.Context(), method, nil, nil); err == nil {
			t.Errorf("%s without a body is not refused", method)
		}
	}
	// Twice the same RequestPool are two requests for one pool; the engine releases once for each network.
	call("IpamDriver.ReleasePool", map[string]any{"PoolID": id})
	h.unchanged(t, before)
}
