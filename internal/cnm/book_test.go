package cnm_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/cnm"
	"fairway/internal/ipam"
	"fairway/internal/store"
)

// rig is a book over a real file, with a disk that can be made to fail and a clock that the test moves.
type rig struct {
	*cnm.Book
	path  string
	local *store.Local
	fail  error
	now   time.Time
	heard map[netip.Addr]string
	taken map[netip.Prefix]string
	links map[string]string // strangers', by name
}

func (r *rig) List(ctx context.Context, prefix string) (store.Listing, error) {
	return r.local.List(ctx, prefix)
}

func (r *rig) Commit(ctx context.Context, t store.Txn) (uint64, error) {
	if r.fail != nil {
		return 0, r.fail
	}
	return r.local.Commit(ctx, t)
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{
		path: filepath.Join(t.TempDir(), "state.db"), now: time.Unix(1_000_000, 0),
		heard: map[netip.Addr]string{}, taken: map[netip.Prefix]string{},
	}
	r.open(t)
	t.Cleanup(func() { _ = r.local.Close() })
	return r
}

func (r *rig) open(t *testing.T) {
	t.Helper()
	var err error
	if r.local, err = store.Open(r.path); err != nil {
		t.Fatal(err)
	}
	opts := ipam.Options{Now: func() time.Time { return r.now }, HoldDown: 30 * time.Second, Plan: ipam.Plan{
		Alone: true,
		Pools: []ipam.PoolPlan{{CIDR: pfx("10.210.0.0/16"), Size: 20}, {CIDR: pfx("fdfa::/48"), Size: 64}},
	}}
	node := cnm.Node{
		Heard: func(a netip.Addr) (string, bool) { who, ok := r.heard[a]; return who, ok },
		Taken: func(p netip.Prefix) (string, bool) {
			for q, what := range r.taken {
				if q.Overlaps(p) {
					return what, true
				}
			}
			return "", false
		},
		Link: func(name string) (string, bool) { kind, ok := r.links[name]; return kind, ok },
	}
	if r.Book, err = cnm.Load(t.Context(), r, opts, node); err != nil {
		t.Fatal(err)
	}
}

// reopen is the agent killed and started.
func (r *rig) reopen(t *testing.T) {
	t.Helper()
	if err := r.local.Close(); err != nil {
		t.Fatal(err)
	}
	r.open(t)
}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func ip(s string) netip.Addr    { return netip.MustParseAddr(s) }

// network does what the engine does for docker network create.
func (r *rig) network(t *testing.T, id, subnet string, opts map[string]string) error {
	t.Helper()
	pool, cidr, err := r.RequestPool(t.Context(), cnm.PoolRequest{Space: "fairway-local", Pool: pfx(subnet)})
	if err != nil {
		return err
	}
	gw, err := r.RequestAddress(t.Context(), cnm.AddressRequest{Pool: pool, Gateway: true})
	if err != nil {
		return err
	}
	req := cnm.NetworkRequest{ID: id, Options: opts}
	sub := []cnm.SubnetRequest{{Prefix: cidr, Gateway: gw.Addr(), Space: "fairway-local"}}
	if cidr.Addr().Is4() {
		req.IPv4 = sub
	} else {
		req.IPv6 = sub
	}
	return r.CreateNetwork(t.Context(), req)
}

// endpoint does what the engine does for docker run, up to Join.
func (r *rig) endpoint(t *testing.T, network, id string, opts map[string]string) (cnm.Endpoint, error) {
	t.Helper()
	var pool string
	for _, n := range r.Snapshot().Networks {
		if n.ID == network {
			pool = n.Subnets[0].Pool
		}
	}
	a, err := r.RequestAddress(t.Context(), cnm.AddressRequest{Pool: pool})
	if err != nil {
		return cnm.Endpoint{}, err
	}
	return r.CreateEndpoint(t.Context(), cnm.EndpointRequest{Network: network, ID: id, Addr4: a, Options: opts})
}

const epID = "aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899"

func TestLifeOfAnEndpoint(t *testing.T) {
	r := newRig(t)
	if err := r.network(t, "net1", "10.9.0.0/16", nil); err != nil {
		t.Fatal(err)
	}
	e, err := r.endpoint(t, "net1", epID, map[string]string{"fairway.addresses": "10.9.192.7, 192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	if e.LinkName() != "fwaabbccddeeff" || e.Addrs[0] != pfx("10.9.0.2/32") || e.MACSet || !e.MAC.IsUnicast() {
		t.Errorf("endpoint %+v", e)
	}
	for range 2 { // the engine may repeat itself
		reply, err := r.Join(t.Context(), "net1", epID, "/run/docker/netns/1")
		if err != nil {
			t.Fatal(err)
		}
		want := cnm.JoinReply{Link: "fvaabbccddeeff", Gateway4: ip("10.9.0.1"), OnLink: []netip.Addr{ip("10.9.0.1")}}
		if diff := cmp.Diff(want, reply, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
	}
	r.reopen(t)
	if got, ok := r.Endpoint(epID); !ok || got.State != cnm.Joined || got.Sandbox == "" {
		t.Errorf("after a restart: %+v, %v", got, ok)
	}
	for range 2 {
		if err := errors.Join(r.Leave(t.Context(), "net1", epID), r.DeleteEndpoint(t.Context(), "net1", epID)); err != nil {
			t.Error(err)
		}
	}
	if err := r.ReleaseAddress(t.Context(), r.Snapshot().Networks[0].Subnets[0].Pool, ip("10.9.0.2")); err != nil {
		t.Error(err)
	}
	for _, h := range r.Holdings() {
		if h.State == ipam.StateHeld && h.Kind != ipam.KindGateway {
			t.Errorf("still held: %+v", h)
		}
	}
	if e, err = r.endpoint(t, "net1", "other", nil); err != nil || e.Addrs[0] != pfx("10.9.0.3/32") {
		t.Errorf("the next container has %v (%v), want a fresh address while the last one rests", e.Addrs, err)
	}
}

// A release that comes late must not take the address from whoever has it by then: it is the deleted endpoint's until
// the engine releases it.
func TestDeletedEndpointKeepsItsAddressUntilReleased(t *testing.T) {
	r := newRig(t)
	if err := r.network(t, "net1", "10.9.0.0/16", nil); err != nil {
		t.Fatal(err)
	}
	e, err := r.endpoint(t, "net1", epID, nil)
	if err != nil {
		t.Fatal(err)
	}
	pool, addr := r.Snapshot().Networks[0].Subnets[0].Pool, e.Addrs[0].Addr()
	if err := r.DeleteEndpoint(t.Context(), "net1", epID); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RequestAddress(t.Context(), cnm.AddressRequest{Pool: pool, Addr: addr}); !errors.Is(err, ipam.ErrInUse) {
		t.Errorf("the address was given out again before it was released: %v", err)
	}
	if o := r.Orphans(); len(o) != 1 || o[0].Addr != addr {
		t.Errorf("orphans %v", o)
	}
	if err := r.ReleaseAddress(t.Context(), pool, addr); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RequestAddress(t.Context(), cnm.AddressRequest{Pool: pool, Addr: addr}); err != nil {
		t.Errorf("after the release: %v", err)
	}
	if o := r.Orphans(); len(o) != 0 {
		t.Errorf("orphans %v", o)
	}
}

func TestInternalNetworkHasNoDefaultRoute(t *testing.T) {
	r := newRig(t)
	pool, cidr, err := r.RequestPool(t.Context(), cnm.PoolRequest{Space: "s", Pool: pfx("10.9.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	gw, err := r.RequestAddress(t.Context(), cnm.AddressRequest{Pool: pool, Gateway: true})
	if err != nil {
		t.Fatal(err)
	}
	req := cnm.NetworkRequest{ID: "n", Internal: true, IPv4: []cnm.SubnetRequest{{Prefix: cidr, Gateway: gw.Addr()}}}
	if err := r.CreateNetwork(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if _, err := r.endpoint(t, "n", epID, nil); err != nil {
		t.Fatal(err)
	}
	reply, err := r.Join(t.Context(), "n", epID, "/s")
	if err != nil || reply.Gateway4.IsValid() || len(reply.Routes) != 1 || reply.Routes[0].Dst != cidr {
		t.Errorf("reply %+v, %v", reply, err)
	}
}

func TestAChangeThatCannotBeSavedHasNotHappened(t *testing.T) {
	r := newRig(t)
	if err := r.network(t, "net1", "10.9.0.0/24", nil); err != nil {
		t.Fatal(err)
	}
	before, held := r.Snapshot(), r.Holdings()
	r.fail = errors.New("disk full")
	_, err := r.endpoint(t, "net1", epID, nil)
	if !errors.Is(err, r.fail) {
		t.Fatalf("err %v", err)
	}
	for _, err := range []error{
		r.network(t, "net2", "10.8.0.0/24", nil), r.DeleteNetwork(t.Context(), "net1"),
		r.ReleasePool(t.Context(), before.Networks[0].Subnets[0].Pool),
	} {
		if !errors.Is(err, r.fail) {
			t.Errorf("err %v", err)
		}
	}
	same := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	addr := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := cmp.Diff(before, r.Snapshot(), same, addr); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(held, r.Holdings(), same, addr); diff != "" {
		t.Error(diff)
	}
	r.fail = nil
	r.reopen(t)
	if diff := cmp.Diff(before.Networks, r.Snapshot().Networks, same, addr); diff != "" {
		t.Error(diff)
	}
	if _, err := r.endpoint(t, "net1", epID, nil); err != nil {
		t.Errorf("after the disk is back: %v", err)
	}
}

func TestCreateNetworkRefuses(t *testing.T) {
	tests := []struct {
		name, subnet string
		opts         map[string]string
		want         []string // each in the error
	}{
		{"unknown option", "10.8.0.0/16", map[string]string{"mdoe": "routed"}, []string{"mdoe", "mode"}},
		{"option in wrong case", "10.8.0.0/16", map[string]string{"Mode": "routed"}, []string{"Mode=routed", "allowed"}},
		{"unknown mode", "10.8.0.0/16", map[string]string{"mode": "l2"}, []string{"mode=l2", "routed"}},
		{"later mode", "10.8.0.0/16", map[string]string{"mode": "vxlan"}, []string{"mode=vxlan", "routed"}},
		{"later option", "10.8.0.0/16", map[string]string{"ingress": "10.0.0.0/8"}, []string{"ingress=10.0.0.0/8", "not available"}},
		{"egress", "10.8.0.0/16", map[string]string{"egress": "nat"}, []string{"egress=nat", "route", "masquerade"}},
		{"noMasqueradeTo", "10.8.0.0/16", map[string]string{"noMasqueradeTo": "10.7.0.0/16,office"}, []string{"noMasqueradeTo=10.7.0.0/16,office", "192.0.2.0/24"}},
		{"noMasqueradeTo with host bits", "10.8.0.0/16", map[string]string{"noMasqueradeTo": "10.7.0.1/16"}, []string{"10.7.0.1/16", "10.7.0.0/16"}},
		{"noMasqueradeTo in wrong case", "10.8.0.0/16", map[string]string{"nomasqueradeto": "10.7.0.0/16"}, []string{"nomasqueradeto=10.7.0.0/16", "noMasqueradeTo"}},
		{"mtu no number", "10.8.0.0/16", map[string]string{"mtu": "big"}, []string{"mtu=big", "68", "65535"}},
		{"mtu too small", "10.8.0.0/16", map[string]string{"mtu": "67"}, []string{"mtu=67", "68"}},
		{"mtu too small for IPv6", "fd08::/64", map[string]string{"mtu": "1279"}, []string{"mtu=1279", "1280"}},
		{"mtu twice", "10.8.0.0/16", map[string]string{"mtu": "1400", "com.docker.network.driver.mtu": "1300"}, []string{"mtu=1400", "1300"}},
		{"static range outside", "10.8.0.0/16", map[string]string{"staticRange": "10.7.0.0/24"}, []string{"10.7.0.0/24", "10.8.0.0/16"}},
		{"static range with host bits", "10.8.0.0/16", map[string]string{"staticRange": "10.8.0.1/24"}, []string{"10.8.0.1/24", "10.8.0.0/24"}},
		{"overlaps a network", "10.9.128.0/17", nil, []string{"10.9.128.0/17", "10.9.0.0/16"}},
		{"same as a network", "10.9.0.0/16", nil, []string{"10.9.0.0/16"}},
		{"overlaps the node", "10.77.0.0/16", nil, []string{"10.77.0.0/16", "10.77.0.0/24 on eth0"}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			r.taken[pfx("10.77.0.0/24")] = "10.77.0.0/24 on eth0"
			if err := r.network(t, "net1", "10.9.0.0/16", nil); err != nil {
				t.Fatal(err)
			}
			err := r.network(t, "net2", tc.subnet, tc.opts)
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not name %q", err, w)
				}
			}
			if n := r.Snapshot().Networks; len(n) != 1 {
				t.Errorf("half made: %v", n)
			}
		})
	}
}

func TestEndpointRefuses(t *testing.T) {
	tests := []struct {
		name string
		req  cnm.EndpointRequest
		want string
	}{
		{"unknown network", cnm.EndpointRequest{Network: "nope", ID: "x", Addr4: pfx("10.9.0.9/32")}, "nope"},
		{"no ID", cnm.EndpointRequest{Network: "net1", Addr4: pfx("10.9.0.9/32")}, "without an ID"},
		{"no address", cnm.EndpointRequest{Network: "net1", ID: "x"}, "no address"},
		{"foreign address", cnm.EndpointRequest{Network: "net1", ID: "x", Addr4: pfx("10.8.0.9/32")}, "10.8.0.9"},
		{"group MAC", cnm.EndpointRequest{Network: "net1", ID: "x", Addr4: pfx("10.9.0.9/32"), MAC: [6]byte{1}}, "01:00:00:00:00:00"},
		{"further address twice", cnm.EndpointRequest{
			Network: "net1", ID: "x", Addr4: pfx("10.9.0.2/32"),
			Options: map[string]string{"fairway.addresses": "192.0.2.1,192.0.2.1"},
		}, "twice"},
		{"further address no address", cnm.EndpointRequest{
			Network: "net1", ID: "x", Addr4: pfx("10.9.0.2/32"), Options: map[string]string{"fairway.addresses": "web"},
		}, `"web"`},
		{"further address of another's network", cnm.EndpointRequest{
			Network: "net1", ID: "x", Addr4: pfx("10.9.0.2/32"), Options: map[string]string{"fairway.addresses": "10.6.0.9"},
		}, "10.6.0.9"},
		{"unknown option", cnm.EndpointRequest{
			Network: "net1", ID: "x", Addr4: pfx("10.9.0.2/32"), Options: map[string]string{"fairway.adresses": "192.0.2.1"},
		}, "fairway.addresses"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			if err := errors.Join(r.network(t, "net1", "10.9.0.0/16", nil), r.network(t, "net2", "10.6.0.0/16", nil)); err != nil {
				t.Fatal(err)
			}
			pool := r.Snapshot().Networks[0].Subnets[0].Pool
			if _, err := r.RequestAddress(t.Context(), cnm.AddressRequest{Pool: pool}); err != nil {
				t.Fatal(err)
			}
			before := fmt.Sprint(r.Holdings())
			if _, err := r.CreateEndpoint(t.Context(), tc.req); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one that names %q", err, tc.want)
			}
			if after := fmt.Sprint(r.Holdings()); after != before || len(r.Snapshot().Endpoints) != 0 {
				t.Errorf("half made: %s", after)
			}
		})
	}
}

func TestReleaseOfALivingEndpointsAddress(t *testing.T) {
	r := newRig(t)
	if err := r.network(t, "net1", "10.9.0.0/16", nil); err != nil {
		t.Fatal(err)
	}
	e, err := r.endpoint(t, "net1", epID, nil)
	if err != nil {
		t.Fatal(err)
	}
	pool := r.Snapshot().Networks[0].Subnets[0].Pool
	if err := r.ReleaseAddress(t.Context(), pool, e.Addrs[0].Addr()); err != nil {
		t.Fatal(err)
	}
	if e, _ = r.Endpoint(epID); len(e.Addrs) != 0 {
		t.Errorf("the endpoint still has %v", e.Addrs)
	}
}

func TestChosenSubnetAvoidsTheNode(t *testing.T) {
	r := newRig(t)
	r.taken[pfx("10.210.0.0/19")] = "10.210.0.0/19 on eth0"
	_, cidr, err := r.RequestPool(t.Context(), cnm.PoolRequest{Space: "s"})
	if err != nil || cidr != pfx("10.210.32.0/20") {
		t.Errorf("chose %v (%v), want the first one that is free", cidr, err)
	}
	if n := len(r.Snapshot().Pools); n != 1 {
		t.Errorf("%d pools are left, want 1", n)
	}
}
