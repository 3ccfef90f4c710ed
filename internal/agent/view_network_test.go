package agent

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"fairway/internal/api"
	"fairway/internal/cluster"
	"fairway/internal/config"
	"fairway/internal/kernel"
	"fairway/internal/plan"
)

// designer is a member that knows its links, with a config of its own.
func designer(t *testing.T, text string) *member {
	t.Helper()
	m := newMember(t)
	cfg, err := config.Parse("fairway.yaml", []byte(text), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cfg = cfg
	m.kern = &machinery{facts: &kernel.Facts{}}
	return m
}

// A network with a subnet per node is cut into parts and has no static range; the size is what somebody chose for the
// pool, and not the default for blocks.
func TestDesignNetwork(t *testing.T) {
	m := designer(t, "pools: [{cidr: 10.20.0.0/16}, {cidr: 10.21.0.0/16, blockSize: 22}, {cidr: 10.22.0.0/23, size: 23}, {cidr: 'fd20::/48'}]\n"+
		"dockerBridge: {pool: 10.30.0.0/16, subnet: 10.30.1.0/24}\n")
	for _, c := range []struct {
		subnets, mode, gateway string
		want                   []string // subnet, length of the parts, static range
		wrong                  string
	}{
		{subnets: "10.20.0.0/16", mode: "subnet", want: []string{"10.20.0.0/16 24 invalid Prefix"}},
		{subnets: "10.21.0.0/16", mode: "subnet", want: []string{"10.21.0.0/16 22 invalid Prefix"}},
		{subnets: "10.8.0.0/16 fd20::/48", mode: "subnet", want: []string{"10.8.0.0/16 24 invalid Prefix", "fd20::/48 64 invalid Prefix"}},
		{subnets: "10.20.0.0/16", mode: "routed", want: []string{"10.20.0.0/16 26 10.20.192.0/18"}},
		{subnets: "10.21.0.0/16", want: []string{"10.21.0.0/16 22 10.21.192.0/18"}},
		{subnets: "", mode: "subnet", want: []string{"10.20.0.0/20 24 invalid Prefix"}},
		{subnets: "10.20.1.0/24", mode: "subnet", wrong: "subnet 10.20.1.0/24 is one part, of /24"},
		{subnets: "10.20.0.0/16", mode: "subnet", gateway: "10.20.0.1", wrong: "each node's gateway is the first address of its own part"},
		{subnets: "10.20.0.0/16", mode: "bridged", wrong: "mode=bridged"},
		{subnets: "10.30.0.0/16", mode: "subnet", wrong: "overlaps 10.30.1.0/24 of dockerBridge"},
	} {
		req := api.NetworkRequest{Name: "net", Options: map[string]string{}}
		if c.mode != "" {
			req.Options["mode"] = c.mode
		}
		for s := range strings.FieldsSeq(c.subnets) {
			sub := api.Subnet{Prefix: netip.MustParsePrefix(s)}
			if c.gateway != "" {
				sub.Gateway = netip.MustParseAddr(c.gateway)
			}
			req.Subnets = append(req.Subnets, sub)
		}
		_, pools, err := m.designNetwork(m.c.View(), req)
		if c.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%+v: %v, want %q", req, err, c.wrong)
			}
			continue
		}
		var got []string
		for _, p := range pools {
			got = append(got, strings.Join([]string{p.CIDR.String(), itoa(p.BlockSize), p.Static.String()}, " "))
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, %v; want %v", req, got, err, c.want)
		}
	}
}

// Subnets of the cluster's networks and the addresses of its nodes see a container's own address, also before this node
// has the network; and nothing is claimed where Docker's default bridge of this node is.
func TestClusterIsKnown(t *testing.T) {
	m := designer(t, "dockerBridge: {pool: 10.9.0.0/16, subnet: 10.9.1.0/24}\n")
	p := netip.MustParsePrefix("172.20.0.0/16")
	n := cluster.Network{Name: "elsewhere", Subnets: []cluster.Subnet{{Prefix: p}}, Options: map[string]string{"mode": "subnet"}}
	if err := m.c.CreateNetwork(t.Context(), n, []cluster.Pool{{CIDR: p, BlockSize: 24}}); err != nil {
		t.Fatal(err)
	}
	var e plan.Egress
	m.until("its own cluster is known", func() bool {
		e = plan.Egress{}
		m.egressCluster(&e)
		return slices.Contains(e.Cluster, p) && slices.Equal(e.Underlay, []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")})
	})
	for block, want := range map[string]bool{"10.9.1.64/26": true, "10.9.0.0/16": true, "10.9.2.0/24": false} {
		if who, got := m.heardBlock(netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix(block)); got != want {
			t.Errorf("block %s is somebody's: %v %q, want %v", block, got, who, want)
		}
	}
}
