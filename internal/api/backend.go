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
