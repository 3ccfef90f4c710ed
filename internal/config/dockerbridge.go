package config

import (
	"fmt"
	"net/netip"
)

// bridgeFamily is one family of the bridge's keys.
type bridgeFamily struct {
	pool, prefix, subnet string // key paths
	bits                 int    // of an address
	longest              int    // prefix length: Docker needs addresses for the bridge and a container
	bridge               *DockerBridge
}

func bridgeFamilies(b *DockerBridge) []bridgeFamily {
	return []bridgeFamily{
		{"dockerBridge.pool", "dockerBridge.prefix", "dockerBridge.subnet", 32, 30, b},
		{"dockerBridge.pool6", "dockerBridge.prefix6", "dockerBridge.subnet6", 128, 126, b},
	}
}

func (f bridgeFamily) values() (pool netip.Prefix, prefix int, subnet *netip.Prefix) {
	if f.bits == 32 {
		return f.bridge.Pool, f.bridge.Prefix, &f.bridge.Subnet
	}
	return f.bridge.Pool6, f.bridge.Prefix6, &f.bridge.Subnet6
}

// deriveDockerBridge takes this node's subnets of the bridge from its blocks: the first of a block inside the pool.
func (l *loader) deriveDockerBridge() {
	for _, f := range bridgeFamilies(&l.config.DockerBridge) {
		pool, prefix, subnet := f.values()
		i, ok := l.blockIn(pool)
		if subnet.IsValid() || !pool.IsValid() || !ok || !l.ok(f.prefix) {
			continue
		}
		if b := l.config.Pools[i].Block; b.Bits() <= prefix && prefix >= pool.Bits() {
			*subnet = netip.PrefixFrom(b.Addr(), prefix).Masked()
		}
	}
}

// blockIn finds the first of this node's blocks that is inside a pool.
func (l *loader) blockIn(pool netip.Prefix) (int, bool) {
	for i, p := range l.config.Pools {
		if p.Block.IsValid() && pool.IsValid() && within(p.Block, pool) {
			return i, true
		}
	}
	return 0, false
}

func (l *loader) checkDockerBridge() {
	b := &l.config.DockerBridge
	for _, f := range bridgeFamilies(b) {
		if l.ok(f.pool, f.prefix, f.subnet, "pools") {
			l.checkBridgeFamily(f)
		}
	}
	if !l.ok("dockerBridge.pool", "dockerBridge.pool6") {
		return
	}
	switch {
	case b.Pool6.IsValid() && !b.Pool.IsValid():
		l.fail("dockerBridge.pool6", quote(kindText, b.Pool6.String()), "is without pool; the bridge always has IPv4")
	case b.Pool.IsValid() && !l.config.Docker.Enabled:
		l.fail("dockerBridge.pool", quote(kindText, b.Pool.String()), "is for a node with Docker, and docker.enabled is false")
	}
}

func (l *loader) checkBridgeFamily(f bridgeFamily) {
	pool, prefix, subnet := f.values()
	text := quote(kindText, subnet.String())
	switch {
	case !pool.IsValid() && !subnet.IsValid():
	case !pool.IsValid():
		l.fail(f.subnet, text, "is without pool; give the range that the bridges of all nodes are in")
	case pool.Addr().BitLen() != f.bits:
		want := "want an IPv4 prefix; pool6 is for IPv6"
		if f.bits == 128 {
			want = "want an IPv6 prefix"
		}
		l.fail(f.pool, quote(kindText, pool.String()), "%s", want)
	case !subnet.IsValid() && (prefix < pool.Bits() || prefix > f.longest):
		l.fail(f.prefix, fmt.Sprint(prefix), "want a prefix length from %d to %d, for subnets of %s", pool.Bits(), f.longest, pool)
	case !subnet.IsValid():
		l.failPart(f, pool, prefix)
	case !within(*subnet, pool):
		l.fail(f.subnet, text, "is not inside the pool; want a part of %s", pool)
	case subnet.Bits() > f.longest:
		l.fail(f.subnet, text, "has no room; want a prefix length of at most %d", f.longest)
	case l.isGiven(f.prefix) && prefix != subnet.Bits():
		l.fail(f.prefix, fmt.Sprint(prefix), "is not the length of subnet %s; leave it out", subnet)
	default:
		l.checkBridgeNodes(f, *subnet)
	}
}

// failPart says why this node has no part of the pool.
func (l *loader) failPart(f bridgeFamily, pool netip.Prefix, prefix int) {
	value, subnet := quote(kindText, pool.String()), f.subnet[len("dockerBridge."):]
	if i, ok := l.blockIn(pool); ok {
		l.fail(f.pool, value, "the block %s of pools[%d] is smaller than a subnet of prefix %d; give %s", l.config.Pools[i].Block, i, prefix, subnet)
		return
	}
	l.fail(f.pool, value, "has no part for this node; give %s, or in pools the block of a pool inside it", subnet)
}

// checkBridgeNodes makes sure that no other node has a part of the subnet. Like checkSubnet it can tell only when this
// node has a name.
func (l *loader) checkBridgeNodes(f bridgeFamily, subnet netip.Prefix) {
	me := l.config.Node.Name
	for i, n := range l.config.Nodes {
		for _, s := range n.Subnets {
			if me != "" && n.Name != me && s.Overlaps(subnet) {
				l.fail(f.subnet, quote(kindText, subnet.String()), "overlaps %s of nodes[%d]", s, i)
			}
		}
	}
}
