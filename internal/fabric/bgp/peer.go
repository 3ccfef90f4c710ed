package bgp

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"fairway/internal/config"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

const (
	connectRetry = 5 // seconds
	meshRetry    = 2 // seconds; only one side of a mesh session connects
	idleHold     = 2 // seconds, after a reset
	// maxDeferral bounds how long a restarting speaker waits for its peers (RFC 4724, Selection_Deferral_Timer).
	maxDeferral = 30 * time.Second
)

// families are what every session carries.
func families() []bgp.Family { return []bgp.Family{bgp.RF_IPv4_UC, bgp.RF_IPv6_UC} }

func apiFamily(f bgp.Family) *api.Family {
	return &api.Family{Afi: api.Family_Afi(f.Afi()), Safi: api.Family_Safi(f.Safi())}
}

// peerOf is the session in GoBGP's terms. A field that is not set has a default there which does not suit us: 90 s of hold
// time, 120 s between attempts to connect, 30 s of silence after a reset.
func (f *Fabric) peerOf(s *session) *api.Peer {
	c := s.set.peer
	hold := uint64(c.HoldTime / time.Second)
	if hold == 0 {
		// GoBGP reads 0 as its default. The longest hold time lets the peer's smaller one, or its 0, decide.
		hold = math.MaxUint16
	}
	retry := uint64(connectRetry)
	if s.set.mesh {
		retry = meshRetry
	}
	p := &api.Peer{
		Conf: &api.PeerConf{NeighborAddress: s.addr.String(), PeerAsn: c.ASN, AuthPassword: string(c.Password)},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime: hold, KeepaliveInterval: max(hold/3, 1), ConnectRetry: retry, IdleHoldTimeAfterReset: idleHold,
		}},
		Transport:      &api.Transport{PassiveMode: c.Passive, RemotePort: uint32(c.Port), LocalAddress: f.source(s)},
		RouteReflector: &api.RouteReflector{RouteReflectorClient: s.set.reflect, RouteReflectorClusterId: f.routerID.String()},
		AfiSafis:       f.familiesOf(s),
	}
	switch {
	case c.TTLSecurity:
		p.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 255}
	case c.Multihop > 0:
		p.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(c.Multihop)}
	}
	if gr := s.set.restart; gr.Enabled {
		p.GracefulRestart = &api.GracefulRestart{
			Enabled: true, RestartTime: uint32(gr.RestartTime / time.Second), DeferralTime: f.deferral(),
			LocalRestarting: f.restarting && !f.converged,
		}
	}
	return p
}

func (f *Fabric) familiesOf(s *session) []*api.AfiSafi {
	var all []*api.AfiSafi
	for _, family := range families() {
		a := &api.AfiSafi{
			Config: &api.AfiSafiConfig{Family: apiFamily(family), Enabled: true},
			// Hearing several paths from one peer costs nothing; telling several is left to bigger reflectors.
			AddPaths: &api.AddPaths{Config: &api.AddPathsConfig{Receive: f.multipath}},
		}
		if s.set.restart.Enabled {
			// Without this per family, GoBGP is a helper only.
			a.MpGracefulRestart = &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: true}}
		}
		all = append(all, a)
	}
	return all
}

// deferral is how many seconds a restarting speaker holds back its routes for those of slower peers. It matters to who
// passes routes on. Who tells only its own has them all before the first session, and what starts meanwhile should be
// reachable, even if a peer of the config is dead.
func (f *Fabric) deferral() uint32 {
	if !f.passesOn() {
		return 1
	}
	return uint32(max(f.patience()/time.Second, 1))
}

// passesOn says whether this node tells peers what it heard from others: as a reflector, or between autonomous systems.
func (f *Fabric) passesOn() bool {
	peers := f.peers()
	if slices.ContainsFunc(f.cfg.BGP.Peers, func(p config.Peer) bool { return p.Range.IsValid() && p.ASN != f.asn }) {
		return true
	}
	for _, p := range peers {
		if p.Client || p.Peer.ASN != f.asn && len(peers) > 1 {
			return true
		}
	}
	return false
}

// patience is how long convergence is waited for.
func (f *Fabric) patience() time.Duration {
	return min(f.cfg.BGP.GracefulRestart.RestartTime, maxDeferral)
}

// source is the address that a session with a peer behind a router, or of the mesh, comes from, so that it is the one that
// the peer's config, or our record, has; "" lets the kernel choose, which is right on a link.
func (f *Fabric) source(s *session) string {
	if !s.set.mesh && (s.link != "" || f.facts.Links == nil) {
		return ""
	}
	own := f.node
	if s.addr.Is6() {
		own = f.node6
	}
	if !own.IsValid() || !s.set.mesh && !f.hasAddr(own) {
		return ""
	}
	return own.String()
}

func (f *Fabric) hasAddr(a netip.Addr) bool {
	for _, l := range f.facts.Links {
		if slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return true
		}
	}
	return false
}
