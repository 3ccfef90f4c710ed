package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

// SocketName is the name of the API's socket in the run directory.
const SocketName = "fairway.sock"

// bindSuffix names the socket while it is not ready to be found; with it the name is 16 bytes, which the config leaves
// room for in the longest run directory.
const bindSuffix = ".new"

// Stopping the agent is bounded by 2 s; open requests get this much of it.
const shutdownTime = 500 * time.Millisecond

// ServerConfig is what a Server needs.
type ServerConfig struct {
	Backend Backend
	Metrics *Metrics
	Socket  string         // path of the unix socket; its directory is made when missing
	Listen  netip.AddrPort // TCP, for metrics and health only; zero: none
	Log     *slog.Logger
}

// Server serves the API on the unix socket, and metrics and health on TCP.
type Server struct {
	cfg  ServerConfig
	unix net.Listener
	tcp  net.Listener
	mine os.FileInfo // the socket file that we made
}

// NewServer returns a server that does nothing yet.
func NewServer(cfg ServerConfig) *Server { return &Server{cfg: cfg} }

// Open binds both listeners. From then on requests wait until Run answers them. A socket that a dead agent left behind
// is replaced; the new one is only seen once it can be connected to.
func (s *Server) Open(ctx context.Context) error {
	if err := s.openUnix(ctx); err != nil {
		return err
	}
	if !s.cfg.Listen.IsValid() {
		return nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.cfg.Listen.String())
	if err != nil {
		s.close()
		return fmt.Errorf(`listen for metrics (metrics.listen; "" turns it off): %w`, err)
	}
	s.tcp = l
	return nil
}

func (s *Server) openUnix(ctx context.Context) error {
	path, temp := s.cfg.Socket, s.cfg.Socket+bindSuffix
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make directory of the API socket: %w", err)
	}
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old API socket: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", temp)
	if err != nil {
		return fmt.Errorf("listen on API socket %s: %w", temp, err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // it would remove the temporary name, or the socket of the agent that replaced us
	}
	s.unix = l
	// The mode is set before the name is known, so that nobody finds the socket with another one.
	if err := publish(temp, path); err != nil {
		s.unix = nil
		return errors.Join(err, l.Close(), os.Remove(temp))
	}
	if s.mine, err = os.Lstat(path); err != nil {
		s.close()
		return fmt.Errorf("look at API socket: %w", err)
	}
	return nil
}

func publish(temp, path string) error {
	if err := os.Chmod(temp, 0o660); err != nil {
		return fmt.Errorf("set mode of API socket: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("name API socket: %w", err)
	}
	return nil
}

// Run serves until the context ends, then lets open requests finish for half a second and removes the socket. It opens
// the listeners when Open was not called.
func (s *Server) Run(ctx context.Context) error {
	if s.unix == nil {
		if err := s.Open(ctx); err != nil {
			return err
		}
	}
	defer s.close()
	group, ctx := errgroup.WithContext(ctx)
	s.serve(ctx, group, s.unix, s.handler())
	if s.tcp != nil {
		s.serve(ctx, group, s.tcp, s.readOnly())
	}
	return group.Wait()
}

func (s *Server) serve(ctx context.Context, group *errgroup.Group, l net.Listener, h http.Handler) {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    1 << 16,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelWarn),
	}
	group.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve API on %s: %w", l.Addr(), err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
		defer cancel()
		if err := srv.Shutdown(end); err != nil {
			s.cfg.Log.Debug("api requests cut off", slog.Any("err", err))
			return srv.Close()
		}
		return nil
	})
}

// close ends the listeners and removes the socket, unless another agent has put its own there.
func (s *Server) close() {
	if s.unix != nil {
		s.note("close API socket", s.unix.Close())
		s.unix = nil
	}
	if s.tcp != nil {
		s.note("close metrics listener", s.tcp.Close())
		s.tcp = nil
	}
	if s.mine == nil {
		return
	}
	if now, err := os.Lstat(s.cfg.Socket); err == nil && os.SameFile(now, s.mine) {
		s.note("remove API socket", os.Remove(s.cfg.Socket))
	}
	s.mine = nil
}

func (s *Server) note(what string, err error) {
	if err != nil && !errors.Is(err, net.ErrClosed) {
		s.cfg.Log.Warn("api server did not end cleanly", slog.String("op", what), slog.Any("err", err))
	}
}
