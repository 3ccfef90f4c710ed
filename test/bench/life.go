package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// life is one way to start a container: on which path, and with which address in round n.
type life struct {
	path, network    string
	start, join      string // the lines of the table
	address          func(round int) netip.Addr
	announced, agent bool
}

// lives are what is compared: fairway with an address of the node's block, fairway with one that is announced on its
// own, and Docker's bridge.
func lives() []life {
	count := func(first string) func(int) netip.Addr {
		from := netip.MustParseAddr(first).As4()
		return func(round int) netip.Addr {
			a := from
			a[3] += byte(round) // there are at most mostRounds
			return netip.AddrFrom4(a)
		}
	}
	return []life{
		{path: ours, network: routedNet, start: "start", join: "join", agent: true, address: count("10.9.1.50")},
		{path: ours, network: routedNet, start: "start32", join: "join32", agent: true, announced: true, address: count("10.9.200.50")},
		{path: bridge, network: bridgeNet, address: count("10.111.0.50")},
	}
}

// lives measures when a container that is started answers another host's container, and when the route to one that is
// removed is gone at the other host.
func (b *bench) lives(ctx context.Context, s *site) error {
	s.open(ctx)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	probes := map[string]*prober{}
	for _, name := range []string{ours, bridge} {
		p, err := s.path(name)
		if err == nil {
			probes[name], err = startProbe(ctx, p)
		}
		if err != nil && name == ours {
			return err
		}
		if err != nil {
			for _, line := range []string{"start", "start32"} {
				b.row(line).fail(bridge, err)
			}
			continue
		}
		defer probes[name].end()
	}
	gone, err := s.two.watchRoutes(ctx)
	if err != nil {
		return err
	}
	for round := range b.rounds + 1 { // round 0 fills caches
		b.sayRound("start to reachable and back", round, b.rounds)
		for i := range lives() {
			l := lives()[(i+round)%len(lives())]
			if probes[l.path] == nil || ctx.Err() != nil {
				continue
			}
			t, err := s.live(ctx, l, round, probes[l.path], gone)
			if round > 0 {
				b.lived(l, round, t, err)
			}
		}
	}
	return ctx.Err()
}

// lifeTimes are in ms.
type lifeTimes struct {
	start    float64 // from asking the engine to start it, to its first answer at the other host
	join     float64 // from the agent's answer to Join, to the same; 0 for Docker's bridge
	remove   float64 // what docker rm -f took
	withdraw float64 // from Leave reaching the agent, to the route gone at the other host; 0 where there is none
}

// lived takes in what one container took.
func (b *bench) lived(l life, round int, t lifeTimes, err error) {
	if !l.agent {
		for _, line := range []string{"start", "start32"} {
			b.note(line, bridge, round, t.start, err)
		}
		return
	}
	b.note(l.start, ours, round, t.start, err)
	b.note(l.join, ours, round, t.join, err)
	b.note(l.join, wholeStart, round, t.start, err)
	if l.announced {
		b.note("leave", ours, round, t.withdraw, err)
		b.note("leave", wholeRemove, round, t.remove, err)
	}
}

// live starts a container, waits until it answers, and removes it.
func (s *site) live(ctx context.Context, l life, round int, p *prober, gone *routeLog) (t lifeTimes, err error) {
	addr := l.address(round)
	log, err := s.one.agentLog()
	if err != nil {
		return t, err
	}
	defer func() { _ = log.Close() }()
	id, err := s.one.engine.create(ctx, idle(l.network, addr.String()))
	if err != nil {
		return t, err
	}
	removed := false
	defer func() {
		if !removed {
			err = errors.Join(err, s.one.engine.remove(context.WithoutCancel(ctx), id))
		}
	}()
	if err := p.watch(addr); err != nil {
		return t, err
	}
	begin := time.Now()
	startErr := s.one.engine.start(ctx, id)
	first, err := p.answered(ctx)
	if err = errors.Join(startErr, err); err != nil {
		return t, err
	}
	t.start = inMillis(first.Sub(begin))
	if l.agent {
		join, err := log.call(ctx, "NetworkDriver.Join")
		if err != nil {
			return t, err
		}
		t.join = inMillis(first.Sub(join.Time))
	}
	begin = time.Now()
	removed = true
	if err := s.one.engine.remove(ctx, id); err != nil {
		return t, err
	}
	t.remove = inMillis(time.Since(begin))
	if !l.announced {
		return t, nil
	}
	leave, err := log.call(ctx, "NetworkDriver.Leave")
	if err != nil {
		return t, err
	}
	at, err := gone.deleted(ctx, addr)
	t.withdraw = inMillis(at.Sub(leave.Time.Add(-leave.Duration)))
	return t, err
}

// agentLog reads what the agent logs from now on.
type agentLog struct {
	file *os.File
	buf  *bufio.Reader
	part string // of a line that is being written
}

func (h *host) agentLog() (*agentLog, error) {
	f, err := os.Open(h.Log("agent"))
	if err != nil {
		return nil, fmt.Errorf("read the agent's log: %w", err)
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return nil, errors.Join(fmt.Errorf("read the agent's log: %w", err), f.Close())
	}
	return newAgentLog(f), nil
}

func newAgentLog(f *os.File) *agentLog { return &agentLog{file: f, buf: bufio.NewReader(f)} }

func (l *agentLog) Close() error { return l.file.Close() }

// driverCall is a line of the log. Time is when the call had been answered.
type driverCall struct {
	Time     time.Time     `json:"time"`
	Op       string        `json:"op"`
	Duration time.Duration `json:"duration"`
	Err      string        `json:"err"`
}

// call waits for the line of a driver call, which is written just after the engine has its answer.
func (l *agentLog) call(ctx context.Context, op string) (driverCall, error) {
	var found driverCall
	err := soon(ctx, 2*time.Second, func() error {
		for {
			text, err := l.buf.ReadString('\n')
			l.part += text
			if err != nil {
				return fmt.Errorf("the agent's log has no %s", op)
			}
			line := l.part
			l.part = ""
			var c driverCall
			if json.Unmarshal([]byte(line), &c) == nil && c.Op == op {
				found = c
				return nil
			}
		}
	})
	if err == nil && found.Err != "" {
		err = fmt.Errorf("%s: %s", op, found.Err)
	}
	return found, err
}

// routeLog knows when routes went.
type routeLog struct {
	mu sync.Mutex
	at map[string]time.Time
}

// watchRoutes follows what the host's kernel tells of its routes.
func (h *host) watchRoutes(ctx context.Context) (*routeLog, error) {
	lines, _, err := pipe(h.NetCommand(ctx, "ip", "-4", "monitor", "route"))
	if err != nil {
		return nil, fmt.Errorf("%s: watch routes: %w", h.Name, err)
	}
	l := &routeLog{at: map[string]time.Time{}}
	go l.follow(lines)
	return l, nil
}

// follow reads until there is nothing more to come.
func (l *routeLog) follow(lines <-chan string) {
	for line := range lines {
		now := time.Now()
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "Deleted" {
			continue
		}
		l.mu.Lock()
		l.at[words[1]] = now
		l.mu.Unlock()
	}
}

// deleted is when the route to an address went. Addresses are not used twice in a run.
func (l *routeLog) deleted(ctx context.Context, addr netip.Addr) (at time.Time, err error) {
	err = soon(ctx, probeLimit, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		var ok bool
		if at, ok = l.at[addr.String()]; !ok {
			return fmt.Errorf("the route to %s stays at the other host", addr)
		}
		return nil
	})
	return at, err
}
