package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"fairway/internal/rib"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// Names of what we define in GoBGP.
const (
	importPolicy = "import"
	exportPolicy = "export"
	// partingSet is the community of paths that are about to be withdrawn (RFC 8326, 4.2).
	partingSet = "parting"
	// least is the lowest local preference that GoBGP's policies can set: they take 0 for none.
	least = 1
)

// within allows the prefixes inside a prefix, from a length on.
type within struct {
	prefix netip.Prefix
	from   int // bits
}

// via is the IPv6 next hop to put into what some IPv4 peers are told; those peers cannot be told IPv6 without.
type via struct {
	hop      netip.Addr // zero: none, tell them no IPv6
	external bool       // learned routes, too, get it: on external sessions the next hop is always this node
	peers    []string   // prefixes of their addresses
}

// everyone4 has every IPv4 peer. Where all have the same next hop, which is usual, GoBGP need not look through a list of
// hundreds for each path and peer, and a peer that joins changes no policy.
const everyone4 = "0.0.0.0/0"

// policy is what GoBGP takes from and tells to peers.
type policy struct {
	allowed    []within
	aggregates []netip.Prefix // told in place of what is inside them
	vias       []via
}

// newPolicy derives the policy from the config, the networks and the links. f.mu is held.
func (f *Fabric) newPolicy() policy {
	var p policy
	for _, pool := range f.cfg.Pools {
		p.allowed = append(p.allowed, within{pool.CIDR, max(pool.CIDR.Bits(), 1)})
	}
	for _, pool := range f.pools {
		p.allowed = append(p.allowed, within{pool.Masked(), max(pool.Bits(), 1)})
	}
	// A default route is taken only if it stands here itself; a pool of that size does not mean it.
	for _, prefix := range f.cfg.BGP.Import.Prefixes {
		p.allowed = append(p.allowed, within{prefix.Masked(), prefix.Bits()})
	}
	slices.SortFunc(p.allowed, func(a, b within) int {
		if c := rib.ComparePrefix(a.prefix, b.prefix); c != 0 {
			return c
		}
		return a.from - b.from
	})
	p.allowed = slices.Compact(p.allowed)
	p.aggregates = slices.SortedFunc(slices.Values(f.cfg.BGP.Aggregate), netip.Prefix.Compare)
	p.vias = f.newVias()
	return p
}

// newVias finds the IPv6 address of this node that an IPv4 peer can use as a next hop: one on the same link, or else the
// node's own.
func (f *Fabric) newVias() []via {
	var vias []via
	for _, s := range f.sessions {
		if !s.addr.Is4() {
			continue
		}
		v := f.viaOf(s)
		one := netip.PrefixFrom(s.addr, 32).String()
		i := slices.IndexFunc(vias, func(o via) bool { return o.hop == v.hop && o.external == v.external })
		if i < 0 {
			i = len(vias)
			vias = append(vias, v)
		}
		vias[i].peers = append(vias[i].peers, one)
	}
	if len(vias) == 1 {
		vias[0].peers = []string{everyone4}
	}
	for _, v := range vias {
		slices.Sort(v.peers)
	}
	slices.SortFunc(vias, func(a, b via) int {
		if c := a.hop.Compare(b.hop); c != 0 {
			return c
		}
		return slices.Compare(a.peers, b.peers)
	})
	return vias
}

// viaOf is what one IPv4 peer is told, without a list of peers.
func (f *Fabric) viaOf(s *session) via {
	return via{hop: f.hop6(s.link), external: s.set.peer.ASN != f.asn}
}

func (f *Fabric) hop6(link string) netip.Addr {
	for _, p := range f.facts.Links[link].Addrs {
		if a := p.Addr(); a.Is6() && !a.Is4In6() && !a.IsLinkLocalUnicast() {
			return a
		}
	}
	return f.node6
}

// allows says whether the import policy lets a prefix in.
func (p policy) allows(prefix netip.Prefix) bool {
	return slices.ContainsFunc(p.allowed, func(w within) bool {
		return prefix.Bits() >= w.from && w.prefix.Contains(prefix.Addr())
	})
}

// assignPolicy puts the two policies in force, before there is a peer.
func (f *Fabric) assignPolicy(ctx context.Context, s *server.BgpServer) error {
	if err := s.SetPolicies(ctx, policy{}.request()); err != nil {
		return fmt.Errorf("define policies: %w", err)
	}
	for _, a := range []*api.PolicyAssignment{
		{
			Name: "global", Direction: api.PolicyDirection_POLICY_DIRECTION_IMPORT,
			Policies: []*api.Policy{{Name: importPolicy}}, DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT,
		},
		{
			Name: "global", Direction: api.PolicyDirection_POLICY_DIRECTION_EXPORT,
			Policies: []*api.Policy{{Name: exportPolicy}}, DefaultAction: api.RouteAction_ROUTE_ACTION_ACCEPT,
		},
	} {
		if err := s.AddPolicyAssignment(ctx, &api.AddPolicyAssignmentRequest{Assignment: a}); err != nil {
			return fmt.Errorf("assign policy %s: %w", a.Policies[0].Name, err)
		}
	}
	return nil
}

// applyPolicy puts a changed policy in force, for routes that were heard or told before, too. f.mu is held.
func (f *Fabric) applyPolicy() error {
	p := f.newPolicy()
	in := !slices.Equal(p.allowed, f.policy.allowed)
	aggregates := !slices.Equal(p.aggregates, f.policy.aggregates)
	if in || aggregates || !reflect.DeepEqual(p.vias, f.policy.vias) {
		// All sets and policies at once: a set that is added to an existing one of its name would be appended to it.
		if err := f.server.SetPolicies(context.Background(), p.request()); err != nil {
			return fmt.Errorf("change policies: %w", err)
		}
		f.policy = p
		f.changes.Add(1)
	}
	var errs []error
	if in {
		errs = append(errs, f.again("all", api.ResetPeerRequest_DIRECTION_IN))
	}
	if aggregates {
		errs = append(errs, f.again("all", api.ResetPeerRequest_DIRECTION_OUT))
	}
	for _, s := range f.sessions {
		if !s.addr.Is4() || !s.known.IsValid() {
			continue
		}
		if now := f.viaOf(s); s.via.hop != now.hop || s.via.external != now.external {
			s.via = now
			errs = append(errs, f.again(s.known.String(), api.ResetPeerRequest_DIRECTION_OUT))
		}
	}
	return errors.Join(errs...)
}

// again applies the policy to what a peer told, or to what it was told.
func (f *Fabric) again(peer string, direction api.ResetPeerRequest_Direction) error {
	err := f.server.ResetPeer(context.Background(), &api.ResetPeerRequest{Address: peer, Soft: true, Direction: direction})
	if err != nil {
		return fmt.Errorf("apply policies to known routes: %w", err)
	}
	return nil
}

// request is the policy in GoBGP's terms. The import policy is asked about our own routes, too.
func (p policy) request() *api.SetPoliciesRequest {
	r := &api.SetPoliciesRequest{}
	imports := []*api.Statement{{
		Name: "own", Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL}, Actions: accept(),
	}}
	r.DefinedSets = append(r.DefinedSets, &api.DefinedSet{
		DefinedType: api.DefinedType_DEFINED_TYPE_COMMUNITY, Name: partingSet, List: []string{"^65535:0$"},
	})
	imports = append(imports, &api.Statement{ // and on to the next one, which decides
		Name: partingSet, Actions: &api.Actions{LocalPref: &api.LocalPrefAction{Value: least}},
		Conditions: &api.Conditions{CommunitySet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: partingSet}},
	})
	for name, bits := range map[string]int{"allowed4": 32, "allowed6": 128} {
		set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_PREFIX, Name: name}
		for _, w := range p.allowed {
			if w.prefix.Addr().BitLen() == bits {
				set.Prefixes = append(set.Prefixes, &api.Prefix{
					IpPrefix: w.prefix.String(), MaskLengthMin: uint32(w.from), MaskLengthMax: uint32(bits),
				})
			}
		}
		if len(set.Prefixes) > 0 {
			r.DefinedSets = append(r.DefinedSets, set)
			imports = append(imports, &api.Statement{
				Name: name, Actions: accept(),
				Conditions: &api.Conditions{PrefixSet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: name}},
			})
		}
	}
	exports := p.suppress(r)
	for i, v := range p.vias {
		name := fmt.Sprintf("via6-%d", i)
		r.DefinedSets = append(r.DefinedSets, &api.DefinedSet{
			DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: name, List: v.peers,
		})
		exports = append(exports, v.statement(name))
	}
	r.Policies = []*api.Policy{
		{Name: importPolicy, Statements: imports},
		{Name: exportPolicy, Statements: exports},
	}
	return r
}

// suppress makes the statements that keep what is inside an aggregate from everybody, and adds their sets to r.
func (p policy) suppress(r *api.SetPoliciesRequest) []*api.Statement {
	var all []*api.Statement
	for name, bits := range map[string]int{"aggregated4": 32, "aggregated6": 128} {
		set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_PREFIX, Name: name}
		for _, a := range p.aggregates {
			if a.Addr().BitLen() == bits && a.Bits() < bits {
				set.Prefixes = append(set.Prefixes, &api.Prefix{
					IpPrefix: a.String(), MaskLengthMin: uint32(a.Bits() + 1), MaskLengthMax: uint32(bits),
				})
			}
		}
		if len(set.Prefixes) == 0 {
			continue
		}
		r.DefinedSets = append(r.DefinedSets, set)
		all = append(all, &api.Statement{
			Name:       name,
			Conditions: &api.Conditions{PrefixSet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: name}},
			Actions:    &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT},
		})
	}
	return all
}

func accept() *api.Actions { return &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT} }

func (v via) statement(name string) *api.Statement {
	s := &api.Statement{
		Name: name,
		Conditions: &api.Conditions{
			NeighborSet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: name},
			AfiSafiIn:   []*api.Family{{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}},
		},
		Actions: &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT},
	}
	if v.hop.IsValid() {
		s.Actions = &api.Actions{Nexthop: &api.NexthopAction{Address: v.hop.String()}}
	}
	if !v.external {
		// A reflector leaves next hops alone, so only our own routes are concerned.
		s.Conditions.RouteType = api.Conditions_ROUTE_TYPE_LOCAL
	}
	return s
}
