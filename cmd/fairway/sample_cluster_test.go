package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"fairway/internal/api"
)

// sampleCluster is the part of a sample that needs a store.
type sampleCluster struct {
	nodes   []api.Member
	removal api.Removal
	joined  api.Joined
	drains  []api.DrainRequest
	made    []api.NetworkRequest
}

func (s *sample) Nodes(context.Context) ([]api.Member, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster == nil {
		return nil, api.Unavailable(errors.New("this node has no store"))
	}
	return slices.Clone(s.cluster.nodes), nil
}

func (s *sample) Drain(_ context.Context, req api.DrainRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster == nil && req.Node != "" {
		return api.Unavailable(errors.New("this node has no store"))
	}
	if s.cluster != nil {
		s.cluster.drains = append(s.cluster.drains, req)
	}
	var d *api.Drain
	if req.Drain {
		d = &api.Drain{State: api.MemberDrained, Since: now, Refuse: req.Refuse}
	}
	if req.Node == "" {
		s.status.Drain = d
		return nil
	}
	for i := range s.cluster.nodes {
		m := &s.cluster.nodes[i]
		if m.Name != req.Node {
			continue
		}
		m.Drain = d
		if d != nil && m.State == api.MemberAlive {
			m.State = api.MemberDrained
		}
		return nil
	}
	return api.NotFound(fmt.Errorf("no node %q", req.Node))
}

func (s *sample) RemoveNode(_ context.Context, name string, dry bool) (api.Removal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster == nil {
		return api.Removal{}, api.Unavailable(errors.New("this node has no store"))
	}
	if name != s.cluster.removal.Node.Name {
		return api.Removal{}, api.Conflict(fmt.Errorf("node %s is alive: stop its agent first", name))
	}
	r := s.cluster.removal
	r.Removed = !dry
	return r, nil
}

func (s *sample) Announce(context.Context, api.Guest) error { return nil }

func (s *sample) Join(context.Context) (api.Joined, error) {
	if s.cluster == nil {
		return api.Joined{}, api.Unavailable(errors.New("this node has no store"))
	}
	return s.cluster.joined, nil
}

func (s *sample) CreateNetwork(_ context.Context, req api.NetworkRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster == nil {
		return api.Unavailable(errors.New("this node has no store"))
	}
	s.cluster.made = append(s.cluster.made, req)
	return nil
}

func (s *sample) RemoveNetwork(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, n := range s.networks {
		if n.Name != name || n.Cluster == nil {
			continue
		}
		c := *n.Cluster
		c.Removing, c.Nodes = now, slices.Clone(c.Nodes)
		for i := range c.Nodes {
			c.Nodes[i].State, c.Nodes[i].Problem = api.NetworkGone, ""
		}
		if name == "busy" {
			c.Nodes[1].State, c.Nodes[1].Problem = api.NetworkInUse, "containers web and db are on it"
		} else {
			s.networks = slices.Delete(s.networks, i, i+1)
			return nil
		}
		s.networks[i].Cluster = &c
		return nil
	}
	return api.NotFound(fmt.Errorf("no network %q of the cluster", name))
}

// clusterNode is a healthy node of a cluster of three, of which one is drained and one is down.
func clusterNode() *sample {
	s := usual()
	s.status.Store = &api.Store{Where: "etcd at 10.77.0.5:2379", Reachable: true, Since: ago(2 * day), Nodes: 3, Alive: 2, Networks: 2, Blocks: 2, Addresses: 1}
	s.cluster = &sampleCluster{
		nodes: []api.Member{
			{
				Name: "host1", ID: "0b5c7e1f4a2d", Self: true, State: api.MemberAlive, Address: addr("10.77.0.11"), Address6: addr("fd00:77::11"), ASN: 64512, Fabric: "bgp", Docker: true,
				Engine: "28.5.1", Version: "v0.2.0", Blocks: 2, Addresses: 1, Containers: 42, Joined: ago(40 * day), LastSeen: now,
			},
			{
				Name: "host2", ID: "1b5c7e1f4a2d", State: api.MemberDrained, Address: addr("10.77.0.12"), ASN: 64512, Fabric: "bgp", Docker: true, Engine: "20.10.24", Version: "v0.2.0",
				Blocks: 1, Containers: 3, Joined: ago(39 * day), LastSeen: now, Drain: &api.Drain{State: api.MemberDrained, Since: ago(192 * time.Second), By: "host1", Refuse: true},
			},
			{
				Name: "router1", ID: "2b5c7e1f4a2d", State: api.MemberDown, Address6: addr("fd00:77::13"), ASN: 64513, RouteReflector: true, Fabric: "bgp", Version: "v0.1.0",
				Joined: ago(38 * day), LastSeen: ago(5 * time.Hour),
			},
		},
		removal: api.Removal{
			Node:   api.Member{Name: "host3", State: api.MemberDown, Address: addr("10.77.0.13"), Containers: 2, LastSeen: ago(5 * time.Hour)},
			Blocks: []netip.Prefix{prefix("10.9.0.128/26"), prefix("fd00:9::80/122")},
			Addresses: []api.Claim{
				{Prefix: prefix("10.9.200.9/32"), Endpoint: epB},
				{Prefix: prefix("10.9.200.10/32")},
			},
			Networks: []string{"front"},
		},
		joined: api.Joined{
			ID:   "3b5c7e1f4a2d5566",
			Back: []api.Claim{{Prefix: prefix("10.9.0.128/26")}, {Prefix: prefix("10.9.200.9/32"), Container: "web"}},
			Lost: []api.Claim{{Prefix: prefix("fd00:9::80/122"), Node: "host2", Container: "db"}},
		},
	}
	front := &api.NetworkCluster{Name: "front", By: "host1", Nodes: []api.NetworkNode{
		{Node: "host1", Alive: true, State: api.NetworkReady, ID: netA, Since: ago(40 * day)},
		{Node: "host2", Alive: true, State: api.NetworkReady, ID: netB, Since: ago(39 * day)},
	}}
	s.networks[0].Cluster = front
	s.networks = append(s.networks, api.Network{
		Name: "busy", Mode: "routed", Subnets: []api.Subnet{{Prefix: prefix("10.7.0.0/16")}}, Created: ago(time.Minute), Options: map[string]string{},
		Cluster: &api.NetworkCluster{Name: "busy", By: "host2", Nodes: []api.NetworkNode{
			{Node: "host1", Alive: true, State: api.NetworkConflict, Since: ago(time.Minute), Problem: "a Docker network busy is there, of driver bridge: remove it, or rename one of the two"},
			{Node: "host2", Alive: true, State: api.NetworkReady, ID: netB, Since: ago(time.Minute)},
			{Node: "host3", State: api.NetworkAwaited},
		}},
	})
	s.ipam.Pools[0].Claimed, s.ipam.Pools[0].Most = 4, 768
	for i := range s.ipam.Pools[0].List {
		s.ipam.Pools[0].List[i].Origin = "store"
	}
	s.ipam.Pools[0].List = append(s.ipam.Pools[0].List,
		api.Block{CIDR: prefix("10.9.0.128/26"), Node: "host2", Origin: "store", Away: true, Since: ago(39 * day)},
		api.Block{CIDR: prefix("10.9.0.192/26"), Node: "host3", Origin: "store", Away: true, Since: ago(day), Problem: "this node held it until the store gave it to host3"})
	s.leaks = append(s.leaks, api.Leak{Kind: "block", What: "block 10.9.0.192/26 was this node's, and is node host3's by the store", SeenSince: now, Action: "nothing: the agent settles it", ByHand: true})
	s.ipam.Holdings = append(s.ipam.Holdings, api.Holding{Address: addr("10.9.200.8"), Kind: "container", State: "held", Network: "front", Endpoint: epB, Node: "host2", Away: true, Since: ago(day)})
	return s
}

// hostile is that cluster with texts as long as they can be.
func hostile() *sample {
	s := clusterNode()
	w := worst()
	long, word := w.status.Node.Name, w.status.Reason
	s.status.Store = &api.Store{Where: "etcd at " + strings.Repeat("very-long-name.example.net:2379, ", 9), Since: ago(99*day + 23*time.Hour), LastError: word}
	for i := range s.cluster.nodes {
		m := &s.cluster.nodes[i]
		m.Name, m.Engine, m.Version, m.Address, m.Address6, m.ASN = fmt.Sprint(long, i), long, long, netip.Addr{}, addr(full6), 4294967294
		m.Blocks, m.Containers, m.LastSeen = 1048576, 1048576, ago(99*day+23*time.Hour)
	}
	for i := range s.networks {
		s.networks[i].Name = fmt.Sprint(long, i)
		if c := s.networks[i].Cluster; c != nil {
			for j := range c.Nodes {
				c.Nodes[j].Node, c.Nodes[j].Problem = fmt.Sprint(long, j), word
			}
		}
	}
	for i := range s.ipam.Pools[0].List {
		s.ipam.Pools[0].List[i].Node, s.ipam.Pools[0].List[i].Problem = long, word
	}
	return s
}
