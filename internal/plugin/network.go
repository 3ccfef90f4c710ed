package plugin

import (
	"context"
	"encoding/json"
	"fmt"

	"fairway/internal/cnm"
)

// Keys of a network's options that are the engine's own. Which families a network has is told by its subnets.
const (
	keyGeneric  = "com.docker.network.generic"
	keyInternal = "com.docker.network.internal"
)

func networkCreate(body []byte) (job, error) {
	in, err := unmarshal[createNetwork](body)
	if err != nil {
		return job{}, err
	}
	var c checker
	req := cnm.NetworkRequest{
		ID:   c.id("NetworkID", in.NetworkID),
		IPv4: c.subnets("IPv4Data", in.IPv4Data, ipv4),
		IPv6: c.subnets("IPv6Data", in.IPv6Data, ipv6),
	}
	if raw, ok := in.Options[keyGeneric]; ok {
		req.Options = c.generic(raw)
	}
	if raw, ok := in.Options[keyInternal]; ok {
		if err := json.Unmarshal(raw, &req.Internal); err != nil {
			c.fail("option %s=%.20s: want true or false", keyInternal, raw)
		}
	}
	return job{
		about: aboutNetwork(req.ID), info: true,
		do: func(ctx context.Context, w world) (any, error) { return nil, w.CreateNetwork(ctx, req) },
	}, c.err
}

// generic reads what users gave with -o.
func (c *checker) generic(raw json.RawMessage) map[string]string {
	var opts map[string]json.RawMessage
	if err := json.Unmarshal(raw, &opts); err != nil {
		c.fail("option %s: %w", keyGeneric, err)
		return nil
	}
	return c.texts(opts)
}

func (c *checker) subnets(key string, in []ipamData, f family) []cnm.SubnetRequest {
	var out []cnm.SubnetRequest
	for i, d := range in {
		s := cnm.SubnetRequest{
			Prefix:  c.prefix(fmt.Sprintf("%s[%d].Pool", key, i), d.Pool, f),
			Gateway: c.addr(fmt.Sprintf("%s[%d].Gateway", key, i), d.Gateway, f),
			Space:   d.AddressSpace,
		}
		if d.Pool == "" {
			c.fail("%s[%d].Pool is missing", key, i)
		}
		out = append(out, s)
	}
	return out
}

// networkDelete comes once, after the pools were released, and its error is not heard: the network is gone for the
// engine whatever we say.
func networkDelete(body []byte) (job, error) {
	in, err := unmarshal[networkRef](body)
	if err != nil {
		return job{}, err
	}
	var c checker
	id := c.id("NetworkID", in.NetworkID)
	return job{
		about: aboutNetwork(id), info: true, once: true,
		do: func(ctx context.Context, w world) (any, error) {
			if err := w.DeleteNetwork(ctx, id); err != nil {
				return nil, err
			}
			return nil, w.apply(ctx, "")
		},
	}, c.err
}

// apply waits for the kernel.
func (w world) apply(ctx context.Context, endpoint string) error {
	if err := w.Apply(ctx, endpoint); err != nil {
		if endpoint == "" {
			return fmt.Errorf("bring the kernel to agree: %w", err)
		}
		return fmt.Errorf("bring the kernel to agree on endpoint %s: %w", short(endpoint), err)
	}
	return nil
}

// undoing is a context for taking back what was done: it outlives the one that was done in, for a short time.
func (w world) undoing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), w.brief)
}
