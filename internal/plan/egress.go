package plan

import (
	"net/netip"
	"slices"

	"fairway/internal/cnm"
	"fairway/internal/kernel"
)

// Egress is what the config and the node say of packets that leave the cluster.
type Egress struct {
	Pools  []EgressPool
	Bridge DockerBridge
	// Underlay is where the nodes are: subnets of this node's underlay link, addresses of others.
	Underlay []netip.Prefix
	// Cluster are the subnets of the cluster's networks, also of those that this node does not have.
	Cluster []netip.Prefix
}

// EgressPool is a pool of the config.
type EgressPool struct {
	CIDR           netip.Prefix
	Masquerade     bool // of networks that do not say
	NoMasqueradeTo []netip.Prefix
}

// egress plans what leaves with the node's address: what comes from masqueraded subnets and goes to none of the
// prefixes that the cluster knows. Without such a subnet there is no NAT at all.
func (p *planner) egress() {
	m := &p.out.State.Firewall.Masquerade
	hide := func(subnet netip.Prefix, except ...[]netip.Prefix) {
		m.From = append(m.From, subnet)
		for _, to := range slices.Concat(except...) {
			if to.Addr().Is4() == subnet.Addr().Is4() {
				m.Except = append(m.Except, kernel.Exception{From: subnet, To: to})
			}
		}
	}
	for _, n := range p.in.Networks {
		for _, s := range n.Subnets {
			pool := p.egressPool(s.Prefix)
			if n.Egress.Way == cnm.EgressMasquerade || n.Egress.Way == "" && pool.Masquerade {
				hide(s.Prefix, n.Egress.NoMasqueradeTo, pool.NoMasqueradeTo)
			}
		}
	}
	if b := p.in.Egress.Bridge; b.Masquerade && p.in.Node.Docker {
		for _, s := range b.Subnets {
			hide(s, b.NoMasqueradeTo)
		}
	}
	for _, pool := range p.in.Egress.Pools {
		if pool.Masquerade && !p.in.Node.Docker { // a plain router hides what passes through it
			hide(pool.CIDR, pool.NoMasqueradeTo)
		}
	}
	if len(m.From) == 0 {
		return
	}
	m.From = sorted(m.From)
	m.Direct = p.known()
	slices.SortFunc(m.Except, kernel.Exception.Compare)
	m.Except = slices.Compact(m.Except)
}

// egressPool is the pool of the config that has a subnet; the zero value when none has.
func (p *planner) egressPool(subnet netip.Prefix) EgressPool {
	for _, pool := range p.in.Egress.Pools {
		if inside(subnet, pool.CIDR) {
			return pool
		}
	}
	return EgressPool{}
}

// known are the destinations that see a container's own address: the pools of the config, the subnets of networks, of the
// cluster's too, and of bridges, what is routed to others, the underlay, and what no router forwards. A prefix that is heard counts because
// whoever announces it is told of our prefixes too, so answers find their way; a default route, which says nothing of
// who is there, does not count.
func (p *planner) known() []netip.Prefix {
	all := slices.Concat(unforwarded(), p.in.Egress.Underlay, p.in.Egress.Bridge.Pools, p.in.Egress.Bridge.Subnets, p.in.Egress.Cluster, p.in.Announce, p.in.Guests)
	for _, pool := range p.in.Egress.Pools {
		all = append(all, pool.CIDR)
	}
	for _, n := range p.in.Networks {
		for _, s := range n.Subnets {
			all = append(all, s.Prefix)
		}
	}
	for prefix := range p.out.Announce {
		all = append(all, prefix)
	}
	all = sorted(all)
	pools := len(all)
	for prefix := range p.in.Heard {
		if !slices.ContainsFunc(all[:pools], func(o netip.Prefix) bool { return inside(prefix, o) }) {
			all = append(all, prefix)
		}
	}
	return slices.DeleteFunc(sorted(all), func(o netip.Prefix) bool { return o.Bits() == 0 })
}

// unforwarded are multicast, broadcast and IPv6's link-local addresses (RFC 4291, 2.5.6: a router must not forward
// them). IPv4's link-local ones are missing: where a cloud has its metadata service at one, Linux does forward to it, and
// it answers the node only.
func unforwarded() []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{224}), 4),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), 32),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfe, 0x80}), 10),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0xff}), 8),
	}
}

// sorted sorts prefixes and drops those that are inside another; everything (/0) does not drop the others.
func sorted(all []netip.Prefix) []netip.Prefix {
	slices.SortFunc(all, netip.Prefix.Compare)
	out := all[:0]
	for _, p := range all {
		if n := len(out); n == 0 || out[n-1].Bits() == 0 || !inside(p, out[n-1]) {
			out = append(out, p)
		}
	}
	return slices.Compact(out)
}

// inside says whether all of p is in q.
func inside(p, q netip.Prefix) bool { return p.Bits() >= q.Bits() && q.Contains(p.Addr()) }
