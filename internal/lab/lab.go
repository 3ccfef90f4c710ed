package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"fairway/internal/lab/machine"
)

// Lab is a lab that is up. It is safe for concurrent use.
type Lab struct {
	dir  string
	opts Options // checked; only of use to add hosts

	growing sync.Mutex // held while a host is added

	mu     sync.Mutex // guards state and hosts
	state  state
	hosts  []*Host
	router *Host
	wires  *machine.Machine // the switch
	store  *Store           // nil: none
}

// Open finds the lab in dir; "" means DefaultDir. No lab is ErrNoLab; one that is being made, or was not finished,
// is an error that says so.
func Open(dir string) (*Lab, error) {
	if dir == "" {
		dir = DefaultDir
	}
	s, err := load(dir)
	if err != nil {
		return nil, err
	}
	if s.beingMade() {
		return nil, fmt.Errorf("lab in %s: process %d is still making it", dir, s.Owner.PID)
	}
	if !s.Up || !s.sameBoot() {
		return nil, fmt.Errorf("lab in %s: it was not finished, or the machine was started anew; clean up with: fairway lab down", dir)
	}
	opts, err := Options{
		Dir: dir, Topology: s.Topology, Binary: s.Binary, NoAgent: !s.Agents,
		DaemonJSON: s.Daemon, IPForward: s.IPForward, Disk: s.Disk, Hosts: s.Planned, Store: s.Store, Fabric: s.Fabric,
	}.checked()
	if err != nil {
		return nil, err
	}
	l := &Lab{dir: dir, opts: opts, state: s}
	if l.wires, err = machine.Open(l.path(switchName)); err != nil {
		return nil, fmt.Errorf("open lab in %s: %w", dir, err)
	}
	if s.Store != "" {
		m, err := machine.Open(l.path(storeName))
		if err != nil {
			return nil, fmt.Errorf("open lab in %s: %w", dir, err)
		}
		l.store = l.newStore(m)
	}
	for _, info := range s.Hosts {
		m, err := machine.Open(l.path(info.Name))
		if err != nil {
			return nil, fmt.Errorf("open lab in %s: %w", dir, err)
		}
		l.keep(&Host{HostInfo: info, lab: l, machine: m})
	}
	return l, nil
}

func (l *Lab) keep(h *Host) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.Router() {
		l.router = h
		return
	}
	l.hosts = append(l.hosts, h)
	slices.SortFunc(l.hosts, func(a, b *Host) int { return a.Number - b.Number })
}

func (l *Lab) path(elem ...string) string {
	return filepath.Join(append([]string{l.dir}, elem...)...)
}

// Dir is the lab's directory.
func (l *Lab) Dir() string { return l.dir }

// Topology is how the hosts are joined.
func (l *Lab) Topology() Topology { return l.state.Topology }

// Hosts are the Docker hosts in order, without the router.
func (l *Lab) Hosts() []*Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.hosts)
}

// Router is the plain router between two segments; nil in a flat lab.
func (l *Lab) Router() *Host { return l.router }

// nodes are the hosts and the router.
func (l *Lab) nodes() []*Host {
	nodes := l.Hosts()
	if l.router != nil {
		nodes = append(nodes, l.router)
	}
	return nodes
}

// Host finds a host by its name or number; "router" is one too.
func (l *Lab) Host(name string) (*Host, error) {
	for _, h := range l.nodes() {
		if h.Name == name || (!h.Router() && strconv.Itoa(h.Number) == name) {
			return h, nil
		}
	}
	var names []string
	for _, h := range l.nodes() {
		names = append(names, h.Name)
	}
	return nil, fmt.Errorf("find host %q: the lab has %v", name, names)
}

// SwitchCommand is a command in the network of the switch, with this machine's files and tools: for captures and
// counters. Every port has its host's name.
func (l *Lab) SwitchCommand(ctx context.Context, args ...string) *exec.Cmd {
	return l.wires.Command(ctx, machine.NetworkOnly, args...)
}

// ExecArgs are the words of a command in a host, or in the network of the "switch" or the "store", for a caller that
// executes it in place of itself.
func (l *Lab) ExecArgs(host string, args []string) ([]string, error) {
	m, view := l.wires, machine.NetworkOnly
	switch {
	case host == switchName:
	case host == storeName && l.store != nil:
		m = l.store.Machine
	default:
		h, err := l.Host(host)
		if err != nil {
			return nil, err
		}
		m, view = h.machine, machine.Whole
	}
	if !m.Alive() {
		return nil, fmt.Errorf("enter %s: it is not running; start over with: fairway lab down", host)
	}
	return m.Args(view, args)
}

// Down takes the lab down: see the function Down.
func (l *Lab) Down(ctx context.Context) error { return Down(ctx, l.dir) }

// Down ends every process of the lab in dir ("" means DefaultDir) and removes its cgroups and its directory. It
// needs nothing but the directory, so it cleans up after a crash too. No lab is ErrNoLab; a lab that another process
// is making is left alone.
func Down(ctx context.Context, dir string) error {
	if dir == "" {
		dir = DefaultDir
	}
	s, err := load(dir)
	if err != nil {
		return err
	}
	if s.beingMade() && s.Owner.PID != os.Getpid() {
		return fmt.Errorf("take lab in %s down: process %d is making it; stop that first", dir, s.Owner.PID)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return tearDown(ctx, dir, s)
}

func tearDown(ctx context.Context, dir string, s state) error {
	if s.sameBoot() { // else every process is gone, and the numbers are other people's
		if err := killMachines(ctx, dir); err != nil {
			return err
		}
	}
	if err := machine.RemoveCgroups(ctx, s.Group); err != nil {
		return err
	}
	if err := noMountsBelow(dir); err != nil {
		return err
	}
	// The state goes last: whatever is left when this is cut short can still be found.
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("remove lab: %w", err)
	}
	for _, e := range entries {
		if e.Name() == stateFile {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("remove lab: %w", err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove lab: %w", err)
	}
	return nil
}

// killMachines kills PID 1 of every machine in dir, all at once, and waits for the ends.
func killMachines(ctx context.Context, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("find machines: %w", err)
	}
	jobs := newJobs(ctx)
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		m, err := machine.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // it was never started: nothing of it can run
		}
		jobs.add(func(ctx context.Context) error { return m.Kill(ctx) })
	}
	return jobs.wait()
}
