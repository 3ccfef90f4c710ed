package config

import (
	"fmt"
	"net/netip"
)

// check looks at what one key cannot tell alone. Keys that have an error already are left out.
func (l *loader) check() {
	l.checkNode()
	l.checkDocker()
	l.checkStore()
	l.checkPools()
	l.checkAggregates()
	l.checkPeers()
	l.checkNodes()
	l.checkRoutes()
	l.checkDockerBridge()
}

func (l *loader) checkNode() {
	n := l.config.Node
	var chosen []string
	for _, way := range []struct {
		key string
		set bool
	}{
		{"node.address", n.Address.IsValid()},
		{"node.interface", n.Interface != ""},
		{"node.cidr", n.CIDR.IsValid()},
	} {
		if way.set && l.ok(way.key) {
			chosen = append(chosen, way.key)
		}
	}
	if len(chosen) > 1 {
		l.fail(chosen[1], "", "cannot be given together with %s; want at most one of node.address, node.interface and node.cidr", chosen[0])
	}
}

// checkDocker makes sure that the plugin's socket can be made.
func (l *loader) checkDocker() {
	d := l.config.Docker
	if !l.ok("docker.plugins", "docker.name") {
		return
	}
	if path := d.Plugins + "/" + d.Name + ".sock"; len(path) > maxSocketPath {
		key := "docker.plugins"
		if l.isGiven("docker.name") && !l.isGiven(key) {
			key = "docker.name"
		}
		l.fail(key, "", "makes a socket path of %d bytes with docker.plugins and docker.name; want at most %d", len(path), maxSocketPath)
	}
}

func (l *loader) checkPools() {
	pools := l.config.Pools
	for i, p := range pools {
		key := fmt.Sprintf("pools[%d]", i)
		if !l.ok(key) || !l.require(key+".cidr", p.CIDR.IsValid()) {
			continue
		}
		l.checkBlock(key, p)
		l.checkSizes(key, p)
		for j, other := range pools[:i] {
			if other.CIDR.IsValid() && other.CIDR.Overlaps(p.CIDR) {
				l.fail(key+".cidr", quote(kindText, p.CIDR.String()), "overlaps %s of pools[%d]; want pools that do not overlap", other.CIDR, j)
				break
			}
		}
	}
}

// require complains about a key that is missing or empty, and says whether it has a good value.
func (l *loader) require(key string, present bool) bool {
	if !l.ok(key) {
		return false
	}
	if !present {
		l.fail(key, "", "is missing; it has no default")
	}
	return present
}

func (l *loader) checkBlock(key string, p Pool) {
	b := p.Block
	if !b.IsValid() || !l.ok(key+".block") {
		return
	}
	value := quote(kindText, b.String())
	switch {
	case !within(b, p.CIDR):
		l.fail(key+".block", value, "is not inside the pool; want a part of %s", p.CIDR)
	case l.ok(key+".blockSize") && b.Bits() > p.BlockSize:
		l.fail(key+".block", value, "is smaller than a block; want a prefix length of at most blockSize, %d", p.BlockSize)
	}
}

// checkSizes compares prefix lengths: pool <= size <= blockSize <= address.
func (l *loader) checkSizes(key string, p Pool) {
	bits, longest := p.CIDR.Bits(), p.CIDR.Addr().BitLen()
	if l.ok(key+".blockSize") && (p.BlockSize < bits || p.BlockSize > longest) {
		l.fail(key+".blockSize", fmt.Sprint(p.BlockSize), "want a prefix length from %d to %d, for blocks inside %s", bits, longest, p.CIDR)
		return
	}
	if !l.ok(key+".size", key+".blockSize", key+".block") {
		return
	}
	switch {
	case p.Size < bits || p.Size > p.BlockSize:
		l.fail(key+".size", fmt.Sprint(p.Size), "want a prefix length from %d to %d, for subnets of %s with room for a block", bits, p.BlockSize, p.CIDR)
	case p.Block.IsValid() && p.Size != bits:
		l.fail(key+".size", fmt.Sprint(p.Size), "want %d or no size, because with a block the whole pool is the subnet", bits)
	}
}

// within is true if every address of p is in q.
func within(p, q netip.Prefix) bool {
	return q.Bits() <= p.Bits() && q.Contains(p.Addr())
}

func (l *loader) checkNodes() {
	names := map[string]int{}
	for i, n := range l.config.Nodes {
		key := fmt.Sprintf("nodes[%d]", i)
		if !l.ok(key) {
			continue
		}
		if l.require(key+".name", n.Name != "") {
			if j, dup := names[n.Name]; dup {
				l.fail(key+".name", quote(kindText, n.Name), "is also the name of nodes[%d]", j)
			} else {
				names[n.Name] = i
			}
		}
		if l.ok(key+".address", key+".address6") && !n.Address.IsValid() && !n.Address6.IsValid() {
			l.fail(key, "", "want an address or an address6")
			continue
		}
		for _, s := range n.Subnets {
			l.checkNextHop(key, n, s)
			l.checkSubnet(key, i, s)
		}
	}
}

// checkNextHop makes sure that a subnet of another node can be routed to.
func (l *loader) checkNextHop(key string, n ClusterNode, s netip.Prefix) {
	value := quote(kindText, s.String())
	if s.Addr().Is4() && !n.Address.IsValid() && l.ok(key+".address") {
		l.fail(key+".subnets", value, "has no next hop; give the node's address")
	}
	if s.Addr().Is6() && !n.Address6.IsValid() && l.ok(key+".address6") {
		l.fail(key+".subnets", value, "has no next hop; give the node's address6")
	}
}

// checkSubnet makes sure that nobody else has a part of the subnet of node i.
func (l *loader) checkSubnet(key string, i int, s netip.Prefix) {
	value := quote(kindText, s.String())
	for j, other := range l.config.Nodes[:i] {
		for _, t := range other.Subnets {
			if s.Overlaps(t) {
				l.fail(key+".subnets", value, "overlaps %s of nodes[%d]", t, j)
			}
		}
	}
	me := l.config.Node.Name
	if me == "" || me == l.config.Nodes[i].Name {
		return // this may be our own entry, in a file that all nodes share
	}
	for j, p := range l.config.Pools {
		if p.Block.IsValid() && s.Overlaps(p.Block) {
			l.fail(key+".subnets", value, "overlaps this node's own block %s of pools[%d]", p.Block, j)
		}
	}
}

func (l *loader) checkRoutes() {
	type route struct {
		to  netip.Prefix
		via netip.Addr
	}
	seen := map[route]int{}
	for i, r := range l.config.Routes {
		key := fmt.Sprintf("routes[%d]", i)
		if !l.ok(key) {
			continue
		}
		to := l.require(key+".to", r.To.IsValid())
		via := l.require(key+".via", r.Via.IsValid())
		if !to || !via {
			continue
		}
		if r.To.Addr().Is4() != r.Via.Is4() {
			l.fail(key+".via", quote(kindText, r.Via.String()), "is of another address family than %s", r.To)
			continue
		}
		if within(netip.PrefixFrom(r.Via.WithZone(""), r.Via.BitLen()), r.To) && r.To.Bits() > 0 {
			l.fail(key+".via", quote(kindText, r.Via.String()), "is inside %s, which it shall lead to", r.To)
		}
		if j, dup := seen[route{r.To, r.Via}]; dup {
			l.fail(key, "", "is the same route as routes[%d]", j)
		}
		seen[route{r.To, r.Via}] = i
	}
}
