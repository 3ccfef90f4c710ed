package bgp

import (
	"net/netip"
	"sync"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// event is one thing that happened to sessions. Exactly one field is set.
type event struct {
	paths  []*apiutil.Path
	peer   *apiutil.Peer
	eor    *endOfRIB
	bfd    *bfdEvent
	advert *advert
	caller netip.Addr // a stranger who connected
}

// endOfRIB says that a peer has told all it has in one family.
type endOfRIB struct {
	peer   netip.Addr
	family bgp.Family
}

// queue keeps events in order until the one goroutine that handles them gets to it. Nobody who puts something in waits:
// GoBGP's callbacks and the BFD timers must not.
type queue struct {
	wake chan struct{}

	mu     sync.Mutex
	events []event
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

func (q *queue) put(e event) {
	q.mu.Lock()
	if n := len(q.events); n > 0 && e.paths != nil && q.events[n-1].paths != nil {
		q.events[n-1].paths = append(q.events[n-1].paths, e.paths...)
	} else {
		q.events = append(q.events, e)
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take empties the queue.
func (q *queue) take() []event {
	q.mu.Lock()
	defer q.mu.Unlock()
	events := q.events
	q.events = nil
	return events
}
