package config

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

const root = "../../"

// The reference config has every key, and each at its default.
func TestReferenceConfig(t *testing.T) {
	c, err := Load(root+"examples/fairway.yaml", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := diffConfigs(Default(), c); d != "" {
		t.Errorf("the reference config is not the default (-default +reference):\n%s", d)
	}
	for _, s := range c.Settings() {
		if s.Origin == "default" {
			t.Errorf("the reference config lacks %s", s.Key)
		}
	}
}

// Keys of list members stand in the reference config behind a "#", and have to be right there, too.
func TestReferenceConfigExamples(t *testing.T) {
	data, err := os.ReadFile(root + "examples/fairway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	// An example of a list member begins with "# - " under an empty list.
	text = regexp.MustCompile(`(?m)^(\s*)(\w+): \[\](.*\n(\s*)# - )`).ReplaceAllString(text, "$1$2: $3")
	text = regexp.MustCompile(`(?m)^(\s*)# ( *- |  +)(\w+: )`).ReplaceAllString(text, "$1  $2$3")
	c, err := parse(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if len(c.BGP.Peers) != 1 || len(c.Nodes) != 1 || len(c.Routes) != 1 {
		t.Errorf("found %d peers, %d nodes, %d routes; want one of each", len(c.BGP.Peers), len(c.Nodes), len(c.Routes))
	}
	for _, s := range c.Settings() {
		if s.Origin == "default" {
			t.Errorf("the reference config lacks %s", s.Key)
		}
	}
}

// everyKey is the keys of the documentation: those of list members with empty brackets.
func everyKey() []string {
	c := Default()
	c.Pools, c.BGP.Peers, c.Nodes, c.Routes = make([]Pool, 1), make([]Peer, 1), make([]ClusterNode, 1), make([]Route, 1)
	keys := []string{"pools", "bgp.peers", "nodes", "routes"}
	for _, s := range c.Settings() {
		keys = append(keys, strings.Replace(s.Key, "[0]", "[]", 1))
	}
	return keys
}

// Every key has a row in the manual that says its default and when it takes effect, and no row is of no key.
func TestManual(t *testing.T) {
	data, err := os.ReadFile(root + "docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	type row struct{ def, reload string }
	rows := map[string]row{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| [^|]+ \\| ([^|]+) \\| (\\w+) \\|$").FindAllStringSubmatch(string(data), -1) {
		if _, dup := rows[m[1]]; dup {
			t.Errorf("two rows for %s", m[1])
		}
		rows[m[1]] = row{m[2], m[3]}
	}
	defaults := map[string]string{}
	for _, s := range Default().Settings() {
		defaults[s.Key] = s.Value
	}
	for _, key := range everyKey() {
		r, ok := rows[key]
		if !ok {
			t.Errorf("no row for %s", key)
			continue
		}
		delete(rows, key)
		if want := map[bool]string{true: "restart", false: "live"}[NeedsRestart(key)]; r.reload != want {
			t.Errorf("%s: the manual says %s, want %s", key, r.reload, want)
		}
		def, scalar := defaults[key]
		if def == "" {
			def = `""`
		}
		if scalar && r.def != "`"+def+"`" {
			t.Errorf("%s: the manual says the default is %s, want `%s`", key, r.def, def)
		}
	}
	for key := range rows {
		t.Errorf("the manual has a row for %s, which is no key", key)
	}
}

// The config that the design shows is a good one.
func TestDesignExample(t *testing.T) {
	const design = `
node:
  name: host1
  address: 10.77.0.11
  address6: ""
state: /var/lib/fairway
run: /run/fairway
docker:
  enabled: true
  plugins: /run/docker/plugins
  socket: /run/docker.sock
  name: fairway
log: {level: info, format: text}   # or json
store:
  etcd: {endpoints: [], tls: {ca: "", cert: "", key: ""}, user: "", passwordFile: "", prefix: /fairway}
pools:
  - cidr: 10.9.0.0/16
    blockSize: 26
    block: ""
    egress: route
fabric: bgp
bgp:
  asn: 64512
  routerID: ""
  listen: "0.0.0.0:179"
  holdTime: 9s
  mesh: true
  routeReflector: false
  peers: [{address: 10.77.0.1, asn: 64512, passwordFile: "", ttlSecurity: false, bfd: false}]
  bfd: {interval: 300ms, multiplier: 3}
  import: {prefixes: [], maxPrefixes: 10000}
nodes: [{name: host2, address: 10.77.0.12, subnets: [10.9.2.0/24]}]
routes: []
dockerBridge: {pool: "", prefix: 24, masquerade: true}
metrics: {listen: "127.0.0.1:9477"}
`
	if _, err := parse(design); err != nil {
		t.Error(err)
	}
}
