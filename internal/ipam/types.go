package ipam

import (
	"errors"
	"net/netip"
	"time"
)

// What callers branch on. The errors that wrap them say what, who and what to do.
var (
	ErrPoolFull    = errors.New("pool full")    // no address, or no subnet, is left
	ErrInUse       = errors.New("in use")       // another holder has the address, or another network the pool
	ErrForeignPool = errors.New("foreign pool") // the pool was not requested here: another IPAM driver has it
	ErrNotFound    = errors.New("not found")    // no such pool, or the address is not held
	ErrFenced      = errors.New("fenced")       // the store says that another node has the block
	// ErrOneBlock says that a pool with a subnet per node has its block already.
	ErrOneBlock = errors.New("a node has one block of the pool, and this one has it already")
)

// Options is what the allocator needs from the config.
type Options struct {
	Now      func() time.Time // nil: time.Now
	HoldDown time.Duration    // rest of a released address; 0: none, but the longest released is still taken first
	Plan     Plan
}

// Plan is what the config says about pools. It is for pools requested from now on; those that
// exist keep what they have.
type Plan struct {
	Pools []PoolPlan
	Alone bool // one node: no peers, no nodes, no store. It may claim any block of a pool
	// Shared tells that nodes agree on blocks in a store. The allocator then claims nothing itself:
	// it says with a [Lack] what it needs.
	Shared bool
}

// PoolPlan gives defaults for pools inside CIDR, and subnets for networks that name none.
type PoolPlan struct {
	CIDR      netip.Prefix // masked
	BlockSize int          // prefix length of a block; 0: 26 for IPv4, 122 for IPv6
	NodeSize  int          // prefix length of the one block of a pool that is PerNode; 0: 24 for IPv4, 64 for IPv6
	Block     netip.Prefix // this node's own part; zero: none
	Size      int          // prefix length of the subnet of a network that names none; with Block it is CIDR's
}

// Oracle says whether a route for the address is heard from elsewhere, as a host route or as
// part of another node's block, and from whom. Nil hears nothing.
type Oracle func(addr netip.Addr) (holder string, heard bool)

// PoolRequest asks for a pool.
type PoolRequest struct {
	Space   string       // address space: one word without "/"
	Pool    netip.Prefix // zero: choose a subnet from the plan
	Range   netip.Prefix // this node's own part (docker's --ip-range, the engine's SubPool); zero: none
	V6      bool         // the family to choose; without meaning when Pool is given
	Options map[string]string
	// Shape is what the nodes agreed on for Pool; nil: nothing yet. An own part comes before it.
	Shape *Shape
}

// Shape is how a pool is cut.
type Shape struct {
	BlockSize int          // prefix length
	Static    netip.Prefix // zero: none
}

// AddressRequest asks for an address of a pool.
type AddressRequest struct {
	Pool    string     // ID
	Addr    netip.Addr // zero: choose
	Gateway bool       // for the gateway of the network
	Options map[string]string
	Granted bool // the store gave Addr to this node
}

// BindSettings is what a network decides about its pools.
type BindSettings struct {
	Space  string         // address space of the pools; "": whichever has them
	Static []netip.Prefix // static ranges, at most one for each pool; a pool without one has the default
	// PerNode gives each node one block, whose first usable address is its gateway. There is no static range then.
	PerNode bool
}

// Kind is what an address is held for.
type Kind string

// The kinds.
const (
	KindGateway  Kind = "gateway"
	KindAux      Kind = "aux"      // reserved by --aux-address for something that is not ours
	KindEndpoint Kind = "endpoint" // the address of a container's interface
	KindExtra    Kind = "extra"    // a further address of a container (fairway.addresses)
)

// State says whether somebody has the address.
type State string

// The states.
const (
	StateHeld    State = "held"
	StateResting State = "resting" // released; not given out by choice until it has rested
)
