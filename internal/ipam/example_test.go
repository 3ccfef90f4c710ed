package ipam_test

import (
	"fmt"
	"net/netip"
	"time"

	"fairway/internal/ipam"
)

// A network is made, a container gets an address and gives it back.
func Example() {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	a := ipam.New(ipam.Options{
		Now:      func() time.Time { return now },
		HoldDown: 30 * time.Second,
		Plan:     ipam.Plan{Alone: true},
	})

	pool, delta, err := a.RequestPool(ipam.PoolRequest{Space: "local", Pool: netip.MustParsePrefix("10.9.0.0/16")})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(pool.ID, "static range", pool.Static)
	for _, r := range delta.Put { // save them; if that fails: a.Undo(delta)
		fmt.Println("save", r.Key())
	}

	gateway, _, _ := a.RequestAddress(ipam.AddressRequest{Pool: pool.ID, Gateway: true}, nil)
	fmt.Println("gateway", gateway.Addr)
	_, _ = a.BindNetwork("n1", []netip.Prefix{pool.CIDR}, ipam.BindSettings{})

	h, delta, _ := a.RequestAddress(ipam.AddressRequest{Pool: pool.ID}, nil)
	fmt.Println("container", h.Addr)
	for _, r := range delta.Put {
		fmt.Println("save", r.Key())
	}
	_, _ = a.BindEndpoint(h.Addr, "n1", "e1", "")
	_, _ = a.ReleaseAddress(pool.ID, h.Addr)

	for _, h := range a.Holdings() {
		fmt.Println(h.Addr, h.Kind, h.State)
	}
	// Output:
	// v1/local/10.9.0.0/16 static range 10.9.192.0/18
	// save pool/v1/local/10.9.0.0/16
	// gateway 10.9.0.1
	// container 10.9.0.2
	// save block/v1/local/10.9.0.0/16/10.9.0.0/26
	// save addr/v1/local/10.9.0.0/16/10.9.0.2
	// 10.9.0.1 gateway held
	// 10.9.0.2 endpoint resting
}
