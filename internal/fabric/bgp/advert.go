package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"fairway/internal/kernel"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"
)

// The two ends of an unnumbered session find each other by router advertisements (RFC 4861), as FRR and the makers of
// switches do it. We could instead let anybody in who comes from a link-local address: but then a container could, too.

const (
	// eager is how often a link is advertised on while nobody is known there, calm how often afterwards.
	eager = time.Second
	calm  = 10 * time.Second
	// firstBurst is how many advertisements go out eagerly before calm; a peer that comes later sends its own, or asks.
	firstBurst = 5
)

// advert is a router that was heard on a link.
type advert struct {
	link   string
	router netip.Addr // with the link as its zone
}

// advertLink is one link that advertisements go out on.
type advertLink struct {
	fact kernel.FactLink
	sent int
	next time.Time
	err  error
}

// advertiser sends and hears router advertisements.
type advertiser struct {
	conn  *icmp.PacketConn
	v6    *ipv6.PacketConn
	queue *queue
	done  sync.WaitGroup
	stop  context.CancelFunc
	poke  chan struct{}

	mu    sync.Mutex
	links map[int]*advertLink // by index
}

func newAdvertiser(q *queue) (*advertiser, error) {
	conn, err := icmp.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		return nil, fmt.Errorf("open ICMPv6 socket: %w", err)
	}
	a := &advertiser{conn: conn, v6: conn.IPv6PacketConn(), queue: q, poke: make(chan struct{}, 1), links: map[int]*advertLink{}}
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterAdvertisement)
	filter.Accept(ipv6.ICMPTypeRouterSolicitation)
	err = errors.Join(
		a.v6.SetICMPFilter(&filter),
		a.v6.SetControlMessage(ipv6.FlagInterface|ipv6.FlagHopLimit, true),
		a.v6.SetMulticastLoopback(false),
		// Neighbour discovery trusts only packets that no router has passed on (RFC 4861, 6.1).
		a.v6.SetMulticastHopLimit(255),
		a.v6.SetHopLimit(255),
	)
	if err != nil {
		_ = conn.Close() // nothing was sent
		return nil, fmt.Errorf("set up ICMPv6 socket: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.stop = cancel
	a.done.Go(a.hear)
	a.done.Go(func() { a.talk(ctx) })
	return a, nil
}

func (a *advertiser) close() {
	a.stop()
	_ = a.conn.Close() // a socket without unsent data
	a.done.Wait()
}

// set makes the advertised links these; a new one is advertised on at once.
func (a *advertiser) set(links map[int]kernel.FactLink) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.links {
		if _, ok := links[i]; !ok {
			_ = a.v6.LeaveGroup(&net.Interface{Index: i}, allRouters()) // the link may be gone, and the group with it
			delete(a.links, i)
		}
	}
	for i, fact := range links {
		if l := a.links[i]; l != nil {
			l.fact = fact
			continue
		}
		l := &advertLink{fact: fact}
		// Without forwarding on the link the kernel is not in the group of routers, and solicitations are not heard.
		if err := a.v6.JoinGroup(&net.Interface{Index: i}, allRouters()); err != nil {
			l.err = fmt.Errorf("join all routers on %s: %w", fact.Name, err)
		}
		a.links[i] = l
	}
	a.wakeUp()
}

// again advertises on a link at once.
func (a *advertiser) again(index int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l := a.links[index]; l != nil {
		l.next = time.Time{}
		a.wakeUp()
	}
}

func (a *advertiser) wakeUp() {
	select {
	case a.poke <- struct{}{}:
	default:
	}
}

// problem says why advertisements do not go out on a link.
func (a *advertiser) problem(link string) string {
	if a == nil {
		return ""
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.links {
		if l.fact.Name == link && l.err != nil {
			return l.err.Error()
		}
	}
	return ""
}

// talk sends what is due.
func (a *advertiser) talk(ctx context.Context) {
	timer := time.NewTimer(calm)
	defer timer.Stop()
	for {
		timer.Reset(a.sendDue(time.Now()))
		select {
		case <-ctx.Done():
			return
		case <-a.poke:
		case <-timer.C:
		}
	}
}

// sendDue sends on every link that is due, and returns how long it is until the next one.
func (a *advertiser) sendDue(now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	wait := calm
	for i, l := range a.links {
		if !l.next.After(now) {
			l.err = a.send(i, l)
			l.sent++
			l.next = now.Add(calm)
			if l.sent < firstBurst || l.err != nil {
				l.next = now.Add(eager)
			}
		}
		wait = min(wait, l.next.Sub(now))
	}
	return wait
}

func (a *advertiser) send(index int, l *advertLink) error {
	messages := []struct {
		kind ipv6.ICMPType
		body []byte
		to   net.IP
	}{
		// Hop limit, flags and timers unspecified, and a router lifetime of 0: nobody takes us for a default router. The
		// option is our link-layer address.
		{ipv6.ICMPTypeRouterAdvertisement, append(make([]byte, 12), linkLayerOption(l.fact.MAC)...), net.IPv6linklocalallnodes},
		{ipv6.ICMPTypeRouterSolicitation, make([]byte, 4), net.IPv6linklocalallrouters},
	}
	for _, m := range messages {
		if m.kind == ipv6.ICMPTypeRouterSolicitation && l.sent >= firstBurst {
			continue
		}
		// The kernel puts in the checksum.
		b, err := (&icmp.Message{Type: m.kind, Body: &icmp.RawBody{Data: m.body}}).Marshal(nil)
		if err != nil {
			return fmt.Errorf("make %v: %w", m.kind, err)
		}
		to := &net.IPAddr{IP: m.to, Zone: l.fact.Name}
		if _, err := a.v6.WriteTo(b, &ipv6.ControlMessage{HopLimit: 255, IfIndex: index}, to); err != nil {
			return fmt.Errorf("send %v on %s: %w", m.kind, l.fact.Name, err)
		}
	}
	return nil
}

func allRouters() net.Addr { return &net.IPAddr{IP: net.IPv6linklocalallrouters} }

// linkLayerOption is the source link-layer address option (RFC 4861, 4.6.1), of 8 bytes.
func linkLayerOption(mac kernel.MAC) []byte {
	return append([]byte{1, 1}, mac[:]...)
}

// hear reads advertisements and solicitations until the socket is closed.
func (a *advertiser) hear() {
	b := make([]byte, 1500)
	for {
		n, cm, from, err := a.v6.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 1 || cm == nil || cm.HopLimit != 255 {
			continue
		}
		a.mu.Lock()
		l := a.links[cm.IfIndex]
		var fact kernel.FactLink
		if l != nil {
			fact = l.fact
		}
		a.mu.Unlock()
		router, ok := routerOf(from, fact)
		if l == nil || !ok {
			continue
		}
		if ipv6.ICMPType(b[0]) == ipv6.ICMPTypeRouterSolicitation {
			a.again(cm.IfIndex)
			continue
		}
		a.queue.put(event{advert: &advert{fact.Name, router}})
	}
}

// routerOf is the sender, unless that is this node or no address of the link.
func routerOf(from net.Addr, fact kernel.FactLink) (netip.Addr, bool) {
	ip, ok := from.(*net.IPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	router, ok := netip.AddrFromSlice(ip.IP)
	if !ok || !router.IsLinkLocalUnicast() {
		return netip.Addr{}, false
	}
	for _, p := range fact.Addrs {
		if p.Addr() == router {
			return netip.Addr{}, false
		}
	}
	return router.WithZone(fact.Name), true
}

// advertise advertises on the links of unnumbered sessions that may be. f.mu is held.
func (f *Fabric) advertise() {
	if f.adverts == nil {
		return
	}
	links := map[int]kernel.FactLink{}
	for _, s := range f.sessions {
		if l, ok := f.facts.Links[s.set.peer.Interface]; ok && l.Up && l.Carrier {
			links[l.Index] = l
		}
	}
	f.adverts.set(links)
}

// onAdvert takes up a router that was heard on a link. The first one is the peer; another takes its place once the session
// with the first is not up.
func (f *Fabric) onAdvert(a *advert) {
	for _, s := range f.sessions {
		if s.set.peer.Interface != a.link || s.addr == a.router {
			continue
		}
		if s.addr.IsValid() && (s.state > bgp.BGP_FSM_ACTIVE || s.stale) {
			continue
		}
		f.log.Info("router heard", slog.String("link", a.link), slog.String("router", a.router.String()))
		s.addr = a.router
		if l, ok := f.facts.Links[a.link]; ok && f.adverts != nil {
			f.adverts.again(l.Index) // it may not have heard of us yet
		}
		if err := f.apply(s); err != nil {
			f.log.Debug("open session", slog.String("peer", s.name), slog.Any("err", err))
		}
	}
}
