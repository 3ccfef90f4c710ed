package api

import (
	"context"
	"net/netip"
)

// Backend is the agent as this package sees it. All methods are called from several goroutines at once, also while the
// agent starts or stops, and should answer within the request's context.
//
// An error becomes status 500, unless NotFound, Conflict or Invalid says otherwise.
type Backend interface {
	Viewer
	Addresses
	Controller
	Members
	NetworkMaker
	Host
}

// Host is the agent as other programs of its machine see it, which route networks of their own.
type Host interface {
	// Announce tells other nodes of the prefixes of a guest, for GuestTime. Prefixes that overlap a network of ours are refused
	// (Conflict).
	Announce(ctx context.Context, g Guest) error
}

// Viewer tells what is there. The slices are the caller's.
type Viewer interface {
	Status(ctx context.Context) (Status, error)
	Containers(ctx context.Context) ([]Container, error)
	Networks(ctx context.Context) ([]Network, error)
	Routes(ctx context.Context) ([]Route, error)
}

// Addresses tells who holds which address, and sets right what is held for nobody.
type Addresses interface {
	IPAM(ctx context.Context) (IPAM, error)
	// IPAMCheck compares what is held with what the engine and the kernel have. With fix it also ends the leaks; each
	// Leak says whether that was done.
	IPAMCheck(ctx context.Context, fix bool) ([]Leak, error)
	// IPAMRelease lets go of one address. Without force an address whose endpoint is still there is refused (Conflict);
	// an address that nobody holds is NotFound.
	IPAMRelease(ctx context.Context, addr netip.Addr, force bool) error
}

// Controller is the rest: sessions, settings, and what makes the agent read its config again.
type Controller interface {
	Peers(ctx context.Context) ([]Peer, error)
	Settings(ctx context.Context) ([]Setting, error)
	Reload(ctx context.Context) (ReloadResult, error)
	// Ready says whether the node serves containers; when it does not, reason says what is awaited. It never blocks.
	Ready() (ready bool, reason string)
}

// Members tells of the nodes of the cluster and changes them. Without a store all but the drain of the own node is
// refused (Unavailable), saying what to configure; so it is while the store is unreachable, within 3 s.
type Members interface {
	Nodes(ctx context.Context) ([]Member, error)
	// Drain begins or ends the drain of a node, which does it within seconds.
	Drain(ctx context.Context, req DrainRequest) error
	// RemoveNode says what a node holds and, unless dry, gives that to the others. A node that is alive is refused
	// (Conflict), an unknown one is NotFound.
	RemoveNode(ctx context.Context, name string, dry bool) (Removal, error)
	// Join makes a fenced node a member again, with what of its own is still free.
	Join(ctx context.Context) (Joined, error)
}

// NetworkMaker makes and removes networks of the cluster. Both return once it is recorded: Networks tells how the nodes
// stand. The errors are as those of Members.
type NetworkMaker interface {
	CreateNetwork(ctx context.Context, req NetworkRequest) error
	RemoveNetwork(ctx context.Context, name string) error
}
