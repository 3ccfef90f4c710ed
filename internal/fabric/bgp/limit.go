package bgp

import (
	"fmt"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// recount is how often the prefixes of all peers are counted, in seconds.
const recount = 10

// limit closes sessions with peers that told too many prefixes. GoBGP has such a limit, but counts all routes of a peer anew
// with each of its messages: 65,536 routes took over half a minute that way. So we count when what was taken from a peer
// since the last time could have crossed its limit, and every peer now and then, for what was refused. f.mu is held.
func (f *Fabric) limit(everyone bool) {
	for _, s := range f.sessions {
		if s.max == 0 || s.state != bgp.BGP_FSM_ESTABLISHED || !s.known.IsValid() {
			continue
		}
		if !everyone && s.counted+f.learned.heardSince(s.known, false) <= int(s.max) {
			continue
		}
		f.learned.heardSince(s.known, true)
		s.counted = 0
		for _, a := range f.inGoBGP(s).GetAfiSafis() {
			s.counted = max(s.counted, int(a.GetState().GetReceived()))
		}
		if s.counted > int(s.max) {
			why := fmt.Sprintf("the peer told %d prefixes of one family, and %d are allowed: find out why, or raise bgp.import.maxPrefixes", s.counted, s.max)
			f.ended(s, why)
			f.punish(s, why)
		}
	}
}
