package router

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"testing"
	"time"
)

func TestHearsOnlyRouters(t *testing.T) {
	told := 0
	n := newNeighbours(slog.New(slog.DiscardHandler), hello{Version: 1, RouterID: ip("10.0.0.1"), ASN: 4200000001}, nil, func() { told++ })
	message := func(change func(*hello)) []byte {
		h := hello{Version: 1, RouterID: ip("10.0.0.2"), ASN: 4200000002}
		if change != nil {
			change(&h)
		}
		b, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	from := ip("192.0.2.2")
	for name, b := range map[string][]byte{
		"nothing": nil, "noise": []byte("hello, world"), "cut short": message(nil)[:20], "another list": []byte(`[]`),
		"own":              message(func(h *hello) { h.RouterID = ip("10.0.0.1") }),
		"newer":            message(func(h *hello) { h.Version = 2 }),
		"another instance": message(func(h *hello) { h.Instance = "lab" }),
		"no AS":            message(func(h *hello) { h.ASN = 0 }),
	} {
		if n.take(b, from) || told > 0 {
			t.Errorf("%s was taken for a router", name)
		}
	}
	if n.take(message(nil), netip.IPv6LinkLocalAllNodes()) {
		t.Error("a router at a multicast address")
	}
	if !n.take(message(nil), from) || n.take(message(nil), from) || told != 1 || len(n.list()) != 1 {
		t.Errorf("one router heard twice: told %d times, list %v", told, n.list())
	}
	// A router that was made anew has another AS.
	n.take(message(func(h *hello) { h.ASN++ }), from)
	if told != 2 || n.list()[0].ASN != 4200000003 {
		t.Errorf("a router that is new: told %d times, list %v", told, n.list())
	}
	if n.expire(time.Now()) || !n.expire(time.Now().Add(2*helloSilence)) || len(n.list()) != 0 {
		t.Errorf("silence does not end a router: %v", n.list())
	}
}
