// Package fabric carries routes between nodes. A fabric hears what others have and puts it into the rib; it is handed
// the whole set of what this node announces, and makes what it tells others agree with that.
//
// Nothing in here touches the kernel's routes, and no callback of a session waits for anybody: what is heard is stored
// and marked dirty.
package fabric

import (
	"context"
	"net/netip"
	"time"

	"fairway/internal/config"
	"fairway/internal/kernel"
)

// Fabric is one way of carrying routes.
type Fabric interface {
	// Run works until the context ends. Ending it closes sessions so that peers keep our routes over a restart
	// (graceful restart), and withdraws nothing.
	Run(ctx context.Context) error
	// Announce makes what is told to others agree with the whole set; the map stays the caller's. Withdrawals are
	// handed to the sessions before it returns.
	Announce(ctx context.Context, want map[netip.Prefix]Announcement) error
	// Update tells a new config (SIGHUP) and new facts of the node; both may be unchanged. Sessions whose own settings
	// did not change are not touched. A link that lost its carrier ends the sessions over it at once.
	Update(ctx context.Context, cfg *config.Config, facts kernel.Facts) error
	// Status is what listings and health conditions show.
	Status() Status
}

// Announcement is how a prefix of this node is told to others; the next hop is always the node itself.
type Announcement struct {
	Kind string // "block", "address", "aggregate", "route": for listings
	// GracefulShutdown asks others to prefer any other way: the prefix is about to be withdrawn (RFC 8326).
	GracefulShutdown bool
}

// MeshPeer is a peer that the records of the cluster name, not the config.
type MeshPeer struct {
	Node   string // its name
	Peer   config.Peer
	Client bool // this node reflects routes to it (RFC 4456)
	// Away says that the node is known not to be alive: its session is kept ready, and nobody waits for it.
	Away bool
}

// Status of a fabric.
type Status struct {
	Name string // "bgp", "static", "kernel", "none"
	// Converged says that every source has reported once (End-of-RIB of every configured peer, or the time for it is
	// over): from then on, learned routes of an earlier run that nobody announces any more may be removed.
	Converged bool
	Peers     []Peer
	Announced map[netip.Prefix]Announcement
}

// Peer is one BGP session.
type Peer struct {
	Name      string // address, or address%link when unnumbered, or the link alone while nobody is known on it
	Node      string // the node of the cluster that a peer of the mesh is; "" for one of the config
	Away      bool   // that node is known not to be alive: no session with it is expected
	Address   netip.Addr
	Link      string // the link the session runs over, when known
	ASN       uint32
	RouterID  netip.Addr // zero until established
	State     string     // idle, connect, active, opensent, openconfirm, established (RFC 4271, 8.2.2)
	Since     time.Time  // of the state
	BFD       string     // "", down, init, up (RFC 5880), admin-down
	Received  int        // prefixes accepted from it
	Refused   int        // prefixes that the import filter kept out
	Sent      int        // prefixes told to it
	HoldTime  time.Duration
	LastError string // why the session last ended, "" when it never did
	Problem   string // a lasting fault in words, e.g. max-prefix reached, with what to do; "" when none
}
