package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// maxBody is the longest request body in bytes; the only one there is names an address.
const maxBody = 1 << 16

// releaseRequest is the body of POST /v1/ipam/release.
type releaseRequest struct {
	Address netip.Addr `json:"address"`
	Force   bool       `json:"force"`
}

// removeRequest is the body of POST /v1/nodes/remove and /v1/networks/remove.
type removeRequest struct {
	Name string `json:"name"`
	Dry  bool   `json:"dry,omitempty"` // of a node: only say what it holds
}

// done is the answer of a request that has nothing to tell but that it was done.
type done struct {
	OK bool `json:"ok"`
}

// answer makes the reply to a request; what it returns is written as JSON.
type answer func(r *http.Request) (any, error)

// handler is the whole API, for the unix socket.
func (s *Server) handler() http.Handler {
	b := s.cfg.Backend
	mux := http.NewServeMux()
	get := func(path string, f answer) { mux.Handle(path, s.endpoint(f, http.MethodGet)) }
	get("/v1/status", func(r *http.Request) (any, error) { return b.Status(r.Context()) })
	get("/v1/containers", list(b.Containers))
	get("/v1/networks", list(b.Networks))
	get("/v1/routes", list(b.Routes))
	get("/v1/peers", list(b.Peers))
	get("/v1/settings", list(b.Settings))
	get("/v1/ipam", func(r *http.Request) (any, error) { return b.IPAM(r.Context()) })
	mux.Handle("/v1/ipam/check", s.endpoint(s.check, http.MethodGet, http.MethodPost))
	mux.Handle("/v1/ipam/release", s.endpoint(s.release, http.MethodPost))
	mux.Handle("/v1/guests", s.endpoint(do(b.Announce), http.MethodPost))
	s.addCluster(mux)
	mux.Handle("/v1/reload", s.endpoint(func(r *http.Request) (any, error) { return b.Reload(r.Context()) }, http.MethodPost))
	s.addReadOnly(mux)
	return mux
}

func (s *Server) addCluster(mux *http.ServeMux) {
	b := s.cfg.Backend
	post := func(path string, f answer) { mux.Handle(path, s.endpoint(f, http.MethodPost)) }
	mux.Handle("/v1/nodes", s.endpoint(list(b.Nodes), http.MethodGet))
	post("/v1/nodes/drain", do(b.Drain))
	post("/v1/nodes/remove", func(r *http.Request) (any, error) {
		req, err := decode[removeRequest](r)
		if err != nil {
			return nil, err
		}
		return b.RemoveNode(r.Context(), req.Name, req.Dry)
	})
	post("/v1/nodes/join", func(r *http.Request) (any, error) { return b.Join(r.Context()) })
	post("/v1/networks/create", do(b.CreateNetwork))
	post("/v1/networks/remove", do(func(ctx context.Context, req removeRequest) error { return b.RemoveNetwork(ctx, req.Name) }))
}

// do makes an answer of a method that has nothing to tell but that it was done.
func do[T any](f func(context.Context, T) error) answer {
	return func(r *http.Request) (any, error) {
		req, err := decode[T](r)
		if err != nil {
			return nil, err
		}
		return done{OK: true}, f(r.Context(), req)
	}
}

// decode reads the body of a request; a key that is not known is refused.
func decode[T any](r *http.Request) (T, error) {
	var req T
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		return req, Invalid(fmt.Errorf("read request: %w", err))
	}
	return req, nil
}

// readOnly is what TCP serves.
func (s *Server) readOnly() http.Handler {
	mux := http.NewServeMux()
	s.addReadOnly(mux)
	return mux
}

func (s *Server) addReadOnly(mux *http.ServeMux) {
	mux.Handle("/metrics", onlyGet(s.cfg.Metrics.handler(s.cfg.Backend)))
	mux.Handle("/healthz", s.endpoint(func(*http.Request) (any, error) { return Health{OK: true}, nil }, http.MethodGet))
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		if !allow(w, r, http.MethodGet) {
			return
		}
		ready, reason := s.cfg.Backend.Ready()
		if !ready {
			writeJSON(w, http.StatusServiceUnavailable, Health{Reason: reason})
			return
		}
		writeJSON(w, http.StatusOK, Health{OK: true})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, fmt.Errorf("no such path %q", r.URL.Path))
	})
}

func list[T any](f func(context.Context) ([]T, error)) answer {
	return func(r *http.Request) (any, error) {
		return f(r.Context())
	}
}

func (s *Server) check(r *http.Request) (any, error) {
	fix := false
	switch v := r.URL.Query().Get("fix"); v {
	case "", "0":
	case "1":
		fix = true
	default:
		return nil, Invalid(fmt.Errorf("fix=%s: want 0 or 1", v))
	}
	if fix && r.Method != http.MethodPost {
		return nil, Invalid(errors.New("fix=1 changes things: want POST"))
	}
	return s.cfg.Backend.IPAMCheck(r.Context(), fix)
}

func (s *Server) release(r *http.Request) (any, error) {
	req, err := decode[releaseRequest](r)
	if err != nil {
		return nil, err
	}
	if !req.Address.IsValid() {
		return nil, Invalid(errors.New("address is missing"))
	}
	if err := s.cfg.Backend.IPAMRelease(r.Context(), req.Address, req.Force); err != nil {
		return nil, err
	}
	return done{OK: true}, nil
}

// endpoint serves one path: it checks the method, bounds the body, and writes what f says.
func (s *Server) endpoint(f answer, methods ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !allow(w, r, methods...) {
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		v, err := f(r)
		if err != nil {
			status := statusOf(err)
			s.cfg.Log.Debug("api request refused", slog.String("op", r.Method+" "+r.URL.Path), slog.Int("status", status), slog.Any("err", err))
			writeError(w, status, err)
			return
		}
		writeJSON(w, http.StatusOK, noNulls(v))
	})
}

func onlyGet(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if allow(w, r, http.MethodGet) {
			h.ServeHTTP(w, r)
		}
	})
}

// allow answers a request whose method the path does not have, and returns false then. HEAD goes where GET does.
func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if slices.Contains(methods, method) {
		return true
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	writeError(w, http.StatusMethodNotAllowed, fmt.Errorf("%s %s: allowed is %s", r.Method, r.URL.Path, strings.Join(methods, ", ")))
	return false
}

// failure is the body of every answer that is not 200, but for readyz.
type failure struct {
	Error string `json:"error"`
}

func writeError(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, failure{Error: err.Error()})
}

// writeJSON writes an answer. It is made before the status is written, so that a value that has no JSON form is an error
// to the client, not half an answer.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"the answer has no JSON form"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// A client that is gone cannot be told anything.
	_, _ = w.Write(append(body, '\n'))
}
