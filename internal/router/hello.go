package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
)

// Routers find each other by a small message to a multicast group, sent on every link with a TTL of 1. The group is of
// the organization-local scope (RFC 2365, 6.2).
const (
	helloGroup    = "239.255.70.200"
	helloPort     = 5711
	helloInterval = 2 * time.Second
	// helloSilence is when a router that is not heard of any more is forgotten. Its sessions end before that.
	helloSilence = 30 * time.Second
	maxHello     = 512
)

// hello is what a router says of itself.
type hello struct {
	Version  int        `json:"fairway_router"`
	RouterID netip.Addr `json:"id"`
	ASN      uint32     `json:"asn"`
	Instance string     `json:"instance,omitempty"`
}

// heardRouter is another router, by its address on a shared network.
type heardRouter struct {
	hello
	Addr netip.Addr
	At   time.Time
}

// neighbours says who this router is, and hears who others are.
type neighbours struct {
	log  *slog.Logger
	say  hello
	ask  []netip.Addr // routers that multicast does not reach
	told func()       // called when a router appeared or went

	mu    sync.Mutex
	heard map[netip.Addr]heardRouter
}

func newNeighbours(log *slog.Logger, say hello, ask []netip.Addr, told func()) *neighbours {
	return &neighbours{log: log, say: say, ask: ask, told: told, heard: map[netip.Addr]heardRouter{}}
}

// list are the routers that were heard of lately.
func (n *neighbours) list() []heardRouter {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]heardRouter, 0, len(n.heard))
	for _, h := range n.heard {
		out = append(out, h)
	}
	return out
}

// run works until the context ends, on the links that come and go.
func (n *neighbours) run(ctx context.Context) error {
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(ctx, "udp4", fmt.Sprintf(":%d", helloPort))
	if err != nil {
		return fmt.Errorf("listen for other routers: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	p := ipv4.NewPacketConn(conn)
	if err := errors.Join(p.SetMulticastTTL(1), p.SetMulticastLoopback(false), p.SetControlMessage(ipv4.FlagInterface|ipv4.FlagTTL, true)); err != nil {
		return fmt.Errorf("set up multicast: %w", err)
	}
	text, err := json.Marshal(n.say)
	if err != nil {
		return fmt.Errorf("encode what this router says: %w", err)
	}
	go n.send(ctx, p, text)
	buf := make([]byte, maxHello)
	for {
		size, cm, src, err := p.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("hear other routers: %w", err)
		}
		from, ok := src.(*net.UDPAddr)
		if !ok || cm == nil || !n.take(buf[:size], from.AddrPort().Addr().Unmap()) {
			continue
		}
		// One that was told of us by hand does not hear us otherwise.
		if _, err := p.WriteTo(text, nil, from); err != nil && ctx.Err() == nil {
			n.log.Debug("answer another router", slog.String("address", from.String()), slog.Any("err", err))
		}
	}
}

// take reads a message, and says whether it is a router's that was not known. What is no message is passed over.
func (n *neighbours) take(b []byte, from netip.Addr) (fresh bool) {
	var h hello
	if json.Unmarshal(b, &h) != nil || h.Version != 1 || h.Instance != n.say.Instance || h.RouterID == n.say.RouterID || h.ASN == 0 || !from.IsGlobalUnicast() {
		return false
	}
	n.mu.Lock()
	was, known := n.heard[from]
	n.heard[from] = heardRouter{h, from, time.Now()}
	n.mu.Unlock()
	if !known || was.hello != h {
		n.log.Info("another router", slog.String("address", from.String()), slog.String("router_id", h.RouterID.String()), slog.Uint64("asn", uint64(h.ASN)))
		n.told()
	}
	return !known
}

// send says hello on every link, and forgets who was silent.
func (n *neighbours) send(ctx context.Context, p *ipv4.PacketConn, text []byte) {
	group := &net.UDPAddr{IP: net.ParseIP(helloGroup), Port: helloPort}
	tick := time.NewTicker(helloInterval)
	defer tick.Stop()
	for {
		links, err := net.Interfaces()
		if err != nil {
			n.log.Warn("list links", slog.Any("err", err))
		}
		for _, l := range links {
			if l.Flags&net.FlagUp == 0 || l.Flags&(net.FlagLoopback|net.FlagPointToPoint) != 0 || l.Name == hostLinkName {
				continue
			}
			// A link that was joined already says so; one that came back is joined again.
			_ = p.JoinGroup(&l, group)
			cm := &ipv4.ControlMessage{IfIndex: l.Index}
			if _, err := p.WriteTo(text, cm, group); err != nil && ctx.Err() == nil {
				n.log.Debug("say hello", slog.String("link", l.Name), slog.Any("err", err))
			}
		}
		for _, a := range n.ask {
			if _, err := p.WriteTo(text, nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, helloPort))); err != nil && ctx.Err() == nil {
				n.log.Debug("say hello", slog.String("peer", a.String()), slog.Any("err", err))
			}
		}
		if n.expire(time.Now()) {
			n.told()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (n *neighbours) expire(now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	gone := false
	for a, h := range n.heard {
		if now.Sub(h.At) > helloSilence {
			delete(n.heard, a)
			gone = true
		}
	}
	return gone
}
