package agent

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"fairway/internal/api"
	"fairway/internal/config"
	"fairway/internal/kernel"
	"fairway/internal/plan"
)

// egressInput is what the config and the node's links say of Docker's default bridge and of what leaves the cluster.
func egressInput(cfg *config.Config, u underlay, facts kernel.Facts) plan.Egress {
	b := cfg.DockerBridge
	e := plan.Egress{
		Bridge:   plan.DockerBridge{Subnets: b.Subnets(), Pools: b.Pools(), Masquerade: b.Masquerade, NoMasqueradeTo: b.NoMasqueradeTo},
		Underlay: underlayPrefixes(cfg, u, facts),
	}
	for _, p := range cfg.Pools {
		e.Pools = append(e.Pools, plan.EgressPool{
			CIDR: p.CIDR, Masquerade: p.Egress == config.EgressMasquerade, NoMasqueradeTo: p.NoMasqueradeTo,
		})
	}
	return e
}

// underlayPrefixes are the subnets of the underlay link, and the addresses of nodes and peers, which may be on others.
func underlayPrefixes(cfg *config.Config, u underlay, facts kernel.Facts) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range facts.Links[u.Link].Addrs {
		if !p.Addr().IsLinkLocalUnicast() {
			out = append(out, p.Masked())
		}
	}
	var others []netip.Addr
	for _, n := range cfg.Nodes {
		others = append(others, n.Address, n.Address6)
	}
	for _, p := range cfg.BGP.Peers {
		others = append(others, p.Address)
	}
	for _, a := range others {
		if a.IsValid() && !a.IsLinkLocalUnicast() {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// egressCluster adds what the cluster knows: networks that this node may not have, and nodes that may be on other segments.
func (a *Agent) egressCluster(e *plan.Egress) {
	c := a.clus()
	if c == nil {
		return
	}
	e.Cluster = a.clusterPools()
	for _, n := range c.View().Nodes {
		for _, addr := range []netip.Addr{n.Value.Addr4, n.Value.Addr6} {
			if addr.IsValid() && !addr.IsLinkLocalUnicast() {
				e.Underlay = append(e.Underlay, netip.PrefixFrom(addr, addr.BitLen()))
			}
		}
	}
}

// lookAtLinks reads the node's links and addresses anew. The engine gives its bridges IPv6 addresses without duplicate
// address detection, and of such the kernel tells nobody until the link has a carrier, with the first container
// (net/ipv6/addrconf.c, addrconf_dad_work).
func (a *Agent) lookAtLinks() {
	a.kern.mu.Lock()
	a.kern.facts = nil
	a.kern.mu.Unlock()
	a.loop.mark()
}

// bridgeConditions finds containers of Docker's default bridge that the engine shields from direct access, as Docker 28.2
// and later do unless they are told otherwise: after an upgrade of the engine, say.
func (a *Agent) bridgeConditions(ctx context.Context, f *findings, res result) {
	subnets := a.config().DockerBridge.Subnets()
	if len(subnets) == 0 || a.kern == nil {
		return
	}
	shielded, err := a.kern.fw.Shielded(ctx)
	if err != nil {
		f.add("firewall-unknown", api.SeverityWarning, "", "read the engine's rules: %v", err)
		return
	}
	var hit []string
	for _, addr := range shielded {
		if slices.ContainsFunc(subnets, func(s netip.Prefix) bool { return s.Contains(addr) && res.Announced[s].Kind == plan.KindDocker }) {
			hit = append(hit, addr.String())
		}
	}
	if len(hit) > 0 {
		f.add("docker-direct-access", api.SeverityError, "run `fairway docker-bridge apply`, and restart Docker",
			"the default bridge is announced, and the engine drops what comes from elsewhere for %s", strings.Join(hit, ", "))
	}
}
