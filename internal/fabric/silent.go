package fabric

import (
	"context"
	"maps"
	"net/netip"
	"sync"

	"fairway/internal/config"
	"fairway/internal/kernel"
)

// Silent is a fabric that hears nothing and tells nobody: "none", and "kernel", where a daemon beside the agent reads our
// routes in the kernel's table by their protocol number. It remembers what is announced, for Status only.
type Silent struct {
	name string

	mu        sync.Mutex
	announced map[netip.Prefix]Announcement
}

// NewSilent makes a silent fabric with the name that Status shows.
func NewSilent(name string) *Silent { return &Silent{name: name} }

// Run waits for the end of the context.
func (*Silent) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Announce remembers the set.
func (s *Silent) Announce(_ context.Context, want map[netip.Prefix]Announcement) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.announced = maps.Clone(want)
	return nil
}

// Update does nothing.
func (*Silent) Update(context.Context, *config.Config, kernel.Facts) error { return nil }

// Status is converged from the start: there is nobody to wait for.
func (s *Silent) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{Name: s.name, Converged: true, Announced: maps.Clone(s.announced)}
}
