package plugin

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"fairway/internal/cnm"
)

// Options of RequestAddress that mark a gateway's address.
const (
	keyAddressType = "RequestAddressType"
	typeGateway    = "com.docker.network.gateway"
)

// maxPoolID bounds our own pool IDs as they come back to us.
const maxPoolID = 512

func poolRequest(body []byte) (job, error) {
	in, err := unmarshal[requestPool](body)
	if err != nil {
		return job{}, err
	}
	var c checker
	req := cnm.PoolRequest{
		Space: in.AddressSpace, V6: in.V6, Options: c.texts(in.Options),
		Pool: c.prefix("Pool", in.Pool, anyFamily), Range: c.prefix("SubPool", in.SubPool, anyFamily),
	}
	if req.Pool.IsValid() {
		req.V6 = req.Pool.Addr().Is6() // in the global space engines say false of IPv6 subnets too
	}
	if req.Range.IsValid() && req.Range.Addr().Is6() != req.V6 {
		c.fail("SubPool %s is not of the family of Pool %q", req.Range, in.Pool)
	}
	return job{
		about: []slog.Attr{slog.String("prefix", in.Pool), slog.String("range", in.SubPool)},
		do: func(ctx context.Context, w world) (any, error) {
			id, cidr, err := w.RequestPool(ctx, req)
			if err != nil {
				return nil, err
			}
			if err := ctx.Err(); err != nil { // nobody hears the answer
				return nil, w.takeBack(ctx, err, func(ctx context.Context) error { return w.ReleasePool(ctx, id) })
			}
			return poolAnswer{PoolID: id, Pool: cidr.String(), Data: map[string]string{}}, nil
		},
	}, c.err
}

// takeBack gives something back that nobody knows of, and returns why.
func (w world) takeBack(ctx context.Context, why error, release func(context.Context) error) error {
	ctx, cancel := w.undoing(ctx)
	defer cancel()
	if err := release(ctx); err != nil {
		return fmt.Errorf("%w; and take it back: %w", why, err)
	}
	return why
}

func (c *checker) poolID(id string) string {
	switch {
	case id == "":
		c.fail("PoolID is missing")
	case len(id) > maxPoolID:
		c.fail("PoolID %.20q...: longer than any that was given out", id)
	}
	return id
}

func poolRelease(body []byte) (job, error) {
	in, err := unmarshal[poolRef](body)
	if err != nil {
		return job{}, err
	}
	var c checker
	id := c.poolID(in.PoolID)
	return job{
		about: []slog.Attr{slog.String("pool", id)}, once: true,
		do: func(ctx context.Context, w world) (any, error) { return nil, w.ReleasePool(ctx, id) },
	}, c.err
}

func addressRequest(body []byte) (job, error) {
	in, err := unmarshal[requestAddress](body)
	if err != nil {
		return job{}, err
	}
	var c checker
	req := cnm.AddressRequest{
		Pool: c.poolID(in.PoolID), Addr: c.addr("Address", in.Address, anyFamily), Options: c.texts(in.Options),
	}
	req.Gateway = req.Options[keyAddressType] == typeGateway
	return job{
		about: []slog.Attr{slog.String("pool", req.Pool), slog.String("address", in.Address)},
		do: func(ctx context.Context, w world) (any, error) {
			p, err := w.RequestAddress(ctx, req)
			if err != nil {
				return nil, err
			}
			// Nobody hears the answer. An address that was named may have been given before, so it stays held.
			if err := ctx.Err(); err != nil && !req.Addr.IsValid() {
				return nil, w.takeBack(ctx, err, func(ctx context.Context) error { return w.ReleaseAddress(ctx, req.Pool, p.Addr()) })
			}
			return addressAnswer{Address: p.String(), Data: map[string]string{}}, nil
		},
	}, c.err
}

func addressRelease(body []byte) (job, error) {
	in, err := unmarshal[releaseAddress](body)
	if err != nil {
		return job{}, err
	}
	var c checker
	pool, addr := c.poolID(in.PoolID), c.addr("Address", in.Address, anyFamily)
	if addr == (netip.Addr{}) {
		c.fail("Address is missing")
	}
	return job{
		about: []slog.Attr{slog.String("pool", pool), slog.String("address", in.Address)}, once: true,
		do: func(ctx context.Context, w world) (any, error) { return nil, w.ReleaseAddress(ctx, pool, addr) },
	}, c.err
}
