// Package ipam decides which addresses this node gives out: it knows pools (the subnets of
// networks), the node's blocks in them, and who holds which address since when.
//
// It is a pure allocator: it does no input or output, has no clock of its own and does not log.
// Every change comes back as a [Delta] of records. The caller saves it before it answers anybody,
// or takes the change back with [Allocator.Undo]; after a restart it gives the records to
// [Allocator.Load]. There is no state besides the records.
//
// # Where addresses come from
//
// A pool is cut into blocks of one size, and a node announces each of its blocks as one prefix.
// The blocks of a pool whose own part was given (--ip-range, or pools[].block in the config) are
// that part, whatever its size; more cannot be had. A node that is alone claims the pool's blocks
// one by one, from the first. Any other pool is refused. The decision is in source.go and nowhere else.
//
// The static range is for addresses that a user asks for by name on any node. It is never cut
// into blocks. By default it is the pool's last quarter; a pool of fewer than four blocks gets
// smaller blocks so that the quarter stays whole, and a pool of fewer than four addresses (/31,
// /32, /127, /128) has no static range and is one block. Where the node's own part overlaps the
// default static range, the own part wins: what is left of the quarter is the static range. In a
// /30 the last quarter is only the broadcast address, so that one address is left for containers.
//
// Nobody ever gets the network and the broadcast address of an IPv4 pool of /30 or shorter, the
// all-zero address of an IPv6 pool of /126 or shorter (the subnet-router anycast address, RFC 4291
// 2.6.1), or the gateway. The gateway is the pool's first other address unless the user chose one.
// It does not belong to any node: every node knows it, and the node whose block it is in skips it.
//
// # The order of addresses
//
// Addresses never used come first, in order; then the one that has rested longest; then another
// block is claimed. A released address rests for the hold-down time, during which only a request
// for that very address gets it: a container with --ip that restarts gives its address back and
// asks for it again at once. An address that was given back without a container ever having had
// it need not rest, and an address outside the node's blocks does not, since it is never chosen.
// Of the addresses that have rested, a pool remembers the last few thousand; older ones count as
// never used again. Releasing a pool forgets everything about its addresses.
package ipam
