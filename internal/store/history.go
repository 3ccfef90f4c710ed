package store

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
)

// maxHistory is how many changes a Local remembers for its watches. One that falls further behind lists again.
const maxHistory = 4096

var errClosed = errors.New("the store was closed")

// history is what has changed since the file was opened. Its zero value is ready.
type history struct {
	mu      sync.Mutex
	from    uint64 // it has all changes after this revision
	last    uint64 // revision of the last one, or from
	events  []Event
	changed chan struct{} // closed at the next change, if somebody waits for it
	closed  bool
}

// begin sets the revision that the history starts after.
func (h *history) begin(rev uint64) { h.from, h.last = rev, rev }

// add appends the events of one transaction.
func (h *history) add(rev uint64, events []Event) {
	if len(events) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, events...)
	h.last = rev
	// Forgotten by halves, so that what is kept is not moved at each change; and never a part of a transaction.
	if len(h.events) > 2*maxHistory {
		cut := len(h.events) - maxHistory
		for cut < len(h.events) && h.events[cut].Revision == h.events[cut-1].Revision {
			cut++
		}
		h.from = h.events[cut-1].Revision
		h.events = append([]Event(nil), h.events[cut:]...)
	}
	h.wake()
}

func (h *history) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.wake()
}

func (h *history) wake() {
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// watch sends the changes after a revision until the context ends, or there is an error.
func (h *history) watch(ctx context.Context, prefix string, after uint64, out chan<- Update) {
	defer close(out)
	for {
		u, seen, wait := h.since(prefix, after)
		if len(u.Events) != 0 || u.Err != nil {
			select {
			case out <- u:
			case <-ctx.Done():
				return
			}
		}
		if u.Err != nil {
			return
		}
		after = max(after, seen)
		select {
		case <-wait:
		case <-ctx.Done():
			return
		}
	}
}

// since returns the changes after a revision, the revision up to which these are all, and what to wait for until there
// may be more.
func (h *history) since(prefix string, after uint64) (u Update, seen uint64, wait <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return Update{Err: errClosed}, 0, nil
	case after < h.from:
		return Update{Err: fmt.Errorf("watch records %q after revision %d: %w", prefix, after, ErrCompacted)}, 0, nil
	}
	first := sort.Search(len(h.events), func(i int) bool { return h.events[i].Revision > after })
	for _, e := range h.events[first:] {
		if strings.HasPrefix(e.Key, prefix) {
			u.Events = append(u.Events, e)
			u.Revision = e.Revision
		}
	}
	if h.changed == nil {
		h.changed = make(chan struct{})
	}
	return u, h.last, h.changed
}
