package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// DefaultBridge is Docker's default bridge. The engine can be told to take another link, which `fairway docker-bridge`
// refuses.
const DefaultBridge = "docker0"

// DockerBridge is what the config says of Docker's default bridge; the zero value: nothing.
type DockerBridge struct {
	Subnets        []netip.Prefix // this node's
	Pools          []netip.Prefix // of the bridges of all nodes
	Masquerade     bool
	NoMasqueradeTo []netip.Prefix
}

// dockerBridge announces the subnets of Docker's default bridge that are on it, and accepts what it forwards. The
// routes to them are the kernel's, and the bridge is Docker's.
func (p *planner) dockerBridge() {
	accept := false
	for _, subnet := range p.in.Egress.Bridge.Subnets {
		if p.onBridge(subnet) {
			p.out.Announce[subnet] = Announcement{Kind: KindDocker}
			accept = true
		}
	}
	if f := &p.out.State.Firewall; accept {
		f.Bridges = append(f.Bridges, DefaultBridge)
		slices.Sort(f.Bridges)
		f.Bridges = slices.Compact(f.Bridges)
	}
}

// onBridge says whether the bridge has an address in just this subnet, and if not, why.
func (p *planner) onBridge(subnet netip.Prefix) bool {
	link, ok := p.in.Facts.Links[DefaultBridge]
	if ok && !link.Up {
		p.problem("docker_bridge_down", "set it up, or restart Docker", "%s is down, so subnet %s is not announced", DefaultBridge, subnet)
		return false
	}
	if !ok {
		p.problem("docker_bridge_missing", "start Docker; with \"bridge\" in its daemon.json, or --bridge, it has no default bridge",
			"there is no link %s for subnet %s", DefaultBridge, subnet)
		return false
	}
	var have []string
	for _, a := range link.Addrs {
		if a.Masked() == subnet {
			return true
		}
		if a.Addr().Is4() == subnet.Addr().Is4() && !a.Addr().IsLinkLocalUnicast() {
			have = append(have, a.String())
		}
	}
	what := "no address of that family"
	if len(have) > 0 {
		what = strings.Join(have, ", ")
	}
	p.problem("docker_bridge_differs", "run `fairway docker-bridge apply`, and restart Docker; with live-restore, stop all containers before",
		"%s", fmt.Sprintf("%s has %s, and the config gives it subnet %s", DefaultBridge, what, subnet))
	return false
}
