package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// StartService runs argv as a service with this name; env is added to Environ, output to the file log (a path
// inside). A service that runs already is an error.
func (m *Machine) StartService(ctx context.Context, name, log string, env []string, argv ...string) error {
	_, err := m.ask(ctx, request{Op: "start", Service: name, Log: log, Env: env, Argv: argv})
	return err
}

// SignalService sends a signal to a running service.
func (m *Machine) SignalService(ctx context.Context, name string, sig syscall.Signal) error {
	_, err := m.ask(ctx, request{Op: "signal", Service: name, Signal: int(sig)})
	return err
}

// WaitService returns when the service has ended, or at once if it does not run.
func (m *Machine) WaitService(ctx context.Context, name string) error {
	_, err := m.ask(ctx, request{Op: "wait", Service: name})
	return err
}

// Services lists every service that was ever started, by name.
func (m *Machine) Services(ctx context.Context) (map[string]Service, error) {
	resp, err := m.ask(ctx, request{Op: "list"})
	if err != nil {
		return nil, err
	}
	byName := map[string]Service{}
	for _, svc := range resp.Services {
		byName[svc.Name] = svc
	}
	return byName, nil
}

func (m *Machine) ask(ctx context.Context, req request) (resp response, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", m.path(socketFile))
	if err != nil {
		return resp, fmt.Errorf("ask machine: %w", err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return resp, fmt.Errorf("ask machine: %w", errors.Join(ctx.Err(), err))
	}
	if err := json.NewDecoder(conn).Decode(&resp); err != nil {
		return resp, fmt.Errorf("ask machine to %s %s: %w", req.Op, req.Service, errors.Join(ctx.Err(), err))
	}
	if resp.Error != "" {
		return resp, errors.New(resp.Error)
	}
	return resp, nil
}
