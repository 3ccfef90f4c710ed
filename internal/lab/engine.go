package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"fairway/internal/lab/rootfs"
)

// How long a part of a host may take to answer. The engine's limit is long for a reason: an engine which has
// containers on a network whose plugin is down answers only after 16 s.
const (
	engineLimit = 60 * time.Second
	agentLimit  = 20 * time.Second
	stopLimit   = 30 * time.Second
)

// StartEngine starts containerd, unless it runs, and dockerd, and returns when the engine answers.
func (h *Host) StartEngine(ctx context.Context) error {
	if h.Router() {
		return errors.New("start engine: the router has none")
	}
	services, err := h.machine.Services(ctx)
	if err != nil {
		return fmt.Errorf("start engine: %w", err)
	}
	if !services["containerd"].Running {
		if err := h.machine.StartService(ctx, "containerd", logsInside+"containerd.log", nil, "containerd"); err != nil {
			return err
		}
	}
	socket := h.lab.path(h.Name, runDir, "containerd/containerd.sock")
	if err := h.wait(ctx, "containerd", engineLimit, func(ctx context.Context) error { return dial(ctx, socket) }); err != nil {
		return err
	}
	// A killed dockerd leaves these; its successor takes a number in the first for its own rival.
	for _, name := range []string{"docker.pid", "docker.sock"} {
		if err := os.Remove(h.lab.path(h.Name, runDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("start engine: %w", err)
		}
	}
	err = h.machine.StartService(ctx, "dockerd", logsInside+"dockerd.log", nil,
		"dockerd", "--host", "unix:///run/docker.sock", "--containerd", "/run/containerd/containerd.sock")
	if err != nil {
		return err
	}
	return h.wait(ctx, "dockerd", engineLimit, func(ctx context.Context) error {
		_, err := h.engine(ctx, http.MethodGet, "/_ping", nil)
		return err
	})
}

// StopEngine asks dockerd to stop and waits until it has. Containers run on: engines of the lab have live-restore on.
func (h *Host) StopEngine(ctx context.Context) error { return h.stop(ctx, "dockerd", syscall.SIGTERM) }

// KillEngine kills dockerd with SIGKILL.
func (h *Host) KillEngine(ctx context.Context) error { return h.stop(ctx, "dockerd", syscall.SIGKILL) }

// stop sends a signal to a service and waits until it has ended.
func (h *Host) stop(ctx context.Context, service string, sig syscall.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	if err := h.machine.SignalService(ctx, service, sig); err != nil {
		return err
	}
	return h.machine.WaitService(ctx, service)
}

// wait polls ready until a service answers. A service that has ended, or does not answer in time, gives the last
// lines of its log.
func (h *Host) wait(ctx context.Context, service string, limit time.Duration, ready func(context.Context) error) error {
	var ended error
	err := poll(ctx, limit, func(ctx context.Context) error {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		services, listErr := h.machine.Services(ctx)
		if svc := services[service]; listErr == nil && !svc.Running {
			ended = fmt.Errorf("%s ended with %s", service, svc.Status)
			return nil
		}
		return err
	})
	if ended != nil {
		err = ended
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("wait for %s: %w%s", service, err, h.logTail(service))
}

// logTail is the end of a service's log, to be put into an error.
func (h *Host) logTail(service string) string {
	data, err := os.ReadFile(h.Log(service))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	lines = lines[max(0, len(lines)-8):]
	return "\nlast lines of " + h.Log(service) + ":\n  " + strings.Join(lines, "\n  ")
}

// EngineVersion asks the engine for its version.
func (h *Host) EngineVersion(ctx context.Context) (string, error) {
	body, err := h.engine(ctx, http.MethodGet, "/version", nil)
	if err != nil {
		return "", err
	}
	var v struct{ Version string }
	if err := json.Unmarshal(body, &v); err != nil {
		return "", fmt.Errorf("read engine's version: %w", err)
	}
	version, _, _ := strings.Cut(v.Version, "+") // "20.10.24+dfsg1" tells no more
	return version, nil
}

// containers counts the containers that run.
func (h *Host) containers(ctx context.Context) (int, error) {
	body, err := h.engine(ctx, http.MethodGet, "/containers/json", nil)
	if err != nil {
		return 0, err
	}
	var list []json.RawMessage
	if err := json.Unmarshal(body, &list); err != nil {
		return 0, fmt.Errorf("list containers: %w", err)
	}
	return len(list), nil
}

// loadImage gives the engine the lab's image, without a registry.
func (h *Host) loadImage(ctx context.Context) error {
	image, err := os.Open(h.lab.state.Image)
	if err != nil {
		return fmt.Errorf("load image: %w", err)
	}
	defer func() { _ = image.Close() }()
	name, tag, _ := strings.Cut(rootfs.ImageName, ":")
	path := "/images/create?fromSrc=-&repo=" + name + "&tag=" + tag + "&changes=CMD%20%5B%22sh%22%5D"
	body, err := h.engine(ctx, http.MethodPost, path, image)
	if err != nil {
		return fmt.Errorf("load image: %w", err)
	}
	// The engine answers 200 first and tells of trouble in what follows.
	if bytes.Contains(body, []byte(`"error"`)) {
		return fmt.Errorf("load image: %s", bytes.TrimSpace(body))
	}
	return nil
}

// engine sends a request to the engine's API, without a version: every engine takes its own.
func (h *Host) engine(ctx context.Context, method, path string, body io.Reader) ([]byte, error) {
	return ask(ctx, h.DockerSocket(), method, path, body)
}

// ask sends an HTTP request over a unix socket. Any status but 2xx is an error.
func ask(ctx context.Context, socket, method, path string, body io.Reader) ([]byte, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://lab"+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", socket, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-tar")
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", socket, err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read answer of %s: %w", socket, err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("ask %s for %s: %s: %s", socket, path, resp.Status, bytes.TrimSpace(answer))
	}
	return answer, nil
}

// dial says whether something listens on a unix socket.
func dial(ctx context.Context, socket string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	return conn.Close()
}
