package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"fairway/internal/api"
)

const (
	// learned is how many routes the agent is given by its peer.
	learned = 10000
	// memoryRounds is the most that the memory is measured: it hardly varies.
	memoryRounds = 3
)

// memory measures the agent's memory without learned routes and with 10,000 from a third host, on which BIRD speaks in
// the place of the agent.
func (b *bench) memory(ctx context.Context, s *site) error {
	b.say("bringing a third host up, for BIRD with %d routes", learned)
	h, err := s.lab.AddHost(ctx)
	if err != nil {
		return err
	}
	three := newHost(h)
	if err := three.StopAgent(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	if _, err := three.do(ctx, "sh", "-c", "command -v bird"); err != nil {
		return errors.New("the hosts' root file system has no bird")
	}
	if err := os.WriteFile(three.Path(birdConfig), []byte(birdText(three, s.one)), 0o644); err != nil {
		return fmt.Errorf("write BIRD's config: %w", err)
	}
	for round := 1; round <= min(b.rounds, memoryRounds); round++ {
		b.say("memory, round %d of %d; load %s", round, min(b.rounds, memoryRounds), loadAverage())
		if err := b.fillAgent(ctx, s.one, three, round); err != nil {
			return err
		}
	}
	return ctx.Err()
}

const birdConfig = "/tmp/bird.conf"

// birdText is BIRD's config: static routes inside of the lab's pool, told to one peer. It leaves its own kernel alone.
func birdText(self, peer *host) string {
	var b strings.Builder
	fmt.Fprintf(&b, "router id %s;\nprotocol device {}\nprotocol static {\n  ipv4;\n", self.Address())
	for i := range learned {
		fmt.Fprintf(&b, "  route 10.9.%d.%d/32 blackhole;\n", 64+i>>8, i&255)
	}
	fmt.Fprintf(&b, "}\nprotocol bgp {\n  local %s as %d;\n  neighbor %s as %d;\n  ipv4 { import none; export all; next hop self; };\n}\n",
		self.Address(), self.ASN, peer.Address(), peer.ASN)
	return b.String()
}

// fillAgent starts the agent anew, and lets it learn the routes.
func (b *bench) fillAgent(ctx context.Context, h, three *host, round int) (err error) {
	if err := h.StopAgent(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	if err := h.StartAgent(ctx); err != nil {
		return err
	}
	agent := api.NewClient(h.AgentSocket())
	err = soon(ctx, patience, func() error { // the session with host2
		st, err := agent.Status(ctx)
		if err == nil && st.Fabric.PeersEstablished == 0 {
			err = errors.New("no session was established")
		}
		return err
	})
	if err != nil {
		return err
	}
	now, peak, err := h.agentMemory(ctx)
	if err != nil {
		return err
	}
	b.row("memory").add(noRoutes, round, now)
	b.row("peak").add(noRoutes, round, peak)

	birdCtx, stop := context.WithCancel(ctx)
	defer stop()
	bird := three.Command(birdCtx, "bird", "-f", "-c", birdConfig, "-s", "/tmp/bird.ctl")
	if err := bird.Start(); err != nil {
		return fmt.Errorf("start BIRD: %w", err)
	}
	defer func() {
		stop()
		_ = bird.Wait() // it was killed
		if err == nil { // an agent that is stopped leaves its routes, which the next round must not find
			err = soon(ctx, time.Minute, func() error { return h.routes(ctx, func(n int) bool { return n < learned/100 }) })
		}
	}()
	if err := soon(ctx, time.Minute, func() error { return h.routes(ctx, func(n int) bool { return n >= learned }) }); err != nil {
		return err
	}
	if now, peak, err = h.agentMemory(ctx); err != nil {
		return err
	}
	b.row("memory").add(ours, round, now)
	b.row("peak").add(ours, round, peak)
	return nil
}

// routes says whether as many routes of ours as wanted are in the kernel.
func (h *host) routes(ctx context.Context, wanted func(int) bool) error {
	out, err := output(h.NetCommand(ctx, "ip", "-4", "route", "show", "proto", "200"))
	if err != nil {
		return err
	}
	if n := strings.Count(out, "\n"); !wanted(n) {
		return fmt.Errorf("%s: %d routes are in the kernel", h.Name, n)
	}
	return nil
}

// agentMemory is what the agent has resident, now and at most so far, in MB (10^6 bytes).
func (h *host) agentMemory(ctx context.Context) (now, peak float64, err error) {
	pid, err := h.AgentPID(ctx)
	if err != nil {
		return 0, 0, err
	}
	text, err := os.ReadFile(h.Path(filepath.Join("/proc", strconv.Itoa(pid), "status")))
	if err != nil {
		return 0, 0, fmt.Errorf("read the agent's memory: %w", err)
	}
	for name, into := range map[string]*float64{"VmRSS:": &now, "VmHWM:": &peak} {
		_, rest, _ := strings.Cut(string(text), "\n"+name)
		words := strings.Fields(rest)
		if len(words) < 2 || words[1] != "kB" {
			return 0, 0, fmt.Errorf("read the agent's memory: no %s in /proc/%d/status", name, pid)
		}
		kib, err := strconv.ParseFloat(words[0], 64)
		if err != nil {
			return 0, 0, fmt.Errorf("read the agent's memory: %w", err)
		}
		*into = kib * 1024 / 1e6
	}
	return now, peak, nil
}
