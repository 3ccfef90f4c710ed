package etcd

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/v3/credentials"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	grpccredentials "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// dialOptions make the connection come back soon after etcd does, and tell us why it does not: the client itself waits
// until a call's time is over, and says no more than that.
func (s *Store) dialOptions() []grpc.DialOption {
	var creds grpccredentials.TransportCredentials
	if s.tls != nil {
		creds = credentials.NewTransportCredential(s.tls)
	} else {
		creds = insecure.NewCredentials()
	}
	return []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 250 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: callTimeout,
		}),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", address)
			s.note(err)
			return c, err
		}),
		grpc.WithTransportCredentials(notingCredentials{creds, s}),
		grpc.WithChainUnaryInterceptor(refuseStaleToken),
	}
}

// errStaleToken says that etcd does not know our token any more, and has done nothing.
var errStaleToken = errors.New("etcd has forgotten who we are")

// refuseStaleToken keeps the client from asking for a new token by itself: it would send the old one with that, which
// etcd 3.4 refuses, and the client would try again until the time of the call is over. A new client has no old one.
func refuseStaleToken(ctx context.Context, method string, req, reply any, c *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := call(ctx, method, req, reply, c, opts...)
	if errors.Is(rpctypes.Error(err), rpctypes.ErrInvalidAuthToken) {
		return errStaleToken
	}
	return err
}

// note remembers why a connection is not.
func (s *Store) note(err error) {
	if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = err
}

// notingCredentials note the failures of the handshake, and those after it: a server that does not like our certificate
// says so only then.
type notingCredentials struct {
	grpccredentials.TransportCredentials
	store *Store
}

// ClientHandshake notes why it fails.
func (n notingCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, grpccredentials.AuthInfo, error) {
	c, info, err := n.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		n.store.note(err)
		return nil, nil, err
	}
	return notingConn{c, n.store}, info, nil
}

// Clone is of use to the library only.
func (n notingCredentials) Clone() grpccredentials.TransportCredentials {
	return notingCredentials{n.TransportCredentials.Clone(), n.store}
}

type notingConn struct {
	net.Conn
	store *Store
}

// Read notes why nothing more can be read.
func (n notingConn) Read(b []byte) (int, error) {
	c, err := n.Conn.Read(b)
	n.store.note(err)
	return c, err
}
