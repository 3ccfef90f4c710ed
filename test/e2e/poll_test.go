package e2e_test

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// pollInterval is how often a condition is looked at.
const pollInterval = 50 * time.Millisecond

// eventually looks until f finds nothing wrong, and returns how long that took. After limit the test fails with what
// f found last.
func eventually(tb testing.TB, limit time.Duration, f func() error) time.Duration {
	tb.Helper()
	start := time.Now()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			tb.Fatalf("after %v: %v", limit, err)
		}
		<-tick.C
	}
}

// atOnce runs f for 0..n-1, width at a time, and returns what went wrong by number.
func atOnce(n, width int, f func(i int) error) map[int]error {
	var mu sync.Mutex
	var wg sync.WaitGroup
	errs, slots := map[int]error{}, make(chan struct{}, width)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := f(i); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errs
}

// allOf runs f for each and fails the test with the first that went wrong.
func allOf[T any](tb testing.TB, list []T, f func(T) error) {
	tb.Helper()
	for i, err := range atOnce(len(list), max(len(list), 1), func(i int) error { return f(list[i]) }) {
		tb.Fatalf("%v: %v", list[i], err)
	}
}

// within fails a condition with its object's name.
func within(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
