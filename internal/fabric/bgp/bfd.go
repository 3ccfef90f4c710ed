package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/config/oc"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// bfd runs GoBGP's BFD beside its sessions and not inside them: there it would queue a NOTIFICATION for a session that is
// already closed, which then ends the next one, in the middle of a graceful restart.
type bfd struct {
	server bfdServer
	peer   func(netip.Addr) any // GoBGP's struct of a peer's state; nil when it has no such peer
	queue  *queue
	opened bool // the port is, or was, ours
}

// bfdServer is what we use of GoBGP's type, which has no name outside of it.
type bfdServer interface {
	AddPeer(ctx context.Context, peer netip.Addr, c oc.BfdConfig, link string) error
	DeletePeer(ctx context.Context, peer netip.Addr) error
	Stop()
}

// bfdEvent says that a peer does not answer any more.
type bfdEvent struct {
	peer    netip.Addr
	settled bool // said a moment ago, and now is the time to act
}

// handshake is how long a BFD session may take to come up: three packets, a second apart at first (RFC 5880, 6.8.3).
const handshake = 3 * time.Second

// settle is how long the end of a BFD session waits for the end of the BGP session, which says more. When FRR's bgpd dies,
// its bfdd tells us in the same millisecond.
const settle = 50 * time.Millisecond

var errBFDPort = errors.New("udp/3784 is taken by another program: stop its BFD or set bfd: false")

func newBFD(log *slog.Logger, q *queue) *bfd {
	b := &bfd{queue: q}
	s := server.NewBfdServer(b, log)
	b.server = s
	b.peer = func(a netip.Addr) any {
		if state, err := s.GetPeerState(a); err == nil {
			return state
		}
		return nil
	}
	// It only takes the settings; the socket is opened when the first peer is added.
	if err := s.Start(context.Background(), oc.BfdConfig{Port: server.BfdServerPort}); err != nil {
		log.Error("start BFD", slog.Any("err", err))
	}
	return b
}

// ResetPeer is called by GoBGP from the timer of a BFD session that ends, just before its state changes.
func (b *bfd) ResetPeer(_ context.Context, r *api.ResetPeerRequest) error {
	peer, err := netip.ParseAddr(r.Address)
	if err != nil {
		return fmt.Errorf("read BFD peer %q: %w", r.Address, err)
	}
	if b.state(peer) == "up" { // one that never came up says nothing about the peer
		b.queue.put(event{bfd: &bfdEvent{peer: peer}})
	}
	return nil
}

// add starts a BFD session. GoBGP would share the port with a daemon that has it without a word, and each would get some of
// the packets.
func (b *bfd) add(peer netip.Addr, interval time.Duration, multiplier uint8) error {
	if !b.opened {
		probe, err := (&net.ListenConfig{}).ListenPacket(context.Background(), "udp", fmt.Sprintf(":%d", server.BfdServerPort))
		if err != nil {
			return errBFDPort
		}
		_ = probe.Close() // nothing was sent from it
		b.opened = true
	}
	us := uint32(interval / time.Microsecond)
	c := oc.BfdConfig{Enabled: true, Port: server.BfdServerPort, DesiredMinimumTxInterval: us, RequiredMinimumReceive: us, DetectionMultiplier: multiplier}
	if err := b.server.AddPeer(context.Background(), peer, c, ""); err != nil {
		return fmt.Errorf("start BFD: %w", err)
	}
	return nil
}

func (b *bfd) remove(peer netip.Addr) error {
	if err := b.server.DeletePeer(context.Background(), peer); err != nil {
		return fmt.Errorf("stop BFD: %w", err)
	}
	return nil
}

func (b *bfd) close() { b.server.Stop() }

// state is a peer's BFD state in words. GoBGP hands it out only inside a struct without exported fields, whose value can be
// read but by reflection; should the library change, the state is unknown.
func (b *bfd) state(peer netip.Addr) string {
	v := reflect.ValueOf(b.peer(peer))
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return ""
	}
	state := v.Elem().FieldByName("state")
	if !state.IsValid() || state.Kind() != reflect.Struct {
		return ""
	}
	number := state.FieldByName("SessionState")
	if !number.IsValid() || !number.CanInt() {
		return ""
	}
	switch api.BfdSessionState(number.Int()) {
	case api.BfdSessionState_BFD_SESSION_STATE_UP:
		return "up"
	case api.BfdSessionState_BFD_SESSION_STATE_INIT:
		return "init"
	case api.BfdSessionState_BFD_SESSION_STATE_DOWN:
		return "down"
	case api.BfdSessionState_BFD_SESSION_STATE_ADMIN_DOWN:
		return "admin-down"
	default:
		return ""
	}
}

// startBFD starts the session's BFD if it wants one. f.mu is held.
func (f *Fabric) startBFD(s *session) {
	if s.bfd.Interval == 0 || s.bfdUp {
		return
	}
	if err := f.bfd.add(s.known, s.bfd.Interval, s.bfd.Multiplier); err != nil {
		s.fault = err.Error()
		return
	}
	s.bfdUp, s.fault = true, ""
}

// stopBFD stops it; the peer is not told, and finds its BFD session down.
func (f *Fabric) stopBFD(s *session) {
	if !s.bfdUp || f.bfd == nil {
		return
	}
	s.bfdUp = false
	if err := f.bfd.remove(s.known); err != nil {
		f.log.Debug("stop BFD", slog.String("peer", s.name), slog.Any("err", err))
	}
}

// onBFD takes up that a peer does not answer any more. A session that is closed already is left alone: the peer's BFD ends
// with its agent, so during a graceful restart its silence says nothing (RFC 5882, 4.3).
func (f *Fabric) onBFD(e *bfdEvent) {
	s := f.byAddr(e.peer)
	if s == nil || s.state != bgp.BGP_FSM_ESTABLISHED {
		return
	}
	if !e.settled {
		time.AfterFunc(settle, func() { f.queue.put(event{bfd: &bfdEvent{peer: e.peer, settled: true}}) })
		return
	}
	if f.bfd.state(s.known) == "up" {
		return
	}
	// A session that just came up is the better sign of life. FRR begins BFD anew then and ends the old BFD session with
	// AdminDown, which is no failure (RFC 5882, 3.2), but GoBGP does not tell the two apart.
	if detection := time.Duration(s.bfd.Multiplier) * s.bfd.Interval; f.now().Sub(s.since) < detection+settle {
		s.doubt = f.now().Add(handshake + detection)
		return
	}
	f.lost(s)
}

// resolveDoubts ends the sessions whose BFD did not come back in time.
func (f *Fabric) resolveDoubts() {
	for _, s := range f.sessions {
		if s.doubt.IsZero() || s.doubt.After(f.now()) {
			continue
		}
		s.doubt = time.Time{}
		if s.state == bgp.BGP_FSM_ESTABLISHED && s.bfdUp && f.bfd.state(s.known) != "up" {
			f.lost(s)
		}
	}
}

func (f *Fabric) lost(s *session) {
	f.learned.block(s.known)
	f.ended(s, fmt.Sprintf("BFD: no answer within %d times %v, or the peer's BFD went down", s.bfd.Multiplier, s.bfd.Interval))
	f.reopen(s)
}
