package cluster

import (
	"context"
	"errors"
	"net/netip"
)

// PoolSpec is how a node cuts a pool that it has a network in.
type PoolSpec struct {
	CIDR      netip.Prefix
	BlockSize int          // prefix length
	Static    netip.Prefix // zero: none
	Network   string       // of the cluster; "": the network was made by hand
}

// Claim is what this node believes about one of its blocks, or about one address of a static range.
type Claim struct {
	Pool     PoolSpec
	Block    netip.Prefix // zero: it is an address
	Addr     netip.Addr   // zero: it is a block
	Endpoint string       // that has the address; "": none yet
	// Pending tells that it is to be left alone for a moment: it is being claimed just now, or, when it is being released,
	// still announced.
	Pending bool
	// Releasing tells that the node is done with it. Once told, it does not come back without being claimed anew.
	Releasing bool
	// Fenced says why nothing new is given out from it; "": it is the node's.
	Fenced string
	// Doubt tells that, although it is fenced, it is announced: the store, an older copy of which was put back, may
	// yet come round.
	Doubt bool
	InUse bool // containers have it, or addresses of it
}

// Key is the key of the record in the store.
func (k Claim) Key() string {
	if k.Addr.IsValid() {
		return AddressKey{k.Pool.CIDR, k.Addr}.String()
	}
	return BlockKey{k.Pool.CIDR, k.Block}.String()
}

// text names the claim in errors and logs.
func (k Claim) text() string {
	if k.Addr.IsValid() {
		return "address " + k.Addr.String()
	}
	return "block " + k.Block.String()
}

// ErrNotUsed is what a Ledger answers when the node has no use for a block: it has no network in the pool.
var ErrNotUsed = errors.New("this node has no network in the pool")

// Ledger is what this node itself believes to hold, on its own disk. It is safe for concurrent use. While one of its
// methods runs it must not call the Cluster.
type Ledger interface {
	// Claims are all blocks and addresses that the node holds, is about to take in, or gives back and need no longer be
	// announced.
	Claims() []Claim
	// Adopt takes in a block that the store gave, or returns ErrNotUsed. One that is fenced, or being released, is the
	// node's again.
	Adopt(ctx context.Context, b Block) error
	// Fence changes Fenced and Doubt of a claim to what the argument has.
	Fence(ctx context.Context, k Claim) error
	// Forget ends a claim that is being released, or that is fenced and not in use.
	Forget(ctx context.Context, k Claim) error
}
