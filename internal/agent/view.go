package agent

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"fairway/internal/api"
	"fairway/internal/cnm"
	"fairway/internal/kernel"
	"fairway/internal/plan"
	"fairway/internal/rib"
)

// Containers implements api.Viewer.
func (a *Agent) Containers(context.Context) ([]api.Container, error) {
	book := a.bookNow()
	if book == nil {
		return nil, nil
	}
	snap, res, eng := book.Snapshot(), a.loop.last(), a.engine().state()
	out := make([]api.Container, 0, len(snap.Endpoints))
	for _, e := range snap.Endpoints {
		c := api.Container{
			Node: a.nodeName(), NetworkID: e.Network, EndpointID: e.ID, MAC: e.MAC.String(), Link: e.LinkName(),
			Sandbox: e.Sandbox, State: string(e.State), Since: e.Changed, Further: e.Extra, AnnouncedAs: []api.Announced{},
			Network: eng.Networks[e.Network].Name, ID: eng.Endpoints[e.ID].ID, Name: eng.Endpoints[e.ID].Name,
		}
		for _, p := range e.Addrs {
			c.Addresses = append(c.Addresses, p.Addr())
		}
		if e.State == cnm.Joined {
			for _, addr := range e.All() {
				c.AnnouncedAs = append(c.AnnouncedAs, announcedAs(res, addr)...)
			}
		}
		if err := res.LinkErrs[e.LinkName()]; err != nil {
			c.Problem = err.Error()
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(x, y api.Container) int {
		return strings.Compare(x.Name+x.Network+x.EndpointID, y.Name+y.Network+y.EndpointID)
	})
	return out, nil
}

// announcedAs finds what was told to others for an address: itself, or the block that has it.
func announcedAs(res result, addr netip.Addr) []api.Announced {
	for _, p := range slices.SortedFunc(maps.Keys(res.Announced), func(a, b netip.Prefix) int { return b.Bits() - a.Bits() }) {
		if p.Contains(addr) {
			return []api.Announced{{Prefix: p, Kind: res.Announced[p].Kind}}
		}
	}
	return nil
}

// Networks implements api.Viewer.
func (a *Agent) Networks(context.Context) ([]api.Network, error) {
	book := a.bookNow()
	if book == nil {
		return nil, nil
	}
	snap, eng := book.Snapshot(), a.engine().state()
	a.mu.Lock()
	mtu := a.under.MTU
	a.mu.Unlock()
	out := make([]api.Network, 0, len(snap.Networks))
	for _, n := range snap.Networks {
		v := api.Network{
			Name: eng.Networks[n.ID].Name, ID: n.ID, Mode: string(n.Mode), Internal: n.Internal, MTU: n.MTU,
			Options: n.Options, Created: n.Created, Blocks: []netip.Prefix{},
		}
		if v.MTU == 0 {
			v.MTU = mtu
		}
		if n.Mode == cnm.PerNode {
			v.Bridge = n.BridgeName()
		}
		for _, s := range n.Subnets {
			v.Subnets = append(v.Subnets, api.Subnet{Prefix: s.Prefix, Gateway: s.Gateway})
			for _, b := range snap.Blocks {
				if b.Pool == s.Pool {
					v.Blocks = append(v.Blocks, b.CIDR)
				}
			}
		}
		for _, e := range snap.Endpoints {
			if e.Network == n.ID {
				v.Endpoints++
			}
		}
		if eng.Reachable && v.Name == "" {
			v.Problem = "the engine does not have this network"
		}
		out = append(out, v)
	}
	if o, ok := a.overview(); ok {
		out = o.Networks(out)
	}
	return out, nil
}

// Routes implements api.Viewer: what the plan put into the kernel, and what was heard and not used.
func (a *Agent) Routes(context.Context) ([]api.Route, error) {
	res := a.loop.last()
	failed := failedByText(res)
	heard, names := a.rib.Snapshot(), a.names()
	since := map[kernel.RouteKey]time.Time{}
	if a.kern != nil {
		since = a.kern.routesSince()
	}
	var out []api.Route
	for key, r := range res.Output.State.Routes {
		problem := failed[key.Dst.String()]
		if h, ok := heard[key.Dst]; ok && r.Type == kernel.Unicast && learned(r) {
			for _, v := range learnedRoutes(names, h, r, problem) {
				if v.InKernel {
					v.Since = cmp.Or(since[key], a.started)
				}
				out = append(out, v)
			}
			continue
		}
		v := api.Route{Prefix: key.Dst, Kind: "container", Source: "local", Node: a.nodeName(), Best: true, InKernel: problem == "", Problem: problem}
		if v.InKernel {
			v.Since = cmp.Or(since[key], a.started)
		}
		if r.Type == kernel.Blackhole || !key.Dst.IsSingleIP() {
			v.Kind = cmp.Or(res.Output.Announce[key.Dst].Kind, "block")
		}
		if len(r.NextHops) > 0 {
			v.Link = r.NextHops[0].Link
		}
		out = append(out, v)
	}
	out = append(out, a.dockerRoutes(res)...)
	for prefix, h := range heard {
		if res.Announced[prefix].Kind == plan.KindDocker {
			continue // status says that another node has it too
		}
		if _, used := res.Output.State.Routes[kernel.RouteKey{Dst: prefix}]; !used {
			out = append(out, learnedRoutes(names, h, kernel.Route{}, "not used: no next hop is on a link of this node")...)
		}
	}
	out = append(out, a.guests.routes(a.nodeName(), time.Now())...)
	slices.SortFunc(out, func(x, y api.Route) int {
		if c := x.Prefix.Compare(y.Prefix); c != 0 {
			return c
		}
		return x.Via.Compare(y.Via)
	})
	return out, nil
}

// dockerRoutes lists the announced subnets on bridges of Docker's. Their routes are the kernel's, and not ours.
func (a *Agent) dockerRoutes(res result) []api.Route {
	links := map[netip.Prefix]string{}
	for _, s := range a.config().DockerBridge.Subnets() {
		links[s] = plan.DefaultBridge
	}
	for _, n := range a.docker.list() {
		for _, s := range n.Subnets {
			links[s] = n.Link
		}
	}
	var out []api.Route
	for prefix, announced := range res.Announced {
		if announced.Kind == plan.KindDocker {
			out = append(out, api.Route{
				Prefix: prefix, Kind: plan.KindDocker, Link: links[prefix], Source: "local", Node: a.nodeName(), Best: true, InKernel: true,
			})
		}
	}
	return out
}

func failedByText(res result) map[string]string {
	out := map[string]string{}
	for _, r := range res.Reports {
		if r.Name == "routes" {
			for k, err := range r.Failed {
				out[k] = err.Error()
			}
		}
	}
	return out
}

// learnedRoutes lists each way of a prefix.
func learnedRoutes(names map[netip.Addr]string, h rib.Route, in kernel.Route, problem string) []api.Route {
	var out []api.Route
	for _, p := range h.Paths {
		v := api.Route{
			Prefix: h.Prefix, Kind: "learned", Via: p.NextHop, Link: p.Link, Source: p.Source.String(), Peer: p.Peer,
			Node: holder(names, p), Problem: problem,
		}
		if p.Source == rib.Static {
			v.Kind = "static"
		}
		for _, hop := range in.NextHops {
			if hop.Via == p.NextHop {
				v.Link, v.Best, v.InKernel = hop.Link, true, problem == ""
			}
		}
		out = append(out, v)
	}
	return out
}

// holder names who holds a heard prefix, of the nodes by their addresses.
func holder(names map[netip.Addr]string, p rib.Path) string {
	if name := cmp.Or(names[p.Node], names[p.NextHop.WithZone("")]); name != "" {
		return name
	}
	switch {
	case p.Node.IsValid():
		return p.Node.String()
	case p.OriginAS != 0:
		return "AS " + itoa(int(p.OriginAS))
	}
	return ""
}

// Peers implements api.Controller.
func (a *Agent) Peers(context.Context) ([]api.Peer, error) {
	st, names := a.fabric().Status(), a.names()
	out := make([]api.Peer, 0, len(st.Peers))
	for _, p := range st.Peers {
		out = append(out, api.Peer{
			Name: p.Name, Address: p.Address, Link: p.Link, ASN: p.ASN, RouterID: p.RouterID, State: p.State, Since: p.Since,
			Node: cmp.Or(p.Node, names[p.Address.WithZone("")], names[p.RouterID]), Away: p.Away, BFD: p.BFD, Received: p.Received, Refused: p.Refused, Sent: p.Sent, HoldTime: api.Seconds(p.HoldTime),
			LastError: p.LastError, Problem: p.Problem,
		})
	}
	return out, nil
}
