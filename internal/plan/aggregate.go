package plan

import (
	"net/netip"

	"fairway/internal/kernel"
)

// kindAggregate is the kind of an aggregate's announcement.
const kindAggregate = "aggregate"

// aggregate announces a range that the nodes behind this one have parts of. The nodes' own prefixes are longer and come
// first; what nobody has is dropped here. Without that a packet for it would follow the default route, perhaps to a router
// that sends it back (a loop).
func (p *planner) aggregate(a netip.Prefix) {
	key := kernel.RouteKey{Dst: a}
	if _, own := p.out.State.Routes[key]; own {
		return // a block as large as the range is announced already
	}
	p.out.State.Routes[key] = kernel.Route{Type: kernel.Blackhole}
	p.out.Announce[a] = Announcement{Kind: kindAggregate, Needs: key}
}
