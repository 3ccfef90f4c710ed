package api

import (
	"net/netip"
	"time"
)

// Store is how the store of the cluster stands, as this node sees it.
type Store struct {
	Where     string    `json:"where"` // "etcd at 10.77.0.5:2379"
	Reachable bool      `json:"reachable"`
	Since     time.Time `json:"since,omitzero"` // of Reachable
	LastError string    `json:"last_error,omitempty"`
	Fenced    string    `json:"fenced,omitempty"`    // why this node is fenced; "": it is not
	Restored  time.Time `json:"restored,omitzero"`   // when an older copy of the store was last noticed in its place
	Nodes     int       `json:"nodes"`               // of the cluster
	Alive     int       `json:"alive"`               // of them, as last heard
	Networks  int       `json:"networks"`            // of the cluster
	Blocks    int       `json:"blocks"`              // that this node has in the store
	Addresses int       `json:"addresses"`           // of static ranges that this node has in the store
	Newer     []string  `json:"newer_schema"`        // records of a newer version, which this one does not read
	Unsettled []string  `json:"unsettled,omitempty"` // what this node and the store do not agree on, in words
}

// The states of a Member.
const (
	MemberAlive        = "alive"
	MemberDraining     = "draining"     // it goes on announcing, as a last resort
	MemberDrained      = "drained"      // alive, and it announces nothing
	MemberDown         = "down"         // nothing was heard of it for some seconds
	MemberFenced       = "fenced"       // it was removed and is here again: it neither announces nor gives out
	MemberUnknown      = "unknown"      // the store is unreachable, so nobody can say
	MemberUnregistered = "unregistered" // this node, until the store has its record
)

// Member is a node of the cluster.
type Member struct {
	Name           string     `json:"name"`
	ID             string     `json:"id"`
	Self           bool       `json:"self"` // the node that was asked
	State          string     `json:"state"`
	Address        netip.Addr `json:"address,omitzero"`
	Address6       netip.Addr `json:"address6,omitzero"`
	ASN            uint32     `json:"asn,omitempty"` // 0: no BGP
	RouteReflector bool       `json:"route_reflector"`
	Fabric         string     `json:"fabric"`
	Docker         bool       `json:"docker"` // containers may live here
	Engine         string     `json:"engine,omitempty"`
	Version        string     `json:"version"`
	Blocks         int        `json:"blocks"`
	Addresses      int        `json:"addresses"`  // of static ranges
	Containers     int        `json:"containers"` // as last heard
	Joined         time.Time  `json:"joined,omitzero"`
	LastSeen       time.Time  `json:"last_seen,omitzero"` // now, of a node that is alive
	Drain          *Drain     `json:"drain,omitempty"`    // nil: it is not asked to drain
}

// Drain asks a node to announce nothing.
type Drain struct {
	State  string    `json:"state"` // draining, drained
	Since  time.Time `json:"since"`
	By     string    `json:"by,omitempty"` // the node on which it was asked for
	Refuse bool      `json:"refuse"`       // it takes no new containers either
}

// DrainRequest begins or ends the drain of a node.
type DrainRequest struct {
	Node   string `json:"node,omitempty"` // "": the node that is asked
	Drain  bool   `json:"drain"`          // false: end it
	Refuse bool   `json:"refuse,omitempty"`
}

// Removal is what a node held that is, or would be, removed.
type Removal struct {
	Node      Member         `json:"node"`
	Blocks    []netip.Prefix `json:"blocks"`
	Addresses []Claim        `json:"addresses"`
	Routes    []netip.Prefix `json:"routes"`   // that it announced through the store
	Networks  []string       `json:"networks"` // that it had
	Removed   bool           `json:"removed"`  // false: nothing was changed
}

// Claim is an address or a block, and who has it.
type Claim struct {
	Prefix    netip.Prefix `json:"prefix"`
	Node      string       `json:"node,omitempty"`
	Endpoint  string       `json:"endpoint,omitempty"`
	Container string       `json:"container,omitempty"` // name, or ID while the name is unknown
}

// Joined is what a node got back that joined again after it had been removed.
type Joined struct {
	ID   string  `json:"id"`   // its new one
	Back []Claim `json:"back"` // blocks and addresses that are its own again
	Lost []Claim `json:"lost"` // those of another node now, which each names, with the containers here that still use them
	Open []Claim `json:"open"` // in nobody's name yet; the agent goes on claiming them
}

// NetworkRequest makes a network on every node.
type NetworkRequest struct {
	Name     string            `json:"name"`
	Subnets  []Subnet          `json:"subnets"` // none: the next free subnet of the config's pools
	Internal bool              `json:"internal,omitempty"`
	Options  map[string]string `json:"options,omitempty"`
}

// NetworkCluster is the part of a Network that all nodes share.
type NetworkCluster struct {
	Name     string        `json:"name"`              // in the cluster; a Docker network that was made by hand may have another
	By       string        `json:"by"`                // the node on which it was made
	Removing time.Time     `json:"removing,omitzero"` // since when it is being removed; zero: it is not
	Nodes    []NetworkNode `json:"nodes"`             // those with Docker, by name
}

// The states of a network on a node: as the node says, but for the last two, of a node that has said nothing.
const (
	NetworkReady    = "ready"
	NetworkFailed   = "failed"
	NetworkConflict = "conflict" // a Docker network of the name is there, and is another one
	NetworkInUse    = "in use"   // it is being removed, and containers are on it
	NetworkAwaited  = "awaited"
	NetworkGone     = "gone" // it is being removed, and the node does not have it any more
)

// NetworkNode is how a network of the cluster stands on one node.
type NetworkNode struct {
	Node    string    `json:"node"`
	Alive   bool      `json:"alive"`
	State   string    `json:"state"`
	ID      string    `json:"id,omitempty"`
	Problem string    `json:"problem,omitempty"`
	Since   time.Time `json:"since,omitzero"`
}

// Ready counts the nodes that have the network, of those that are alive or have it.
func (n NetworkCluster) Ready() (ready, all int) {
	for _, s := range n.Nodes {
		if s.State == NetworkReady {
			ready++
		}
		if s.State == NetworkReady || s.Alive {
			all++
		}
	}
	return ready, all
}
