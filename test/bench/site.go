package main

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"fairway/internal/lab"
	"fairway/internal/lab/rootfs"
)

const (
	// labPattern begins the directory of a run's lab; the rest is the number of its process.
	labPattern = "/run/fairway-bench-"
	// inside is where hosts, and containers, have this program.
	inside = "/opt/fairway/bin/bench"
	// learnedMost is more than the routes that the memory is measured with.
	learnedMost = 20000
)

// site is the lab of a run: host1 sends and host2 answers.
type site struct {
	dir    string
	one    *host
	two    *host
	lab    *lab.Lab
	paths  []*path
	failed map[string]error // networks that could not be made, by name of the path
}

// host is a host of the lab with its engine.
type host struct {
	*lab.Host
	engine *engine
}

// newSite brings two hosts up, with a network of each kind. What it returns has to be taken down also with an error.
func (b *bench) newSite(ctx context.Context) (*site, error) {
	s := &site{dir: labPattern + strconv.Itoa(os.Getpid()), failed: map[string]error{}}
	if err := sweep(ctx); err != nil {
		return s, err
	}
	b.say("bringing two Docker hosts up")
	o := lab.Options{
		Dir: s.dir, Hosts: 2, Binary: b.program, DaemonJSON: map[string]any{"live-restore": false}, // a swarm refuses it
		AgentConfig: func(_ lab.HostInfo, standard string) string {
			// A log with nanoseconds; and room for what the memory is measured with.
			return "log:\n  format: json\n" + strings.Replace(standard, "bgp:\n",
				fmt.Sprintf("bgp:\n  import:\n    maxPrefixes: %d\n", learnedMost), 1)
		},
	}
	if b.rootfs != "" {
		o.Rootfs = []string{b.rootfs}
	}
	o = o.Environment(os.Getenv)
	o.Dir = s.dir
	l, err := lab.Up(ctx, o)
	if err != nil {
		return s, err
	}
	s.lab = l
	hosts := l.Hosts()
	s.one, s.two = newHost(hosts[0]), newHost(hosts[1])
	if b.machine.Engine, err = s.one.EngineVersion(ctx); err != nil {
		return s, err
	}
	b.machine.Rootfs = s.one.Rootfs
	program, err := static(ctx, s.dir)
	if err != nil {
		return s, err
	}
	for _, h := range []*host{s.one, s.two} {
		if err := install(program, h.Path(inside)); err != nil {
			return s, err
		}
	}
	b.networks(ctx, s)
	return s, ctx.Err()
}

func newHost(h *lab.Host) *host { return &host{Host: h, engine: newEngine(h.DockerSocket())} }

// down takes the lab down, whatever has become of the run.
func (s *site) down() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := lab.Down(ctx, s.dir); err != nil && !errors.Is(err, lab.ErrNoLab) {
		return fmt.Errorf("take the lab down: %w", err)
	}
	return nil
}

// sweep takes down what runs left that were killed.
func sweep(ctx context.Context) error {
	dirs, err := filepath.Glob(labPattern + "*")
	if err != nil {
		return fmt.Errorf("look for old labs: %w", err)
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(strings.TrimPrefix(dir, labPattern))
		if err != nil || syscall.Kill(pid, 0) == nil {
			continue
		}
		if err := lab.Down(ctx, dir); err != nil && !errors.Is(err, lab.ErrNoLab) {
			return fmt.Errorf("clean up after an earlier run: %w", err)
		}
	}
	return nil
}

// static returns a build of this program that runs in any container: this one, or one made in dir.
func static(ctx context.Context, dir string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find own program: %w", err)
	}
	if f, err := elf.Open(self); err == nil {
		libs, err := f.ImportedLibraries()
		_ = f.Close() // it was only read
		if err == nil && len(libs) == 0 {
			return self, nil
		}
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		tool = "/usr/local/go/bin/go" // sudo has a PATH of its own
	}
	out := filepath.Join(dir, "host1", "bin", "static")
	cmd := exec.CommandContext(ctx, tool, "build", "-o", out, "fairway/test/bench")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build this program without libraries: %w: %s", err, bytes.TrimSpace(text))
	}
	return out, nil
}

// install copies a program.
func install(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("copy program: %w", err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		return fmt.Errorf("copy program: %w", err)
	}
	return nil
}

// output runs a command and returns what it prints; an error has what it complains about.
func output(cmd *exec.Cmd) (string, error) {
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	text := strings.TrimSpace(string(out))
	if err != nil {
		why := strings.TrimSpace(complaints.String())
		if why == "" {
			why = text
		}
		return text, fmt.Errorf("%w: %.300s", err, why)
	}
	return text, nil
}

// do runs a command on the host.
func (h *host) do(ctx context.Context, args ...string) (string, error) {
	out, err := output(h.Command(ctx, args...))
	if err != nil {
		return out, fmt.Errorf("%s: %s: %w", h.Name, strings.Join(args, " "), err)
	}
	return out, nil
}

func (h *host) docker(ctx context.Context, args ...string) (string, error) {
	return h.do(ctx, append([]string{"docker"}, args...)...)
}

// soon calls f until it succeeds, for at most the limit; then its last error is returned.
func soon(ctx context.Context, limit time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// idle is a container that only has to be there.
func idle(network, address string) container {
	return container{Image: rootfs.ImageName, Cmd: []string{"sleep", "100000"}, Network: network, Address: address}
}
