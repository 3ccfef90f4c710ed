package cluster

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Entry is a record as the cache has it, with what a compare needs.
type Entry[V any] struct {
	Value    V
	Revision uint64
	Created  uint64
}

// View is what the cache held at one moment. Nothing in it changes any more; do not write to its maps.
type View struct {
	Nodes      map[string]Entry[Node]
	Alive      map[string]Entry[Alive]     // by node name
	Seen       map[string]Entry[Seen]      // by node name
	Drains     map[string]Entry[Drain]     // by node name
	Tombstones map[string]Entry[Tombstone] // by node ID
	Networks   map[string]Entry[Network]
	States     map[StateKey]Entry[NetworkState]
	Pools      map[netip.Prefix]Entry[Pool]
	Blocks     map[BlockKey]Entry[Block]
	Addresses  map[AddressKey]Entry[Address]
	Routes     map[RouteKey]Entry[Route]

	// Unread are the records that this version cannot read, by key, with the reason. They are there, and somebody's.
	Unread map[string]error

	// Gone is when this agent saw nodes stop being alive, some seconds after they were last heard of.
	Gone map[string]time.Time

	PoolIndex uint64    // revision of the record at PoolIndexKey; 0: none yet
	Revision  uint64    // of the store, up to which all changes are in
	At        time.Time // when it was last known to be so
	Complete  bool      // the store was listed at least once since the agent started
}

// Live says whether the node's agent is heard of.
func (v *View) Live(node string) bool {
	_, ok := v.Alive[node]
	return ok
}

// LastSeen is when the node was last known to be alive; zero when nobody knows.
func (v *View) LastSeen(node string) time.Time {
	at := v.Seen[node].Value.At
	if gone := v.Gone[node]; gone.After(at) {
		at = gone
	}
	if a, ok := v.Alive[node]; ok && a.Value.Since.After(at) {
		return a.Value.Since
	}
	return at
}

// RevisionOf is the revision of the record under the key; 0 when there is none, or when it cannot be read.
func (v *View) RevisionOf(key string) uint64 {
	for _, k := range kinds() {
		if rev, ok := k.revision(v, key); ok {
			return rev
		}
	}
	return 0
}

// Has says whether there is a record under the key, readable or not.
func (v *View) Has(key string) bool {
	_, unread := v.Unread[key]
	return unread || v.RevisionOf(key) > 0
}

// PoolOf is the pool that has the address.
func (v *View) PoolOf(a netip.Addr) (Entry[Pool], bool) {
	for cidr, p := range v.Pools {
		if cidr.Contains(a) {
			return p, true
		}
	}
	return Entry[Pool]{}, false
}

// BlockHolder is the block that has the address.
func (v *View) BlockHolder(a netip.Addr) (Entry[Block], bool) {
	p, ok := v.PoolOf(a)
	if !ok || !p.Value.CIDR.Contains(a) {
		return Entry[Block]{}, false
	}
	cidr, err := a.Prefix(p.Value.BlockSize)
	if err != nil {
		return Entry[Block]{}, false
	}
	e, ok := v.Blocks[BlockKey{p.Value.CIDR, cidr}]
	return e, ok
}

// AddressHolder is the record of the address, if it is held on its own.
func (v *View) AddressHolder(a netip.Addr) (Entry[Address], bool) {
	p, ok := v.PoolOf(a)
	if !ok {
		return Entry[Address]{}, false
	}
	e, ok := v.Addresses[AddressKey{p.Value.CIDR, a}]
	return e, ok
}

// NodeByID is the node with the ID.
func (v *View) NodeByID(id string) (Entry[Node], bool) {
	for _, n := range v.Nodes {
		if n.Value.ID == id {
			return n, true
		}
	}
	return Entry[Node]{}, false
}

// NodeNames are the names of all nodes, in order.
func (v *View) NodeNames() []string { return slices.Sorted(maps.Keys(v.Nodes)) }
