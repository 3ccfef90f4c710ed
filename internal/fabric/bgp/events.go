package bgp

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// handle takes up events in the order they happened.
func (f *Fabric) handle(events []event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.server == nil {
		return
	}
	for _, e := range events {
		switch {
		case e.paths != nil:
			f.learned.merge(e.paths, f.multipath)
		case e.peer != nil:
			f.changes.Add(1)
			f.onPeer(e.peer)
		case e.eor != nil:
			f.changes.Add(1)
			f.onEndOfRIB(e.eor)
		case e.bfd != nil:
			f.onBFD(e.bfd)
		case e.advert != nil:
			f.onAdvert(e.advert)
		case e.caller.IsValid():
			f.onCaller(e.caller)
		}
	}
	f.limit(false)
	f.converge()
}

// byAddr is the session that GoBGP has under an address.
func (f *Fabric) byAddr(a netip.Addr) *session {
	a = a.Unmap()
	for _, s := range f.sessions {
		if s.known.IsValid() && s.known == a {
			return s
		}
	}
	return nil
}

// onPeer takes up a change of a session's state.
func (f *Fabric) onPeer(p *apiutil.Peer) {
	addr := p.State.NeighborAddress.Unmap()
	if f.closing[addr] != nil {
		f.onClosing(addr)
		return
	}
	s := f.byAddr(addr)
	if s == nil {
		return
	}
	was, up, hold := s.state, f.now().Sub(s.since), s.hold
	f.setState(s, p.State.SessionState)
	switch {
	case s.state == bgp.BGP_FSM_ESTABLISHED && was != s.state:
		f.onUp(s, p)
	case was == bgp.BGP_FSM_ESTABLISHED && was != s.state:
		f.onDown(s, p, up, hold)
	case s.state == bgp.BGP_FSM_IDLE && was > bgp.BGP_FSM_ACTIVE:
		f.failed(s, reason(p))
	case s.stale && p.State.DisconnectReason == api.PeerState_DISCONNECT_REASON_RESTART_TIMER_EXPIRED:
		s.stale = false
		f.learned.mark(s.known, false)
		f.log.Warn("peer did not come back after its restart", slog.String("peer", s.display()))
	}
}

// onUp takes up a session that came up.
func (f *Fabric) onUp(s *session, p *apiutil.Peer) {
	s.asn, s.routerID = p.State.PeerASN, p.State.RouterID
	s.resend = f.now().Add(settled)
	if s.peer.GetGracefulRestart().GetLocalRestarting() { // told nothing before the deferral is over
		s.resend = s.resend.Add(time.Duration(s.peer.GetGracefulRestart().GetDeferralTime()) * time.Second)
	}
	f.learned.unblock(s.known, s.link)
	s.waiting = map[bgp.Family]bool{}
	if restarts(p.State.RemoteCap) {
		for _, family := range negotiated(p.State.RemoteCap) {
			s.waiting[family] = true
		}
	}
	if have := f.inGoBGP(s); have != nil {
		s.sent = have.GetState().GetMessages().GetSent().GetNotification()
		s.hold = time.Duration(have.GetTimers().GetState().GetNegotiatedHoldTime()) * time.Second
	}
	if s.set.peer.ASN == 0 && s.asn == f.asn {
		f.punish(s, fmt.Sprintf("the peer is in our AS %d, which must be asked for: set asn: %d", s.asn, s.asn))
		return
	}
	f.startBFD(s)
	f.log.Info("session is up", slog.String("peer", s.display()), slog.Uint64("asn", uint64(s.asn)), slog.String("router_id", s.routerID.String()))
	f.changed()
}

// onDown decides what the end of a session means for what the peer told. It was up for so long, with this hold time.
func (f *Fabric) onDown(s *session, p *apiutil.Peer, up, hold time.Duration) {
	s.waiting = nil
	why := reason(p)
	switch {
	case p.State.DisconnectReason != api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART:
		f.ended(s, why)
		if up >= flapping {
			f.reopen(s)
		}
	case f.timedOut(s):
		// GoBGP keeps the routes of a peer that fell silent as if it restarted. RFC 4724 speaks of a closed connection; who
		// is silent for the hold time is not forwarding either.
		f.ended(s, fmt.Sprintf("nothing heard for the hold time of %v", hold))
		f.reopen(s)
	default:
		// The peer's BFD ends with its agent and begins anew; FRR takes it badly when it is up before its session.
		f.stopBFD(s)
		s.stale = true
		f.learned.mark(s.known, true)
		f.ended(s, "the peer closed the connection and may be restarting: its routes are kept for its restart time")
	}
}

// timedOut says whether the session ended with a NOTIFICATION of ours: the hold timer is the only one that GoBGP takes for
// a restart.
func (f *Fabric) timedOut(s *session) bool {
	have := f.inGoBGP(s)
	return have != nil && have.GetState().GetMessages().GetSent().GetNotification() > s.sent
}

// inGoBGP asks GoBGP for the peer of a session.
func (f *Fabric) inGoBGP(s *session) *api.Peer {
	return f.ask(f.server, &api.ListPeerRequest{Address: s.known.String()})
}

// ended notes and logs why a session ended.
func (f *Fabric) ended(s *session, why string) {
	s.lastError = why
	f.log.Warn("session ended", slog.String("peer", s.display()), slog.String("reason", why))
	f.changed()
}

// failed notes why a session did not come up, and logs it when that is news. That a dead node does not answer is none.
func (f *Fabric) failed(s *session, why string) {
	if why == "" || why == s.lastError {
		return
	}
	s.lastError = why
	if s.away {
		return
	}
	f.log.Warn("session does not come up", slog.String("peer", s.display()), slog.String("reason", why))
}

const (
	// settled is how long after a session came up GoBGP surely counts it among those that are told of changes.
	settled = time.Second
	// resends bounds how many peers are told all again at once: GoBGP holds its lock for it.
	resends = 50
)

// sendAgain tells all once more to peers whose session came up a moment ago. GoBGP tells a new peer its whole table first, and
// notes only then that the peer is to be told of changes: one that comes between the two never arrives (v4.8, fsmHandler.loop
// calls back before it stores the state). A reflector of 150 clients that came at once lost a dozen routes that way. Who tells
// only its own, and told nothing new meanwhile, has nothing to fear.
func (f *Fabric) sendAgain() error {
	now, left, waiting := f.now(), resends, false
	var errs []error
	missed := map[netip.Prefix]bool{}
	transit := f.passesOn()
	for _, s := range f.sessions {
		switch {
		case s.state < bgp.BGP_FSM_OPENCONFIRM:
			s.tells, s.resend = f.tells, time.Time{}
		case s.resend.IsZero() || s.state != bgp.BGP_FSM_ESTABLISHED || !s.known.IsValid():
		case s.resend.After(now) || left == 0:
			waiting = true
		default:
			s.resend = time.Time{}
			for p, when := range f.gone {
				if when > s.tells {
					missed[p] = true
				}
			}
			if transit || s.tells != f.tells {
				left--
				errs = append(errs, f.again(s.known.String(), api.ResetPeerRequest_DIRECTION_OUT))
			}
		}
	}
	errs = append(errs, f.withdrawAgain(slices.Collect(maps.Keys(missed))))
	if !waiting {
		clear(f.gone)
	}
	return errors.Join(errs...)
}

func (f *Fabric) onEndOfRIB(e *endOfRIB) {
	s := f.byAddr(e.peer)
	if s == nil || s.waiting == nil {
		return
	}
	delete(s.waiting, e.family)
	if len(s.waiting) > 0 {
		return
	}
	s.reported = true
	if s.stale {
		s.stale = false
		f.learned.mark(s.known, false)
	}
}

// converge notes when every peer has told all, or the time for it is over. f.mu is held.
func (f *Fabric) converge() {
	if f.converged || f.server == nil {
		return
	}
	late := !f.now().Before(f.deadline)
	if f.restarting && f.ranges() && !late {
		return // nobody knows who is still to call
	}
	for _, s := range f.sessions {
		if !s.reported && !s.away && !late {
			return
		}
	}
	f.converged = true
	f.log.Info("converged", slog.Int("peers", len(f.sessions)), slog.Bool("timed_out", late))
	f.changed()
}

// negotiated are the families that both ends have.
func negotiated(caps []bgp.ParameterCapabilityInterface) []bgp.Family {
	var both []bgp.Family
	for _, c := range caps {
		mp, ok := c.(*bgp.CapMultiProtocol)
		if ok && (mp.CapValue == bgp.RF_IPv4_UC || mp.CapValue == bgp.RF_IPv6_UC) {
			both = append(both, mp.CapValue)
		}
	}
	return both
}

// restarts says whether the peer knows graceful restart, and so sends End-of-RIB. Of a peer that does not, nobody knows
// when it has told all.
func restarts(caps []bgp.ParameterCapabilityInterface) bool {
	for _, c := range caps {
		if _, ok := c.(*bgp.CapGracefulRestart); ok {
			return true
		}
	}
	return false
}

// reason says why a session ended, "" if that is no news.
func reason(p *apiutil.Peer) string {
	text := strings.NewReplacer("notification-sent", "we sent", "notification-received", "the peer sent").Replace(p.State.DisconnectMessage)
	switch p.State.DisconnectReason {
	case api.PeerState_DISCONNECT_REASON_HOLD_TIMER_EXPIRED:
		return "nothing heard for the hold time"
	case api.PeerState_DISCONNECT_REASON_READ_FAILED:
		return "the peer closed the connection"
	case api.PeerState_DISCONNECT_REASON_WRITE_FAILED:
		return "the connection broke"
	case api.PeerState_DISCONNECT_REASON_BAD_PEER_AS:
		return "the peer is in another AS than its asn in the config"
	case api.PeerState_DISCONNECT_REASON_INVALID_MSG:
		return "the peer sent a message that is not valid"
	case api.PeerState_DISCONNECT_REASON_IDLE_TIMER_EXPIRED, api.PeerState_DISCONNECT_REASON_UNSPECIFIED:
		return ""
	default:
		return text
	}
}
