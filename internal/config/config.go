package config

import (
	"log/slog"
	"net/netip"
	"slices"
	"time"
)

// DefaultPath is where the agent looks for its config when it is told no other place.
const DefaultPath = "/etc/fairway/fairway.yaml"

// Config is everything that an operator decides about one node. It is a plain
// value that nobody changes once it is loaded, so it may be shared.
type Config struct {
	Node         Node
	State        string // directory of what outlives the agent; absolute
	Run          string // directory of the API socket; absolute
	Docker       Docker
	Log          Log
	Store        Store
	Pools        []Pool // they never overlap
	IPAM         IPAM
	Fabric       Fabric
	BGP          BGP
	Nodes        []ClusterNode // used with FabricStatic
	Routes       []Route
	DockerBridge DockerBridge
	Metrics      Metrics

	origins map[string]string // key path of a scalar -> origin; a missing one is a default
}

// Node says who this node is and which of its addresses the others reach it by. At most
// one of Address, Interface and CIDR is set; none means the source address towards the default route.
type Node struct {
	Name      string       // "" means the host name
	Address   netip.Addr   // IPv4; zero: chosen
	Address6  netip.Addr   // IPv6; zero: chosen
	Interface string       // take the addresses of this link; "" for none
	CIDR      netip.Prefix // take the address inside this prefix; zero for none
}

// Docker tells how this node serves its Docker engine.
type Docker struct {
	Enabled bool   // false: a plain router
	Plugins string // directory of plugin sockets; absolute
	Socket  string // the engine's socket, for listings and events; absolute
	Name    string // driver name, and name of the plugin socket without .sock
}

// Log says what the agent writes on standard error.
type Log struct {
	Level  slog.Level
	Format LogFormat
}

// LogFormat is how a log line looks.
type LogFormat string

// The log formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// Store is where the nodes agree; without one they do not.
type Store struct {
	Etcd Etcd
}

// Etcd names an etcd cluster.
type Etcd struct {
	Endpoints    []string // host:port, or http:// and https:// URLs, https:// at all of them or none; empty: no store
	TLS          TLS
	User         string // "" for none; with PasswordFile
	PasswordFile string // absolute; its first line is the password, and may change while the agent runs
	Prefix       string // of every key, with a leading slash
}

// TLS names PEM files; "" for none. Without a CA the system's authorities count; Cert and Key are ours, both or none.
type TLS struct {
	CA, Cert, Key string
}

// Pool is an address range that networks get their subnets from.
type Pool struct {
	CIDR      netip.Prefix // masked
	BlockSize int          // prefix length of a block: CIDR.Bits()..32 or 128
	Block     netip.Prefix // this node's own part of CIDR; zero: none
	Size      int          // prefix length of the subnet of a network that names none: CIDR.Bits()..BlockSize; with Block it is CIDR.Bits()
	Egress    Egress       // of networks that do not say
	// NoMasqueradeTo are further destinations that networks with subnets inside CIDR reach with their own addresses.
	NoMasqueradeTo []netip.Prefix
}

// Egress is how packets to destinations outside every known pool leave the node.
type Egress string

// The ways out.
const (
	EgressRoute      Egress = "route"      // with the container's own address
	EgressMasquerade Egress = "masquerade" // with the node's address
)

// IPAM is about giving out addresses.
type IPAM struct {
	HoldDown time.Duration // rest of a released address before it is given out again: 0..24h
}

// Fabric is what carries routes between nodes.
type Fabric string

// The fabrics. FabricStore needs a Store.
const (
	FabricBGP    Fabric = "bgp"
	FabricStore  Fabric = "store"
	FabricStatic Fabric = "static"
	FabricKernel Fabric = "kernel"
	FabricNone   Fabric = "none"
)

// BGP is this node's BGP speaker; it is used with FabricBGP.
type BGP struct {
	ASN             uint32         // 1..4294967294 without the reserved 23456 and 65535
	RouterID        netip.Addr     // IPv4; zero: the node's address
	Listen          netip.AddrPort // zero: connect only. An unspecified address (0.0.0.0, ::) means every address of both families
	HoldTime        time.Duration  // of peers that do not say: 3s..65535s, whole seconds (RFC 4271, 4.2)
	Mesh            bool           // with a store: peer with every node
	MeshBFD         bool           // BFD on the sessions of the mesh, with the timers of BFD
	RouteReflector  bool           // internal peers are clients of this node (RFC 4456)
	Multipath       bool           // use all equally good paths
	Aggregate       []netip.Prefix // announced by this node in place of the prefixes inside them; they never overlap
	Peers           []Peer
	BFD             BFD
	Import          Import
	GracefulRestart GracefulRestart
}

// Peer is one BGP neighbour of the config, or with Range any number of them. Exactly one of Address, Interface and Range is
// set.
type Peer struct {
	Address      netip.Addr    // with a zone if it is link-local
	Interface    string        // unnumbered: the one router on this link (RFC 5549, RFC 8950)
	Range        netip.Prefix  // every router inside it that calls is a peer
	ASN          uint32        // 0, not with Address: any AS but our own
	Port         uint16        // TCP port of the peer
	PasswordFile string        // absolute; "" for none
	Password     Secret        // what the file holds, without white space around it: 1..80 bytes; "" for none (RFC 2385)
	TTLSecurity  bool          // GTSM: only packets with TTL 255 (RFC 5082)
	Multihop     uint8         // TTL towards an external peer that is not on a link of ours; 0: it is on one
	BFD          bool          // with the timers of BGP.BFD
	HoldTime     time.Duration // effective: its own or BGP.HoldTime
	Passive      bool          // wait for the peer to connect
}

// Name is what the peer is called in listings: its address, its range or its interface.
func (p Peer) Name() string {
	switch {
	case p.Address.IsValid():
		return p.Address.String()
	case p.Range.IsValid():
		return p.Range.String()
	}
	return p.Interface
}

// BFD holds the timers of BFD sessions (RFC 5880).
type BFD struct {
	Interval   time.Duration // transmit and required receive interval: 50ms..10s
	Multiplier uint8         // lost packets that make the session go down: 1..255
}

// Import says what is taken from peers besides prefixes inside the pools.
type Import struct {
	Prefixes    []netip.Prefix // a route is allowed that is one of these or inside one
	MaxPrefixes uint32         // per peer and family; more of them end the session. 0: no limit
}

// GracefulRestart is RFC 4724: peers keep our routes while the agent restarts.
type GracefulRestart struct {
	Enabled     bool
	RestartTime time.Duration // how long they do: 1s..4095s, whole seconds
}

// ClusterNode is another node, or this one, of the static fabric. Every family of Subnets has its address.
type ClusterNode struct {
	Name     string
	Address  netip.Addr     // IPv4 next hop; zero: none
	Address6 netip.Addr     // IPv6 next hop; zero: none
	Subnets  []netip.Prefix // masked; no two nodes' overlap
}

// Route is a further static route.
type Route struct {
	To       netip.Prefix // masked
	Via      netip.Addr   // of the same family; with a zone if it is link-local
	Announce bool         // tell the other nodes
}

// DockerBridge gives Docker's default bridge a subnet of the cluster.
type DockerBridge struct {
	Pool           netip.Prefix   // IPv4 range of the bridges of all nodes; zero: the bridge is Docker's business alone
	Prefix         int            // length of a node's subnet of Pool: 1..30
	Subnet         netip.Prefix   // this node's; zero without a Pool only
	Pool6          netip.Prefix   // IPv6, together with Pool only; zero: none
	Prefix6        int            // 1..126
	Subnet6        netip.Prefix   // zero without a Pool6 only
	Masquerade     bool           // what leaves the cluster has the node's address
	NoMasqueradeTo []netip.Prefix // further destinations that see the containers' own addresses
}

// Subnets are this node's subnets of the bridge, IPv4 before IPv6; none when the bridge is not ours.
func (b DockerBridge) Subnets() []netip.Prefix { return valid(b.Subnet, b.Subnet6) }

// Pools are the ranges of the bridges of all nodes.
func (b DockerBridge) Pools() []netip.Prefix { return valid(b.Pool, b.Pool6) }

func valid(all ...netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(all, func(p netip.Prefix) bool { return !p.IsValid() })
}

// Metrics is where the agent serves /metrics and the health checks.
type Metrics struct {
	Listen netip.AddrPort // zero: nowhere
}

// Secret is a text that no log, listing or error shows. Convert it to string to use it.
type Secret string

const hidden = "(hidden)"

// String hides the text from every fmt verb that asks for one.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString hides the text from %#v.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// MarshalText hides the text from encoding/json and its like, and from slog.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Default is the Config of a node that has no file: alone, with the default pools.
func Default() *Config {
	return &Config{
		State:  "/var/lib/fairway",
		Run:    "/run/fairway",
		Docker: Docker{Enabled: true, Plugins: "/run/docker/plugins", Socket: "/run/docker.sock", Name: "fairway"},
		Log:    Log{Level: slog.LevelInfo, Format: LogText},
		Store:  Store{Etcd: Etcd{Prefix: "/fairway"}},
		Pools:  defaultPools(),
		IPAM:   IPAM{HoldDown: 30 * time.Second},
		Fabric: FabricBGP,
		BGP: BGP{
			ASN:             64512,
			Listen:          netip.AddrPortFrom(netip.IPv4Unspecified(), 179),
			HoldTime:        9 * time.Second,
			Mesh:            true,
			Multipath:       true,
			BFD:             BFD{Interval: 300 * time.Millisecond, Multiplier: 3},
			Import:          Import{MaxPrefixes: 10000},
			GracefulRestart: GracefulRestart{Enabled: true, RestartTime: 120 * time.Second},
		},
		DockerBridge: DockerBridge{Prefix: 24, Prefix6: 64, Masquerade: true},
		Metrics:      Metrics{Listen: netip.MustParseAddrPort("127.0.0.1:9477")},
	}
}

func defaultPools() []Pool {
	return []Pool{
		{CIDR: netip.MustParsePrefix("10.210.0.0/16"), BlockSize: 26, Size: 20, Egress: EgressRoute},
		{CIDR: netip.MustParsePrefix("fdfa:1f:a::/48"), BlockSize: 122, Size: 64, Egress: EgressRoute},
	}
}
