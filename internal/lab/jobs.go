package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// jobs runs functions at once; the first failure cancels the others, and every error is kept but for the ones that
// only say so.
type jobs struct {
	ctx    context.Context //nolint:containedctx // a group of goroutines is a scope
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	errs   []error
}

func newJobs(ctx context.Context) *jobs {
	ctx, cancel := context.WithCancel(ctx)
	return &jobs{ctx: ctx, cancel: cancel}
}

func (j *jobs) add(f func(context.Context) error) {
	j.wg.Go(func() {
		err := f(j.ctx)
		if err == nil {
			return
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		if len(j.errs) == 0 || !errors.Is(err, context.Canceled) {
			j.errs = append(j.errs, err)
		}
		j.cancel()
	})
}

func (j *jobs) wait() error {
	j.wg.Wait()
	j.cancel()
	return errors.Join(j.errs...)
}

// poll calls f every 10 ms until it succeeds. When it has not after the limit, or when ctx ends, its last error is
// returned.
func poll(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err // not the one that only says that time is up
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), last)
		case <-tick.C:
		}
	}
}

// noMountsBelow refuses to remove a directory that somebody has mounted something in. The lab's own mounts are in
// the namespaces of its machines, never here.
func noMountsBelow(dir string) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	defer func() { _ = f.Close() }()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			return fmt.Errorf("remove %s: something is mounted on %s; unmount it first", dir, fields[4])
		}
	}
	return nil
}
