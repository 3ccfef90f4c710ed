// Package cluster has what the nodes of a cluster agree on: typed records (nodes, networks, pools, blocks, addresses,
// routes) over a store.Store, a cache of them that a watch keeps, and the protocols that change them.
//
// Three rules hold it up. Every write is a transaction with a compare, so that one that is applied late does no harm.
// What to claim is chosen from the cache, never from a listing. And absence is not removal: a node was removed when its
// tombstone says so; when records are merely missing, the store was lost or an older copy put in its place, and whoever
// held them writes them again.
package cluster
