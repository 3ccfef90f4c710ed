package api

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"time"
)

// Status is the node on one screen.
type Status struct {
	Node       Node             `json:"node"`
	Ready      bool             `json:"ready"`
	Reason     string           `json:"reason,omitempty"` // why not ready
	Underlay   Underlay         `json:"underlay"`
	Engine     Engine           `json:"engine"`
	Plugin     Plugin           `json:"plugin"`
	Fabric     Fabric           `json:"fabric"`
	Store      *Store           `json:"store,omitempty"` // nil: none is configured
	Drain      *Drain           `json:"drain,omitempty"` // nil: this node does not drain
	Pools      []PoolUsage      `json:"pools"`
	Networks   int              `json:"networks"`
	Containers int              `json:"containers"` // endpoints that are plugged into a sandbox
	Routes     map[string]int   `json:"routes"`     // by Route.Kind; in the kernel
	Kernel     Kernel           `json:"kernel"`
	Neighbours []NeighbourTable `json:"neighbours"`
	Conditions []Condition      `json:"conditions"`
}

// Bad says that the node needs somebody: it is not ready, or a condition of severity error stands.
func (s Status) Bad() bool {
	for _, c := range s.Conditions {
		if c.Severity == SeverityError {
			return true
		}
	}
	return !s.Ready
}

// Node is this machine.
type Node struct {
	Name     string     `json:"name"`
	Version  string     `json:"version"` // of the agent
	Started  time.Time  `json:"started"`
	RouterID netip.Addr `json:"router_id,omitzero"`
}

// Underlay is the link and the addresses by which other nodes reach this one.
type Underlay struct {
	Interface string     `json:"interface"`
	Address   netip.Addr `json:"address,omitzero"`
	Address6  netip.Addr `json:"address6,omitzero"`
	MTU       int        `json:"mtu"` // bytes
	Why       string     `json:"why"` // how it was chosen, e.g. "source address towards the default route"
}

// Engine is the Docker engine as last heard.
type Engine struct {
	Enabled     bool   `json:"enabled"` // false: a plain router, and nothing else is set
	Socket      string `json:"socket,omitempty"`
	Reachable   bool   `json:"reachable"`
	Version     string `json:"version,omitempty"`
	APIVersion  string `json:"api_version,omitempty"`
	LiveRestore bool   `json:"live_restore"`
}

// Plugin is our side of the engine.
type Plugin struct {
	Socket string `json:"socket,omitempty"`
	Driver string `json:"driver,omitempty"` // the name to give to docker network create -d
	Ready  bool   `json:"ready"`
}

// Fabric is what carries routes between nodes.
type Fabric struct {
	Name             string `json:"name"`             // bgp, store, static, kernel, none
	Converged        bool   `json:"converged"`        // every source has reported once
	PeersConfigured  int    `json:"peers_configured"` // by hand and by the mesh, without nodes that are not alive
	PeersEstablished int    `json:"peers_established"`
	Learned          int    `json:"learned"`   // prefixes heard from others
	Announced        int    `json:"announced"` // prefixes told to others
	// Prefixes are those: what this node has for others to reach, sorted.
	Prefixes []Announced `json:"prefixes"`
	Peers    []Peer      `json:"peers"`
}

// PoolUsage is how much of a pool is used on this node.
type PoolUsage struct {
	CIDR      netip.Prefix `json:"cidr"`
	BlockSize int          `json:"block_size"` // prefix length
	Blocks    int          `json:"blocks"`     // that this node has
	Held      int          `json:"held"`       // addresses
	Resting   int          `json:"resting"`    // addresses released lately
	Free      int          `json:"free"`       // addresses, in the blocks that this node has
	// Usage is 0 to 1: of the addresses that this node may ever give out from the pool, those not to be had now.
	Usage float64 `json:"usage"`
}

// Kernel is what the agent did to the kernel since it started.
type Kernel struct {
	Passes   uint64  `json:"passes"`
	LastPass Seconds `json:"last_pass_seconds"` // how long the last one took
	// Mended counts what somebody else took away or changed and the agent put back, by kind: routes, links, addresses,
	// neighbours, rules, sysctls. A kind without any may be missing.
	Mended  map[string]uint64 `json:"mended"`
	Pending []string          `json:"pending"` // errors of objects that could not be applied yet
}

// NeighbourTable is how full the kernel's ARP or ND table is.
type NeighbourTable struct {
	Family  string `json:"family"`  // ipv4, ipv6
	Entries int    `json:"entries"` // that count against the limit
	Limit   int    `json:"limit"`   // gc_thresh3
}

// Severity says how bad a condition is.
type Severity string

// The severities. Only an error makes `fairway status` exit with 1.
const (
	SeverityInfo    Severity = "info"
	SeverityWarning Severity = "warning"
	SeverityError   Severity = "error"
)

// Condition is something that stands and that an operator should know.
type Condition struct {
	Code     string    `json:"code"` // stable, with dashes: "peer-down"
	Severity Severity  `json:"severity"`
	Since    time.Time `json:"since"`
	Text     string    `json:"text"`           // what is the case
	Hint     string    `json:"hint,omitempty"` // what to do about it
}

// Container is a container's place on one network; a container on two networks is listed twice.
type Container struct {
	Name        string       `json:"name,omitempty"` // "" while the engine has not told it
	ID          string       `json:"id,omitempty"`
	Node        string       `json:"node"`
	Network     string       `json:"network,omitempty"` // name; "" while unknown
	NetworkID   string       `json:"network_id"`
	EndpointID  string       `json:"endpoint_id"`
	Addresses   []netip.Addr `json:"addresses"`         // one IPv4, one IPv6 at most
	Further     []netip.Addr `json:"further,omitempty"` // fairway.addresses
	MAC         string       `json:"mac"`
	Link        string       `json:"link"` // the node's end
	Sandbox     string       `json:"sandbox,omitempty"`
	State       string       `json:"state"` // created, joined, left
	Since       time.Time    `json:"since"` // of the state
	AnnouncedAs []Announced  `json:"announced_as"`
	Problem     string       `json:"problem,omitempty"`
}

// Announced is a prefix told to other nodes.
type Announced struct {
	Prefix netip.Prefix `json:"prefix"`
	Kind   string       `json:"kind"` // block, address, aggregate, route
}

// Network is a Docker network of our driver on this node, or one of the cluster that this node has not made yet.
type Network struct {
	Name      string            `json:"name,omitempty"` // "" while the engine has not told it
	ID        string            `json:"id"`             // "" while this node does not have it
	Mode      string            `json:"mode"`
	Internal  bool              `json:"internal"`
	MTU       int               `json:"mtu"` // bytes; effective
	Bridge    string            `json:"bridge,omitempty"`
	Subnets   []Subnet          `json:"subnets"`
	Blocks    []netip.Prefix    `json:"blocks"` // of this node, inside the subnets
	Endpoints int               `json:"endpoints"`
	Options   map[string]string `json:"options"` // as given
	Created   time.Time         `json:"created"`
	Problem   string            `json:"problem,omitempty"`
	Cluster   *NetworkCluster   `json:"cluster,omitempty"` // nil: it is this node's alone
}

// Subnet is one address range of a network.
type Subnet struct {
	Prefix  netip.Prefix `json:"prefix"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
}

// Route is one path to a prefix; a prefix with several ways is listed once for each.
type Route struct {
	Prefix   netip.Prefix `json:"prefix"`
	Kind     string       `json:"kind"`           // container, block, aggregate, guest, docker, learned, static
	Via      netip.Addr   `json:"via,omitzero"`   // next hop; zero: on the link itself, or a blackhole (block, aggregate)
	Link     string       `json:"link,omitempty"` // "" for a blackhole, and while no link reaches the next hop
	Source   string       `json:"source"`         // local, static, store, bgp
	Peer     string       `json:"peer,omitempty"` // who told it
	Node     string       `json:"node,omitempty"` // who holds it: a node's name, or its router ID, or "AS 64999" of a stranger
	Best     bool         `json:"best"`           // chosen; several best paths of a prefix are used together
	InKernel bool         `json:"in_kernel"`
	Since    time.Time    `json:"since,omitzero"`
	Problem  string       `json:"problem,omitempty"`
}

// Guest is a program of this machine that routes networks of its own, whose prefixes other nodes are told.
type Guest struct {
	Name     string         `json:"name"`     // tells guests apart: 1..64 bytes
	Link     string         `json:"link"`     // by which this machine reaches the prefixes, for listings
	Prefixes []netip.Prefix `json:"prefixes"` // all of them; none: the guest goes
}

// GuestTime is how long what a guest said holds, unless it says it again.
const GuestTime = 30 * time.Second

// Peer is one session of the fabric.
type Peer struct {
	Name      string     `json:"name"` // address, address%link, or the link alone while nobody is known on it
	Address   netip.Addr `json:"address,omitzero"`
	Link      string     `json:"link,omitempty"`
	ASN       uint32     `json:"asn"`
	RouterID  netip.Addr `json:"router_id,omitzero"`
	Node      string     `json:"node,omitempty"` // the fairway node behind it, when known
	Away      bool       `json:"away,omitempty"` // that node is not alive, so nobody is to be expected there
	State     string     `json:"state"`          // idle, connect, active, opensent, openconfirm, established
	Since     time.Time  `json:"since,omitzero"` // of the state
	BFD       string     `json:"bfd,omitempty"`  // down, init, up, admin-down; "" when not used
	Received  int        `json:"received"`       // prefixes accepted
	Refused   int        `json:"refused"`        // prefixes that the import filter kept out
	Sent      int        `json:"sent"`
	HoldTime  Seconds    `json:"hold_time_seconds"`
	LastError string     `json:"last_error,omitempty"` // why the session last ended
	Problem   string     `json:"problem,omitempty"`    // a lasting fault, with what to do
}

// Established says that the session is up.
func (p Peer) Established() bool { return p.State == "established" }

// IPAM is the address book of the node, and what the store says of the others.
type IPAM struct {
	Pools    []Pool    `json:"pools"`
	Holdings []Holding `json:"holdings"` // sorted by address
}

// Pool is an address range with the blocks of it: this node's, and those of the others that the store tells.
type Pool struct {
	PoolUsage
	Claimed int     `json:"claimed,omitempty"` // blocks that any node has, with a store
	Most    int     `json:"most,omitempty"`    // blocks that there are in all, with a store
	Network string  `json:"network,omitempty"` // name or ID of the network whose subnet it is; "" when configured only
	List    []Block `json:"block_list"`
}

// Block is a part of a pool that one node owns.
type Block struct {
	CIDR    netip.Prefix `json:"cidr"`
	Node    string       `json:"node"`
	Origin  string       `json:"origin"`         // why it is the node's: ip-range, config, first, store
	Away    bool         `json:"away,omitempty"` // another node's; what is in it is not known here
	Problem string       `json:"problem,omitempty"`
	Held    int          `json:"held"`
	Resting int          `json:"resting"`
	Free    int          `json:"free"`
	Since   time.Time    `json:"since,omitzero"`
}

// Holding is an address that is not free.
type Holding struct {
	Address      netip.Addr `json:"address"`
	Kind         string     `json:"kind"`              // container, gateway, further, reserved
	State        string     `json:"state"`             // held, resting
	Network      string     `json:"network,omitempty"` // name, or ID while the name is unknown
	Endpoint     string     `json:"endpoint,omitempty"`
	Container    string     `json:"container,omitempty"` // name, or ID while the name is unknown
	Node         string     `json:"node"`
	Away         bool       `json:"away,omitempty"`         // another node's; its container is not known here
	Since        time.Time  `json:"since"`                  // of the state
	RestingUntil time.Time  `json:"resting_until,omitzero"` // when a resting address may be given out again
	Generation   uint64     `json:"generation"`             // grows each time that the address is given out
}

// Leak is something held for nobody.
type Leak struct {
	Kind      string     `json:"kind"` // address, endpoint, link, network; block, claim and node of the store
	Address   netip.Addr `json:"address,omitzero"`
	Endpoint  string     `json:"endpoint,omitempty"`
	Link      string     `json:"link,omitempty"`
	Network   string     `json:"network,omitempty"`
	What      string     `json:"what"` // what is wrong, in words
	SeenSince time.Time  `json:"seen_since"`
	Action    string     `json:"action"`            // what --fix does, or did; with ByHand, what there is to do
	ByHand    bool       `json:"by_hand,omitempty"` // --fix leaves it alone
	Fixed     bool       `json:"fixed"`
	Error     string     `json:"error,omitempty"` // why it could not be fixed
}

// Setting is one effective value of the config and where it came from.
type Setting struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Origin string `json:"origin"` // "default", "file:LINE", "env NAME" or "flag --x"
}

// ReloadResult is what reading the config again changed.
type ReloadResult struct {
	Applied []Change `json:"applied"`
	Restart []Change `json:"restart"` // take effect only when the agent is restarted
}

// Change is one key of the config whose value differs.
type Change struct {
	Key string `json:"key"`
	Old string `json:"old"`
	New string `json:"new"`
}

// Health is the answer of /healthz and /readyz.
type Health struct {
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

// Seconds is a duration whose JSON form is a number of seconds.
type Seconds time.Duration

// MarshalJSON writes seconds, with a fraction where there is one.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(s).Seconds())
}

// UnmarshalJSON reads seconds.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("read seconds: %w", err)
	}
	*s = Seconds(math.Round(f * float64(time.Second)))
	return nil
}
