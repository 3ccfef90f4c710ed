package e2e_test

import (
	"syscall"
	"testing"
	"time"
)

// traffic runs containers on all hosts and pings every 10 ms between hosts 1 and 2, both ways and in both families, and
// between two containers of host 1.
type traffic struct {
	s     *site
	a, b  *container // on the first two hosts
	pings []*pinger
}

func startTraffic(t *testing.T, s *site) *traffic {
	t.Helper()
	s.network("net")
	tr := &traffic{s: s}
	tr.a, tr.b = s.hosts[0].run("ping-a", "--network", "net"), s.hosts[1].run("ping-b", "--network", "net")
	second := s.hosts[0].run("second", "--network", "net")
	everyPair(t, []*container{tr.a, tr.b, second})
	tr.pings = []*pinger{
		startPing(t, tr.a, tr.b.v4), startPing(t, tr.a, tr.b.v6),
		startPing(t, tr.b, tr.a.v4), startPing(t, tr.b, tr.a.v6),
		startPing(t, tr.a, second.v4),
	}
	return tr
}

// noLoss ends the pings and judges them.
func (tr *traffic) noLoss(what string) {
	tr.s.t.Helper()
	noLoss(tr.s.t, what, tr.pings...)
}

// settle waits until all sessions are up again, and for a hundred packets more: a mistake of an agent that comes back
// shows after it is ready.
func (tr *traffic) settle() {
	tr.s.t.Helper()
	start := time.Now()
	tr.s.sessionsUp()
	tr.s.t.Logf("measured: all sessions up again after %v", time.Since(start).Round(time.Millisecond))
	for _, p := range tr.pings {
		p.more(100)
	}
}

// Nothing that is done to an agent costs a packet between running containers.
func TestNoLossWhileAgentRestarts(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(h *host) error
	}{
		{"stopped and started", func(h *host) error { return h.restartAgent(syscall.SIGTERM) }},
		{"killed and started", func(h *host) error { return h.restartAgent(syscall.SIGKILL) }},
		{"replaced by another build", replaceAgent},
		{"reloaded", func(h *host) error { return h.SignalAgent(h.ctx, syscall.SIGHUP) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			tr := startTraffic(t, s)
			for _, h := range s.hosts[:2] { // both ends, one after the other
				if err := c.do(h); err != nil {
					t.Fatal(err)
				}
				tr.settle()
			}
			tr.noLoss("agent " + c.name)
			// And it still does its work.
			s.hosts[0].run("later", "--network", "net").reaches(tr.b.v4)
		})
	}
}

// replaceAgent puts another build in the place of the agent, as an upgrade does, and goes back to the one that is
// tested when the test ends.
func replaceAgent(h *host) error {
	other, err := otherProgram()
	if err != nil {
		cannot(h.t, "another build needs the Go tools here: %v", err)
	}
	this, err := program()
	if err != nil {
		return err
	}
	if err := h.ReplaceAgent(other); err != nil {
		return err
	}
	if err := h.restartAgent(syscall.SIGTERM); err != nil {
		return err
	}
	if v := h.status().Node.Version; v != otherVersion {
		h.t.Errorf("%s runs version %s after the upgrade, want %s", h, v, otherVersion)
	}
	h.t.Cleanup(func() {
		if err := h.ReplaceAgent(this); err != nil {
			h.t.Error(err)
		}
	})
	return nil
}

// A stopped agent leaves no trace in the others' kernels for as long as it may take to come back: they keep its routes.
func TestNoLossWhileAgentIsAway(t *testing.T) {
	s := newSite(t)
	tr := startTraffic(t, s)
	h := s.hosts[1]
	if err := h.StopAgent(h.ctx, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	tr.pings[0].more(2200) // at 5 ms or more: longer than the hold time of the sessions, which is 9 s
	if err := h.StartAgent(h.ctx); err != nil {
		t.Fatal(err)
	}
	tr.settle()
	tr.noLoss("agent killed and away for 11 s")
}

// With live-restore the engine restarts under running containers; the agent must not take it for their end.
func TestNoLossWhileEngineRestarts(t *testing.T) {
	s := newSite(t)
	tr := startTraffic(t, s)
	for _, h := range s.hosts[:2] {
		if err := h.StopEngine(h.ctx); err != nil {
			t.Fatal(err)
		}
		if err := h.StartEngine(h.ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.hosts[0].KillEngine(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.hosts[0].StartEngine(t.Context()); err != nil {
		t.Fatal(err)
	}
	tr.settle()
	tr.noLoss("dockerd restarted with live-restore")
	// What the engine was not told to forget it can still end.
	for _, h := range s.hosts[:2] {
		h.run("later", "--network", "net").reaches(tr.b.v4)
		h.docker("rm", "-f", "later")
	}
}
