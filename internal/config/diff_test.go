package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDiff(t *testing.T) {
	const before = `
node: {name: a}
bgp:
  asn: 1
  peers:
    - {address: 10.0.0.1, asn: 1}
    - {address: 10.0.0.2, asn: 1}
    - {interface: eth1}
`
	for _, test := range []struct {
		name, after   string
		live, restart []Change
	}{
		{name: "nothing", after: before},
		{
			name: "another order",
			after: `
bgp:
  peers:
    - {interface: eth1}
    - {address: 10.0.0.2, asn: 1}
    - {address: 10.0.0.1, asn: 1}
  asn: 1
node: {name: a}
`,
		},
		{
			name:  "one peer changed, one gone, one new",
			after: "node: {name: a}\nbgp: {asn: 1, peers: [{address: 10.0.0.1, asn: 1, bfd: true}, {interface: eth1}, {interface: eth2, asn: 7}]}",
			live: []Change{
				{"bgp.peers[10.0.0.1].bfd", "false", "true"},
				{"bgp.peers[10.0.0.2]", "address: 10.0.0.2, asn: 1, port: 179, ttlSecurity: false, multihop: 0, bfd: false, holdTime: 9s, passive: false", ""},
				{"bgp.peers[eth2]", "", "interface: eth2, asn: 7, port: 179, ttlSecurity: false, multihop: 0, bfd: false, holdTime: 9s, passive: false"},
			},
		},
		{
			name:  "hold time of all",
			after: before + "  holdTime: 30s\n",
			live: []Change{
				{"bgp.holdTime", "9s", "30s"},
				{"bgp.peers[10.0.0.1].holdTime", "9s", "30s"},
				{"bgp.peers[10.0.0.2].holdTime", "9s", "30s"},
				{"bgp.peers[eth1].holdTime", "9s", "30s"},
			},
		},
		{
			name:  "both kinds",
			after: strings.Replace(before, "asn: 1\n", "asn: 2\n", 1) + "log: {level: debug, format: json}\nroutes: [{to: 10.1.0.0/16, via: 10.0.0.9}]",
			live: []Change{
				{"log.level", "info", "debug"},
				{"routes[10.1.0.0/16 via 10.0.0.9]", "", "to: 10.1.0.0/16, via: 10.0.0.9, announce: false"},
			},
			restart: []Change{
				{"log.format", "text", "json"},
				{"bgp.asn", "1", "2"},
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			live, restart := Diff(mustParse(t, before), mustParse(t, test.after))
			if d := cmp.Diff(test.live, live); d != "" {
				t.Errorf("live (-want +got):\n%s", d)
			}
			if d := cmp.Diff(test.restart, restart); d != "" {
				t.Errorf("restart (-want +got):\n%s", d)
			}
		})
	}
}

func TestDiffOfPassword(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	load := func(password string) *Config {
		if err := os.WriteFile(path, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
		return mustParse(t, "bgp: {peers: [{address: 10.0.0.1, asn: 1, passwordFile: "+path+"}]}")
	}
	one, same, other := load("hunter1"), load("hunter1\n"), load("hunter2")
	if live, restart := Diff(one, same); len(live)+len(restart) > 0 {
		t.Errorf("same password: %v %v", live, restart)
	}
	live, _ := Diff(one, other)
	want := []Change{{"bgp.peers[10.0.0.1].passwordFile", path, path + " (other contents)"}}
	if d := cmp.Diff(want, live); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestNeedsRestart(t *testing.T) {
	for key, want := range map[string]bool{
		"state": true, "run": true, "docker.name": true, "node.name": true, "fabric": true, "bgp.asn": true,
		"bgp.routerID": true, "bgp.listen": true, "metrics.listen": true, "log.format": true,
		"log.level": false, "bgp.peers[10.0.0.1]": false, "bgp.peers[].asn": false, "bgp.import.prefixes": false,
		"pools[0].cidr": false, "nodes[a].address": false, "routes[0].to": false, "ipam.holdDown": false,
		"bgp.holdTime": false, "bgp.bfd.interval": false,
	} {
		if got := NeedsRestart(key); got != want {
			t.Errorf("NeedsRestart(%q) = %v, want %v", key, got, want)
		}
	}
}

func TestReloaded(t *testing.T) {
	running := mustParse(t, "state: /old\nlog: {level: warn}\npools: []\n")
	next, err := Load("testdata/full.yaml", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	unchanged, err := Load("testdata/full.yaml", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	live, restart := Diff(running, next)
	if len(live) == 0 || len(restart) == 0 {
		t.Fatalf("the two configs are too much alike: %v %v", live, restart)
	}

	now := Reloaded(running, next)
	gotLive, gotRestart := Diff(running, now)
	if d := cmp.Diff(live, gotLive); d != "" || len(gotRestart) > 0 {
		t.Errorf("took in (-want +got):\n%s\nand %v, which needs a restart", d, gotRestart)
	}
	gotLive, gotRestart = Diff(now, next)
	if d := cmp.Diff(restart, gotRestart); d != "" || len(gotLive) > 0 {
		t.Errorf("waits for a restart (-want +got):\n%s\nand %v, which does not need one", d, gotLive)
	}
	if d := diffConfigs(unchanged, next); d != "" {
		t.Errorf("the new config was changed:\n%s", d)
	}
	for _, s := range now.Settings() {
		want := map[string]string{"state": "file:1", "run": "default", "log.level": "file:6", "ipam.holdDown": "file:13"}[s.Key]
		if want != "" && s.Origin != want {
			t.Errorf("origin of %s = %s, want %s", s.Key, s.Origin, want)
		}
	}
}
