package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// starts measures docker run (create and start) on fairway's network and on Docker's bridge, in turn, and what of it
// the agent took.
func (b *bench) starts(ctx context.Context, s *site) error {
	if err := s.failed[ours]; err != nil {
		return err
	}
	if err := s.failed[bridge]; err != nil {
		b.row("run").fail(bridge, err)
	}
	metrics := newEngine(s.one.AgentSocket()).http
	networks := []struct{ name, network string }{{ours, routedNet}, {bridge, bridgeNet}}
	for round := 0; round <= b.rounds && ctx.Err() == nil; round++ { // round 0 fills caches
		b.sayRound("docker run", round, b.rounds)
		for i := range networks {
			n := networks[(i+round)%2]
			if s.failed[n.name] != nil {
				continue
			}
			before, err := driverTime(ctx, metrics)
			if err != nil {
				return err
			}
			took, err := s.one.run(ctx, n.network)
			if err != nil || round == 0 {
				if err != nil {
					b.row("run").fail(n.name, err)
				}
				continue
			}
			b.row("run").add(n.name, round, took.start)
			if n.name != ours {
				continue
			}
			b.row("share").add(wholeRun, round, took.start)
			b.row("share").add(ours, round, took.agent-before)
		}
	}
	return ctx.Err()
}

// runTime is what a container took.
type runTime struct {
	start float64 // ms
	agent float64 // the agent's driver calls until then, in ms since it was started
}

// run makes and starts a container, and removes it when the time is taken.
func (h *host) run(ctx context.Context, network string) (t runTime, err error) {
	begin := time.Now()
	id, err := h.engine.create(ctx, idle(network, ""))
	if err != nil {
		return t, err
	}
	err = h.engine.start(ctx, id)
	t.start = inMillis(time.Since(begin))
	if err == nil {
		t.agent, err = driverTime(ctx, newEngine(h.AgentSocket()).http)
	}
	if removeErr := h.engine.remove(ctx, id); err == nil {
		err = removeErr
	}
	return t, err
}

func inMillis(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// driverTime is the time that the agent has spent on driver calls since it was started, in ms, by its own metrics.
func driverTime(ctx context.Context, client *http.Client) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://fairway/metrics", http.NoBody)
	if err != nil {
		return 0, fmt.Errorf("make request: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("ask the agent for metrics: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("ask the agent for metrics: %s", resp.Status)
	}
	seconds, err := sumOf(resp.Body, "fairway_plugin_request_duration_seconds_sum")
	return seconds * 1000, err
}

// sumOf adds a metric up over all its labels.
func sumOf(r io.Reader, name string) (float64, error) {
	var sum float64
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || (rest[0] != '{' && rest[0] != ' ') {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("read metric %s: %w", name, err)
		}
		sum += v
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	return sum, nil
}
