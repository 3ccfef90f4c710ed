package rtnl

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"fairway/internal/kernel"
	"fairway/internal/nettest"
)

// A reader that is too slow for its buffer is told of the loss, and hears again afterwards.
func TestWatchTellsLoss(t *testing.T) {
	ns := nettest.New(t)
	h, err := Open(Config{Namespace: ns.FD()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	h.watchBuffer = 4 << 10
	var batch strings.Builder
	for i := range 500 {
		fmt.Fprintf(&batch, "route add blackhole 10.1.%d.%d/32 proto 200 metric 200\n", i/250, i%250)
	}
	ctx, cancel := context.WithCancel(t.Context())
	lost, last := 0, kernel.RouteKey{}
	err = h.Watch(ctx, func(e Event) {
		switch {
		case e.Lost && lost == 0:
			lost++
			ns.Batch(batch.String()) // while nobody reads
		case e.Lost:
			lost++
			if got, err := h.Routes().List(ctx); err != nil || len(got) != 500 {
				t.Errorf("after the loss %d routes are listed, error %v", len(got), err)
			}
			ns.IP("route add blackhole 10.2.0.0/24 proto 200 metric 200")
		case e.Route != nil && lost > 1:
			last = e.Route.Key
			cancel()
		}
	})
	if err != nil || lost != 2 || last.Dst.String() != "10.2.0.0/24" {
		t.Errorf("error %v, %d losses, last route %v", err, lost, last.Dst)
	}
}
