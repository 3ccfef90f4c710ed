package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"fairway/internal/api"
	"fairway/internal/export"
)

const exportConfig = `
node: {name: host1, address: 10.77.1.11, address6: "fd77:0:0:1::11"}
fabric: static
pools:
  - {cidr: 10.9.0.0/16, block: 10.9.1.0/24}
  - {cidr: "fd09::/48", block: "fd09:0:0:1::/64"}
nodes:
  - {name: host2, address: 10.77.1.12, address6: "fd77:0:0:1::12", subnets: [10.9.2.0/24, "fd09:0:0:2::/64", 10.9.12.0/24]}
  - {name: host3, address: 10.77.2.13, subnets: [10.9.3.0/24]}
routes:
  - {to: 192.0.2.0/24, via: 10.77.1.99, announce: true}
  - {to: 198.51.100.0/24, via: 10.77.1.99}
`

// Routes of a config: nodes:, this node's blocks and what it announces, for one router or another.
func TestExportConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fairway.yaml")
	if err := os.WriteFile(file, []byte(exportConfig), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string
		want string // the routes, in the form of ip -batch
		left string
	}{
		{"", "10.9.1.0/24 10.77.1.11, 10.9.2.0/24 10.77.1.12, 10.9.3.0/24 10.77.2.13, 10.9.12.0/24 10.77.1.12, 192.0.2.0/24 10.77.1.11, " +
			"fd09:0:0:1::/64 fd77:0:0:1::11, fd09:0:0:2::/64 fd77:0:0:1::12", ""},
		{"--for host1", "10.9.2.0/24 10.77.1.12, 10.9.3.0/24 10.77.2.13, 10.9.12.0/24 10.77.1.12, fd09:0:0:2::/64 fd77:0:0:1::12", ""},
		{"--for 10.77.2.13", "10.9.1.0/24 10.77.1.11, 10.9.2.0/24 10.77.1.12, 10.9.12.0/24 10.77.1.12, 192.0.2.0/24 10.77.1.11, " +
			"fd09:0:0:1::/64 fd77:0:0:1::11, fd09:0:0:2::/64 fd77:0:0:1::12", ""},
		{"--for eth1=10.77.2.1/24", "10.9.3.0/24 10.77.2.13", "left out 10.9.1.0/24 of host1: the next hop 10.77.1.11 is on none of the router's links"},
	} {
		out, errOut, code := command(t, "", append([]string{"export", "--format", "iproute2", "--config", file}, strings.Fields(tt.args)...)...)
		var got []string
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) == 7 && f[0] == "route" {
				got = append(got, f[2]+" "+f[6])
			}
		}
		if code != exitOK || strings.Join(got, ", ") != tt.want || !strings.Contains(errOut, tt.left) || tt.left == "" && errOut != "" {
			t.Errorf("%q: exit code %d\n%v\nwant\n%v\n%s", tt.args, code, strings.Join(got, ", "), tt.want, errOut)
		}
	}
}

// Routes as an agent knows them: what is outside of the pools, not chosen or a container of a block is not among them.
func TestExportAgent(t *testing.T) {
	socket := serve(t, usual())
	out, errOut, code := command(t, socket, "export", "--format", "frr", "--for", "10.77.0.1")
	if code != exitOK || errOut != "" {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	golden(t, "export.txt", out)
	file := filepath.Join(t.TempDir(), "routes.yaml")
	args := []string{"export", "--format", "netplan", "--for", "eth0=10.77.0.12/24", "-o", file}
	if out, errOut, code := command(t, socket, args...); code != exitOK || out != "" || !strings.Contains(errOut, "left out fd00:9::/122 of host1") {
		t.Errorf("exit code %d: %s%s", code, out, errOut)
	}
	st, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode() != 0o600 || !strings.Contains(string(text), `to: "10.9.0.0/26"`) || strings.Contains(string(text), "10.9.0.64/26") {
		t.Errorf("%v\n%s", st.Mode(), text)
	}
}

// With a store the records say who has what, and the nodes' records where they are: nothing has to be heard, and a drained
// node is one too. A block in the name of a node without a record is left out.
func TestExportStore(t *testing.T) {
	s := clusterNode()
	s.routes = nil
	s.status.Fabric.Name, s.status.Fabric.Prefixes = "none", nil
	out, errOut, code := command(t, serve(t, s), "export", "--format", "bird")
	if code != exitOK || errOut != "fairway: left out 10.9.0.192/26 of host3: no next hop of its family is known\n" {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	golden(t, "export-store.txt", out)

	// What the records do not have is heard, and what they have is not taken from hearsay.
	s = clusterNode()
	s.status.Store.Reachable = false
	s.routes = []api.Route{
		{Prefix: prefix("10.9.0.128/26"), Via: addr("10.77.0.99"), Node: "host2", Best: true},
		{Prefix: prefix("172.18.2.0/24"), Via: addr("10.77.0.12"), Node: "host2", Best: true},
	}
	out, errOut, code = command(t, serve(t, s), "export", "--format", "iproute2", "--for", "host1")
	if code != exitOK || !strings.Contains(errOut, "the store (etcd at 10.77.0.5:2379) is unreachable since ") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	for line, want := range map[string]bool{
		"10.9.0.128/26 proto static via 10.77.0.12\n": true, "172.18.2.0/24 proto static via 10.77.0.12\n": true, "10.9.200.8/32 proto static via 10.77.0.12\n": true,
		"10.77.0.99": false, "10.9.0.0/26": false,
	} {
		if strings.Contains(out, line) != want {
			t.Errorf("%q in the output: %v, want %v\n%s", line, !want, want, out)
		}
	}
	if out, errOut, code := command(t, serve(t, s), "export", "--format", "frr", "--for", "router1"); code != exitOK || !strings.Contains(out, "ip route 10.9.0.0/26 10.77.0.11") {
		t.Errorf("for a node that has nothing: exit code %d: %s%s", code, out, errOut)
	}
	s.cluster = nil // not read since the agent started
	if _, errOut, code := command(t, serve(t, s), "export", "--format", "frr"); code == exitOK || !strings.Contains(errOut, "no store") {
		t.Errorf("who has what is not known: exit code %d: %s", code, errOut)
	}
}

// An address that moved is its holder's by the store, although it is still announced here.
func TestNodesOfStore(t *testing.T) {
	own := export.Node{Name: "host1", Address: addr("10.77.0.11"), Prefixes: []netip.Prefix{prefix("10.9.0.0/26"), prefix("10.9.200.8/32")}}
	ipam := api.IPAM{
		Pools: []api.Pool{{List: []api.Block{
			{CIDR: prefix("10.9.0.0/26"), Node: "host1"},
			{CIDR: prefix("10.9.0.64/26"), Node: "host1"},
			{CIDR: prefix("10.9.1.0/26"), Node: "host1", Problem: "fenced"},
			{CIDR: prefix("10.9.1.0/26"), Node: "host2", Away: true},
		}}},
		Holdings: []api.Holding{{Address: addr("10.9.200.8"), Node: "host2", Away: true}, {Address: addr("10.9.0.2"), Node: "host1"}},
	}
	got, _ := nodesOfStore(own, []api.Member{{Name: "host2", Address: addr("10.77.0.12")}, {Name: "host1"}}, ipam)
	want := []export.Node{
		{Name: "host1", Address: addr("10.77.0.11"), Prefixes: []netip.Prefix{prefix("10.9.0.0/26"), prefix("10.9.0.64/26")}},
		{Name: "host2", Address: addr("10.77.0.12"), Prefixes: []netip.Prefix{prefix("10.9.1.0/26"), prefix("10.9.200.8/32")}},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// A node is known by the next hops of both its families, so that a router's address of one takes both away.
func TestReachedBy(t *testing.T) {
	var nodes []export.Node
	for _, r := range []struct{ prefix, via string }{
		{"10.9.2.0/24", "10.77.0.12"}, {"fd09:0:0:2::/64", "fd77::12"}, {"10.9.200.2/32", "10.77.0.12"}, {"10.9.3.0/24", "10.77.0.99"}, {"fd09:0:0:3::/64", "fd77::12"},
	} {
		nodes = reachedBy(nodes, api.Route{Prefix: prefix(r.prefix), Via: addr(r.via), Node: "host2"})
	}
	want := []export.Node{
		{Name: "host2", Address: addr("10.77.0.12"), Address6: addr("fd77::12"), Prefixes: []netip.Prefix{
			prefix("10.9.2.0/24"), prefix("fd09:0:0:2::/64"), prefix("10.9.200.2/32"), prefix("fd09:0:0:3::/64"),
		}},
		{Name: "host2", Address: addr("10.77.0.99"), Prefixes: []netip.Prefix{prefix("10.9.3.0/24")}},
	}
	if d := cmp.Diff(want, nodes, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestExportRefused(t *testing.T) {
	socket := serve(t, usual())
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"export", exitUsage, `"format" not set`},
		{"export --format quagga", exitUsage, `"quagga": want iproute2, netplan, systemd-networkd, frr or bird`},
		{"export --format frr --for nobody", exitUsage, "no node of that name is known; want one of host1, host2"},
		{"export --format frr --for host1 --for host2", exitUsage, `the router is "host1" already`},
		{"export --format frr --for eth0=10.77.0.0.1", exitUsage, "want a node, or [LINK=]ADDRESS[/LENGTH]"},
		{"export --format netplan", exitUsage, "the router's links must be given, as in --for eth0=10.77.1.1/24"},
		{"export --format frr --config /nonexistent.yaml", exitBad, "no such file"},
		{"export --format frr -o /nonexistent/file", exitBad, "write routes"},
		{"export --format frr --socket /nonexistent.sock", exitBad, "give the config: --config FILE"},
	} {
		_, errOut, code := command(t, socket, strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(errOut, tt.want) {
			t.Errorf("%s: exit code %d, want %d with %q: %s", tt.args, code, tt.code, tt.want, errOut)
		}
	}
}
