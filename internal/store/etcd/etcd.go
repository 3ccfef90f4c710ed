// Package etcd is a store.Store that a cluster shares: etcd, version 3.4 or later. It is the only user of the etcd client.
//
// Every call is bounded, and tells an etcd that does not answer (store.UnreachableError) from one that refuses
// (store.ErrDenied). A watch never outlives its connection: on the next one may be an older copy of the store, whose
// changes a watch at a revision of the future would never tell. Whoever watches lists again, and goes on from there.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"fairway/internal/store"
)

const (
	// callTimeout bounds each call as a whole: what needs the store is to have failed within 3 s.
	callTimeout = 2500 * time.Millisecond
	// A connection on which nothing comes back is given up after both, and what was still to be sent goes with it. The
	// library asks after 10 s at the earliest; but data that nobody acknowledges ends the connection after the second.
	keepAliveTime    = 10 * time.Second
	keepAliveTimeout = 2 * time.Second
	// DefaultTTL is after how long a process that is no longer heard of is taken for dead.
	DefaultTTL = 15 * time.Second
)

// Config says where etcd is and who we are to it.
type Config struct {
	Endpoints    []string      // host:port, or http:// and https:// URLs, of one scheme
	CA           string        // file with the authorities of the servers' certificates, in PEM; "": those of the system
	Cert, Key    string        // files with our certificate and key, in PEM; "": none
	User         string        // "": none
	PasswordFile string        // its first line is the user's password
	Prefix       string        // of all keys, such as /fairway
	TTL          time.Duration // of what is written with Txn.Live, in whole seconds; 0: DefaultTTL
	Log          *slog.Logger
}

// Store is a store in etcd. It is safe for concurrent use.
type Store struct {
	cfg    Config
	prefix string      // ends with a slash
	tls    *tls.Config // nil: plain
	log    *slog.Logger

	ctx    context.Context //nolint:containedctx // ends what runs in the background, at Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	dialing chan struct{} // holds one token: whoever takes it may make the client
	mu      sync.Mutex    // guards what follows
	client  *clientv3.Client
	down    time.Time // the beginning of the first call that was not answered; zero: the last one was
	seen    history
	watches map[int]context.CancelCauseFunc
	serial  int       // of the next watch
	made    time.Time // when the client was
	broken  error     // why the connection last could not be made, or ended; nil: it works

	lease lease
}

// Open checks the files and returns a store. It does not wait for etcd: one that does not answer is the calls' error.
func Open(cfg Config) (*Store, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("open store: no etcd endpoints given")
	}
	if cfg.TTL == 0 {
		cfg.TTL = DefaultTTL
	}
	if cfg.TTL < time.Second || cfg.TTL%time.Second != 0 {
		return nil, fmt.Errorf("open store: TTL is %v, but must be whole seconds", cfg.TTL)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		cfg:     cfg,
		prefix:  strings.TrimSuffix(cfg.Prefix, "/") + "/",
		log:     cfg.Log,
		dialing: make(chan struct{}, 1),
		watches: map[int]context.CancelCauseFunc{},
	}
	s.lease.granting = make(chan struct{}, 1)
	var err error
	if s.tls, err = tlsConfig(cfg); err != nil {
		return nil, err
	}
	if _, err := password(cfg); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.spawn(s.keepAlive)
	return s, nil
}

// Where names the store for errors and listings: "etcd at " and the endpoints.
func (s *Store) Where() string { return "etcd at " + strings.Join(s.cfg.Endpoints, ", ") }

// Close ends all calls and watches. What was written with Txn.Live stays until its time is over: the process may be one
// that comes back at once.
func (s *Store) Close() error {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		return nil
	}
	err := s.client.Close()
	s.client = nil
	if errors.Is(err, context.Canceled) {
		return nil // its own context
	}
	return err
}

// connected returns the client, and makes it when there is none. With a user this asks etcd for a token.
func (s *Store) connected(ctx context.Context) (*clientv3.Client, error) {
	if c := s.current(); c != nil {
		return c, nil
	}
	select {
	case s.dialing <- struct{}{}:
		defer func() { <-s.dialing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if c := s.current(); c != nil {
		return c, nil
	}
	pass, err := password(s.cfg)
	if err != nil {
		return nil, err
	}
	limit := callTimeout
	if d, ok := ctx.Deadline(); ok {
		limit = min(limit, max(time.Until(d), time.Millisecond))
	}
	c, err := clientv3.New(clientv3.Config{
		DialOptions:          s.dialOptions(),
		Context:              s.ctx,
		Endpoints:            s.cfg.Endpoints,
		DialTimeout:          limit, // of the token; it does not wait for a connection
		DialKeepAliveTime:    keepAliveTime,
		DialKeepAliveTimeout: keepAliveTimeout,
		PermitWithoutStream:  true,
		Username:             s.cfg.User,
		Password:             pass,
		Logger:               zap.NewNop(), // what matters comes back as an error
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, errors.Join(s.ctx.Err(), c.Close())
	}
	s.client, s.made = c, time.Now()
	s.spawn(func() { s.followConnection(c) })
	return c, nil
}

func (s *Store) current() *clientv3.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client
}

// renewAfter is how old a client is that is given up when etcd does not answer it. It should connect again by itself;
// that nobody has to rely on.
const renewAfter = 10 * time.Second

// renew gives up a client that has not got through for long.
func (s *Store) renew(c *clientv3.Client) {
	s.mu.Lock()
	old := s.client == c && time.Since(s.made) >= renewAfter
	s.mu.Unlock()
	if old {
		s.forget(c)
	}
}

// forget drops the client, so that the next call makes one with the password as it is by then. Calls under way have the
// time to end.
func (s *Store) forget(c *clientv3.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != c || s.ctx.Err() != nil {
		return
	}
	s.client = nil
	s.spawn(func() {
		last := time.NewTimer(callTimeout)
		defer last.Stop()
		select {
		case <-last.C:
		case <-s.ctx.Done():
		}
		_ = c.Close() // nothing is lost with it
	})
}

// spawn runs what Close waits for. It needs the lock, and a store that is not closed.
func (s *Store) spawn(work func()) { s.wg.Go(work) }

// do runs one call: bounded, with the client, and its error put into the store's words. What names the call, as in
// "read record x".
func (s *Store) do(ctx context.Context, what string, call func(context.Context, *clientv3.Client) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	start := time.Now()
	bound, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stop := context.AfterFunc(s.ctx, cancel)
	defer stop()
	c, err := s.connected(bound)
	if err == nil {
		err = call(bound, c)
	}
	if errors.Is(err, errStaleToken) && c != nil {
		s.forget(c)
		if c, err = s.connected(bound); err == nil {
			err = call(bound, c)
		}
	}
	if s.ctx.Err() != nil {
		err = errors.New("the store was closed")
	}
	if err = s.judge(ctx, start, c, err); err != nil {
		if errors.Is(err, store.ErrUnreachable) && c != nil {
			s.renew(c)
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
