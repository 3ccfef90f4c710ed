package cluster_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"testing"
	"time"

	"fairway/internal/cluster"
)

func TestCodec(t *testing.T) {
	want := cluster.Block{
		CIDR: netip.MustParsePrefix("fd09::40/122"), Pool: netip.MustParsePrefix("fd09::/64"), Node: "a", NodeID: "id", Claimed: time.Unix(7, 0).UTC(),
	}
	text, err := cluster.Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := cluster.Decode[cluster.Block]("k", text)
	if err != nil || got != want {
		t.Errorf("%s gives %+v %v", text, got, err)
	}
	var raw map[string]any
	if err := json.Unmarshal(text, &raw); err != nil || raw["schema"] != 1.0 {
		t.Errorf("%s: %v", text, err)
	}
	if text, err := cluster.Encode(struct{}{}); err != nil || string(text) != `{"schema":1}` {
		t.Errorf("an empty record: %s %v", text, err)
	}
	for text, newer := range map[string]bool{
		`{"schema":2,"cidr":7}`: true, `{"schema":99}`: true,
		`{"cidr":"10.0.0.0/26"}`: false, `{"schema":0}`: false, `{"schema":-1}`: false, `[]`: false, ``: false, `{"schema":1,"cidr":"x"}`: false,
	} {
		_, err := cluster.Decode[cluster.Block]("the/key", []byte(text))
		if err == nil || errors.As(err, new(*cluster.NewerError)) != newer {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestKeys(t *testing.T) {
	pool4, pool6 := netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("fd09::/64")
	for key, want := range map[string]string{
		cluster.PoolKey(pool4): "v1/pool/10.9.0.0-16",
		cluster.PoolKey(pool6): "v1/pool/fd09::-64",
		cluster.BlockKey{Pool: pool4, CIDR: netip.MustParsePrefix("10.9.1.0/26")}.String():   "v1/block/10.9.0.0-16/10.9.1.0-26",
		cluster.AddressKey{Pool: pool6, Addr: netip.MustParseAddr("fd09::1")}.String():       "v1/address/fd09::-64/fd09::1",
		cluster.RouteKey{Node: "a-1", Prefix: netip.MustParsePrefix("fd09::1/128")}.String(): "v1/route/a-1/fd09::1-128",
		cluster.StateKey{Network: "lan", Node: "a"}.String():                                 "v1/state/lan/a",
	} {
		if key != want {
			t.Errorf("key %s, want %s", key, want)
		}
	}
}
