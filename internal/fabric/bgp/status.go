package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"fairway/internal/config"
	"fairway/internal/fabric"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// counted are a peer's numbers. They are GoBGP's, counted anew only when something was heard or told since, or a while ago:
// counting walks through all routes, and routes that come back to us (an AS loop) are not reported.
type counted struct {
	changes                 uint64 // Fabric.changes when they were counted
	when                    time.Time
	received, refused, sent int
	contested               []netip.Prefix // prefixes of ours that the peer's node holds, too
}

// Status asks GoBGP; with 65,536 routes that changed since the last call it takes some tenths of a second.
func (f *Fabric) Status() fabric.Status {
	f.mu.Lock()
	st := fabric.Status{Name: string(config.FabricBGP), Converged: f.converged, Announced: maps.Clone(f.want)}
	known := make(map[int]netip.Addr, len(f.sessions))
	for _, name := range slices.Sorted(maps.Keys(f.sessions)) {
		s := f.sessions[name]
		p := fabric.Peer{
			Name: s.display(), Node: s.node, Away: s.away, Address: s.addr, Link: s.link, ASN: s.asn, RouterID: s.routerID,
			State: stateName(s.state), Since: s.since, HoldTime: s.hold, LastError: s.lastError, Problem: s.problem(f.troubleOf(s)),
		}
		if p.ASN == 0 {
			p.ASN = s.set.peer.ASN
		}
		if s.bfdUp {
			p.BFD = f.bfd.state(s.known)
		} else if s.bfd.Interval > 0 {
			p.BFD = "down"
		}
		known[len(st.Peers)] = s.known
		st.Peers = append(st.Peers, p)
	}
	srv, filter, told := f.server, f.policy, maps.Clone(f.told)
	f.mu.Unlock()
	if srv == nil {
		return st
	}
	for i := range st.Peers {
		if known[i].IsValid() {
			f.count(srv, filter, told, known[i], &st.Peers[i])
		}
	}
	return st
}

func (f *Fabric) troubleOf(s *session) string {
	switch {
	case s.set.peer.Interface == "":
		return ""
	case f.trouble != "":
		return f.trouble
	}
	return f.adverts.problem(s.link)
}

// stateName is how RFC 4271 calls the state, in lower case.
func stateName(s bgp.FSMState) string {
	name := s.String() // BGP_FSM_ESTABLISHED
	return strings.ToLower(strings.TrimPrefix(name, "BGP_FSM_"))
}

// count fills in the numbers of a peer.
func (f *Fabric) count(srv *server.BgpServer, filter policy, told map[netip.Prefix]bool, peer netip.Addr, p *fabric.Peer) {
	f.countMu.Lock()
	defer f.countMu.Unlock()
	changes, now := f.changes.Load(), f.now()
	key := peer.String()
	c, ok := f.counts[key]
	if !ok || c.changes != changes || now.Sub(c.when) >= recount*time.Second {
		c = f.countAnew(srv, filter, told, peer)
		c.changes, c.when = changes, now
		f.counts[key] = c
	}
	p.Received, p.Refused, p.Sent = c.received, c.refused, c.sent
	if len(c.contested) > 0 {
		text := fmt.Sprintf("announces %v, which this node holds, too: take it away from one of them", c.contested[0])
		if n := len(c.contested); n > 1 {
			text = fmt.Sprintf("announces %v and %d more prefixes that this node holds, too: take them away from one of them", c.contested[0], n-1)
		}
		p.Problem = strings.TrimPrefix(p.Problem+"; "+text, "; ")
	}
}

// ask asks GoBGP for one peer; nil when it has no such peer.
func (f *Fabric) ask(srv *server.BgpServer, r *api.ListPeerRequest) *api.Peer {
	var have *api.Peer
	if err := srv.ListPeer(context.Background(), r, func(p *api.Peer) { have = p }); err != nil {
		f.log.Debug("ask for peer", slog.String("peer", r.Address), slog.Any("err", err))
	}
	return have
}

func (f *Fabric) countAnew(srv *server.BgpServer, filter policy, told map[netip.Prefix]bool, peer netip.Addr) counted {
	var c counted
	for _, a := range f.ask(srv, &api.ListPeerRequest{Address: peer.String(), EnableAdvertised: true}).GetAfiSafis() {
		c.sent += int(a.GetState().GetAdvertised())
	}
	for _, family := range families() {
		r := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_ADJ_IN, Name: peer.String(), Family: family}
		err := srv.ListPath(r, func(n bgp.NLRI, paths []*apiutil.Path) {
			nlri, ok := n.(*bgp.IPAddrPrefix)
			if !ok {
				return
			}
			for _, path := range paths {
				f.judge(&c, filter, told, nlri.Prefix.Masked(), path)
			}
		})
		if err != nil { // the peer left meanwhile
			f.log.Debug("count routes", slog.String("peer", peer.String()), slog.Any("err", err))
		}
	}
	slices.SortFunc(c.contested, netip.Prefix.Compare)
	return c
}

// judge counts one path that a peer told as received or refused.
func (f *Fabric) judge(c *counted, filter policy, told map[netip.Prefix]bool, prefix netip.Prefix, path *apiutil.Path) {
	var attrs attrCache
	_, parsed, ok := attrs.parse(path, "any")
	echo := slices.Contains(parsed.ASPath, f.asn) || originator(path) == f.routerID
	_, ours := told[prefix]
	switch {
	case ours:
		c.refused++
		if !echo && parsed.Node != f.routerID && !slices.Contains(filter.aggregates, prefix) {
			c.contested = append(c.contested, prefix)
		}
	case echo, !ok, !filter.allows(prefix), slices.Contains(f.learned.own, parsed.NextHop):
		c.refused++
	default:
		c.received++
	}
}

// originator is the router that brought a reflected path into the AS (RFC 4456).
func originator(path *apiutil.Path) netip.Addr {
	for _, a := range path.Attrs {
		if o, ok := a.(*bgp.PathAttributeOriginatorId); ok {
			return o.Value
		}
	}
	return netip.Addr{}
}
