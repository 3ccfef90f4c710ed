package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func parse(text string) (*Config, error) { return Parse("f", []byte(text), nil, nil) }

// diffConfigs compares values, not where they came from.
func diffConfigs(want, got *Config) string {
	return cmp.Diff(want, got, cmpopts.IgnoreUnexported(Config{}), cmpopts.EquateEmpty(),
		cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}))
}

func TestNoFile(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "\ufeff", "bgp:\nnode:\n  # name: x\npools:\n"} {
		c, err := parse(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if d := diffConfigs(Default(), c); d != "" {
			t.Errorf("%q is not the default (-want +got):\n%s", text, d)
		}
	}
}

func TestEveryKey(t *testing.T) {
	got, err := Load("testdata/full.yaml", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	want := &Config{
		Node:   Node{Name: "host1", Address: addr("10.77.0.11"), Address6: addr("fd00:77::11")},
		State:  "/srv/fairway",
		Run:    "/srv/run",
		Docker: Docker{Plugins: "/srv/plugins", Socket: "/srv/docker.sock", Name: "fw.2"},
		Log:    Log{Level: slog.LevelWarn, Format: LogJSON},
		Store:  Store{Etcd: Etcd{Prefix: "/fairway"}},
		Pools: []Pool{
			{CIDR: prefix("10.9.0.0/16"), BlockSize: 27, Block: prefix("10.9.4.0/24"), Size: 16, Egress: EgressRoute},
			{CIDR: prefix("192.168.7.0/28"), BlockSize: 28, Size: 28, Egress: EgressRoute},
			{CIDR: prefix("fd00:9::/56"), BlockSize: 120, Size: 60, Egress: EgressRoute},
		},
		IPAM:   IPAM{HoldDown: 5 * time.Minute},
		Fabric: FabricStatic,
		BGP: BGP{
			ASN: 4200000001, RouterID: addr("10.77.0.11"), Listen: netip.MustParseAddrPort("[::1]:1790"),
			HoldTime: 30 * time.Second, MeshBFD: true, RouteReflector: true,
			Aggregate:       []netip.Prefix{prefix("10.9.0.0/16"), prefix("fd00:9::/48")},
			GracefulRestart: GracefulRestart{RestartTime: time.Minute},
			Peers: []Peer{
				{Address: addr("10.77.0.1"), ASN: 64512, Port: 1179, TTLSecurity: true, BFD: true, HoldTime: 4 * time.Second, Passive: true},
				{Address: addr("fe80::1%eth0"), ASN: 4200000001, Port: 179, HoldTime: 30 * time.Second},
				{Address: addr("192.0.2.1"), ASN: 65001, Port: 179, Multihop: 4, HoldTime: 30 * time.Second},
				{Interface: "eth1", Port: 179, HoldTime: 30 * time.Second},
				{Range: prefix("10.78.0.0/24"), Port: 179, HoldTime: 30 * time.Second},
			},
			BFD:    BFD{Interval: 50 * time.Millisecond, Multiplier: 255},
			Import: Import{Prefixes: []netip.Prefix{prefix("0.0.0.0/0"), prefix("::/0"), prefix("2001:db8::/32")}},
		},
		Nodes: []ClusterNode{
			{Name: "host1", Address: addr("10.77.0.11"), Address6: addr("fd00:77::11"), Subnets: []netip.Prefix{prefix("10.9.4.0/24"), prefix("fd00:9::/64")}},
			{Name: "host2", Address: addr("10.77.0.12"), Subnets: []netip.Prefix{prefix("10.9.5.0/24")}},
		},
		Routes: []Route{
			{To: prefix("0.0.0.0/0"), Via: addr("10.77.0.1"), Announce: true},
			{To: prefix("2001:db8::/32"), Via: addr("fe80::1%eth0")},
		},
		DockerBridge: DockerBridge{Prefix: 24, Prefix6: 64, Masquerade: true},
	}
	if d := diffConfigs(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// TestManyErrors has a file with an error in nearly every line: all of them are reported, in order.
func TestManyErrors(t *testing.T) {
	data, err := os.ReadFile("testdata/many.yaml")
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"FAIRWAY_BGP_HOLDTIME=3s", "FAIRWAY_NODE_NAME=a b", "FAIRWAY_POOLS=10.0.0.0/8", "OTHER=x", "FAIRWAY_TEST_X=1"}
	_, err = Parse("many.yaml", data, env, map[string]string{"log-level": "loud"})
	want, readErr := os.ReadFile("testdata/many.txt")
	if readErr != nil {
		t.Fatal(readErr)
	}
	if d := cmp.Diff(strings.Split(strings.TrimSpace(string(want)), "\n"), strings.Split(fmt.Sprint(err), "\n")); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if _, ok := errors.AsType[Errors](err); !ok {
		t.Fatalf("%T is not Errors", err)
	}
	first, ok := errors.AsType[*Error](err)
	if !ok || first.Where != "many.yaml:2:9" || first.Key != "node.name" || first.Value != "12" {
		t.Errorf("first error = %+v", first)
	}
}

func TestAccepted(t *testing.T) {
	for _, text := range []string{
		`bgp: {asn: 1}`,
		`bgp: {asn: 4294967294}`,
		`bgp: {holdTime: 3s}`,
		`bgp: {holdTime: 65535s}`,
		`bgp: {listen: ""}`,
		`bgp: {gracefulRestart: {restartTime: 4095s}}`,
		`bgp: {bfd: {interval: 10s, multiplier: 1}}`,
		`bgp: {import: {prefixes: [::/0, fd00::/8, 2001:db8::1/128]}}`,
		"bgp:\n  peers:\n  - address: 10.0.0.1\n    asn: 1\n",
		`bgp: {peers: [{interface: eth1, asn: 0}]}`,
		`bgp: {peers: [{address: 127.0.0.1, asn: 1, port: 1790}]}`,
		`pools: [{cidr: 10.0.0.0/8, blockSize: 8}]`,
		`pools: [{cidr: 10.0.0.0/32}]`,
		`pools: [{cidr: 10.0.0.0/8, blockSize: 32, size: 32}]`,
		`pools: [{cidr: fd00::/8, blockSize: 128}]`,
		`pools: [{cidr: 10.0.0.0/8, block: 10.1.0.0/30}]`,
		`pools: [{cidr: 10.0.0.0/8, block: 10.1.0.0/16, size: 8}]`,
		`node: {interface: eth0}`,
		`node: {cidr: 10.0.0.0/8, address6: fd00::1}`,
		`ipam: {holdDown: 24h}`,
		`{"state": '/x'}`,
		"state: /x # comment\r\nrun: /y\r\n",
	} {
		if _, err := parse(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestNoPool(t *testing.T) {
	c, err := parse("pools: []")
	if err != nil || len(c.Pools) != 0 {
		t.Errorf("got %v, %v, want no pool", c, err)
	}
}

func TestLoadMissingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fairway.yaml")
	if _, err := Load(path, nil, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: got %v", err)
	}
	if _, err := Load("", []string{"FAIRWAY_CONFIG=" + path}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file of FAIRWAY_CONFIG: got %v", err)
	}
	if _, err := Load(t.TempDir(), nil, nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("directory: got %v", err)
	}
	if _, err := os.Stat(DefaultPath); errors.Is(err, fs.ErrNotExist) {
		if c, err := Load("", nil, nil); err != nil || diffConfigs(Default(), c) != "" {
			t.Errorf("no default file: got %v, %v", c, err)
		}
	}
	big := filepath.Join(t.TempDir(), "big.yaml")
	if err := os.WriteFile(big, []byte(strings.Repeat("#\n", maxFile/2+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(big, nil, nil); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("large file: got %v", err)
	}
}

func TestPrecedence(t *testing.T) {
	const file = "bgp:\n  asn: 1\n  holdTime: 30s\n  import:\n    prefixes: [10.0.0.0/8]\n  peers:\n  - {interface: eth0}\nlog: {level: debug}\n"
	env := []string{"FAIRWAY_LOG_LEVEL=warn", "FAIRWAY_BGP_ASN=2", "FAIRWAY_BGP_IMPORT_PREFIXES=fd00::/8, 172.16.0.0/12", "FAIRWAY_METRICS_LISTEN="}
	c, err := Parse("f", []byte(file), env, map[string]string{"log-level": "error", "node.name": "n1"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Setting{}
	for _, s := range c.Settings() {
		got[s.Key] = s
	}
	for _, want := range []Setting{
		{"log.level", "error", "flag --log-level"},
		{"log.format", "text", "default"},
		{"node.name", "n1", "flag --node-name"},
		{"bgp.asn", "2", "env FAIRWAY_BGP_ASN"},
		{"bgp.holdTime", "30s", "file:3"},
		{"bgp.import.prefixes", "[fd00::/8, 172.16.0.0/12]", "env FAIRWAY_BGP_IMPORT_PREFIXES"},
		{"bgp.peers[0].interface", "eth0", "file:7"},
		{"bgp.peers[0].port", "179", "default"},
		{"bgp.peers[0].holdTime", "30s", "file:3"},
		{"metrics.listen", "", "env FAIRWAY_METRICS_LISTEN"},
		{"nodes", "[]", "default"},
		{"pools[1].cidr", "fdfa:1f:a::/48", "default"},
	} {
		if got[want.Key] != want {
			t.Errorf("got %+v, want %+v", got[want.Key], want)
		}
	}
}

// A value that a stronger source overrides is an error still: it waits for the day that source is gone.
func TestOverriddenErrorIsReported(t *testing.T) {
	_, err := Parse("f", []byte("bgp: {asn: 0}"), []string{"FAIRWAY_BGP_ASN=5"}, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "f:1:12: bgp.asn: 0: want") {
		t.Errorf("got %v", err)
	}
}

func TestPassword(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	peer := func(path string) string {
		return fmt.Sprintf("bgp: {peers: [{address: 10.0.0.1, asn: 1, passwordFile: %q}]}", path)
	}
	c, err := parse(peer(write("good", "  hunter 2\n")))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.BGP.Peers[0].Password; string(got) != "hunter 2" {
		t.Errorf("password = %q", string(got))
	}
	shown, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", slog.Any("password", c.BGP.Peers[0].Password))
	all := fmt.Sprintf("%v %+v %#v %q %s %x %s %v", c, c, c.BGP, c.BGP.Peers[0].Password, c.Settings(), c.BGP.Peers[0].Password, shown, log.String())
	if strings.Contains(all, "hunter") || strings.Contains(all, fmt.Sprintf("%x", "hunter")) {
		t.Errorf("the password is shown: %s", all)
	}

	for name, test := range map[string]struct{ path, want string }{
		"empty":     {write("empty", " \n"), "holds 0 bytes"},
		"long":      {write("long", strings.Repeat("x", 81)), "holds 81 bytes"},
		"missing":   {filepath.Join(dir, "missing"), "no such file"},
		"directory": {dir, "not a regular file"},
		"relative":  {"password", "want an absolute path"},
	} {
		if _, err := parse(peer(test.path)); err == nil || !strings.Contains(err.Error(), "bgp.peers[0].passwordFile: ") || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
	if _, err := parse(peer(write("just", strings.Repeat("x", 80)))); err != nil {
		t.Errorf("80 bytes: %v", err)
	}
}

func TestNames(t *testing.T) {
	for key, want := range map[string][2]string{
		"node.name":         {"FAIRWAY_NODE_NAME", "node-name"},
		"node.address6":     {"FAIRWAY_NODE_ADDRESS6", "node-address6"},
		"bgp.routerID":      {"FAIRWAY_BGP_ROUTER_ID", "bgp-router-id"},
		"dockerBridge.pool": {"FAIRWAY_DOCKER_BRIDGE_POOL", "docker-bridge-pool"},
		"store.etcd.tls.ca": {"FAIRWAY_STORE_ETCD_TLS_CA", "store-etcd-tls-ca"},
		"bgp.holdTime":      {"FAIRWAY_BGP_HOLD_TIME", "bgp-hold-time"},
	} {
		if got := [2]string{EnvName(key), FlagName(key)}; got != want {
			t.Errorf("%s: got %v, want %v", key, got, want)
		}
	}
}

// No two keys may share a variable, and none may look like one of another part of fairway.
func TestEnvNamesAreUnique(t *testing.T) {
	seen := map[string]string{}
	for _, lf := range leaves("", schema(Default())) {
		name := EnvName(lf.key)
		if other, dup := seen[name]; dup || isReserved(name) {
			t.Errorf("%s of %s is taken by %q", name, lf.key, other)
		}
		seen[name] = lf.key
	}
}
