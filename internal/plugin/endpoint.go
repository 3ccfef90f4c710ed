package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"fairway/internal/cnm"
)

// Keys of an endpoint's options that are the engine's own; those of users have no such prefix.
const (
	engineKeys = "com.docker.network."
	keyPortMap = "com.docker.network.portmap"
	keyIfName  = "com.docker.network.endpoint.ifname"
)

// endpointCreate changes the book and nothing in the kernel: the engine holds the network's lock meanwhile. When it
// fails, the engine releases the addresses and does not say DeleteEndpoint.
func endpointCreate(body []byte) (job, error) {
	in, err := unmarshal[createEndpoint](body)
	if err != nil {
		return job{}, err
	}
	var c checker
	req := cnm.EndpointRequest{
		Network: c.id("NetworkID", in.NetworkID), ID: c.id("EndpointID", in.EndpointID),
		Options: c.endpointOptions(in.Options),
	}
	if i := in.Interface; i != nil {
		req.Addr4 = c.prefix("Interface.Address", i.Address, ipv4)
		req.Addr6 = c.prefix("Interface.AddressIPv6", i.AddressIPv6, ipv6)
		req.MAC = c.mac("Interface.MacAddress", i.MacAddress)
	}
	return job{
		about: aboutEndpoint(req.Network, req.ID), lock: req.ID,
		do: func(ctx context.Context, w world) (any, error) { return createAnswer(ctx, w, req) },
	}, c.err
}

func createAnswer(ctx context.Context, w world, req cnm.EndpointRequest) (any, error) {
	e, err := w.CreateEndpoint(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		// Nobody hears the answer, so nobody would end the endpoint.
		undo, cancel := w.undoing(ctx)
		defer cancel()
		if e := w.DeleteEndpoint(undo, req.Network, req.ID); e != nil {
			return nil, fmt.Errorf("%w; and take the endpoint back: %w", err, e)
		}
		return nil, err
	}
	// The engine refuses a MAC address when it gave one, even the same.
	if !req.MAC.IsZero() || e.MAC.IsZero() {
		return nil, nil
	}
	return endpointAnswer{Interface: &macAnswer{MacAddress: e.MAC.String()}}, nil
}

// endpointOptions keeps users' options. What the engine says there on its own behalf (ports, the MAC address in base64)
// is of other kinds, and stands elsewhere or is not ours.
func (c *checker) endpointOptions(raw map[string]json.RawMessage) map[string]string {
	out := map[string]string{}
	for k, v := range raw {
		if k == keyIfName {
			// The engine takes it from its own drivers alone; to accept it would promise what does not happen.
			c.fail("option %s=%s: the engine does not let a plugin's interface have a name of choice; leave it out", k, c.text(k, v))
		}
		if !strings.HasPrefix(k, engineKeys) {
			out[k] = c.text(k, v)
		}
	}
	return out
}

// join puts the endpoint into the kernel; slow work belongs here, since the engine runs joins in parallel.
func join(body []byte) (job, error) {
	in, err := unmarshal[joinRequest](body)
	if err != nil {
		return job{}, err
	}
	var c checker
	network, endpoint := c.id("NetworkID", in.NetworkID), c.id("EndpointID", in.EndpointID)
	// Not opened here: up to engine 27 the file does not exist yet.
	if !filepath.IsAbs(in.SandboxKey) || strings.ContainsRune(in.SandboxKey, 0) {
		c.fail("SandboxKey %.60q: want an absolute path", in.SandboxKey)
	}
	return job{
		about: append(aboutEndpoint(network, endpoint), slog.String("sandbox", in.SandboxKey)), info: true, lock: endpoint,
		do: func(ctx context.Context, w world) (any, error) {
			reply, err := w.Join(ctx, network, endpoint, filepath.Clean(in.SandboxKey))
			if err != nil {
				return nil, err
			}
			err = w.apply(ctx, endpoint)
			if err == nil {
				err = ctx.Err() // nobody hears the answer
			}
			if err != nil {
				return nil, w.undoJoin(ctx, network, endpoint, err)
			}
			return joined(reply), nil
		},
	}, c.err
}

// undoJoin takes a join back and returns why, and what went wrong with it. Up to engine 28 no Leave follows an error.
func (w world) undoJoin(ctx context.Context, network, endpoint string, why error) error {
	ctx, cancel := w.undoing(ctx)
	defer cancel()
	err := w.Leave(ctx, network, endpoint)
	if err == nil {
		err = w.apply(ctx, endpoint)
	}
	if err != nil {
		return fmt.Errorf("%w; and take the join back: %w", why, err)
	}
	return why
}

// joined is the answer that has the same effect on all engines from 20.10 to 29: a gateway, and a connected route to it,
// since with a /32 or /128 on the interface it is on no subnet. A default route as a static route fails from 28 on.
func joined(r cnm.JoinReply) joinAnswer {
	out := joinAnswer{InterfaceName: interfaceName{SrcName: r.Link, DstPrefix: "eth"}}
	if r.Gateway4.IsValid() {
		out.Gateway = r.Gateway4.String()
	}
	if r.Gateway6.IsValid() {
		out.GatewayIPv6 = r.Gateway6.String()
	}
	for _, a := range r.OnLink {
		out.StaticRoutes = append(out.StaticRoutes, staticRoute{Destination: netip.PrefixFrom(a, a.BitLen()).String(), RouteType: routeConnected})
	}
	for _, n := range r.Routes {
		out.StaticRoutes = append(out.StaticRoutes, staticRoute{Destination: n.Dst.String(), RouteType: routeNextHop, NextHop: n.Via.String()})
	}
	// Without a gateway the engine would add an interface of its own, with a way out through the node.
	out.DisableGatewayService = out.Gateway == "" && out.GatewayIPv6 == ""
	return out
}

// leave comes once, or twice from engine 29, and its error is not heard.
func leave(body []byte) (job, error) {
	return end(body, func(ctx context.Context, w world, network, endpoint string) error {
		return w.Leave(ctx, network, endpoint)
	})
}

func endpointDelete(body []byte) (job, error) {
	j, err := end(body, func(ctx context.Context, w world, network, endpoint string) error {
		return w.DeleteEndpoint(ctx, network, endpoint)
	})
	j.info = false // leave told it
	return j, err
}

func end(body []byte, in func(ctx context.Context, w world, network, endpoint string) error) (job, error) {
	ref, err := unmarshal[endpointRef](body)
	if err != nil {
		return job{}, err
	}
	var c checker
	network, endpoint := c.id("NetworkID", ref.NetworkID), c.id("EndpointID", ref.EndpointID)
	return job{
		about: aboutEndpoint(network, endpoint), lock: endpoint, info: true, once: true,
		do: func(ctx context.Context, w world) (any, error) {
			if err := in(ctx, w, network, endpoint); err != nil {
				return nil, err
			}
			return nil, w.apply(ctx, endpoint)
		},
	}, c.err
}

// operInfo is asked when the interface is in its sandbox, for each endpoint (from engine 28 on before the container's
// first process runs): the moment for what we add inside. It is also asked by docker inspect and when an engine with
// live-restore starts, so that it neither fails nor waits for an agent that is starting.
//
// The repetition without content, of a call that broke off, is answered too: nothing was asked for, and engines before 28
// fail the container otherwise.
func operInfo(body []byte) (job, error) {
	answer := operInfoAnswer{Value: map[string]string{}}
	ref, err := unmarshal[endpointRef](body)
	if errors.Is(err, errEmpty) {
		return job{answer: answer}, nil
	}
	if err != nil {
		return job{}, err
	}
	var c checker
	network, endpoint := c.id("NetworkID", ref.NetworkID), c.id("EndpointID", ref.EndpointID)
	return job{
		about: aboutEndpoint(network, endpoint), idle: true, answer: answer,
		do: func(ctx context.Context, w world) (any, error) {
			ctx, cancel := context.WithTimeout(ctx, w.brief)
			defer cancel()
			if err := w.apply(ctx, endpoint); err != nil {
				w.log.LogAttrs(ctx, slog.LevelWarn, "endpoint is not complete yet", append(aboutEndpoint(network, endpoint), slog.Any("err", err))...)
			}
			return answer, nil
		},
	}, c.err
}

// connectivity refuses published ports. The engine says it only for an endpoint that is the container's gateway, whose
// driver has to publish them. CreateEndpoint is told of them too, but also for containers that have their gateway on a
// Docker bridge, and not for those that came to that bridge first. What cannot be told here is whether a bridge is to be
// joined after us and take the gateway over: engines join a container's networks in random order, the default bridge
// alone always first.
func connectivity(body []byte) (job, error) {
	in, err := unmarshal[connectivityRequest](body)
	if err != nil {
		return job{}, err
	}
	var c checker
	j := job{about: aboutEndpoint(c.id("NetworkID", in.NetworkID), c.id("EndpointID", in.EndpointID))}
	var ports []portBinding
	if raw, ok := in.Options[keyPortMap]; ok {
		if err := json.Unmarshal(raw, &ports); err != nil {
			c.fail("option %s: %w", keyPortMap, err)
		}
	}
	if len(ports) > 0 {
		c.fail("publish port %s: ports of the node (-p, -P) are not available in this version; the container can be reached at its own address, so leave -p out and use ADDRESS:%d"+
			" (if they are meant for a bridge that the container is on too: the engine joins networks in no fixed order, start it again)", publishing(ports), ports[0].Port)
	}
	return j, c.err
}

// publishing lists ports as -p has them, with the protocol.
func publishing(ports []portBinding) string {
	var out []string
	for _, p := range ports {
		proto := strconv.Itoa(int(p.Proto))
		if name, ok := map[uint8]string{6: "tcp", 17: "udp", 132: "sctp"}[p.Proto]; ok { // IANA protocol numbers
			proto = name
		}
		t := fmt.Sprintf("%d/%s", p.Port, proto)
		if p.HostPort != 0 {
			t = strconv.Itoa(int(p.HostPort)) + ":" + t
		}
		if p.HostIP != "" {
			t = p.HostIP + ":" + t
		}
		out = append(out, t)
	}
	return strings.Join(out, ", ")
}
