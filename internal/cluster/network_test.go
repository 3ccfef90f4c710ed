package cluster_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"fairway/internal/cluster"
	"fairway/internal/store"
	"fairway/internal/store/etcdtest"
)

func TestNetworkLife(t *testing.T) {
	srv := etcdtest.Start(t)
	a, b := mustBoot(t, newMachine(t, srv, "a", "192.0.2.1")), mustBoot(t, newMachine(t, srv, "b", "192.0.2.2"))
	b.registered()
	n, pools := network("lan", "10.9.0.0/16", "fd09::/64")
	n.Options = map[string]string{"mtu": "1400"}
	pools[1].BlockSize = 122
	if err := a.CreateNetwork(t.Context(), n, pools); err != nil {
		t.Fatal(err)
	}
	got, err := b.Network(t.Context(), "lan")
	if err != nil || got.By != "a" || got.Options["mtu"] != "1400" || len(got.Subnets) != 2 {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := b.Network(t.Context(), "wan"); !errors.Is(err, cluster.ErrNoNetwork) {
		t.Errorf("unknown: %v", err)
	}
	wants(t, b.CreateNetwork(t.Context(), n, pools), "create network lan", "exists already", "on node a")
	wan, wanPools := network("wan", "10.9.3.0/24")
	wants(t, b.CreateNetwork(t.Context(), wan, wanPools), "10.9.3.0/24", "10.9.0.0/16", "network lan")
	for _, x := range []*agent{a, b} {
		if err := x.SetState(t.Context(), cluster.NetworkState{Network: "lan", State: cluster.StateReady}); err != nil {
			t.Fatal(err)
		}
	}
	rev := a.View().Revision
	if err := a.SetState(t.Context(), cluster.NetworkState{Network: "lan", State: cluster.StateReady}); err != nil || a.View().Revision != rev {
		t.Errorf("the same state again is a write: %v", err)
	}
	block := b.hold(b.View().Nodes["b"].Value, "10.9.1.0/26")
	for range 2 {
		if err := b.RemoveNetwork(t.Context(), "lan"); err != nil {
			t.Fatal(err)
		}
	}
	wants(t, b.CreateNetwork(t.Context(), n, pools), "being removed")
	for _, x := range []*agent{a, b} {
		if _, there := x.View().Networks["lan"]; !there {
			t.Fatal("the record went while a node has the network")
		}
		if err := x.DeleteState(t.Context(), "lan"); err != nil {
			t.Fatal(err)
		}
	}
	a.sees("that no node has it", func(v *cluster.View) bool { return len(v.States) == 0 })
	if _, there := a.View().Networks["lan"]; !there {
		t.Fatal("the record went while a node has a block of it")
	}
	if _, err := b.remote.Commit(t.Context(), store.Txn{Delete: []string{block.Key()}}); err != nil {
		t.Fatal(err)
	}
	b.sees("that all is gone", func(v *cluster.View) bool { return len(v.Networks) == 0 && len(v.Pools) == 0 })
	if err := b.RemoveNetwork(t.Context(), "lan"); !errors.Is(err, cluster.ErrNoNetwork) {
		t.Errorf("remove it again: %v", err)
	}
	if err := b.CreateNetwork(t.Context(), wan, wanPools); err != nil {
		t.Error(err)
	}
}

// TestOverlapRace has many nodes make networks at once, all of whose subnets overlap others'.
func TestOverlapRace(t *testing.T) {
	srv := etcdtest.Start(t)
	var agents []*agent
	for i := range 6 {
		agents = append(agents, mustBoot(t, newMachine(t, srv, fmt.Sprint("n", i), fmt.Sprint("192.0.2.", i+1))))
	}
	for _, a := range agents {
		a.registered()
	}
	var made, refused atomic.Int32
	var wg sync.WaitGroup
	for i, a := range agents {
		for j := range 6 {
			wg.Go(func() {
				// Four /18 of one /16, each asked for nine times: as it is, as half of it, or as all of the /16.
				cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(64 * (j % 4)), 0}), 18+(i+j)%2)
				if i == 0 && j == 0 {
					cidr = netip.MustParsePrefix("10.9.0.0/16")
				}
				n, pools := network(fmt.Sprintf("net-%d-%d", i, j), cidr.String())
				switch err := a.CreateNetwork(t.Context(), n, pools); {
				case err == nil:
					made.Add(1)
				case strings.Contains(err.Error(), "overlap"):
					refused.Add(1)
				default:
					t.Errorf("%v: %v", cidr, err)
				}
			})
		}
	}
	wg.Wait()
	v := agents[0].View()
	agents[0].sees("all networks", func(now *cluster.View) bool { v = now; return len(now.Networks) == int(made.Load()) })
	if made.Load() == 0 || made.Load()+refused.Load() != 36 || len(v.Pools) != len(v.Networks) {
		t.Errorf("%d made, %d refused, %d pools", made.Load(), refused.Load(), len(v.Pools))
	}
	for p := range v.Pools {
		for q := range v.Pools {
			if p != q && p.Overlaps(q) {
				t.Errorf("pools %v and %v overlap", p, q)
			}
		}
	}
}
