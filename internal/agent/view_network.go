package agent

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"fairway/internal/api"
	"fairway/internal/cluster"
	"fairway/internal/cnm"
	"fairway/internal/ipam"
)

// designNetwork decides what a network and its pools look like, and refuses what no node could make.
func (a *Agent) designNetwork(v *cluster.View, req api.NetworkRequest) (cluster.Network, []cluster.Pool, error) {
	n := cluster.Network{Name: req.Name, Internal: req.Internal, Options: maps.Clone(req.Options)}
	if err := checkNetworkName(req.Name); err != nil {
		return n, nil, err
	}
	if have, ok := v.Networks[req.Name]; ok && have.Value.Removing.IsZero() {
		return n, nil, fmt.Errorf("there is one of the name: made on node %s at %s", have.Value.By, have.Value.Created.Format(clockText))
	}
	subnets, err := a.subnetsFor(v, req)
	if err != nil {
		return n, nil, err
	}
	checked := make([]cnm.Subnet, 0, len(subnets))
	for _, s := range subnets {
		checked = append(checked, cnm.Subnet{Prefix: s.Prefix, Gateway: s.Gateway})
		n.Subnets = append(n.Subnets, cluster.Subnet{Prefix: s.Prefix, Gateway: s.Gateway})
	}
	static, err := cnm.CheckNetwork(checked, req.Options)
	if err != nil {
		return n, nil, err
	}
	var pools []cluster.Pool
	for _, s := range subnets {
		shape, err := a.shapeOf(req, s.Prefix, static)
		if err != nil {
			return n, nil, err
		}
		if what, taken := a.taken(s.Prefix); taken {
			return n, nil, fmt.Errorf("subnet %s overlaps %s of this node", s.Prefix, what)
		}
		pools = append(pools, cluster.Pool{CIDR: s.Prefix, BlockSize: shape.BlockSize, Static: shape.Static, Network: req.Name})
	}
	return n, pools, nil
}

// shapeOf says how a subnet is cut: into blocks, or into a part for each node.
func (a *Agent) shapeOf(req api.NetworkRequest, subnet netip.Prefix, static []netip.Prefix) (ipam.Shape, error) {
	if cnm.Mode(req.Options[cnm.OptMode]) == cnm.PerNode {
		return ipam.NodeShape(subnet, a.nodeSizeIn(subnet))
	}
	return ipam.ShapeOf(subnet, a.blockSizeIn(subnet), staticIn(static, subnet))
}

// subnetsFor are the subnets asked for, and an IPv4 one if none of them is: engines before 28 make no network without.
func (a *Agent) subnetsFor(v *cluster.View, req api.NetworkRequest) ([]api.Subnet, error) {
	if slices.ContainsFunc(req.Subnets, func(s api.Subnet) bool { return s.Prefix.Addr().Is4() }) {
		return req.Subnets, nil
	}
	free, err := a.freeSubnet(v)
	if err != nil && len(req.Subnets) > 0 {
		return nil, fmt.Errorf("beside %s it needs an IPv4 subnet, which engines before 28 make no network without: %w", req.Subnets[0].Prefix, err)
	}
	if err != nil {
		return nil, err
	}
	return append([]api.Subnet{{Prefix: free}}, req.Subnets...), nil
}

const clockText = "2006-01-02 15:04:05"

// checkNetworkName keeps to what the engine takes as a network's name, and away from those that it has.
func checkNetworkName(name string) error {
	const letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	switch {
	case name == "":
		return errors.New("a network needs a name")
	case slices.Contains([]string{"bridge", "host", "none", "default", "docker_gwbridge", "ingress"}, name):
		return fmt.Errorf("name %q is the engine's own", name)
	case len(name) > 128 || strings.Trim(name, letters+"_.-") != "" || !strings.Contains(letters, name[:1]):
		return fmt.Errorf("name %q: want a letter or digit, and then letters, digits, '_', '.' and '-', 128 at most", name)
	}
	return nil
}

// blockSizeIn is what the config says of blocks in a subnet; 0: nothing.
func (a *Agent) blockSizeIn(subnet netip.Prefix) int {
	for _, p := range a.config().Pools {
		if p.CIDR.Bits() <= subnet.Bits() && p.CIDR.Overlaps(subnet) {
			return p.BlockSize
		}
	}
	return 0
}

// nodeSizeIn is what the config's file says of a node's part of a subnet; 0: nothing. The default size of blocks is none.
func (a *Agent) nodeSizeIn(subnet netip.Prefix) int {
	cfg := a.config()
	given := givenBlockSizes(cfg)
	for i, p := range cfg.Pools {
		if given[i] && p.CIDR.Bits() <= subnet.Bits() && p.CIDR.Overlaps(subnet) {
			return p.BlockSize
		}
	}
	return 0
}

func staticIn(all []netip.Prefix, subnet netip.Prefix) netip.Prefix {
	for _, s := range all {
		if subnet.Overlaps(s) {
			return s
		}
	}
	return netip.Prefix{}
}

// freeSubnet is the next IPv4 subnet of the config's pools that overlaps nothing known.
func (a *Agent) freeSubnet(v *cluster.View) (netip.Prefix, error) {
	known := false
	for _, pool := range a.config().Pools {
		if !pool.CIDR.Addr().Is4() || pool.Block.IsValid() {
			continue
		}
		known = true
		for c := netip.PrefixFrom(pool.CIDR.Addr(), max(pool.Size, pool.CIDR.Bits())); pool.CIDR.Contains(c.Addr()); {
			if !a.subnetTaken(v, c) {
				return c, nil
			}
			next := behind(c)
			if !next.IsValid() {
				break
			}
			c = netip.PrefixFrom(next, c.Bits())
		}
	}
	if !known {
		return netip.Prefix{}, errors.New("no subnet given and no IPv4 pool without a block in the config: give --subnet, or add one to pools")
	}
	return netip.Prefix{}, errors.New("every IPv4 subnet of the config's pools is taken: give --subnet, or add a pool to the config")
}

// behind is the first IPv4 address after a prefix; the zero value after the last one.
func behind(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	n := uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
	if n += 1 << (32 - p.Bits()); n > 0xffffffff {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// subnetTaken says whether a pool, a network of this node, or a link of it is in the way.
func (a *Agent) subnetTaken(v *cluster.View, c netip.Prefix) bool {
	for cidr := range v.Pools {
		if cidr.Overlaps(c) {
			return true
		}
	}
	for _, p := range a.bookNow().Snapshot().Pools {
		if p.CIDR.Overlaps(c) {
			return true
		}
	}
	_, taken := a.taken(c)
	return taken
}
