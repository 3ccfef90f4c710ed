package ipam

import (
	"net/netip"
	"time"
)

// Pool is the subnet of a network, as one node knows it.
type Pool struct {
	ID      string       `json:"id"` // see [ParsePoolID]
	Space   string       `json:"space"`
	CIDR    netip.Prefix `json:"cidr"`
	Range   netip.Prefix `json:"range,omitzero"`  // docker's --ip-range; zero: none
	Static  netip.Prefix `json:"static,omitzero"` // without what Own has of it; zero: none
	Network string       `json:"network,omitempty"`
	// StaticSet tells that the user chose Static.
	StaticSet bool `json:"static_set,omitempty"`
	// BlockSize is the prefix length of the blocks that are claimed one by one. It has no meaning with Own.
	BlockSize int `json:"block_size"`
	// Shared tells that this node claims, or claimed, the blocks in a store.
	Shared bool `json:"shared,omitempty"`
	// PerNode tells that the pool has one block on each node, with a gateway of its own (mode=subnet).
	PerNode bool `json:"per_node,omitempty"`
	// Own is this node's own part when it was given; nil: the node claims blocks.
	Own     []netip.Prefix    `json:"own,omitempty"`
	Gateway netip.Addr        `json:"gateway,omitzero"` // zero: not requested yet
	Options map[string]string `json:"options,omitempty"`
	Created time.Time         `json:"created"`
	// Requests counts the answers to RequestPool that no ReleasePool has returned. It is above 1
	// when a second network was asked for with the same subnet before the first one existed.
	Requests int `json:"requests"`
}

// Block is a part of a pool that this node claimed.
type Block struct {
	Pool  string       `json:"pool"` // ID
	CIDR  netip.Prefix `json:"cidr"`
	Since time.Time    `json:"since"`
	// Fenced says why nothing new is given out from the block and it is not announced: the store says
	// that another node has it. "": it is this node's.
	Fenced string `json:"fenced,omitempty"`
	Doubt  bool   `json:"doubt,omitempty"` // fenced, but announced: the store may be wrong about it
}

// Holding is an address and what it is, or was last, held for.
type Holding struct {
	Addr     netip.Addr `json:"addr"`
	Pool     string     `json:"pool"` // ID; "": an extra address outside all pools
	Kind     Kind       `json:"kind"`
	State    State      `json:"state"`
	Explicit bool       `json:"explicit,omitempty"` // asked for by address
	// Outside tells that an endpoint's or extra address is in none of this node's blocks, and
	// so must be announced as a host route. It does not change while the address is held.
	Outside  bool      `json:"outside,omitempty"`
	Claimed  bool      `json:"claimed,omitempty"` // the store gave the address, and wants it back
	Fenced   string    `json:"fenced,omitempty"`  // of a claimed one: as with a Block
	Doubt    bool      `json:"doubt,omitempty"`   // as with a Block
	Network  string    `json:"network,omitempty"`
	Endpoint string    `json:"endpoint,omitempty"` // "": not bound yet
	Sandbox  string    `json:"sandbox,omitempty"`
	Since    time.Time `json:"since"`
	Released time.Time `json:"released,omitzero"` // the last time; zero: never, or long forgotten
	// Generation is higher each time that the address is held. It follows the clock
	// (microseconds), so that it also grows over a loss of all records.
	Generation uint64 `json:"generation"`
}

// Record is one thing to save under its key. Exactly one of its fields is set.
type Record struct {
	Pool    *Pool    `json:"pool,omitempty"`
	Block   *Block   `json:"block,omitempty"`
	Holding *Holding `json:"holding,omitempty"`
}

// Key is stable: "pool/<id>", "block/<pool id>/<cidr>" or "addr/<pool id>/<ip>".
func (r Record) Key() string {
	switch {
	case r.Pool != nil:
		return "pool/" + r.Pool.ID
	case r.Block != nil:
		return "block/" + r.Block.Pool + "/" + r.Block.CIDR.String()
	case r.Holding != nil:
		return "addr/" + r.Holding.Pool + "/" + r.Holding.Addr.String()
	}
	return ""
}

// Delta is a change that is made in memory and not saved yet. The zero Delta changes nothing.
type Delta struct {
	Put    []Record // to save under their keys
	Delete []string // keys

	undo []change // oldest first
}

// change is a record before it was touched.
type change struct {
	key string
	was Record
	had bool // false: there was none; was then only says which it is
}

// Empty tells that there is nothing to save.
func (d Delta) Empty() bool { return len(d.Put) == 0 && len(d.Delete) == 0 }

// Gone returns the records that are deleted, as they were.
func (d Delta) Gone() []Record {
	var out []Record
	for _, key := range d.Delete {
		for _, c := range d.undo {
			if c.key == key && c.had {
				out = append(out, c.was)
				break
			}
		}
	}
	return out
}

// Then joins two deltas, of which next is the newer, into one to save and to undo as a whole.
func (d Delta) Then(next Delta) Delta {
	out := Delta{undo: append(append([]change(nil), d.undo...), next.undo...)}
	newer := make(map[string]bool, len(next.undo))
	for _, r := range next.Put {
		newer[r.Key()] = true
	}
	for _, key := range next.Delete {
		newer[key] = true
	}
	for _, r := range d.Put {
		if !newer[r.Key()] {
			out.Put = append(out.Put, r)
		}
	}
	for _, key := range d.Delete {
		if !newer[key] {
			out.Delete = append(out.Delete, key)
		}
	}
	out.Put = append(out.Put, next.Put...)
	out.Delete = append(out.Delete, next.Delete...)
	return out
}
