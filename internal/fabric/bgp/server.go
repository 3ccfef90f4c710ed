package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
)

const (
	// batch is how many paths are handed to GoBGP at once; it holds its lock for all of them.
	batch = 1000
	// farewell is how long closing the sessions may take.
	farewell = time.Second
)

// start opens GoBGP with our routes in it and then the sessions, and watches it until the context ends.
func (f *Fabric) start(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := server.NewBgpServer(server.LoggerOption(f.quietLogger(), nil))
	go s.Serve()
	if err := f.open(ctx, s); err != nil {
		// The port may be another daemon's; whoever calls Run again finds nothing left of this attempt.
		s.Stop()
		return err
	}
	f.server = s
	f.told, f.policy = map[netip.Prefix]bool{}, policy{}
	f.bfd = newBFD(quietLogger(f.log), f.queue)
	f.deadline = f.now().Add(f.patience())
	if err := f.tell(); err != nil {
		f.log.Error("announce prefixes", slog.Any("err", err))
	}
	// FRR that hears an advertisement connects at once, and if nobody listens then, not again for two minutes.
	adverts, err := newAdvertiser(f.queue)
	if err != nil {
		f.trouble = fmt.Sprintf("cannot send router advertisements: %v", err)
	} else {
		f.adverts, f.trouble = adverts, ""
	}
	if err := f.sync(); err != nil {
		f.log.Warn("open sessions", slog.Any("err", err))
	}
	return nil
}

func (f *Fabric) open(ctx context.Context, s *server.BgpServer) error {
	global := &api.Global{
		Asn: f.asn, RouterId: f.routerID.String(), ListenPort: -1, UseMultiplePaths: f.multipath,
	}
	if l := f.cfg.BGP.Listen; l.IsValid() {
		global.ListenPort = int32(l.Port())
		global.ListenAddresses = listenAddrs(l.Addr())
	}
	if err := s.StartBgp(ctx, &api.StartBgpRequest{Global: global}); err != nil {
		return fmt.Errorf("start BGP as AS %d on %v: %w: if another daemon has the port, stop it or change bgp.listen", global.Asn, f.cfg.BGP.Listen, err)
	}
	err := s.WatchEvent(ctx, server.WatchEventMessageCallbacks{
		OnBestPath: func(paths []*apiutil.Path, _ time.Time) {
			f.changes.Add(1) // a refused or a second-best path comes as no path
			if len(paths) > 0 {
				f.queue.put(event{paths: paths})
			}
		},
		OnPathEor: func(p *apiutil.Path, _ time.Time) {
			f.queue.put(event{eor: &endOfRIB{p.PeerAddress.Unmap(), p.Family}})
		},
		OnPeerUpdate: func(e *apiutil.WatchEventMessage_PeerEvent, _ time.Time) {
			if e.Type == apiutil.PEER_EVENT_STATE {
				f.queue.put(event{peer: &e.Peer})
			}
		},
	}, server.WatchBestPath(true), server.WatchEor(true), server.WatchPeer())
	if err != nil {
		return fmt.Errorf("watch BGP: %w", err)
	}
	return f.assignPolicy(ctx, s)
}

// listenAddrs spells out every address of both families; a kernel without IPv6 has one family.
func listenAddrs(a netip.Addr) []string {
	if !a.IsUnspecified() {
		return []string{a.String()}
	}
	all := []string{"0.0.0.0"}
	if probe, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp6", "[::]:0"); err == nil {
		_ = probe.Close() // nothing was written to it
		all = append(all, "::")
	}
	return all
}

// stop closes the sessions the graceful way and forgets GoBGP. The rib keeps what was heard.
func (f *Fabric) stop() {
	f.mu.Lock()
	s := f.server
	if f.adverts != nil {
		f.adverts.close()
		f.adverts = nil
	}
	f.bfd.close()
	f.server, f.told, f.closing = nil, map[netip.Prefix]bool{}, map[netip.Addr]*api.Peer{}
	for _, sess := range f.sessions {
		sess.known, sess.peer, sess.bfdUp = netip.Addr{}, nil, false
		f.setState(sess, bgp.BGP_FSM_IDLE)
	}
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.StopBgp(ctx, &api.StopBgpRequest{AllowGracefulRestart: true}) }()
	select {
	case err := <-done:
		if err != nil {
			f.log.Warn("stop BGP", slog.Any("err", err))
		}
	case <-ctx.Done(): // the process ends, and the kernel closes what is left
		f.log.Warn("stop BGP", slog.Any("err", ctx.Err()))
	}
}

// untold is where GoBGP's own routes differ from f.want.
func (f *Fabric) untold() (gone, added, parting []netip.Prefix) {
	for p := range f.told {
		if _, ok := f.want[p]; !ok {
			gone = append(gone, p)
		}
	}
	for p, a := range f.want {
		parts, ok := f.told[p]
		switch {
		case ok && parts == a.GracefulShutdown:
		case a.GracefulShutdown:
			parting = append(parting, p)
		default:
			added = append(added, p)
		}
	}
	return gone, added, parting
}

// tell makes GoBGP's own routes agree with f.want. f.mu is held.
func (f *Fabric) tell() error {
	if f.server == nil {
		return nil
	}
	gone, added, parting := f.untold()
	if len(gone)+len(added)+len(parting) == 0 {
		return nil
	}
	f.changes.Add(1)
	f.tells++
	o, err := newOrigin(f.asn, f.routerID)
	if err != nil {
		return err
	}
	announce := func(parts bool) func([]*apiutil.Path, []netip.Prefix) error {
		return func(paths []*apiutil.Path, prefixes []netip.Prefix) error {
			if _, err := f.server.AddPath(apiutil.AddPathRequest{Paths: paths}); err != nil {
				return fmt.Errorf("announce %d prefixes from %v: %w", len(paths), prefixes[0], err)
			}
			for _, p := range prefixes {
				f.told[p] = parts
				delete(f.gone, p)
			}
			return nil
		}
	}
	return errors.Join(
		f.inBatches(o, gone, func(paths []*apiutil.Path, prefixes []netip.Prefix) error {
			if err := f.withdraw(paths, prefixes); err != nil {
				return err
			}
			for _, p := range prefixes {
				delete(f.told, p)
				f.gone[p] = f.tells
			}
			return nil
		}),
		f.inBatches(o, added, announce(false)),
		f.inBatches(o.parting(), parting, announce(true)),
	)
}

func (f *Fabric) withdraw(paths []*apiutil.Path, prefixes []netip.Prefix) error {
	// By path, never by UUID: that scans the table once for each.
	if err := f.server.DeletePath(apiutil.DeletePathRequest{Paths: paths}); err != nil {
		return fmt.Errorf("withdraw %d prefixes from %v: %w", len(paths), prefixes[0], err)
	}
	return nil
}

// withdrawAgain withdraws prefixes that were withdrawn, for a peer that may have missed it. GoBGP withdraws only what it has,
// so they are there again for a moment, for everybody, as the last way to take.
func (f *Fabric) withdrawAgain(prefixes []netip.Prefix) error {
	if len(prefixes) == 0 {
		return nil
	}
	o, err := newOrigin(f.asn, f.routerID)
	if err != nil {
		return err
	}
	return f.inBatches(o.parting(), prefixes, func(paths []*apiutil.Path, prefixes []netip.Prefix) error {
		if _, err := f.server.AddPath(apiutil.AddPathRequest{Paths: paths}); err != nil {
			return fmt.Errorf("announce %d prefixes from %v: %w", len(paths), prefixes[0], err)
		}
		return f.withdraw(paths, prefixes)
	})
}

func (f *Fabric) inBatches(o origin, prefixes []netip.Prefix, do func([]*apiutil.Path, []netip.Prefix) error) error {
	var errs []error
	for chunk := range slices.Chunk(prefixes, batch) {
		paths := make([]*apiutil.Path, 0, len(chunk))
		made := chunk[:0:0]
		for _, p := range chunk {
			path, err := o.path(p)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			paths, made = append(paths, path), append(made, p)
		}
		if len(paths) > 0 {
			errs = append(errs, do(paths, made))
		}
	}
	return errors.Join(errs...)
}
