package plan

import (
	"net/netip"
	"slices"

	"fairway/internal/cnm"
	"fairway/internal/kernel"
)

// endpoints plans what the engine has joined to sandboxes.
func (p *planner) endpoints() {
	for _, e := range p.in.Endpoints {
		n, ok := p.networks[e.Network]
		switch {
		case !ok || e.State == cnm.Created:
		case n.Mode == cnm.PerNode:
			p.bridged(n, e)
		default:
			p.routed(n, e)
		}
	}
}

func alias(n cnm.Network, e cnm.Endpoint) string {
	return kernel.AliasPrefix + short(n.ID) + "/" + short(e.ID)
}

// sandbox plans what the engine does not put into the container: its further addresses, and neighbour entries.
func (p *planner) sandbox(e cnm.Endpoint, neighs []kernel.Neigh) {
	sandbox := kernel.Sandbox{Neighs: neighs}
	for _, a := range e.Extra {
		sandbox.Addrs = append(sandbox.Addrs, host(a))
	}
	if e.Sandbox != "" && (len(sandbox.Addrs) > 0 || len(sandbox.Neighs) > 0) {
		slices.SortFunc(sandbox.Addrs, netip.Prefix.Compare)
		slices.SortFunc(sandbox.Neighs, func(a, b kernel.Neigh) int { return a.IP.Compare(b.IP) })
		p.out.State.Sandbox[kernel.SandboxKey{Path: e.Sandbox, MAC: e.MAC}] = sandbox
	}
}
