package cluster

import (
	"net/netip"
	"time"
)

// Schema is the version of the records below. Each is stored as JSON with its schema; one with a newer schema is
// refused rather than misread.
const Schema = 1

// Node is a machine that runs the agent. It stays until it is removed by hand.
type Node struct {
	Name           string     `json:"name"` // the key; unique
	ID             string     `json:"id"`   // made once, kept in the node's state directory
	Addr4          netip.Addr `json:"addr4,omitzero"`
	Addr6          netip.Addr `json:"addr6,omitzero"`
	ASN            uint32     `json:"asn,omitempty"` // 0: no BGP
	BGPPort        uint16     `json:"bgp_port,omitempty"`
	RouterID       netip.Addr `json:"router_id,omitzero"`
	RouteReflector bool       `json:"route_reflector,omitempty"`
	Fabric         string     `json:"fabric"`
	Docker         bool       `json:"docker"` // containers may live here
	Engine         string     `json:"engine,omitempty"`
	Version        string     `json:"version"`
	Joined         time.Time  `json:"joined"`
}

// Alive says that a node's agent was heard of; it goes some seconds after the agent is gone, or cut off.
type Alive struct {
	ID         string    `json:"id"`      // of the node
	Session    string    `json:"session"` // of one run of the agent
	Since      time.Time `json:"since"`
	Containers int       `json:"containers"`
}

// Seen is when a node was last alive, written now and then for listings.
type Seen struct {
	At time.Time `json:"at"`
}

// Drain asks a node to announce nothing, and to take no new containers if Refuse is set.
type Drain struct {
	Since  time.Time `json:"since"`
	By     string    `json:"by"` // the node on which the command was given
	Refuse bool      `json:"refuse,omitempty"`
}

// Tombstone says that the node with this ID was removed by hand. An agent with that ID is fenced.
type Tombstone struct {
	ID   string    `json:"id"`
	Name string    `json:"name"`
	At   time.Time `json:"at"`
	By   string    `json:"by"`
}

// Network is a network that every node has, as the operator made it.
type Network struct {
	Name     string            `json:"name"` // the key, and the name of the Docker network on each node
	Subnets  []Subnet          `json:"subnets"`
	Internal bool              `json:"internal,omitempty"`
	Options  map[string]string `json:"options,omitempty"` // -o key=value, as given
	Created  time.Time         `json:"created"`
	By       string            `json:"by"`
	Removing time.Time         `json:"removing,omitzero"` // since when it is being removed; zero: it is not
}

// Subnet is one subnet of a Network.
type Subnet struct {
	Prefix  netip.Prefix `json:"prefix"`
	Gateway netip.Addr   `json:"gateway,omitzero"` // zero: the first address
}

// NetworkState is how a network stands on one node.
type NetworkState struct {
	Network string    `json:"network"`
	Node    string    `json:"node"`
	State   string    `json:"state"` // one of the State constants
	Docker  string    `json:"docker,omitempty"`
	Problem string    `json:"problem,omitempty"`
	Since   time.Time `json:"since"`
}

// States of a network on a node.
const (
	StateReady    = "ready"    // the Docker network is there and agrees with the record
	StateFailed   = "failed"   // the engine refused it, or is not reachable
	StateConflict = "conflict" // a Docker network of the name is there, and is another one
	StateInUse    = "in use"   // it is to be removed, and containers are on it
)

// Pool is an address range that nodes claim blocks of. No two overlap.
type Pool struct {
	CIDR      netip.Prefix `json:"cidr"`
	BlockSize int          `json:"block_size"`        // prefix length
	Static    netip.Prefix `json:"static,omitzero"`   // never cut into blocks; zero: none
	Network   string       `json:"network,omitempty"` // the Network it is of; "": made on the nodes by hand
	Created   time.Time    `json:"created"`
	By        string       `json:"by"`
}

// Block is a part of a pool that one node has. The record is the only truth about who does.
type Block struct {
	CIDR    netip.Prefix `json:"cidr"`
	Pool    netip.Prefix `json:"pool"`
	Node    string       `json:"node"`
	NodeID  string       `json:"node_id"`
	Claimed time.Time    `json:"claimed"`
}

// Address is one address of a pool's static range that one node has.
type Address struct {
	Addr     netip.Addr   `json:"addr"`
	Pool     netip.Prefix `json:"pool"`
	Node     string       `json:"node"`
	NodeID   string       `json:"node_id"`
	Endpoint string       `json:"endpoint,omitempty"` // "" while it is being made
	Claimed  time.Time    `json:"claimed"`
}

// Route is a prefix that a node announces through the store (fabric: store).
type Route struct {
	Prefix netip.Prefix `json:"prefix"`
	Node   string       `json:"node"`
	Kind   string       `json:"kind"` // "block", "address" or "route"
}
