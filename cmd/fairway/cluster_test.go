package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/api"
)

func TestClusterOutput(t *testing.T) {
	good, bad := serve(t, clusterNode()), serve(t, hostile())
	for _, tt := range []struct {
		name, args string
		code       int
	}{
		{"node", "node ls", 0},
		{"cluster-status", "status", 0},
		{"cluster-network", "network ls", 0},
		{"cluster-ipam", "ipam show", 0},
		{"cluster-check", "ipam check", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := strings.Fields(tt.args)
			for node, socket := range map[string]string{"": good, "-worst": bad} {
				out, errOut, code := command(t, socket, args...)
				if code != tt.code || errOut != "" {
					t.Errorf("%s%s: exit code %d, want %d; on standard error: %q", tt.args, node, code, tt.code, errOut)
				}
				checkWidth(t, out)
				golden(t, tt.name+node+".txt", out)
			}
		})
	}
	for args, name := range map[string]string{
		"node ls -o wide":      "node-wide.txt",
		"node ls -o json":      "node.json",
		"network inspect busy": "cluster-inspect.txt",
		"ipam show -o wide":    "cluster-ipam-wide.txt",
		"network ls -o wide":   "cluster-network-wide.txt",
	} {
		out, errOut, code := command(t, good, strings.Fields(args)...)
		if code != exitOK || errOut != "" {
			t.Errorf("%s: exit code %d: %s", args, code, errOut)
		}
		golden(t, name, out)
	}
}

func TestNodeCommands(t *testing.T) {
	for _, tt := range []struct {
		args, typed string
		code        int
		out, errOut string
	}{
		{"node drain", "", 0, "Drained: this node announces nothing.", ""},
		{"node drain host1 --refuse", "", 0, "Drained: host1 announces nothing, and takes no new containers.", ""},
		{"node drain host1 --no-wait", "", 0, "Recorded: host1 is to drain.", ""},
		{"node drain nosuch", "", 1, "", `no node "nosuch"`},
		{"node undrain host2", "", 0, "The drain of host2 has ended", ""},
		{"node undrain", "", 0, "The drain of this node has ended", ""},
		{"node rm host1 --yes", "", 1, "", "node host1 is alive"},
		{"node rm host3", "no\n", 1, "fd00:9::80/122", "nothing was removed"},
		{"node rm host3", "yes\n", 0, "Removed host3: 2 blocks and 2 addresses were given back.", ""},
		{"node rm host3 --yes", "", 0, "10.9.200.9 (endpoint b1b2c3d4e5f6), 10.9.200.10", ""},
		{"node rm host3 --yes -o json", "", 0, `"removed": true`, ""},
		{"node rm host3 -o json", "yes\n", 2, "", "give --yes"},
		{"node join", "", 1, "! not ours    fd00:9::80/122 (of host2, container db)", ""},
		{"node join -o json", "", 1, `"lost": [`, ""},
	} {
		t.Run(tt.args+" "+strings.TrimSpace(tt.typed), func(t *testing.T) {
			out, errOut, code := typed(t, serve(t, clusterNode()), tt.typed, strings.Fields(tt.args)...)
			if code != tt.code || !strings.Contains(out, tt.out) || !strings.Contains(errOut, tt.errOut) || (tt.errOut == "") != (errOut == "") {
				t.Errorf("exit code %d, want %d; %q and on standard error %q, want %q and %q", code, tt.code, out, errOut, tt.out, tt.errOut)
			}
			if tt.typed == "" && !strings.Contains(tt.args, "json") { // a person's own end of the line is not in it
				checkWidth(t, out)
			}
		})
	}
	// Without a store the own node drains all the same; what is wrong is on standard error, and says what to do.
	alone := serve(t, usual())
	if out, errOut, code := command(t, alone, "node", "drain"); code != exitOK || !strings.Contains(out, "Drained") {
		t.Errorf("drain without a store: exit code %d, %q, %q", code, out, errOut)
	}
	for _, args := range []string{"node ls", "node drain host2", "node rm host2 --yes", "node join", "network create front"} {
		if out, errOut, code := command(t, alone, strings.Fields(args)...); code != exitBad || !strings.Contains(errOut, "no store") || out != "" {
			t.Errorf("%s without a store: exit code %d, %q, %q", args, code, out, errOut)
		}
	}
}

func TestNetworkCreate(t *testing.T) {
	for _, tt := range []struct {
		args string
		code int
		want string // in the output
	}{
		{"network create front --subnet 10.9.0.0/16", 0, "Network front is ready on 2 of 2 nodes after 0.0ms."},
		{"network create front --no-wait", 0, "Recorded: every node makes network front."},
		{"network create busy", 1, "Network busy is ready on 1 of 2 nodes"},
		{"network create front --subnet 10.9.0.0", 2, `--subnet "10.9.0.0": want a prefix`},
		{"network create front --gateway 10.9.0.1", 2, "--gateway 10.9.0.1 is in none of the subnets given"},
		{"network create front --subnet 10.9.0.0/16 --gateway 10.9.0.1 --gateway 10.9.0.2", 2, "subnet 10.9.0.0/16 can have one"},
		{"network create front -o mtu", 2, `--opt "mtu": want KEY=VALUE`},
		{"network create front -o mtu=1 -o mtu=2", 2, "--opt mtu is given twice"},
		{"network rm front", 0, "Removed network front."},
		{"network rm busy", 1, "Network busy is still on 1 node."},
		{"network rm nosuch", 1, `no network "nosuch" of the cluster`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			out, errOut, code := command(t, serve(t, clusterNode()), strings.Fields(tt.args)...)
			if code != tt.code || !strings.Contains(strings.ReplaceAll(out+errOut, "\n", " "), tt.want) {
				t.Errorf("exit code %d, want %d, and %q in %q and %q", code, tt.code, tt.want, out, errOut)
			}
			checkWidth(t, out)
		})
	}
	s := clusterNode()
	args := "network create front --subnet fd00:9::/64 --subnet 10.9.0.0/16 --gateway 10.9.0.9 -o mtu=1400 -o egress=route --internal --no-wait"
	if _, errOut, code := command(t, serve(t, s), strings.Fields(args)...); code != exitOK {
		t.Fatalf("exit code %d: %s", code, errOut)
	}
	want := api.NetworkRequest{
		Name: "front", Internal: true, Options: map[string]string{"mtu": "1400", "egress": "route"},
		Subnets: []api.Subnet{{Prefix: prefix("fd00:9::/64")}, {Prefix: prefix("10.9.0.0/16"), Gateway: addr("10.9.0.9")}},
	}
	if d := cmp.Diff(want, s.cluster.made[0], cmp.Comparer(func(x, y netip.Prefix) bool { return x == y }), cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); d != "" {
		t.Errorf("asked for: -want +got\n%s", d)
	}
}
