package bgp_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairway/internal/config"
)

// A link that goes down takes its routes with it before Update returns, and comes back without waiting.
func TestLinkLoss(t *testing.T) {
	if !isolated(t) {
		return
	}
	other := pair(t)
	r := other.start(them(at("10.77.0.1", 64512)), "10.9.2.0/26", "fd00:9:0:2::/122")
	n := startNode(t, us(at("10.77.0.2", 64512)), "10.9.1.0/26")
	eventually(t, "heard", n.has("10.9.2.0/26", "10.77.0.2"))
	tests := []struct {
		name, down, up string
		here           bool
		problem        string
	}{
		{"our end", "ip link set va down", "ip link set va up", true, "link va is down"},
		{"the other end", "ip link set vb down", "ip link set vb up", false, "link va has no carrier"},
	}
	for _, tt := range tests {
		run := func(line string) {
			if tt.here {
				sh(t, "%s", line)
			} else {
				other.sh("%s", line)
			}
		}
		run(tt.down)
		eventually(t, "carrier gone", func() error {
			if f := hereFacts(t).Links["va"]; f.Up && f.Carrier {
				return fmt.Errorf("%+v", f)
			}
			return nil
		})
		facts := hereFacts(t)
		start := time.Now()
		if err := n.fabric.Update(context.Background(), n.set.config(), facts); err != nil {
			t.Fatal(err)
		}
		took := time.Since(start)
		if err := n.has("10.9.2.0/26")(); err != nil || took > 100*time.Millisecond {
			t.Errorf("%s: after %v: %v", tt.name, took, err)
		}
		if p := n.peer("10.77.0.2"); p.State != "idle" || p.Problem != tt.problem || p.Link != "va" {
			t.Errorf("%s: peer %+v", tt.name, p)
		}
		holds(t, time.Second, tt.name+": they stay gone", n.has("10.9.2.0/26"))
		run(tt.up)
		carrier(t, "va")
		n.update()
		back := within(t, 10*time.Second, tt.name+": back", n.has("10.9.2.0/26", "10.77.0.2"))
		eventually(t, "IPv6 back", n.has("fd00:9:0:2::/122", "fd77::2"))
		t.Logf("%s: withdrawn in %v, heard again %v after the link was up", tt.name, took, back)
		eventually(t, "the other has us again", r.has("10.9.1.0/26", "10.77.0.1"))
	}
}

// With two ways to a prefix, the loss of one link leaves the other way.
func TestLinkLossWithMultipath(t *testing.T) {
	if !isolated(t) {
		return
	}
	other := pair(t)
	other.wire("va2", "vb2", []string{"10.78.0.1/24"}, []string{"10.78.0.2/24"})
	other.start(them(at("10.77.0.1", 64512), at("10.78.0.1", 64512)), "10.9.2.0/26", "10.9.2.70/32")
	n := startNode(t, us(at("10.77.0.2", 64512), at("10.78.0.2", 64512)))
	eventually(t, "two ways", n.has("10.9.2.0/26", "10.77.0.2", "10.78.0.2"))
	if c := n.rib.Conflicts(); len(c) != 0 {
		t.Errorf("two ways to one node are a conflict: %+v", c)
	}
	sh(t, "ip link set va2 down")
	n.update()
	if err := n.has("10.9.2.0/26", "10.77.0.2")(); err != nil {
		t.Error(err)
	}
	sh(t, "ip link set va2 up")
	carrier(t, "va2")
	n.update()
	eventually(t, "two ways again", n.has("10.9.2.0/26", "10.77.0.2", "10.78.0.2"))
}

// Two nodes with one address is told by both, and shows as a conflict.
func TestConflict(t *testing.T) {
	if !isolated(t) {
		return
	}
	a, b := pair(t), newSpace(t)
	b.wire("vc", "vd", []string{"10.78.0.1/24"}, []string{"10.78.0.2/24"})
	a.start(them(at("10.77.0.1", 64512)), "10.9.200.7/32", "10.9.2.0/26")
	second := settings{ASN: 64512, Node: adr("10.78.0.2"), Pools: pools, BGP: config.BGP{Peers: []config.Peer{at("10.78.0.1", 64512)}}}
	b.start(second, "10.9.200.7/32", "10.9.3.0/26")
	n := startNode(t, us(at("10.77.0.2", 64512), at("10.78.0.2", 64512)))
	eventually(t, "conflict", func() error {
		c := n.rib.Conflicts()
		if len(c) != 1 || c[0].Prefix != pfx("10.9.200.7/32") || len(c[0].Paths) != 2 {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
}

// A process that stops or dies while its host forwards: its routes stay until it is back, marked stale, and what it no
// longer has goes then.
func TestGracefulRestart(t *testing.T) {
	withoutRaceDetector(t)
	if !isolated(t) {
		return
	}
	other := pair(t)
	// BFD ends with the process; it must neither drop the routes nor end the next session.
	ours, theirs := us(at("10.77.0.2", 64512)), them(at("10.77.0.1", 64512))
	ours.BGP.Peers[0].BFD, theirs.BGP.Peers[0].BFD = true, true
	r := other.start(theirs, "10.9.2.0/26", "10.9.3.0/26")
	n := startNode(t, ours, "10.9.1.0/26")
	for _, how := range []string{"stop", "kill"} {
		eventually(t, "heard", n.has("10.9.3.0/26", "10.77.0.2"))
		eventually(t, "BFD up", func() error {
			if p := n.peer("10.77.0.2"); p.BFD != "up" || p.State != "established" {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
		start := time.Now()
		if how == "stop" {
			r.stop()
			if took := time.Since(start); took > time.Second {
				t.Errorf("stopping took %v", took)
			}
		} else {
			r.kill()
		}
		eventually(t, how+": stale", func() error {
			paths := n.rib.Snapshot()[pfx("10.9.2.0/26")].Paths
			if len(paths) != 1 || !paths[0].Stale {
				return fmt.Errorf("%+v", paths)
			}
			return nil
		})
		holds(t, 2*time.Second, how+": kept", n.has("10.9.3.0/26", "10.77.0.2"))
		if p := n.peer("10.77.0.2"); !strings.Contains(p.LastError, "restart") || p.Received != 2 {
			t.Errorf("%s: peer %+v", how, p)
		}
		theirs.Restarting = true
		r = other.start(theirs, "10.9.2.0/26")
		keeps := n.has("10.9.2.0/26", "10.77.0.2")
		gone := n.has("10.9.3.0/26")
		eventually(t, how+": swept", func() error {
			if err := keeps(); err != nil {
				t.Fatalf("%s: lost during the restart: %v", how, err)
			}
			return gone()
		})
		if n.rib.Snapshot()[pfx("10.9.2.0/26")].Paths[0].Stale {
			t.Errorf("%s: still stale after End-of-RIB", how)
		}
		holds(t, 3*time.Second, how+": the new session stays", func() error {
			if p := n.peer("10.77.0.2"); p.State != "established" {
				return fmt.Errorf("%+v", p)
			}
			return keeps()
		})
		r.announce("10.9.2.0/26", "10.9.3.0/26")
	}
}

// A peer that does not come back within its restart time loses its routes then.
func TestGracefulRestartTimesOut(t *testing.T) {
	withoutRaceDetector(t)
	if !isolated(t) {
		return
	}
	other := pair(t)
	theirs := them(at("10.77.0.1", 64512))
	theirs.BGP.GracefulRestart = config.GracefulRestart{Enabled: true, RestartTime: 3 * time.Second}
	r := other.start(theirs, "10.9.2.0/26")
	n := startNode(t, us(at("10.77.0.2", 64512)))
	eventually(t, "heard", n.has("10.9.2.0/26", "10.77.0.2"))
	r.kill()
	holds(t, 2*time.Second, "kept", n.has("10.9.2.0/26", "10.77.0.2"))
	took := within(t, 5*time.Second, "swept", n.has("10.9.2.0/26"))
	t.Logf("swept %v after the process died", 2*time.Second+took)
}

// A peer that falls silent keeps nothing: not with the hold timer, graceful restart or no, and sooner with BFD.
func TestSilence(t *testing.T) {
	if !isolated(t) {
		return
	}
	other := pair(t)
	for _, tt := range []struct {
		name  string
		bfd   bool
		bound time.Duration
		why   string
	}{
		{"hold time", false, 4 * time.Second, "hold time of 3s"},
		{"BFD", true, 1200 * time.Millisecond, "BFD"},
	} {
		ours, theirs := us(at("10.77.0.2", 64512)), them(at("10.77.0.1", 64512))
		ours.BGP.Peers[0].BFD, theirs.BGP.Peers[0].BFD = tt.bfd, tt.bfd
		ours.BGP.HoldTime = 3 * time.Second
		r := other.start(theirs, "10.9.2.0/26")
		n := startNode(t, ours, "10.9.1.0/26")
		eventually(t, "heard", n.has("10.9.2.0/26", "10.77.0.2"))
		if tt.bfd {
			eventually(t, "BFD up", func() error {
				if p := n.peer("10.77.0.2"); p.BFD != "up" || time.Since(p.Since) < time.Second {
					return fmt.Errorf("%+v", p)
				}
				return nil
			})
		}
		r.cmd.Process.Signal(syscall.SIGSTOP) // of nsenter, which became the node
		took := within(t, tt.bound, tt.name, n.has("10.9.2.0/26"))
		t.Logf("%s: withdrawn %v after the peer froze", tt.name, took)
		if p := n.peer("10.77.0.2"); !strings.Contains(p.LastError, tt.why) {
			t.Errorf("%s: peer %+v", tt.name, p)
		}
		r.cmd.Process.Signal(syscall.SIGCONT)
		eventually(t, tt.name+": back", n.has("10.9.2.0/26", "10.77.0.2"))
		n.stop()
		r.kill()
	}
}

// The port of BFD belongs to another daemon: the session works without BFD, and the peer shows why.
func TestBFDPortTaken(t *testing.T) {
	if !isolated(t) {
		return
	}
	other := pair(t)
	other.start(them(at("10.77.0.1", 64512)), "10.9.2.0/26")
	taken := takeUDP(t, "0.0.0.0:3784")
	ours := us(at("10.77.0.2", 64512))
	ours.BGP.Peers[0].BFD = true
	n := startNode(t, ours)
	eventually(t, "heard", n.has("10.9.2.0/26", "10.77.0.2"))
	if p := n.peer("10.77.0.2"); !strings.Contains(p.Problem, "udp/3784 is taken") || p.BFD != "down" {
		t.Errorf("peer %+v", p)
	}
	taken.Close()
	eventually(t, "BFD starts once the port is free", func() error {
		if p := n.peer("10.77.0.2"); p.Problem != "" {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
}
