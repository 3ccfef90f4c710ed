package agent

import (
	"net/netip"
	"slices"

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

// lookAtLinks reads the node's links and addresses anew. The engine gives its bridges IPv6 addresses without duplicate
// address detection, and of such the kernel tells nobody until the link has a carrier, with the first container
// (net/ipv6/addrconf.c, addrconf_dad_work).
func (a *Agent) lookAtLinks() {
	a.kern.mu.Lock()
	a.kern.facts = nil
	a.kern.mu.Unlock()
	a.loop.mark()
}
