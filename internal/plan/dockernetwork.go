package plan

import (
	"net/netip"
	"slices"
)

// DockerNetwork is a bridge network of Docker's own that is announced.
type DockerNetwork struct {
	Name     string         `json:"name"`
	Link     string         `json:"link"` // its bridge
	Internal bool           `json:"internal,omitempty"`
	Subnets  []netip.Prefix `json:"subnets"`
}

// Equal compares two networks.
func (d DockerNetwork) Equal(o DockerNetwork) bool {
	return d.Name == o.Name && d.Link == o.Link && d.Internal == o.Internal && slices.Equal(d.Subnets, o.Subnets)
}

// docker announces Docker's own networks while their bridges are there and up, and has what comes for them accepted.
func (p *planner) docker() {
	f := &p.out.State.Firewall
	for _, d := range p.in.Docker {
		link, ok := p.in.Facts.Links[d.Link]
		if !ok || !link.Up || d.Internal {
			continue
		}
		f.Bridges = append(f.Bridges, d.Link)
		for _, s := range d.Subnets {
			if slices.ContainsFunc(link.Addrs, func(a netip.Prefix) bool { return a.Masked() == s }) {
				p.out.Announce[s] = Announcement{Kind: KindDocker}
				f.Unhidden.From = append(f.Unhidden.From, s)
			}
		}
	}
	slices.Sort(f.Bridges)
	f.Bridges = slices.Compact(f.Bridges)
	if len(f.Unhidden.From) > 0 {
		f.Unhidden.From, f.Unhidden.To = sorted(f.Unhidden.From), p.cluster()
	}
}

// KindDocker is the kind of an announced subnet that is on a bridge of Docker's.
const KindDocker = "docker"

// cluster are the destinations that know the way back to what this node announces: pools, networks, and who announces
// something to us. Docker's NAT goes on for all others, those on the underlay's own link among them, which may be no
// nodes.
func (p *planner) cluster() []netip.Prefix {
	all := slices.Concat(p.in.Egress.Bridge.Pools, p.in.Egress.Bridge.Subnets)
	for _, pool := range p.in.Egress.Pools {
		all = append(all, pool.CIDR)
	}
	for _, n := range p.in.Networks {
		for _, s := range n.Subnets {
			all = append(all, s.Prefix)
		}
	}
	for prefix := range p.in.Heard {
		all = append(all, prefix)
	}
	return slices.DeleteFunc(sorted(all), func(o netip.Prefix) bool { return o.Bits() == 0 })
}
