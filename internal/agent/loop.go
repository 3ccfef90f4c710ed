package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	"fairway/internal/cnm"
	"fairway/internal/fabric"
	"fairway/internal/kernel"
	"fairway/internal/plan"
	"fairway/internal/reconcile"
)

// Times of the loop.
const (
	resyncInterval = 5 * time.Minute        // everything is listed again
	watchInterval  = 400 * time.Millisecond // sysctls and firewall are looked at; the kernel tells of neither reliably
	retryFirst     = 200 * time.Millisecond // after a failure or while something is pending; doubles
	retryMost      = 15 * time.Second
)

// loop is the one goroutine that changes the kernel: dirty -> snapshot -> plan -> apply -> announce.
type loop struct {
	log   *slog.Logger
	input func(ctx context.Context) (plan.Input, error) // the snapshot
	fab   func() fabric.Fabric
	kern  *machinery
	dirty chan struct{}
	// watched is called after each pass, outside of all locks.
	passed func(d time.Duration, reports []reconcile.Report)

	mu      sync.Mutex
	asked   uint64 // the last pass that was asked for
	done    uint64 // the last one that finished, counting those asked for before it began
	changed chan struct{}
	result  result
}

// result is what the last pass left.
type result struct {
	Output    plan.Output
	Reports   []reconcile.Report
	Announced map[netip.Prefix]fabric.Announcement
	// LinkErrs are failures by the link of the endpoint they belong to.
	LinkErrs map[string]error
	Err      error // the pass as a whole
	At       time.Time
	Took     time.Duration
	Passes   uint64
	Mended   map[string]uint64
	Pending  int // objects that wait for something
}

func newLoop(log *slog.Logger) *loop {
	return &loop{
		log: log, dirty: make(chan struct{}, 1), changed: make(chan struct{}),
		result: result{Mended: map[string]uint64{}, LinkErrs: map[string]error{}},
	}
}

// mark asks for a pass. It never waits.
func (l *loop) mark() uint64 {
	l.mu.Lock()
	l.asked++
	n := l.asked
	l.mu.Unlock()
	select {
	case l.dirty <- struct{}{}:
	default:
	}
	return n
}

// last returns what the last pass left; its maps are not changed any more.
func (l *loop) last() result {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.result
}

// wait returns once a pass that began after the call has finished, or the context ends.
func (l *loop) wait(ctx context.Context) (result, error) {
	want := l.mark()
	for {
		l.mu.Lock()
		done, changed, res := l.done, l.changed, l.result
		l.mu.Unlock()
		if done >= want {
			return res, nil
		}
		select {
		case <-ctx.Done():
			return result{}, fmt.Errorf("wait for the kernel to be set: %w", ctx.Err())
		case <-changed:
		}
	}
}

// run works until the context ends. Stopping changes nothing.
func (l *loop) run(ctx context.Context) error {
	resync := time.NewTicker(resyncInterval)
	defer resync.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	delay := retryFirst
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.dirty:
		case <-retry.C:
		case <-resync.C:
			l.kern.invalidate()
		}
		again := l.pass(ctx)
		if !again {
			delay = retryFirst
			retry.Stop()
			continue
		}
		retry.Reset(delay)
		delay = min(2*delay, retryMost)
	}
}

// pass makes the kernel agree once. It returns true when something failed or is pending, and should be tried again.
func (l *loop) pass(ctx context.Context) (again bool) {
	l.mu.Lock()
	asked, res := l.asked, l.result
	l.mu.Unlock()
	start := time.Now()
	res.Err = l.once(ctx, &res)
	if ctx.Err() != nil {
		return false // a half finished pass is no news
	}
	res.At, res.Took = time.Now(), time.Since(start)
	res.Passes++
	l.note(&res)
	l.mu.Lock()
	l.result, l.done = res, asked
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	if l.passed != nil {
		l.passed(res.Took, res.Reports)
	}
	return res.Err != nil || res.Pending > 0
}

// once is the pass: what is no longer wanted is withdrawn before its route goes, and what is new is announced after its
// route works.
func (l *loop) once(ctx context.Context, res *result) error {
	fab := l.fab()
	// Before the snapshot: what the last source reports while it is taken is not in it, and must not be missed by it.
	prune := fab.Status().Converged
	in, err := l.input(ctx)
	if err != nil {
		return err
	}
	out := plan.Compute(in)
	still := make(map[netip.Prefix]fabric.Announcement, len(res.Announced))
	for p, a := range res.Announced {
		if _, wanted := out.Announce[p]; wanted {
			still[p] = a
		}
	}
	var errs []error
	if len(still) < len(res.Announced) {
		errs = append(errs, fab.Announce(ctx, still))
	}
	reports, failed, linkErrs := l.kern.apply(ctx, out.State, prune)
	announce := make(map[netip.Prefix]fabric.Announcement, len(out.Announce))
	for p, a := range out.Announce {
		if _, bad := failed[a.Needs]; bad && a.Needs.Dst.IsValid() {
			continue
		}
		if a.Link != "" && linkErrs[a.Link] != nil {
			continue
		}
		announce[p] = fabric.Announcement{Kind: a.Kind, GracefulShutdown: a.GracefulShutdown}
	}
	errs = append(errs, fab.Announce(ctx, announce))
	res.Output, res.Reports, res.LinkErrs, res.Announced = out, reports, linkErrs, announce
	for _, r := range reports {
		errs = append(errs, r.Err())
	}
	return errors.Join(errs...)
}

// note counts what was mended, and logs failures when they begin and when they end.
func (l *loop) note(res *result) {
	mended := maps.Clone(res.Mended)
	res.Pending = 0
	for _, r := range res.Reports {
		res.Pending += r.Pending
		if r.Mended > 0 {
			mended[r.Name] += uint64(r.Mended)
			l.log.Warn("put back what somebody else had changed", slog.String("table", r.Name), slog.Int("objects", r.Mended))
		}
		if r.Set+r.Deleted > 0 {
			l.log.Debug("kernel set", slog.String("table", r.Name), slog.Int("set", r.Set), slog.Int("deleted", r.Deleted))
		}
	}
	res.Mended = mended
	was := l.last().Err
	switch {
	case res.Err != nil && (was == nil || was.Error() != res.Err.Error()):
		l.log.Error("the kernel could not be set as planned; trying again", slog.Any("err", res.Err))
	case res.Err == nil && was != nil:
		l.log.Info("the kernel is as planned again")
	}
}

// Apply waits until the kernel agrees with the book as it is now, and returns what went wrong with that endpoint.
func (l *loop) Apply(ctx context.Context, endpoint string) error {
	res, err := l.wait(ctx)
	if err != nil {
		return err
	}
	if endpoint == "" {
		return nil
	}
	link := cnm.Endpoint{ID: endpoint}.LinkName()
	if err := res.LinkErrs[link]; err != nil {
		return err
	}
	if res.Err != nil && len(res.Reports) == 0 {
		return res.Err // nothing could be planned at all
	}
	return nil
}

// failedRoutes are the routes that are not in the kernel.
type failedRoutes map[kernel.RouteKey]error
