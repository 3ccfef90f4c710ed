package e2e_test

import (
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"
)

// Hosts on two segments, in an AS each, with a plain router between them: containers reach each other over it, and each
// node on the way shows up once.
func TestTwoSegments(t *testing.T) {
	s, router := routed(t, "segments", 2)
	s.network("net")
	a, b := s.hosts[0].run("near", "--network", "net"), s.hosts[1].run("far", "--network", "net", "--ip", "10.9.200.2")
	everyPair(t, []*container{a, b})
	ownAddress(t, a, b)
	ownAddress(t, b, a)
	for i, want := range [][]string{
		{s.hosts[0].Address().String(), router.Address().String(), s.hosts[1].Address().String(), b.v4.String()},
		{s.hosts[0].Address6().String(), router.Address6().String(), s.hosts[1].Address6().String(), b.v6.String()},
	} {
		var got []string
		if err := patiently(5*time.Second, func() (err error) {
			if got, err = a.path(b.addrs()[i]); err == nil && !slices.Equal(got, want) {
				err = errors.New("not as wanted")
			}
			return err
		}); err != nil {
			t.Errorf("path %v, want %v (%v)", got, want, err)
		}
	}
	start := time.Now()
	if err := s.hosts[1].SetLink(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	s.holdRoutes([]*host{router}, []string{"10.9.200.2/32", s.hosts[1].Block4.String(), s.hosts[1].Block6.String()}, false, 15*time.Second)
	t.Logf("measured: two segments: host behind the router unplugged: routes gone after %v", time.Since(start).Round(10*time.Millisecond))
	if err := s.hosts[1].SetLink(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	a.reaches(b.v4)
	s.sessionsUp()
	// The router's agent may go, too.
	ping := startPing(t, a, b.v4)
	if err := router.restartAgent(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.sessionsUp()
	ping.more(100)
	noLoss(t, "the router's agent killed and started", ping)
}
