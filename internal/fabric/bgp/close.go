package bgp

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/osrg/gobgp/v4/api"
)

// A live session is closed before its peer is deleted: while GoBGP deletes a peer, an UPDATE that is just being read is still
// taken, after the peer's other routes are gone, and then stays in GoBGP's table for ever. It would be told to others, and
// since it is there already, we would not be told of it when the peer comes back.

// finish goes on with taking a peer out of GoBGP. f.mu is held.
func (f *Fabric) finish(addr netip.Addr) {
	peer := f.closing[addr]
	have := f.ask(f.server, &api.ListPeerRequest{Address: addr.String()})
	ctx := context.Background()
	if have.GetState().GetSessionState() > api.PeerState_SESSION_STATE_IDLE {
		if have.GetState().GetAdminState() != api.PeerState_ADMIN_STATE_UP {
			return
		}
		if err := f.server.DisablePeer(ctx, &api.DisablePeerRequest{Address: addr.String()}); err != nil {
			f.log.Warn("close session", slog.String("peer", addr.String()), slog.Any("err", err))
		}
		return // an event says when it is idle
	}
	delete(f.closing, addr)
	if have == nil {
		return
	}
	if peer.GetConf().GetAuthPassword() != "" {
		// GoBGP clears the key of the listening socket only when it changes a peer.
		peer.Conf.AuthPassword = ""
		if _, err := f.server.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: peer}); err != nil {
			f.log.Warn("clear password", slog.String("peer", addr.String()), slog.Any("err", err))
		}
	}
	if err := f.server.DeletePeer(ctx, &api.DeletePeerRequest{Address: addr.String()}); err != nil {
		f.log.Warn("close session", slog.String("peer", addr.String()), slog.Any("err", err))
	}
	f.changes.Add(1)
}

// onClosing takes up news of a peer that is being taken out.
func (f *Fabric) onClosing(addr netip.Addr) {
	f.finish(addr)
	if f.closing[addr] != nil {
		return
	}
	for _, s := range f.sessions {
		if s.addr != addr {
			continue
		}
		if err := f.apply(s); err != nil {
			f.log.Debug("open session", slog.String("peer", s.name), slog.Any("err", err))
		}
	}
}
