package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fairway/internal/lab"
)

// The pools of the lab, which networks of these tests have as their subnets, and parts of them.
const (
	pool4, pool6 = lab.Pool4, lab.Pool6
	static4      = "10.9.192.0/18" // the static ranges: the last quarters
	static6      = "fd09:0:0:c000::/50"
)

// site is a lab as one test sees it.
type site struct {
	t     *testing.T
	lab   *lab.Lab
	hosts []*host
}

// shared is the lab of three hosts on one segment that most tests use, made for the first of them.
var shared = sync.OnceValues(func() (*lab.Lab, error) { return raise("flat", lab.Options{}) })

var sharedSuites []string // read once: a test may not be skipped inside of OnceValues

// newSite gives a test the shared lab. When it ends, everything that it made goes, and what is left over fails it.
func newSite(t *testing.T) *site {
	t.Helper()
	needEngines(t)
	l, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return enter(t, l)
}

// needEngines skips the test where no lab can be.
func needEngines(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		cannot(t, "engines in namespaces need root")
	}
	if testing.Short() {
		t.Skip("real engines take their time")
	}
	if sharedSuites == nil {
		sharedSuites = suites(t)
	}
}

// raise makes a lab of three hosts unless o says otherwise.
func raise(name string, o lab.Options) (*lab.Lab, error) {
	bin, err := program()
	if err != nil {
		return nil, err
	}
	o.Binary, o.Rootfs, o.Dir = bin, sharedSuites, filepath.Join(os.Getenv(baseEnv), name)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	return lab.Up(ctx, o.Environment(os.Getenv))
}

// enter begins a test in a lab, with every session between its agents up.
func enter(t *testing.T, l *lab.Lab) *site {
	t.Helper()
	s := &site{t: t, lab: l}
	for _, h := range l.Hosts() {
		s.hosts = append(s.hosts, newHost(t, h))
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.diagnose()
		}
		s.restore()
	})
	s.sessionsUp()
	return s
}

// sessionsUp waits until each agent says that nothing is wrong.
func (s *site) sessionsUp() {
	s.t.Helper()
	for _, h := range s.hosts {
		eventually(s.t, 30*time.Second, h.healthy)
	}
}

// network makes a network on every host, of the lab's pools and dual stack unless args name other subnets.
func (s *site) network(name string, args ...string) {
	s.t.Helper()
	allOf(s.t, s.hosts, func(h *host) error { return h.createNetwork(name, args...) })
}

// restore ends what a test made, and puts back what it broke. A context of its own: the test's has ended.
func (s *site) restore() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	for _, h := range s.hosts {
		h.ctx = ctx
		if err := h.repair(); err != nil {
			s.t.Errorf("%s: put back what the test broke: %v", h.Name, err)
			return
		}
	}
	for i, err := range atOnce(len(s.hosts), len(s.hosts), func(i int) error { return s.hosts[i].empty() }) {
		s.t.Errorf("%s: clean up: %v", s.hosts[i].Name, err)
	}
	for _, h := range s.hosts {
		if err := patiently(20*time.Second, h.leftOver); err != nil {
			s.t.Errorf("%s: left over after the test: %v", h.Name, err)
		}
	}
}

// patiently is eventually for where a test may not be ended.
func patiently(limit time.Duration, f func() error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for start := time.Now(); ; <-tick.C {
		err := f()
		if err == nil || time.Since(start) > limit {
			return err
		}
	}
}

// repair brings a host's link, agent and engine back.
func (h *host) repair() error {
	if err := errors.Join(h.SetLink(h.ctx, true), h.Silence(h.ctx, false)); err != nil {
		return err
	}
	if err := h.startAgent(); err != nil {
		return err
	}
	if _, err := h.EngineVersion(h.ctx); err == nil {
		return nil
	}
	if err := h.KillEngine(h.ctx); err != nil && !strings.Contains(err.Error(), "not running") {
		return err
	}
	return h.StartEngine(h.ctx)
}

// startAgent starts the agent if it does not run, and waits until it is ready.
func (h *host) startAgent() error {
	pid, err := h.AgentPID(h.ctx)
	if err != nil {
		return err
	}
	if pid == 0 {
		return h.StartAgent(h.ctx)
	}
	return h.WaitAgent(h.ctx)
}

// restartAgent stops the agent with a signal and starts it again.
func (h *host) restartAgent(sig syscall.Signal) error {
	if err := h.StopAgent(h.ctx, sig); err != nil {
		return err
	}
	return h.StartAgent(h.ctx)
}

// empty removes all containers and all networks of ours.
func (h *host) empty() error {
	const script = `c=$(docker ps -aq); [ -z "$c" ] || docker rm -f $c >/dev/null || exit 1
		n=$(docker network ls -q --filter driver=fairway); [ -z "$n" ] || docker network rm $n >/dev/null`
	_, err := h.try("sh", "-c", script)
	return err
}

// leftOver says what is on a host without containers and networks that should not be.
func (h *host) leftOver() error {
	out, err := h.try("sh", "-c", "ip -o link show | grep -E ' f[wv][0-9a-f]{6}'; ip route show proto 200; ip -6 route show proto 200; true")
	if err != nil {
		return err
	}
	lines := slices.DeleteFunc(strings.Split(out, "\n"), func(line string) bool { return line == "" || h.lasting.MatchString(line) })
	if len(lines) > 0 {
		return fmt.Errorf("links or routes:\n%s", strings.Join(lines, "\n"))
	}
	book, err := h.api().IPAM(h.ctx)
	if err != nil {
		return err
	}
	for _, a := range book.Holdings {
		if a.State == "held" {
			return fmt.Errorf("address %s is held: %+v", a.Address, a)
		}
	}
	return nil
}
