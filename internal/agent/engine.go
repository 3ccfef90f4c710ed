package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"fairway/internal/engine"
)

// Times of the engine's view.
const (
	engineRetry   = 2 * time.Second        // while the engine does not answer
	engineSettle  = 150 * time.Millisecond // events of one command come together
	auditInterval = 20 * time.Second
)

// engineView is what the engine says of networks and containers: names for listings, and what is alive, for the check
// of what we hold. Nothing waits for it, since the engine may be waiting for us.
type engineView struct {
	a      *Agent
	client *engine.Client

	mu       sync.Mutex
	seen     engineState
	suspects map[string]time.Time // key of a leak to when it was first seen
}

// engineState is the engine's word at one moment.
type engineState struct {
	Reachable   bool
	Since       time.Time // of Reachable
	At          time.Time
	Version     engine.Version
	LiveRestore bool
	Networks    map[string]engine.Network   // by ID
	Endpoints   map[string]engine.Container // by endpoint ID
	Err         error
}

func newEngineView(a *Agent, c *engine.Client) *engineView {
	return &engineView{a: a, client: c, suspects: map[string]time.Time{}, seen: engineState{Since: time.Now()}}
}

func (v *engineView) state() engineState {
	if v == nil {
		return engineState{}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.seen
}

// run follows the engine until the context ends: a full look, then a look after each burst of events; events are lost
// while the engine is away.
func (v *engineView) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := v.follow(ctx); ctx.Err() == nil {
			v.lost(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(engineRetry):
		}
	}
	return nil
}

func (v *engineView) lost(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.seen.Reachable || v.seen.Err == nil {
		v.a.log.Warn("the engine does not answer; running containers do not notice", slog.Any("err", err))
		v.seen.Since = time.Now()
	}
	v.seen.Reachable, v.seen.Err = false, err
}

// follow looks and listens until the engine goes away.
func (v *engineView) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := v.client.Events(ctx, time.Time{})
	if err != nil {
		return err
	}
	if err := v.look(ctx); err != nil {
		return err
	}
	// The engine may have flushed and made its rules anew.
	v.a.checkDrift(ctx)
	audit := time.NewTicker(auditInterval)
	defer audit.Stop()
	settle := time.NewTimer(time.Hour)
	defer settle.Stop()
	v.auditNow(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-events:
			if !ok {
				return errEventsEnded
			}
			if e.Err != nil {
				return e.Err
			}
			settle.Reset(engineSettle)
		case <-settle.C:
			if err := v.look(ctx); err != nil {
				return err
			}
		case <-audit.C:
			if err := v.look(ctx); err != nil {
				return err
			}
			v.auditNow(ctx)
		}
	}
}

// look asks the engine for everything that concerns us.
func (v *engineView) look(ctx context.Context) error {
	s := engineState{Reachable: true, Networks: map[string]engine.Network{}, Endpoints: map[string]engine.Container{}}
	var err error
	if s.Version, err = v.client.Version(ctx); err != nil {
		return err
	}
	if info, err := v.client.Info(ctx); err == nil {
		s.LiveRestore = info.LiveRestore
	}
	containers, err := v.client.Containers(ctx)
	if err != nil {
		return err
	}
	for _, c := range containers {
		for _, ep := range c.Endpoints {
			if ep.EndpointID != "" {
				s.Endpoints[ep.EndpointID] = c
			}
		}
	}
	networks, err := v.client.Networks(ctx, v.a.config().Docker.Name)
	if err != nil {
		return err
	}
	for _, n := range networks {
		s.Networks[n.ID] = n
		for _, ep := range n.Endpoints {
			if _, ok := s.Endpoints[ep.EndpointID]; !ok {
				s.Endpoints[ep.EndpointID] = engine.Container{ID: ep.ContainerID, Name: ep.ContainerName}
			}
		}
	}
	announced, err := v.client.Labelled(ctx, "bridge", labelAnnounce)
	if err != nil {
		return err
	}
	v.a.takeDockerNetworks(ctx, announced)
	v.a.lookAtLinks()
	s.At = time.Now()
	if s.Version != v.state().Version {
		v.a.loop.mark() // this node's record says which engine it has
	}
	defer v.a.networks.wake()
	v.mu.Lock()
	defer v.mu.Unlock()
	s.Since = v.seen.Since
	if !v.seen.Reachable {
		s.Since = s.At
		v.a.log.Info("engine", slog.String("version", s.Version.Engine), slog.String("api", s.Version.API))
	}
	v.seen = s
	return nil
}
