package engine_test

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/engine"
)

func TestNetworkCreate(t *testing.T) {
	var got map[string]any
	refuse := 0
	c, _ := serve(t, ping("1.45", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/v1.45/networks/create" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		if refuse != 0 {
			w.WriteHeader(refuse)
			_, _ = w.Write([]byte(`{"message":"network with name lan already exists"}`))
			return
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"Id":"aa","Warning":""}`))
	}))
	spec := engine.NetworkSpec{
		Name: "lan", Driver: "fairway", Internal: true, Options: map[string]string{"network": "lan"},
		Subnets: []engine.SubnetSpec{
			{Prefix: netip.MustParsePrefix("10.9.0.0/16"), Gateway: netip.MustParseAddr("10.9.0.9")}, {Prefix: netip.MustParsePrefix("fd09::/64")},
		},
	}
	if id, err := c.NetworkCreate(t.Context(), spec); id != "aa" || err != nil {
		t.Fatalf("%q %v", id, err)
	}
	want := map[string]any{
		"Name": "lan", "Driver": "fairway", "CheckDuplicate": true, "Internal": true, "EnableIPv4": true, "EnableIPv6": true,
		"IPAM":    map[string]any{"Driver": "fairway", "Config": []any{map[string]any{"Subnet": "10.9.0.0/16", "Gateway": "10.9.0.9"}, map[string]any{"Subnet": "fd09::/64"}}},
		"Options": map[string]any{"network": "lan"}, "Labels": nil,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	refuse = http.StatusConflict
	_, err := c.NetworkCreate(t.Context(), spec)
	if message, ok := engine.Refused(err); !engine.IsConflict(err) || !ok || message != "network with name lan already exists" {
		t.Errorf("the name is taken: %v", err)
	}
	refuse = http.StatusInternalServerError
	if _, err := c.NetworkCreate(t.Context(), spec); err == nil || engine.IsConflict(err) {
		t.Errorf("another refusal: %v", err)
	}
}

func TestNetworkRemove(t *testing.T) {
	var asked []string
	c, _ := serve(t, ping("1.41", func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.EscapedPath())
		switch {
		case strings.HasSuffix(r.URL.Path, "/aa"):
			w.WriteHeader(http.StatusNoContent)
		case strings.HasSuffix(r.URL.Path, "/gone"):
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"message":"network gone not found"}`))
		default:
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"message":"network bb has active endpoints"}`))
		}
	}))
	for _, id := range []string{"aa", "gone"} {
		if err := c.NetworkRemove(t.Context(), id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	err := c.NetworkRemove(t.Context(), "bb")
	if message, ok := engine.Refused(err); !ok || message != "network bb has active endpoints" {
		t.Errorf("in use: %v", err)
	}
	if d := cmp.Diff([]string{"DELETE /v1.41/networks/aa", "DELETE /v1.41/networks/gone", "DELETE /v1.41/networks/bb"}, asked); d != "" {
		t.Error(d)
	}
}
