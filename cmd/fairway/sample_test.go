package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"fairway/internal/api"
)

// sample is a node that tells what a test put into it, behind a real server.
type sample struct {
	mu         sync.Mutex
	status     api.Status
	containers []api.Container
	networks   []api.Network
	routes     []api.Route
	ipam       api.IPAM
	leaks      []api.Leak
	cluster    *sampleCluster // nil: no store
	asked      int            // how often for readiness
	readyAfter int            // so many questions
}

func (s *sample) Containers(context.Context) ([]api.Container, error) { return s.containers, nil }
func (s *sample) Routes(context.Context) ([]api.Route, error)         { return s.routes, nil }
func (s *sample) Peers(context.Context) ([]api.Peer, error)           { return s.status.Fabric.Peers, nil }
func (s *sample) IPAM(context.Context) (api.IPAM, error)              { return s.ipam, nil }
func (s *sample) Settings(context.Context) ([]api.Setting, error)     { return nil, nil }
func (s *sample) Reload(context.Context) (api.ReloadResult, error)    { return api.ReloadResult{}, nil }

func (s *sample) Status(context.Context) (api.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status, nil
}

func (s *sample) Networks(context.Context) ([]api.Network, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.networks), nil
}

func (s *sample) IPAMCheck(_ context.Context, fix bool) ([]api.Leak, error) {
	var out []api.Leak
	for _, l := range s.leaks {
		if fix {
			l.Fixed = l.Link == ""
			if !l.Fixed {
				l.Error = "operation not permitted"
			}
		}
		out = append(out, l)
	}
	return out, nil
}

func (s *sample) IPAMRelease(_ context.Context, a netip.Addr, force bool) error {
	for _, h := range s.ipam.Holdings {
		if h.Address != a {
			continue
		}
		if h.Endpoint != "" && !force {
			return api.Conflict(fmt.Errorf("address %s belongs to endpoint %s; stop its container, or use --force", a, shortID(h.Endpoint)))
		}
		return nil
	}
	return api.NotFound(errors.New("address " + a.String() + " is not held on this node"))
}

func (s *sample) Ready() (bool, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.readyAfter == 0 {
		return s.status.Ready, s.status.Reason
	}
	return s.asked > s.readyAfter, "reading the kernel"
}

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

const (
	day   = 24 * time.Hour
	idA   = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	idB   = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"
	netA  = "0f3a1c5e7b9d2f4a6c8e0b1d3f5a7c9e1b3d5f7a9c0e2b4d6f8a1c3e5b7d9f01"
	netB  = "0fbb1c5e7b9d2f4a6c8e0b1d3f5a7c9e1b3d5f7a9c0e2b4d6f8a1c3e5b7d9f02"
	epA   = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90"
	epB   = "b1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90"
	full6 = "2001:db8:1234:5678:9abc:def0:1234:5678"
)

// usual is a healthy node as most are.
func usual() *sample {
	pool := api.PoolUsage{CIDR: prefix("10.9.0.0/16"), BlockSize: 26, Blocks: 2, Held: 66, Resting: 1, Free: 59, Usage: 0.00136}
	pool6 := api.PoolUsage{CIDR: prefix("fd00:9::/64"), BlockSize: 122, Blocks: 1, Held: 2, Free: 62}
	return &sample{
		status: api.Status{
			Node:     api.Node{Name: "host1", Version: "v0.1.0", Started: ago(2*day + 4*time.Hour), RouterID: addr("10.77.0.11")},
			Ready:    true,
			Underlay: api.Underlay{Interface: "eth0", Address: addr("10.77.0.11"), Address6: addr("fd00:77::11"), MTU: 1500, Why: "source address towards the default route"},
			Engine:   api.Engine{Enabled: true, Socket: "/run/docker.sock", Reachable: true, Version: "28.5.1", APIVersion: "1.51", LiveRestore: true},
			Plugin:   api.Plugin{Socket: "/run/docker/plugins/fairway.sock", Driver: "fairway", Ready: true},
			Fabric: api.Fabric{Name: "bgp", Converged: true, PeersConfigured: 2, PeersEstablished: 2, Learned: 14, Announced: 3, Prefixes: []api.Announced{
				{Prefix: prefix("10.9.0.0/26"), Kind: "block"}, {Prefix: prefix("10.9.200.7/32"), Kind: "address"}, {Prefix: prefix("fd00:9::/122"), Kind: "block"},
			}, Peers: []api.Peer{
				{
					Name: "10.77.0.12", Address: addr("10.77.0.12"), Link: "eth0", ASN: 64512, RouterID: addr("10.77.0.12"), Node: "host2", State: "established",
					Since: ago(2 * day), BFD: "up", Received: 7, Sent: 3, HoldTime: api.Seconds(9 * time.Second),
				},
				{
					Name: "fe80::1%eth1", Address: addr("fe80::1%eth1"), Link: "eth1", ASN: 64999, RouterID: addr("10.77.0.1"), State: "established",
					Since: ago(192 * time.Second), Received: 7, Refused: 2, Sent: 3, HoldTime: api.Seconds(9 * time.Second), LastError: "hold timer expired",
				},
			}},
			Pools: []api.PoolUsage{pool, pool6}, Networks: 2, Containers: 42,
			Routes:     map[string]int{"container": 44, "block": 3, "learned": 14},
			Kernel:     api.Kernel{Passes: 812, LastPass: api.Seconds(1200 * time.Microsecond), Mended: map[string]uint64{"routes": 2, "rules": 1, "links": 0}},
			Neighbours: []api.NeighbourTable{{Family: "ipv4", Entries: 12, Limit: 1024}},
		},
		containers: []api.Container{
			{
				Name: "db", ID: idA, Node: "host1", Network: "front", NetworkID: netA, EndpointID: epA, Addresses: []netip.Addr{addr("10.9.0.3"), addr("fd00:9::3")},
				Further: []netip.Addr{addr("10.9.200.7")}, MAC: "02:42:0a:09:00:03", Link: "fwa1b2c3d4e5f6", Sandbox: "/run/docker/netns/4f1e", State: "joined", Since: ago(3 * time.Hour),
				AnnouncedAs: []api.Announced{{Prefix: prefix("10.9.0.0/26"), Kind: "block"}, {Prefix: prefix("fd00:9::/122"), Kind: "block"}, {Prefix: prefix("10.9.200.7/32"), Kind: "address"}},
			},
			{
				EndpointID: epB, Node: "host1", NetworkID: netB, Addresses: []netip.Addr{addr("10.9.0.4")}, MAC: "02:42:0a:09:00:04", Link: "fwb1b2c3d4e5f6",
				State: "created", Since: ago(time.Second),
			},
		},
		networks: []api.Network{
			{
				Name: "front", ID: netA, Mode: "routed", MTU: 1500, Subnets: []api.Subnet{{Prefix: prefix("10.9.0.0/16"), Gateway: addr("10.9.0.1")}, {Prefix: prefix("fd00:9::/64"), Gateway: addr("fd00:9::1")}},
				Blocks: []netip.Prefix{prefix("10.9.0.0/26"), prefix("fd00:9::/122")}, Endpoints: 41, Options: map[string]string{"mode": "routed", "mtu": "1500"}, Created: ago(40 * day),
			},
			{ID: netB, Mode: "routed", Internal: true, MTU: 9000, Subnets: []api.Subnet{{Prefix: prefix("10.8.0.0/24")}}, Endpoints: 1, Created: ago(time.Hour)},
		},
		routes: []api.Route{
			{Prefix: prefix("10.9.0.0/26"), Kind: "block", Source: "local", Node: "host1", Best: true, InKernel: true},
			{Prefix: prefix("10.9.0.3/32"), Kind: "container", Link: "fwa1b2c3d4e5f6", Source: "local", Node: "host1", Best: true, InKernel: true, Since: ago(3 * time.Hour)},
			{Prefix: prefix("10.9.0.64/26"), Kind: "learned", Via: addr("10.77.0.12"), Link: "eth0", Source: "bgp", Peer: "10.77.0.12", Node: "host2", Best: true, InKernel: true, Since: ago(2 * day)},
			{Prefix: prefix("10.9.0.64/26"), Kind: "learned", Via: addr("fe80::1"), Link: "eth1", Source: "bgp", Peer: "fe80::1%eth1", Node: "host2", Since: ago(192 * time.Second)},
			{Prefix: prefix("10.50.0.0/16"), Kind: "static", Via: addr("10.77.0.9"), Source: "static", Best: true, Problem: "no link reaches the next hop 10.77.0.9"},
			{Prefix: prefix("fd00:9::3/128"), Kind: "container", Link: "fwa1b2c3d4e5f6", Source: "local", Node: "host1", Best: true, InKernel: true, Since: ago(3 * time.Hour)},
		},
		ipam: api.IPAM{
			Pools: []api.Pool{
				{PoolUsage: pool, Network: "front", List: []api.Block{
					{CIDR: prefix("10.9.0.0/26"), Node: "host1", Origin: "first", Held: 62, Resting: 1, Free: 0, Since: ago(40 * day)},
					{CIDR: prefix("10.9.0.64/26"), Node: "host1", Origin: "first", Held: 4, Free: 59, Since: ago(day)},
				}},
				{PoolUsage: pool6, Network: netB, List: []api.Block{{CIDR: prefix("fd00:9::/122"), Node: "host1", Origin: "first", Held: 2, Free: 62, Since: ago(40 * day)}}},
				{PoolUsage: api.PoolUsage{CIDR: prefix("10.8.0.0/16"), BlockSize: 26}},
			},
			Holdings: []api.Holding{
				{Address: addr("10.9.0.1"), Kind: "gateway", State: "held", Network: "front", Node: "host1", Since: ago(40 * day), Generation: 1},
				{Address: addr("10.9.0.3"), Kind: "container", State: "held", Network: "front", Endpoint: epA, Container: "db", Node: "host1", Since: ago(3 * time.Hour), Generation: 9},
				{Address: addr("10.9.0.4"), Kind: "container", State: "held", Network: "front", Endpoint: epB, Node: "host1", Since: ago(time.Second), Generation: 2},
				{Address: addr("10.9.0.5"), Kind: "container", State: "resting", Network: "front", Node: "host1", Since: ago(18 * time.Second), RestingUntil: now.Add(12 * time.Second), Generation: 4},
				{Address: addr("10.9.200.7"), Kind: "further", State: "held", Network: netB, Endpoint: epA, Container: idA, Node: "host1", Since: ago(3 * time.Hour), Generation: 1},
			},
		},
		leaks: []api.Leak{
			{Kind: "address", Address: addr("10.9.0.44"), Endpoint: epB, Network: "front", What: "held for endpoint b1b2c3d4e5f6, which the engine does not have", SeenSince: ago(192 * time.Second), Action: "release the address"},
			{Kind: "link", Link: "fwb1b2c3d4e5f6", Network: netB, What: "belongs to no endpoint", SeenSince: ago(time.Minute), Action: "delete the link"},
		},
	}
}

// worst is a node in trouble where every text is as long as it can be, and hostile.
func worst() *sample {
	s := usual()
	long := strings.Repeat("very-long-name.", 17)[:253]
	word := "error\x1b[31m with\n" + strings.Repeat("x", 170) + " and more of it\u202e to read"
	s.status.Ready, s.status.Reason = false, word
	s.status.Node.Name, s.status.Node.Version = long, long
	s.status.Underlay = api.Underlay{Interface: "enp0s31f6np0v15", Address: addr("255.255.255.254"), Address6: addr(full6), MTU: 65535, Why: word}
	s.status.Engine = api.Engine{Enabled: true, Socket: "/" + long}
	s.status.Plugin = api.Plugin{Socket: "/" + long, Driver: long}
	s.status.Fabric.Converged, s.status.Fabric.PeersEstablished, s.status.Fabric.PeersConfigured = false, 1, 40
	s.status.Fabric.Learned, s.status.Fabric.Announced = 1048576, 1048576
	for i := range 38 {
		p := api.Peer{Name: full6 + "%enp0s31f6np0v15", ASN: 4294967294, State: "openconfirm", Since: ago(99*day + 23*time.Hour), BFD: "admin-down", Received: 1048576, Refused: 1048576, Sent: 1048576}
		if i%2 == 0 {
			p.LastError = word
		} else {
			p.Problem = word
		}
		s.status.Fabric.Peers = append(s.status.Fabric.Peers, p)
	}
	s.status.Fabric.Peers = s.status.Fabric.Peers[1:]
	for i := range 12 {
		s.status.Conditions = append(s.status.Conditions,
			api.Condition{Code: "peer-down", Severity: api.SeverityError, Since: ago(time.Duration(i) * time.Hour), Text: fmt.Sprintf("peer %d: %s", i, word), Hint: word})
	}
	s.status.Conditions = append([]api.Condition{{Code: "note", Severity: api.SeverityInfo, Since: ago(day), Text: "for your information"}}, s.status.Conditions...)
	s.status.Kernel.Pending = []string{word}
	s.status.Kernel.Mended = map[string]uint64{"routes": 1 << 60, "links": 1 << 60, "rules": 1 << 60, "sysctls": 1 << 60}
	huge := api.PoolUsage{CIDR: prefix("2001:db8:1234:5678:9abc:def0:1234::/112"), Blocks: 1 << 20, Held: 1 << 30, Resting: 1 << 30, Free: 1 << 30, Usage: 1}
	for range 9 {
		s.status.Pools = append(s.status.Pools, huge)
	}
	s.containers[0].Name, s.containers[0].Network, s.containers[0].Problem = long, long, word
	s.containers[0].Addresses[1] = addr(full6)
	s.containers[1].EndpointID, s.containers[1].Network = long, long
	for i := range s.networks {
		s.networks[i].Name, s.networks[i].Options, s.networks[i].Problem = fmt.Sprint(long, i), map[string]string{"staticRange": word}, word
		s.networks[i].Subnets = append(s.networks[i].Subnets, api.Subnet{Prefix: prefix("2001:db8:1234:5678:9abc:def0:1234::/112"), Gateway: addr(full6)})
	}
	s.routes = append(s.routes, api.Route{Prefix: prefix(full6 + "/128"), Kind: "container", Via: addr(full6), Link: "enp0s31f6np0v15", Node: long, Peer: long, Since: ago(99 * day), Problem: word})
	s.ipam.Pools[0].PoolUsage, s.ipam.Pools[0].Network = huge, long
	s.ipam.Pools[0].List = append(s.ipam.Pools[0].List, api.Block{CIDR: prefix("2001:db8:1234:5678:9abc:def0:1234:5640/122"), Origin: "ip-range", Held: 64})
	s.ipam.Holdings = append(s.ipam.Holdings, api.Holding{Address: addr(full6), Kind: "container", Network: long, Container: long, Since: ago(99*day + 23*time.Hour)})
	s.leaks[0].What, s.leaks[0].Action, s.leaks[0].Network, s.leaks[1].Link = word, word, long, long
	return s
}
