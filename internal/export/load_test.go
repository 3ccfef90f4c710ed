package export_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/export"
	"fairway/internal/nettest"
)

// needs skips the test where a program is missing, or fails it where daemons must be.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	nettest.Require(t)
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		if os.Getenv("FAIRWAY_REQUIRE_FRR") == "1" {
			t.Fatalf("%s is not installed, and FAIRWAY_REQUIRE_FRR=1 is set", p)
		}
		t.Skipf("%s is not installed", p)
	}
}

// stage is the router of the tests: eth0, with everything else that a script may need. Its files are in $D.
const stage = `
mount -t tmpfs tmpfs /run
ip link set lo up
ip link add eth0 type veth peer name far
ip link set far up
addresses() {
	ip addr add 10.77.1.1/24 dev eth0
	ip addr add fd77:0:0:1::1/64 dev eth0 nodad
	ip link set eth0 up
}
loaded() { # waits until the first and the last route are there
	for i in $(seq 200); do
		[ -n "$(ip route show 10.9.1.0/24)" ] && [ -n "$(ip -6 route show fd09:0:0:4::/64)" ] && break
		sleep 0.1
	done
	ip -json route > $D/v4; ip -json -6 route > $D/v6
}
`

// load runs a script in namespaces of its own, with the text of a format in $D/routes, and returns the routes to containers
// that are in the kernel at the end: prefix, next hops, and the metric if it matters.
func load(t *testing.T, f export.Format, script string, files map[string]string) []string {
	t.Helper()
	routes, _ := export.Routes(cluster(), attached())
	text, err := export.Text(f, routes)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "export") //nolint:usetesting // FRR drops its privileges, and cannot get into TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for name, content := range files {
		write(t, dir, name, content)
	}
	write(t, dir, "routes", text)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// Everything that the script starts ends with it.
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", stage+script)
	cmd.Env = append(os.Environ(), "D="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return slices.Concat(kernelRoutes(t, filepath.Join(dir, "v4")), kernelRoutes(t, filepath.Join(dir, "v6")))
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

type hop struct{ Gateway string }

// kernelRoutes reads the output of ip -json route.
func kernelRoutes(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list []struct {
		Dst      string
		Gateway  string
		Metric   int
		Nexthops []hop
	}
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	var all []string
	for _, r := range list {
		if !strings.HasPrefix(r.Dst, "10.9.") && !strings.HasPrefix(r.Dst, "fd09:") {
			continue
		}
		var hops []string
		for _, h := range append(r.Nexthops, hop{r.Gateway}) {
			if h.Gateway != "" {
				hops = append(hops, h.Gateway)
			}
		}
		slices.Sort(hops) // daemons have them in any order
		line := r.Dst + " via " + strings.Join(hops, " ")
		if r.Metric >= 100 && r.Metric < 1024 { // daemons have small ones of their own, and 1024 is IPv6's default
			line += fmt.Sprintf(" metric %d", r.Metric)
		}
		all = append(all, line)
	}
	slices.Sort(all)
	return all
}

// want are the routes that the kernel has at the end; several are the ways of the address that two nodes have.
func want(several ...string) []string {
	v4 := append([]string{
		"10.9.1.0/24 via 10.77.1.11", "10.9.2.0/24 via 10.77.1.12", "10.9.3.0/24 via 10.77.1.13", "10.9.5.0/26 via 10.77.1.11",
	}, several...)
	slices.Sort(v4)
	return append(v4, "fd09:0:0:1::/64 via fd77:0:0:1::11", "fd09:0:0:2::/64 via fd77:0:0:1::12", "fd09:0:0:4::/64 via fd77:0:0:1::14")
}

const both = "10.9.200.7 via 10.77.1.11 10.77.1.12"

func check(t *testing.T, want, got []string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("routes in the kernel: -want +got\n%s", d)
	}
}

// ip(8) takes the batch, and takes it again.
func TestLoadIPRoute2(t *testing.T) {
	needs(t, "ip", "unshare")
	check(t, want(both), load(t, export.IPRoute2, `addresses; ip -batch $D/routes; ip -batch $D/routes; loaded`, nil))
}

// FRR's own daemons take the lines and put the routes into the kernel.
func TestLoadFRR(t *testing.T) {
	needs(t, "/usr/lib/frr/zebra", "/usr/lib/frr/staticd", "vtysh")
	check(t, want(both), load(t, export.FRR, `addresses; chown -R frr:frr $D
		for d in zebra staticd; do
			/usr/lib/frr/$d -d -f $D/empty -i $D/$d.pid -z $D/zserv.api --vty_socket $D
		done
		vtysh --config_dir $D --vty_socket $D -f $D/routes
		loaded`, map[string]string{"empty": "", "vtysh.conf": ""}))
}

// BIRD checks the file, and takes it.
func TestLoadBIRD(t *testing.T) {
	needs(t, "bird")
	check(t, want(both), load(t, export.BIRD, `addresses
		bird -p -c $D/bird.conf
		bird -c $D/bird.conf -s $D/bird.ctl -P $D/bird.pid
		loaded`, map[string]string{"bird.conf": `
router id 10.77.1.1;
protocol device {}
protocol kernel { ipv4 { export all; }; merge paths on; }
protocol kernel { ipv6 { export all; }; }
include "routes";
`}))
}

const networkFile = "[Match]\nName=eth0\n[Network]\nAddress=10.77.1.1/24\nAddress=fd77:0:0:1::1/64\nIPv6AcceptRA=no\n"

// runNetworkd runs the daemon itself on what is in /run/systemd/network and /etc/systemd/network. A /sys that cannot be
// written tells it that there is no udev to wait for.
const runNetworkd = `
		mount -t sysfs -o ro sysfs /sys
		mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
		/lib/systemd/systemd-networkd > $D/log 2>&1 &
		loaded
		if grep -E 'Unknown|Failed to parse|Invalid' $D/log; then exit 1; fi`

// systemd-networkd takes the drop-in beside the file that gives the link its addresses.
func TestLoadNetworkd(t *testing.T) {
	needs(t, "/lib/systemd/systemd-networkd")
	check(t, want(both), load(t, export.Networkd, `
		mkdir -p /run/systemd/network/20-eth0.network.d
		cp $D/eth0.network /run/systemd/network/20-eth0.network
		cp $D/routes /run/systemd/network/20-eth0.network.d/fairway.conf`+runNetworkd, map[string]string{"eth0.network": networkFile}))
}

// netplan takes the file beside the one that gives the link its addresses, reads the routes back, and what it makes of both
// is good for systemd-networkd.
func TestLoadNetplan(t *testing.T) {
	needs(t, "netplan", "/lib/systemd/systemd-networkd")
	check(t, want("10.9.200.7 via 10.77.1.11 metric 100", "10.9.200.7 via 10.77.1.12 metric 200"), load(t, export.Netplan, `
		mkdir -p $D/root/etc/netplan
		cp $D/eth0.yaml $D/root/etc/netplan/50-eth0.yaml
		cp $D/routes $D/root/etc/netplan/60-fairway.yaml
		chmod 600 $D/root/etc/netplan/*
		netplan get --root-dir $D/root network.ethernets.eth0.routes | grep -c via | grep -x 9
		netplan generate --root-dir $D/root
		mkdir -p /run/systemd/network
		cp $D/root/run/systemd/network/* /run/systemd/network/`+runNetworkd, map[string]string{
		"eth0.yaml": "network:\n  version: 2\n  renderer: networkd\n  ethernets:\n    eth0: {addresses: [10.77.1.1/24, \"fd77:0:0:1::1/64\"], accept-ra: false}\n",
	}))
}

// Links may be called what YAML takes for something else.
func TestLoadNetplanNames(t *testing.T) {
	needs(t, "netplan")
	for _, name := range []string{"on", "1e3", "eth0.100", "br-1:2", "@x", `a"b`, "é"} {
		routes, _ := export.Routes(cluster(), router(name+"=10.77.1.1/24"))
		text, err := export.Text(export.Netplan, routes)
		if err != nil {
			t.Fatal(err)
		}
		root := t.TempDir()
		write(t, root, "etc/netplan/60-fairway.yaml", text)
		out, err := exec.CommandContext(t.Context(), "netplan", "get", "--root-dir", root, "network.ethernets").CombinedOutput()
		if err != nil || strings.Count(string(out), "via:") != 6 {
			t.Errorf("link %q: %v\n%s", name, err, out)
		}
	}
}
