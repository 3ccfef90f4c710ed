package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Service is a program that PID 1 was asked to run, and how it is.
type Service struct {
	Name string `json:"name"`
	// PID is its process ID inside the machine.
	PID     int  `json:"pid"`
	Running bool `json:"running"`
	// Status tells how it ended, like "exit status 1" or "signal: killed". Empty while it runs.
	Status string    `json:"status,omitempty"`
	Since  time.Time `json:"since"`
	ended  chan struct{}
}

// request is what a client asks PID 1, one per connection.
type request struct {
	Op      string   `json:"op"` // start, signal, wait, list
	Service string   `json:"service,omitempty"`
	Argv    []string `json:"argv,omitempty"`
	Env     []string `json:"env,omitempty"`
	Log     string   `json:"log,omitempty"` // path inside; output is added to it
	Signal  int      `json:"signal,omitempty"`
}

// response answers a request. Error is empty when it was done.
type response struct {
	Error    string    `json:"error,omitempty"`
	Services []Service `json:"services,omitempty"`
}

// supervisor runs and reaps the services of one machine. It restarts nothing: a service that was killed stays
// dead until somebody starts it, which is what tests of a crash need.
type supervisor struct {
	listener net.Listener

	mu       sync.Mutex // held over fork and reap, so that no child is reaped before it is known
	services map[string]*Service
}

func listen(socket string) (*supervisor, error) {
	var cfg net.ListenConfig
	l, err := cfg.Listen(context.Background(), "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	return &supervisor{listener: l, services: map[string]*Service{}}, nil
}

// run serves requests until ctx ends, which for PID 1 is never.
func (s *supervisor) run(ctx context.Context) error {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	go s.accept()
	for {
		s.reap()
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), s.listener.Close())
		case <-died:
		}
	}
}

// reap collects every child that has ended: services, and the orphans that the kernel gives to PID 1.
func (s *supervisor) reap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		for _, svc := range s.services {
			if svc.PID == pid && svc.Running {
				svc.Running, svc.Status, svc.Since = false, describe(ws), time.Now()
				close(svc.ended)
			}
		}
	}
}

func describe(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return "signal: " + ws.Signal().String()
	}
	return fmt.Sprintf("exit status %d", ws.ExitStatus())
}

func (s *supervisor) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = conn.Close() }()
			var req request
			if err := json.NewDecoder(conn).Decode(&req); err != nil {
				return
			}
			resp := s.answer(req)
			_ = json.NewEncoder(conn).Encode(resp) // a client that has gone needs no answer
		}()
	}
}

func (s *supervisor) answer(req request) response {
	var err error
	switch req.Op {
	case "start":
		err = s.start(req)
	case "signal":
		err = s.signal(req)
	case "wait":
		s.wait(req)
	case "list":
	default:
		err = fmt.Errorf("unknown operation %q", req.Op)
	}
	if err != nil {
		return response{Error: err.Error()}
	}
	return response{Services: s.list()}
}

func (s *supervisor) start(req request) error {
	if len(req.Argv) == 0 {
		return fmt.Errorf("start %s: no program given", req.Service)
	}
	program, err := exec.LookPath(req.Argv[0])
	if err != nil {
		return fmt.Errorf("start %s: %w", req.Service, err)
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("start %s: %w", req.Service, err)
	}
	defer func() { _ = null.Close() }()
	log, err := os.OpenFile(req.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", req.Service, err)
	}
	defer func() { _ = log.Close() }()

	s.mu.Lock()
	defer s.mu.Unlock()
	if svc := s.services[req.Service]; svc != nil && svc.Running {
		return fmt.Errorf("start %s: it runs already, as process %d", req.Service, svc.PID)
	}
	pid, err := syscall.ForkExec(program, req.Argv, &syscall.ProcAttr{
		Dir: "/", Env: append(Environ(), req.Env...),
		Files: []uintptr{null.Fd(), log.Fd(), log.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: execute %s: %w", req.Service, program, err)
	}
	s.services[req.Service] = &Service{
		Name: req.Service, PID: pid, Running: true, Since: time.Now(), ended: make(chan struct{}),
	}
	return nil
}

func (s *supervisor) signal(req request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	svc := s.services[req.Service]
	if svc == nil || !svc.Running {
		return fmt.Errorf("signal %s: it is not running", req.Service)
	}
	// The lock keeps the number from being another process's: it is not reaped while we hold it.
	if err := syscall.Kill(svc.PID, syscall.Signal(req.Signal)); err != nil {
		return fmt.Errorf("signal %s: %w", req.Service, err)
	}
	return nil
}

func (s *supervisor) wait(req request) {
	s.mu.Lock()
	svc := s.services[req.Service]
	s.mu.Unlock()
	if svc != nil {
		<-svc.ended
	}
}

func (s *supervisor) list() []Service {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Service
	for _, svc := range s.services {
		list = append(list, *svc)
	}
	return list
}
