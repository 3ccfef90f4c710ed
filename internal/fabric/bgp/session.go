package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"fairway/internal/config"
	"fairway/internal/fabric"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

const (
	// penalty is how long a peer is left alone that told too many prefixes, or is in the wrong autonomous system.
	penalty = time.Minute
	// flapping sessions are left to GoBGP, which waits five seconds; others are opened again at once.
	flapping = 5 * time.Second
)

// settings are what a session is made of. A change of one ends the session.
type settings struct {
	peer    config.Peer // without BFD
	restart config.GracefulRestart
	reflect bool // the peer is a client of ours
	mesh    bool // the cluster's records name it: it knows us by the node's address
}

// session is one peer of the config or of the mesh and what became of it. Its fields are guarded by Fabric.mu.
type session struct {
	name   string // as the config has it: an address or an interface
	node   string // of the mesh; "" for a peer of the config
	away   bool   // that node is not alive
	set    settings
	max    uint32     // prefixes of a family; 0: any number
	bfd    config.BFD // zero: none
	addr   netip.Addr // of the peer, with its zone; zero: nobody is known on the link
	link   string     // over which the peer is reached, "" when that is not known
	heldBy string     // why GoBGP must not have the peer now; "" if it may
	until  time.Time  // and the end of a penalty
	known  netip.Addr // GoBGP has the peer under this address; zero: it does not have it
	peer   *api.Peer  // as GoBGP has it
	bfdUp  bool       // the BFD server has the peer
	tells  uint64     // Fabric.tells a moment before the session came up
	resend time.Time  // when the peer is told all once more; zero: it was
	fault  string     // a lasting fault, shown as a problem
	via    via        // of IPv6 routes, as it is in force for the peer

	state     bgp.FSMState
	since     time.Time
	lastError string
	asn       uint32
	routerID  netip.Addr
	hold      time.Duration
	sent      uint64              // NOTIFICATIONs sent when the session came up
	waiting   map[bgp.Family]bool // families whose End-of-RIB is still to come
	counted   int                 // prefixes of the larger family when they were last counted
	doubt     time.Time           // BFD must be up again by then; zero: it is trusted
	reported  bool                // all of them came once
	stale     bool                // its paths are those of before a restart
}

// peers are those of the config, which has the last word about an address, of those who called from its ranges, and of
// the mesh.
func (f *Fabric) peers() []fabric.MeshPeer {
	all := make([]fabric.MeshPeer, 0, len(f.cfg.BGP.Peers)+len(f.mesh))
	given := make(map[string]bool, len(f.cfg.BGP.Peers))
	for _, p := range f.configured() {
		given[p.Name()] = true
		all = append(all, fabric.MeshPeer{Peer: p, Client: f.cfg.BGP.RouteReflector && p.ASN == f.asn})
	}
	for _, m := range f.mesh {
		if !given[m.Peer.Name()] {
			all = append(all, m)
		}
	}
	return all
}

// list makes f.sessions the peers there should be. What is gone or changed is taken out of GoBGP, and nothing else.
func (f *Fabric) list() {
	peers := f.peers()
	wanted := make(map[string]bool, len(peers))
	for _, m := range peers {
		b, name := &f.cfg.BGP, m.Peer.Name()
		set := settings{peer: m.Peer, restart: b.GracefulRestart, reflect: m.Client, mesh: m.Node != ""}
		set.peer.BFD = false
		wanted[name] = true
		s := f.sessions[name]
		if s == nil || s.set != set {
			s = f.renew(name, s, set)
		}
		s.node, s.away = m.Node, m.Away
		timers := config.BFD{}
		if m.Peer.BFD {
			timers = b.BFD
		}
		if s.bfd != timers {
			f.stopBFD(s)
		}
		s.bfd, s.max = timers, b.Import.MaxPrefixes
	}
	for name, s := range f.sessions {
		if !wanted[name] {
			f.forget(s)
			delete(f.sessions, name)
		}
	}
}

// renew makes a session, in the place of one with other settings if there is one.
func (f *Fabric) renew(name string, was *session, set settings) *session {
	s := &session{name: name, set: set, state: bgp.BGP_FSM_IDLE, since: f.now(), addr: set.peer.Address, link: set.peer.Interface}
	if was != nil {
		f.forget(was)
		s.lastError = was.lastError
		s.addr = was.addr // of an unnumbered peer, which may not be heard again for a while
	}
	f.sessions[name] = s
	return s
}

// check finds out whether a session may be. A session whose link is down loses its paths here and now.
func (f *Fabric) check(s *session) {
	s.heldBy = ""
	if s.until.After(f.now()) {
		s.heldBy = s.fault
		return
	}
	if !s.until.IsZero() {
		s.until, s.fault = time.Time{}, ""
	}
	if f.facts.Links == nil {
		return
	}
	if s.set.peer.Interface == "" {
		s.link = f.linkOf(s)
	}
	if s.link == "" {
		return
	}
	l, ok := f.facts.Links[s.link]
	switch {
	case !ok:
		s.heldBy = fmt.Sprintf("link %s is gone", s.link)
	case !l.Up:
		s.heldBy = fmt.Sprintf("link %s is down", s.link)
	case !l.Carrier:
		s.heldBy = fmt.Sprintf("link %s has no carrier", s.link)
	}
	if s.heldBy != "" && s.known.IsValid() {
		f.learned.block(s.known)
	}
}

// linkOf is the link whose subnet has the peer. A link that lost its addresses with its carrier still counts; one that is
// up without them does not, and the peer is then one behind a router.
func (f *Fabric) linkOf(s *session) string {
	if zone := s.addr.Zone(); zone != "" {
		return zone
	}
	if l, ok := f.facts.Connected(s.addr); ok {
		return l.Name
	}
	if l, ok := f.facts.Links[s.link]; ok && l.Up && l.Carrier {
		return ""
	}
	return s.link
}

// apply makes GoBGP have the peer, or not, as check decided.
func (f *Fabric) apply(s *session) error {
	if s.heldBy != "" || !s.addr.IsValid() || s.known.IsValid() && s.known != s.addr {
		if s.heldBy != "" && s.known.IsValid() && s.state == bgp.BGP_FSM_ESTABLISHED {
			f.ended(s, s.heldBy)
		}
		f.remove(s)
	}
	if s.heldBy != "" || !s.addr.IsValid() {
		return nil
	}
	if f.closing[s.addr] != nil {
		return nil // apply is called again when it is closed
	}
	if s.known.IsValid() {
		if !s.stale {
			f.startBFD(s)
		}
		return nil
	}
	peer := f.peerOf(s)
	if err := f.server.AddPeer(context.Background(), &api.AddPeerRequest{Peer: peer}); err != nil {
		s.fault = fmt.Sprintf("open session: %v", err)
		return fmt.Errorf("open session with %s: %w", s.name, err)
	}
	s.known, s.peer, s.fault, s.via = s.addr, peer, "", f.viaOf(s)
	f.changes.Add(1)
	f.startBFD(s)
	return nil
}

// remove takes the peer out of GoBGP; its paths go, and a live session ends with a NOTIFICATION.
func (f *Fabric) remove(s *session) {
	f.stopBFD(s)
	f.removePeer(s)
}

func (f *Fabric) removePeer(s *session) {
	if !s.known.IsValid() || f.server == nil {
		return
	}
	f.learned.block(s.known)
	addr := s.known
	f.closing[addr] = s.peer
	s.known, s.peer, s.stale, s.waiting, s.doubt = netip.Addr{}, nil, false, nil, time.Time{}
	f.setState(s, bgp.BGP_FSM_IDLE)
	f.changes.Add(1)
	f.finish(addr)
}

// forget is remove for a peer whose settings changed or that left the config.
func (f *Fabric) forget(s *session) {
	if s.state == bgp.BGP_FSM_ESTABLISHED {
		f.ended(s, "its settings changed, or it is no peer any more")
	}
	f.remove(s)
}

// reopen ends the session for good, with all its paths, and starts a new one.
func (f *Fabric) reopen(s *session) {
	f.removePeer(s)
	if err := f.apply(s); err != nil {
		f.log.Debug("reopen session", slog.String("peer", s.name), slog.Any("err", err))
	}
}

// stuck is how long a session may be half open. The hold timer ends that state at the latest (RFC 4271, 8.2.2); in GoBGP
// v4.8 a session was seen to stay in OpenConfirm for good, after both sides had connected at once on a busy machine.
const stuck = 20 * time.Second

// unstick opens sessions anew that stay half open.
func (f *Fabric) unstick() {
	for _, s := range f.sessions {
		half := s.state == bgp.BGP_FSM_OPENSENT || s.state == bgp.BGP_FSM_OPENCONFIRM
		if half && s.known.IsValid() && f.now().Sub(s.since) > stuck {
			f.log.Warn("session stays half open, and is opened anew", slog.String("peer", s.display()), slog.Duration("after", f.now().Sub(s.since)))
			f.setState(s, bgp.BGP_FSM_IDLE)
			f.reopen(s)
		}
	}
}

// punish keeps a session closed for a while.
func (f *Fabric) punish(s *session, why string) {
	s.until, s.fault, s.heldBy = f.now().Add(penalty), why, why
	f.log.Error("peer refused", slog.String("peer", s.name), slog.String("reason", why), slog.Duration("retry_in", penalty))
	f.remove(s)
}

func (f *Fabric) setState(s *session, state bgp.FSMState) {
	if s.state != state {
		s.state, s.since = state, f.now()
	}
	if state != bgp.BGP_FSM_ESTABLISHED {
		s.hold, s.routerID = 0, netip.Addr{}
	}
}

// display is the session's name in listings.
func (s *session) display() string {
	if s.set.peer.Interface != "" && s.addr.IsValid() {
		return s.addr.String()
	}
	return s.name
}

func (s *session) problem(more ...string) string {
	var all []string
	for _, p := range append([]string{s.heldBy, s.fault}, more...) {
		if p != "" && (len(all) == 0 || all[len(all)-1] != p) {
			all = append(all, p)
		}
	}
	return strings.Join(all, "; ")
}
