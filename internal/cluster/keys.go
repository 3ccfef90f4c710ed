package cluster

import (
	"net/netip"
	"strings"
)

// root is what all keys begin with, below the store's own prefix: the layout's version. A layout that older agents
// could not live beside would have another one.
const root = "v1/"

// Where each kind of record is.
const (
	nodePrefix      = root + "node/"
	alivePrefix     = root + "alive/"
	seenPrefix      = root + "seen/"
	drainPrefix     = root + "drain/"
	tombstonePrefix = root + "tombstone/"
	networkPrefix   = root + "network/"
	statePrefix     = root + "state/"
	poolPrefix      = root + "pool/"
	blockPrefix     = root + "block/"
	addressPrefix   = root + "address/"
	routePrefix     = root + "route/"
)

// PoolIndexKey is a record that every transaction which makes a pool writes, and compares: so that two pools which
// overlap cannot be made at once.
const PoolIndexKey = root + "poolindex"

// NodeKey is the key of a node's record, by name.
func NodeKey(name string) string { return nodePrefix + name }

// AliveKey is the key that is there while a node's agent is heard of.
func AliveKey(node string) string { return alivePrefix + node }

// SeenKey is the key of when a node was last alive.
func SeenKey(node string) string { return seenPrefix + node }

// DrainKey is the key of the request to drain a node.
func DrainKey(node string) string { return drainPrefix + node }

// TombstoneKey is the key of a removed node's tombstone, by the node's ID.
func TombstoneKey(id string) string { return tombstonePrefix + id }

// NetworkKey is the key of a network's record, by name.
func NetworkKey(name string) string { return networkPrefix + name }

// StatesUnder is what the keys of all nodes' states of a network begin with.
func StatesUnder(network string) string { return statePrefix + network + "/" }

// PoolKey is the key of a pool's record.
func PoolKey(pool netip.Prefix) string { return poolPrefix + prefixText(pool) }

// BlocksUnder is what the keys of all blocks of a pool begin with.
func BlocksUnder(pool netip.Prefix) string { return blockPrefix + prefixText(pool) + "/" }

// AddressesUnder is what the keys of all addresses of a pool begin with.
func AddressesUnder(pool netip.Prefix) string { return addressPrefix + prefixText(pool) + "/" }

// RoutesUnder is what the keys of all routes of a node begin with.
func RoutesUnder(node string) string { return routePrefix + node + "/" }

// StateKey names the state of a network on a node.
type StateKey struct{ Network, Node string }

// String is the key in the store.
func (k StateKey) String() string { return StatesUnder(k.Network) + k.Node }

// BlockKey names a block of a pool.
type BlockKey struct{ Pool, CIDR netip.Prefix }

// String is the key in the store.
func (k BlockKey) String() string { return BlocksUnder(k.Pool) + prefixText(k.CIDR) }

// AddressKey names an address of a pool's static range.
type AddressKey struct {
	Pool netip.Prefix
	Addr netip.Addr
}

// String is the key in the store.
func (k AddressKey) String() string { return AddressesUnder(k.Pool) + k.Addr.String() }

// RouteKey names a prefix that a node announces.
type RouteKey struct {
	Node   string
	Prefix netip.Prefix
}

// String is the key in the store.
func (k RouteKey) String() string { return RoutesUnder(k.Node) + prefixText(k.Prefix) }

// Key is the key of the block in the store.
func (b Block) Key() string { return BlockKey{b.Pool, b.CIDR}.String() }

// Key is the key of the address in the store.
func (a Address) Key() string { return AddressKey{a.Pool, a.Addr}.String() }

// Key is the key of the route in the store.
func (r Route) Key() string { return RouteKey{r.Node, r.Prefix}.String() }

// Key is the key of the state in the store.
func (s NetworkState) Key() string { return StateKey{s.Network, s.Node}.String() }

// prefixText writes a prefix without the slash, which parts the keys.
func prefixText(p netip.Prefix) string { return strings.Replace(p.String(), "/", "-", 1) }

func parsePrefix(s string) (netip.Prefix, bool) {
	i := strings.LastIndexByte(s, '-')
	if i < 0 {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(s[:i] + "/" + s[i+1:])
	return p, err == nil
}

func parseName(s string) (string, bool) { return s, s != "" && !strings.Contains(s, "/") }

func parseState(s string) (StateKey, bool) {
	network, node, ok := strings.Cut(s, "/")
	return StateKey{network, node}, ok
}

func parseBlock(s string) (BlockKey, bool) {
	pool, cidr, _ := strings.Cut(s, "/")
	p, ok := parsePrefix(pool)
	c, ok2 := parsePrefix(cidr)
	return BlockKey{p, c}, ok && ok2
}

func parseAddress(s string) (AddressKey, bool) {
	pool, addr, _ := strings.Cut(s, "/")
	p, ok := parsePrefix(pool)
	a, err := netip.ParseAddr(addr)
	return AddressKey{p, a}, ok && err == nil
}

func parseRoute(s string) (RouteKey, bool) {
	node, prefix, _ := strings.Cut(s, "/")
	p, ok := parsePrefix(prefix)
	return RouteKey{node, p}, ok
}
