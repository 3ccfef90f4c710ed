package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"
)

// maxBody is far above any request: the largest carry a container's list of ports.
const maxBody = 4 << 20

// contentType is what engines ask for; none checks it.
const contentType = "application/vnd.docker.plugins.v1.2+json"

var errStopping = errors.New("the fairway agent is stopping; try again when it is back")

// method decodes and checks a request. It does nothing yet.
type method func(body []byte) (job, error)

// job is a checked request.
type job struct {
	// do is the work; nil when there is none, and answer is the answer.
	do     func(ctx context.Context, w world) (any, error)
	answer any // nil is {}
	// idle makes answer the answer as long as the agent is starting, instead of waiting for it.
	idle bool
	// once is for what the engine says a single time, and never again when it is lost: the work goes on when the engine
	// hangs up.
	once  bool
	lock  string      // calls with the same one are done one after the other, in the order in which they came; "": no lock
	about []slog.Attr // what the call concerns
	info  bool        // something that an operator caused, so worth a line at the usual level
}

// world is what jobs work on.
type world struct {
	Book
	Applier
	log   *slog.Logger
	brief time.Duration // for what must not take long: taking back what was done, and the kernel's answer to a mere question
}

// handler serves requests until base ends.
func (s *Server) handler(base context.Context) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(base, w, r) })
}

func (s *Server) serve(base context.Context, w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	name := strings.TrimPrefix(r.URL.Path, "/")
	m, known := s.methods[name]
	status, answer, j := http.StatusOK, any(nil), job{}
	var err error
	switch {
	case !known:
		status, err = http.StatusNotFound, fmt.Errorf("method %.60q is not known here", name)
		name = "unknown"
	case r.Method != http.MethodPost:
		status, err = http.StatusMethodNotAllowed, fmt.Errorf("%s %s: want POST", r.Method, name)
	default:
		if j, err = s.decode(w, r, m); err == nil {
			answer, err = s.run(base, r.Context(), j)
		}
	}
	s.reply(w, status, answer, err)
	s.note(r.Context(), name, j, time.Since(start), err)
}

func (s *Server) decode(w http.ResponseWriter, r *http.Request, m method) (j job, err error) {
	defer s.recovered(&err)
	rc := http.NewResponseController(w)
	// A writer without deadlines, in tests, has no connection that could hang either.
	_ = rc.SetReadDeadline(time.Now().Add(s.cfg.Deadline))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	_ = rc.SetReadDeadline(time.Time{})
	if err != nil {
		return job{}, fmt.Errorf("read request: %w", err)
	}
	return m(body)
}

// run does a job and returns within the deadline, even when the work does not: then it goes on by itself, holding its
// lock, and its end is seen by nobody.
func (s *Server) run(base, client context.Context, j job) (any, error) {
	if j.do == nil {
		return j.answer, nil
	}
	parent := client // itself a child of base
	if j.once {
		parent = base
	}
	late := fmt.Errorf("no result within %s", s.cfg.Deadline)
	ctx, cancel := context.WithTimeoutCause(parent, s.cfg.Deadline*4/5, late)
	type result struct {
		answer any
		err    error
	}
	done := make(chan result, 1)
	go func() {
		defer cancel()
		answer, err := s.work(ctx, j)
		done <- result{answer, because(ctx, err)}
	}()
	timer := time.NewTimer(s.cfg.Deadline)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.answer, r.err
	case <-timer.C:
		return nil, late
	}
}

// because adds to an error that comes of the context's end why it ended.
func because(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if err == nil || cause == nil || errors.Is(err, cause) || !errors.Is(err, ctx.Err()) {
		return err
	}
	return fmt.Errorf("%w (%w)", err, cause)
}

func (s *Server) work(ctx context.Context, j job) (answer any, err error) {
	defer s.recovered(&err)
	w, ok, err := s.wait(ctx, j.idle)
	if err != nil || !ok {
		return j.answer, err
	}
	if j.lock != "" {
		release, err := s.locks.take(ctx, j.lock)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	return j.do(ctx, w)
}

// wait waits until the server is open; an idle call does not wait, and false tells it so.
func (s *Server) wait(ctx context.Context, idle bool) (w world, ok bool, err error) {
	select {
	case <-s.ready:
	default:
		if idle {
			return world{}, false, nil
		}
		select {
		case <-s.ready:
		case <-s.stopping:
			return world{}, false, errStopping
		case <-ctx.Done():
			return world{}, false, s.starting()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.world, true, nil
}

func (s *Server) starting() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	why := s.why
	if why != "" {
		why = " (" + why + ")"
	}
	return fmt.Errorf("the fairway agent is still starting%s; try again, and see `fairway status`", why)
}

// recovered turns a panic into an error: one request's fault is not the end of all.
func (s *Server) recovered(err *error) {
	if p := recover(); p != nil {
		s.log.Error("driver call panicked", slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
		*err = fmt.Errorf("internal error of the fairway agent: %v; its log has the details", p)
	}
}

// reply writes the answer. Errors are answers as well: for both kinds of driver, engines read them from status 200.
func (s *Server) reply(w http.ResponseWriter, status int, answer any, err error) {
	if answer == nil {
		answer = struct{}{}
	}
	if err != nil {
		answer = refusal{Err: err.Error(), Error: err.Error()}
	}
	body, err := json.Marshal(answer)
	if err != nil {
		body = []byte(`{"Err":"fairway: unanswerable","Error":"fairway: unanswerable"}`)
		s.log.Error("encode answer", slog.Any("err", err))
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	if _, err := w.Write(append(body, '\n')); err != nil {
		s.log.Debug("write answer", slog.Any("err", err))
	}
}

// note logs a call and counts it.
func (s *Server) note(ctx context.Context, name string, j job, d time.Duration, err error) {
	level := slog.LevelDebug
	switch {
	case err != nil:
		level = slog.LevelWarn
	case j.info:
		level = slog.LevelInfo
	}
	attrs := append([]slog.Attr{slog.String("op", name)}, j.about...)
	attrs = append(attrs, slog.Duration("duration", d))
	if err != nil {
		attrs = append(attrs, slog.Any("err", err))
	}
	s.log.LogAttrs(ctx, level, "driver call", attrs...)
	s.cfg.Observe(name, d, err)
}

// short is an ID as Docker's listings show it.
func short(id string) string { return id[:min(len(id), 12)] }
