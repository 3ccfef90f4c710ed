// Package reconcile makes a set of objects agree with a desired set: list, compare, apply.
//
// The rules that every user of this package keeps:
//
//  1. Level, not edge: an event carries no data into apply; it marks dirty. Missing an event costs time, never truth.
//  2. The caller hands over the whole set; there is no Add or Remove on the boundary.
//  3. Compare with the kernel, not with memory. What is ours is told by reading back: own route protocol number, own
//     name prefix, entries only on own links. No state file for kernel state. Tracked remembers what the kernel said
//     last, and forgets it as soon as the kernel says anything else.
//  4. Delete nothing until every source has reported once.
//  5. One object's failure never stops another's, except where order demands; errors are joined and kept per object.
//  6. Order: links, addresses, neighbours, rules, routes; deletes in reverse; replace rather than delete and add.
//  7. Full resync at start, after a lost event buffer, and every few minutes. Subscribe first, then list.
//  8. Compare normalised values and only fields that we set.
//  9. Stopping the agent changes nothing; removal is an explicit command.
//  10. Announce only what is applied; withdraw before removing.
//
// The package knows nothing of what it reconciles and does no input or output of its own.
package reconcile

import "context"

// Table is one keyed set of objects that are ours. Implementations need not be safe for concurrent use.
type Table[K comparable, V any] interface {
	// List returns what is there now, ours only. The caller owns the map.
	List(ctx context.Context) (map[K]V, error)
	// Set creates the object or replaces what stands under its key.
	Set(ctx context.Context, key K, val V) error
	// Delete removes the object; one that is absent is no error.
	Delete(ctx context.Context, key K) error
}

// Batcher is what a Table also implements when many objects at once are cheaper than one by one. Both methods return
// the error of each object that failed, and nothing for the others.
type Batcher[K comparable, V any] interface {
	SetAll(ctx context.Context, set map[K]V) map[K]error
	DeleteAll(ctx context.Context, del []K) map[K]error
}

// Diff compares a desired set with an actual one: set holds what is missing or different, del what is there and not
// wanted. Neither order is defined.
func Diff[K comparable, V any](desired, actual map[K]V, equal func(want, have V) bool) (set map[K]V, del []K) {
	set = make(map[K]V)
	for k, want := range desired {
		if have, ok := actual[k]; !ok || !equal(want, have) {
			set[k] = want
		}
	}
	for k := range actual {
		if _, ok := desired[k]; !ok {
			del = append(del, k)
		}
	}
	return set, del
}
