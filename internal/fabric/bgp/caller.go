package bgp

import (
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"fairway/internal/config"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// A range of the config stands for every router in it that connects to us. GoBGP could make peers of callers itself (dynamic
// neighbours), but those end with their session and know nothing of what this package adds to sessions. So the first
// connection of a stranger is refused, and the stranger becomes a peer like those of the config, which we connect to. A
// closed connection without a NOTIFICATION is no reason for it to drop what it kept of us over a restart (RFC 4724).

const (
	// absence is how long a caller is remembered without a session.
	absence = 10 * time.Minute
	// mostCallers bounds what strangers can make us remember.
	mostCallers = 2000
)

// configured are the peers of the config and the callers.
func (f *Fabric) configured() []config.Peer {
	var all []config.Peer
	named := map[netip.Addr]bool{}
	for _, p := range f.cfg.BGP.Peers {
		if !p.Range.IsValid() {
			all = append(all, p)
			named[p.Address] = true
		}
	}
	for _, addr := range slices.SortedFunc(maps.Keys(f.callers), netip.Addr.Compare) {
		p, ok := f.rangeOf(addr)
		if !ok || named[addr] {
			delete(f.callers, addr)
			continue
		}
		p.Address, p.Range = addr, netip.Prefix{}
		all = append(all, p)
	}
	return all
}

// rangeOf is the smallest range of the config that has an address.
func (f *Fabric) rangeOf(a netip.Addr) (best config.Peer, ok bool) {
	for _, p := range f.cfg.BGP.Peers {
		if p.Range.Contains(a) && (!ok || p.Range.Bits() > best.Range.Bits()) {
			best, ok = p, true
		}
	}
	return best, ok
}

// ranges says whether the config has any.
func (f *Fabric) ranges() bool {
	return slices.ContainsFunc(f.cfg.BGP.Peers, func(p config.Peer) bool { return p.Range.IsValid() })
}

// onCaller takes up a connection of somebody who is no peer. f.mu is held.
func (f *Fabric) onCaller(a netip.Addr) {
	a = a.Unmap()
	if _, known := f.callers[a]; known || f.hasAddr(a) {
		return
	}
	if _, ok := f.rangeOf(a); !ok {
		return
	}
	if len(f.callers) >= mostCallers {
		f.log.Warn("too many peers have called", slog.String("peer", a.String()), slog.Int("most", mostCallers))
		return
	}
	f.log.Info("a peer has called", slog.String("peer", a.String()))
	f.callers[a] = f.now()
	if err := f.sync(); err != nil {
		f.log.Debug("sync peers", slog.Any("err", err))
	}
}

// forgetCallers forgets those who are long gone; the next sync closes what there is of their sessions. f.mu is held.
func (f *Fabric) forgetCallers() {
	now := f.now()
	for addr, seen := range f.callers {
		s := f.sessions[addr.String()]
		switch {
		case s != nil && (s.state == bgp.BGP_FSM_ESTABLISHED || s.stale):
			f.callers[addr] = now
		case now.Sub(seen) > absence:
			f.log.Info("a peer that had called is forgotten", slog.String("peer", addr.String()), slog.Duration("absent", absence))
			delete(f.callers, addr)
		}
	}
}
