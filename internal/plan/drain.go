package plan

import (
	"net/netip"

	"fairway/internal/kernel"
)

// Drain says how far this node is with withdrawing itself.
type Drain int

// How far it is.
const (
	NotDrained Drain = iota
	Draining         // others are asked to prefer any other way (RFC 8326)
	Drained          // nothing is announced
)

// fencedBlock keeps strays of a block from looping, as block does. But where its holder is heard, packets to containers
// that are not here go there: the holder has given out addresses of it, too.
func (p *planner) fencedBlock(b netip.Prefix) {
	if _, heard := p.in.Heard[b]; !heard && !b.IsSingleIP() {
		p.out.State.Routes[kernel.RouteKey{Dst: b}] = kernel.Route{Type: kernel.Blackhole}
	}
}

// drain changes how what was planned is announced.
func (p *planner) drain() {
	switch p.in.Drain {
	case Draining:
		for prefix, a := range p.out.Announce {
			a.GracefulShutdown = true
			p.out.Announce[prefix] = a
		}
	case Drained:
		clear(p.out.Announce)
	case NotDrained:
	}
}
