package config

import (
	"strings"
	"testing"
)

func TestRefused(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		// YAML itself.
		{"state: \"/x\n", `f:1:8: is not YAML: `},
		{"state: /x\n\trun: /y", `f:2:1: is not YAML: `},
		{"state: /x\n---\nrun: /y\n", `f:3:4: want one YAML document`},
		{"\xff", `f: is not YAML: want UTF-8`},
		{strings.Repeat("[", 2000), `f: is not YAML: want at most 1000 brackets`},
		{strings.Repeat("- ", 20000), `f: is not YAML: want lines of at most`},
		{"- a", `f:1:1: want a mapping with the keys node, state,`},
		{"state: &a /x", `f:1:8: state: want an absolute path`},
		{"<<: {state: /x}", `f:1:1: <<: is not a key`},
		{"state: !!str /x", `this is an anchor, an alias or a tag`},
		{"state: |\n  /x\n", `this is a block of text`},

		// Keys.
		{"bpg: {}", `f:1:1: bpg: is not a key; did you mean "bgp"?`},
		{"bgp: {peer: []}", `bgp.peer: is not a key; did you mean "peers"?`},
		{"asn: 1", `asn: is not a key of this place; did you mean "bgp.asn"?`},
		{"zebra: 1", `zebra: is not a key; those of the file are node, state,`},
		{"log: {colour: 1}", `log.colour: is not a key; those of log are level, format`},
		{"pools: [{cidr: 10.0.0.0/8, cider: x}]", `pools[0].cider: is not a key; did you mean "cidr"?`},
		{"state: /x\nstate: /y", `f:2:1: state: is given twice; the first one is in line 1`},

		// Types.
		{"node: {name: 12}", `node.name: 12: want 1 to 253 letters`},
		{"node: {name: 1.5}", `this is a number`},
		{"node: {name: true}", `this is true or false`},
		{"state:", `f:1:1: state: want an absolute path of at most 4095 bytes, without control characters; this is empty`},
		{"docker: {enabled: yes}", `docker.enabled: "yes": want true or false; this is a string`},
		{"docker: true", `docker: true: want a mapping with the keys enabled, plugins, socket, name; this is true or false`},
		{"pools: {cidr: 10.0.0.0/8}", `pools: want a list of mappings; this is a mapping`},
		{"pools: [10.0.0.0/8]", `pools[0]: "10.0.0.0/8": want a mapping with the keys cidr,`},
		{"bgp: {import: {prefixes: 10.0.0.0/8}}", `bgp.import.prefixes: "10.0.0.0/8": want a list of strings; this is a string`},
		{"bgp: {import: {prefixes: [1]}}", `bgp.import.prefixes[0]: 1: want a prefix`},
		{"bgp: {holdTime: 9}", `bgp.holdTime: 9: want a duration from 3s`},
		{"bgp: {asn: '1'}", `this is a string`},

		// Values.
		{"bgp: {aggregate: [0.0.0.0/0]}", `bgp.aggregate[0]: "0.0.0.0/0": want`},
		{"bgp: {aggregate: [10.0.0.0/8, 10.9.0.0/16]}", `bgp.aggregate: "10.9.0.0/16": overlaps 10.0.0.0/8`},
		{"bgp: {asn: 0}", `bgp.asn: 0: want a number from 1`},
		{"bgp: {asn: 23456}", `bgp.asn: 23456: want`},
		{"bgp: {asn: 65535}", `bgp.asn: 65535: want`},
		{"bgp: {asn: 4294967295}", `bgp.asn: 4294967295: want`},
		{"bgp: {asn: 4294967296}", `bgp.asn: 4294967296: want`},
		{"bgp: {asn: 99999999999999999999999}", `bgp.asn: `},
		{"bgp: {asn: -1}", `bgp.asn: -1: want`},
		{"bgp: {asn: 0x10}", `bgp.asn: 0x10: want`},
		{"bgp: {asn: 010}", `bgp.asn: 010: want`},
		{"bgp: {holdTime: 2s}", `want a duration from 3s to 65535s in whole seconds (RFC 4271, 4.2)`},
		{"bgp: {holdTime: 0s}", `want a duration from 3s`},
		{"bgp: {holdTime: 3500ms}", `want a duration from 3s`},
		{"bgp: {holdTime: 65536s}", `want a duration from 3s`},
		{"bgp: {holdTime: -3s}", `want a duration from 3s`},
		{"bgp: {listen: '0.0.0.0'}", `bgp.listen: "0.0.0.0": want an address with a port`},
		{"bgp: {listen: '0.0.0.0:0'}", `want an address with a port`},
		{"bgp: {listen: 'localhost:179'}", `want an address with a port`},
		{"bgp: {routerID: 'fd00::1'}", `bgp.routerID: "fd00::1": want an IPv4`},
		{"bgp: {gracefulRestart: {restartTime: 4096s}}", `want a duration from 1s to 4095s`},
		{"bgp: {gracefulRestart: {restartTime: 0s}}", `want a duration from 1s to 4095s`},
		{"bgp: {bfd: {interval: 49ms}}", `bgp.bfd.interval: "49ms": want a duration from 50ms to 10s`},
		{"bgp: {bfd: {interval: 11s}}", `want a duration from 50ms to 10s`},
		{"bgp: {bfd: {multiplier: 0}}", `bgp.bfd.multiplier: 0: want a whole number from 1 to 255`},
		{"bgp: {bfd: {multiplier: 256}}", `want a whole number from 1 to 255`},
		{"bgp: {import: {maxPrefixes: -1}}", `bgp.import.maxPrefixes: -1: want`},
		{"bgp: {import: {prefixes: [10.0.0.0/8, 10.1.0.1/16]}}", `bgp.import.prefixes[1]: "10.1.0.1/16": has host bits set; the prefix is 10.1.0.0/16`},
		{"node: {name: '-x'}", `node.name: "-x": want 1 to 253`},
		{"node: {address: 'fd00::1'}", `node.address: "fd00::1": want an IPv4`},
		{"node: {address: 224.0.0.1}", `want an IPv4 unicast`},
		{"node: {address: 0.0.0.0}", `want an IPv4 unicast`},
		{"node: {address: 255.255.255.255}", `want an IPv4 unicast`},
		{"node: {address6: 10.0.0.1}", `want an IPv6 unicast`},
		{"node: {address6: 'fe80::1'}", `that is not link-local`},
		{"node: {address6: '::ffff:10.0.0.1'}", `want an IPv6 unicast`},
		{"node: {interface: abcdefghijklmnop}", `want the name of a link: 1 to 15 bytes`},
		{"node: {interface: a/b}", `want the name of a link`},
		{"node: {cidr: 10.0.0.1/8}", `node.cidr: "10.0.0.1/8": has host bits set; the prefix is 10.0.0.0/8`},
		{"node: {cidr: 10.0.0.1}", `has no prefix length; a single address is 10.0.0.1/32`},
		{"state: x", `state: "x": want an absolute path`},
		{"run: /" + strings.Repeat("x", 94), `is too long for a socket; want at most 94 bytes`},
		{"docker: {name: Fairway}", `docker.name: "Fairway": want 1 to 63 lower-case`},
		{"docker: {plugins: /" + strings.Repeat("x", 100) + "}", `docker.plugins: makes a socket path of 114 bytes`},
		{"log: {level: trace}", `log.level: "trace": want debug, info, warn or error`},
		{"log: {format: xml}", `log.format: "xml": want text or json`},
		{"ipam: {holdDown: 25h}", `ipam.holdDown: "25h": want a duration from 0s to 24h`},
		{"ipam: {holdDown: -1s}", `want a duration from 0s to 24h`},
		{"fabric: ospf", `fabric: "ospf": want bgp, store, static, kernel or none`},

		// What later versions can do.
		{"fabric: store", `f:1:9: fabric: "store": needs a store; give store.etcd.endpoints`},
		{"store: {etcd: {endpoints: [10.0.0.1]}}", `f:1:28: store.etcd.endpoints[0]: "10.0.0.1": want host:port, or a URL`},
		{"store: {etcd: {endpoints: ['fd00::1']}}", `want host:port`},
		{"store: {etcd: {endpoints: ['10.0.0.1:0']}}", `want host:port`},
		{"store: {etcd: {endpoints: ['10.0.0.1:65536']}}", `want host:port`},
		{"store: {etcd: {endpoints: ['0.0.0.0:2379']}}", `want host:port`},
		{"store: {etcd: {endpoints: ['unix:///run/etcd.sock']}}", `want host:port`},
		{"store: {etcd: {endpoints: ['http://etcd:2379/path']}}", `want host:port`},
		{"store: {etcd: {endpoints: ['etcd:2379', 'http://etcd:2379']}}", `store.etcd.endpoints: "http://etcd:2379": is there twice`},
		{"store: {etcd: {endpoints: ['https://a:2379', 'b:2379']}}", `store.etcd.endpoints: "b:2379": want https:// before all endpoints or before none`},
		{"store: {etcd: {endpoints: ['http://a:2379'], tls: {ca: testdata/../../x}}}", `store.etcd.tls.ca: "testdata/../../x": want an absolute path`},
		{"store: {etcd: {endpoints: ['a:2379'], tls: {ca: /no/such/file}}}", `store.etcd.tls.ca: "/no/such/file": cannot be read: no such file or directory`},
		{"store: {etcd: {endpoints: ['a:2379'], tls: {ca: /dev/null}}}", `store.etcd.tls.ca: "/dev/null": cannot be read: open /dev/null: is not a regular file`},
		{"store: {etcd: {endpoints: ['a:2379'], tls: {ca: /proc/version}}}", `store.etcd.tls.ca: "/proc/version": has no certificate in PEM`},
		{"store: {etcd: {endpoints: ['a:2379'], tls: {cert: /c}}}", `store.etcd.tls.cert: "/c": needs store.etcd.tls.key`},
		{"store: {etcd: {endpoints: ['a:2379'], tls: {key: /k}}}", `store.etcd.tls.key: "/k": needs store.etcd.tls.cert`},
		{"store: {etcd: {endpoints: ['a:2379'], tls: {cert: /proc/version, key: /proc/version}}}", `store.etcd.tls.cert: "/proc/version": is no pair with store.etcd.tls.key: failed to find`},
		{"store: {etcd: {endpoints: ['a:2379'], user: root}}", `store.etcd.user: "root": needs store.etcd.passwordFile`},
		{"store: {etcd: {endpoints: ['a:2379'], passwordFile: /proc/version}}", `store.etcd.passwordFile: "/proc/version": needs store.etcd.user`},
		{"store: {etcd: {endpoints: ['a:2379'], user: root, passwordFile: /no/such/file}}", `store.etcd.passwordFile: "/no/such/file": cannot be read: no such`},
		{"store: {etcd: {user: root}}", `store.etcd.user: "root": is of no use without store.etcd.endpoints`},
		{"store: {etcd: {tls: {ca: /ca}}}", `store.etcd.tls.ca: "/ca": is of no use without store.etcd.endpoints`},
		{"store: {etcd: {prefix: fairway}}", `store.etcd.prefix: "fairway": want a path of keys`},
		{"store: {etcd: {prefix: /fairway/}}", `store.etcd.prefix: "/fairway/": want a path of keys`},
		{"store: {etcd: {prefix: ''}}", `store.etcd.prefix: "": want a path of keys`},
	} {
		wantError(t, test.text, test.want)
	}
}

func TestRefusedCombinations(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"node: {address: 10.0.0.1, interface: eth0}", `f:1:38: node.interface: cannot be given together with node.address`},
		{"node: {interface: eth0, cidr: 10.0.0.0/8}", `node.cidr: cannot be given together with node.interface`},

		{"pools: [{}]", `pools[0].cidr: is missing`},
		{"pools: [{cidr: 10.9.0.1/16}]", `pools[0].cidr: "10.9.0.1/16": has host bits set; the prefix is 10.9.0.0/16`},
		{"pools: [{cidr: 0.0.0.0/0}]", `it overlaps 0.0.0.0/8`},
		{"pools: [{cidr: 127.1.0.0/16}]", `it overlaps 127.0.0.0/8`},
		{"pools: [{cidr: 'fe80::/64'}]", `it overlaps fe80::/10`},
		{"pools: [{cidr: '::ffff:10.0.0.0/104'}]", `want a prefix`},
		{"pools: [{cidr: 10.0.0.0/8}, {cidr: 10.9.0.0/16}]", `pools[1].cidr: "10.9.0.0/16": overlaps 10.0.0.0/8 of pools[0]`},
		{"pools: [{cidr: 10.9.0.0/16, block: 10.10.0.0/24}]", `pools[0].block: "10.10.0.0/24": is not inside the pool; want a part of 10.9.0.0/16`},
		{"pools: [{cidr: 10.9.0.0/16, block: 10.0.0.0/8}]", `is not inside the pool`},
		{"pools: [{cidr: 10.9.0.0/16, block: 'fd00::/64'}]", `is not inside the pool`},
		{"pools: [{cidr: 10.9.0.0/16, block: 10.9.1.0/28, blockSize: 26}]", `is smaller than a block; want a prefix length of at most blockSize, 26`},
		{"pools: [{cidr: 10.9.0.0/16, blockSize: 15}]", `pools[0].blockSize: 15: want a prefix length from 16 to 32`},
		{"pools: [{cidr: 10.9.0.0/16, blockSize: 33}]", `want a prefix length from 16 to 32`},
		{"pools: [{cidr: 'fd00::/64', blockSize: 129}]", `want a whole number from 1 to 128`},
		{"pools: [{cidr: 10.9.0.0/16, size: 15}]", `pools[0].size: 15: want a prefix length from 16 to 26`},
		{"pools: [{cidr: 10.9.0.0/16, size: 27}]", `pools[0].size: 27: want a prefix length from 16 to 26`},
		{"pools: [{cidr: 10.9.0.0/16, block: 10.9.0.0/24, size: 20}]", `pools[0].size: 20: want 16 or no size`},
		{"pools: [{cidr: 10.9.0.0/16, noMasqueradeTo: [10.0.0.1/8]}]", `pools[0].noMasqueradeTo[0]: "10.0.0.1/8": has host bits set`},

		{"dockerBridge: {pool: 10.9.0.0/16}", `f:1:22: dockerBridge.pool: "10.9.0.0/16": has no part for this node; give subnet, or in pools the block of a pool inside it`},
		{"{pools: [{cidr: 10.8.0.0/16, block: 10.8.1.0/24}], dockerBridge: {pool: 10.9.0.0/16}}", `has no part for this node`},
		{"{pools: [{cidr: 10.9.0.0/16, block: 10.9.1.0/26}], dockerBridge: {pool: 10.9.0.0/16}}", `the block 10.9.1.0/26 of pools[0] is smaller than a subnet of prefix 24`},
		{"dockerBridge: {pool: 10.9.0.0/16, subnet: 10.8.1.0/24}", `dockerBridge.subnet: "10.8.1.0/24": is not inside the pool; want a part of 10.9.0.0/16`},
		{"dockerBridge: {pool: 10.9.0.0/16, subnet: 10.9.1.0/31}", `dockerBridge.subnet: "10.9.1.0/31": has no room; want a prefix length of at most 30`},
		{"dockerBridge: {pool: 10.9.0.0/16, prefix: 25, subnet: 10.9.1.0/24}", `dockerBridge.prefix: 25: is not the length of subnet 10.9.1.0/24; leave it out`},
		{"dockerBridge: {pool: 10.9.0.0/26, subnet: 10.9.0.0/26, prefix: 24}", `dockerBridge.prefix: 24: is not the length`},
		{"{pools: [{cidr: 10.9.0.0/16, block: 10.9.1.0/24}], dockerBridge: {pool: 10.9.0.0/16, prefix: 12}}", `dockerBridge.prefix: 12: want a prefix length from 16 to 30, for subnets of 10.9.0.0/16`},
		{"dockerBridge: {subnet: 10.9.1.0/24}", `dockerBridge.subnet: "10.9.1.0/24": is without pool; give the range that the bridges of all nodes are in`},
		{"dockerBridge: {pool: 'fd00:9::/48', subnet: 'fd00:9::/64'}", `dockerBridge.pool: "fd00:9::/48": want an IPv4 prefix; pool6 is for IPv6`},
		{"dockerBridge: {pool: 10.9.0.0/16, subnet: 10.9.1.0/24, pool6: 10.8.0.0/16}", `dockerBridge.pool6: "10.8.0.0/16": want an IPv6 prefix`},
		{"dockerBridge: {pool6: 'fd00:9::/48', subnet6: 'fd00:9::/64'}", `dockerBridge.pool6: "fd00:9::/48": is without pool; the bridge always has IPv4`},
		{"dockerBridge: {pool: 10.9.0.0/16, subnet: 10.9.1.0/24, pool6: 'fd00:9::/48'}", `dockerBridge.pool6: "fd00:9::/48": has no part for this node; give subnet6`},
		{"dockerBridge: {prefix: 31}", `dockerBridge.prefix: 31: want a whole number from 1 to 30`},
		{"{docker: {enabled: false}, dockerBridge: {pool: 10.9.0.0/16, subnet: 10.9.1.0/24}}", `dockerBridge.pool: "10.9.0.0/16": is for a node with Docker, and docker.enabled is false`},
		{"{node: {name: a}, dockerBridge: {pool: 10.9.0.0/16, subnet: 10.9.1.0/24}, nodes: [{name: b, address: 10.0.0.2, subnets: [10.9.1.0/25]}]}", `dockerBridge.subnet: "10.9.1.0/24": overlaps 10.9.1.0/25 of nodes[0]`},

		{"pools: [{cidr: 10.9.0.0/16, egress: nat}]", `pools[0].egress: "nat": want route or masquerade`},

		{"bgp: {peers: [{asn: 1}]}", `f:1:15: bgp.peers[0]: want one of address, interface and range`},
		{"bgp: {peers: [{range: 10.0.0.0/8, interface: eth0}]}", `want one of address, interface and range`},
		{"bgp: {peers: [{range: 10.0.0.0/8}, {range: 10.0.0.0/8, asn: 7}]}", `bgp.peers[1]: "10.0.0.0/8": is the same peer as bgp.peers[0]`},
		{"bgp: {listen: '', peers: [{range: 10.0.0.0/8}]}", `bgp.peers[0].range: "10.0.0.0/8": nobody can call, because bgp.listen is empty`},
		{"bgp: {peers: [{range: 0.0.0.0/0}]}", `bgp.peers[0].range: "0.0.0.0/0": want`},
		{"bgp: {peers: [{range: 10.0.0.0/8, passwordFile: /etc/hostname}]}", `cannot be given together with range`},
		{"bgp: {peers: [{address: 10.0.0.1, interface: eth0}]}", `want one of address, interface and range`},
		{"bgp: {peers: [{address: 10.0.0.1}]}", `bgp.peers[0].asn: is missing`},
		{"bgp: {peers: [{address: 10.0.0.1, asn: 0}]}", `f:1:40: bgp.peers[0].asn: is missing`},
		{"bgp: {peers: [{address: 10.0.0.1, asn: 65535}]}", `bgp.peers[0].asn: 65535: want 0 for any, or a number`},
		{"bgp: {peers: [{address: 'fe80::1', asn: 1}]}", `a link-local one with its link`},
		{"bgp: {peers: [{address: 'fd00::1%eth0', asn: 1}]}", `want a unicast address`},
		{"bgp: {peers: [{address: 'fe80::1%/', asn: 1}]}", `want the name of a link`},
		{"bgp: {peers: [{interface: eth0, port: 0}]}", `bgp.peers[0].port: 0: want a whole number from 1 to 65535`},
		{"bgp: {peers: [{interface: eth0, multihop: 256}]}", `want a whole number from 0 to 255`},
		{"bgp: {peers: [{interface: eth0, multihop: 2}]}", `cannot be given together with interface`},
		{"bgp: {peers: [{address: 10.0.0.1, asn: 1, ttlSecurity: true, multihop: 2}]}", `cannot be given together with ttlSecurity`},
		{"bgp: {peers: [{address: 10.0.0.1, asn: 64512, multihop: 2}]}", `is for external peers`},
		{"bgp: {peers: [{interface: eth0, holdTime: 1s}]}", `bgp.peers[0].holdTime: "1s": want a duration from 3s`},
		{"bgp: {peers: [{interface: eth0}, {interface: eth0}]}", `bgp.peers[1]: "eth0": is the same peer as bgp.peers[0]`},
		{"bgp: {listen: '', peers: [{interface: eth0, passive: true}]}", `bgp.peers[0].passive: true: waits for ever`},
		{"{node: {address: 10.0.0.1}, bgp: {peers: [{address: 10.0.0.1, asn: 1}]}}", `is this node's own address`},
		{"bgp: {peers: [null]}", `f:1:15: bgp.peers[0]: want a mapping; this is empty`},

		{"nodes: [{address: 10.0.0.1}]", `nodes[0].name: is missing`},
		{"nodes: [{name: a}]", `nodes[0]: want an address or an address6`},
		{"nodes: [{name: a, address: 10.0.0.1}, {name: a, address: 10.0.0.2}]", `nodes[1].name: "a": is also the name of nodes[0]`},
		{"nodes: [{name: a, address: 10.0.0.1, subnets: [fd00::/64]}]", `nodes[0].subnets: "fd00::/64": has no next hop; give the node's address6`},
		{"nodes: [{name: a, address6: 'fd00::1', subnets: [10.0.0.0/24]}]", `has no next hop; give the node's address`},
		{"nodes: [{name: a, address: 10.0.0.1, subnets: [10.1.0.0/16]}, {name: b, address: 10.0.0.2, subnets: [10.1.1.0/24]}]", `nodes[1].subnets: "10.1.1.0/24": overlaps 10.1.0.0/16 of nodes[0]`},
		{"{node: {name: a}, pools: [{cidr: 10.0.0.0/8, block: 10.1.0.0/16}], nodes: [{name: b, address: 10.0.0.2, subnets: [10.1.1.0/24]}]}", `overlaps this node's own block 10.1.0.0/16 of pools[0]`},

		{"routes: [{via: 10.0.0.1}]", `routes[0].to: is missing`},
		{"routes: [{to: 10.0.0.0/8}]", `routes[0].via: is missing`},
		{"routes: [{to: 10.0.0.0/8, via: 'fd00::1'}]", `is of another address family than 10.0.0.0/8`},
		{"routes: [{to: 10.0.0.0/8, via: 10.0.0.1}]", `routes[0].via: "10.0.0.1": is inside 10.0.0.0/8, which it shall lead to`},
		{"routes: [{to: 224.0.0.0/8, via: 10.0.0.1}]", `it overlaps 224.0.0.0/4`},
		{"routes: [{to: 10.0.0.0/8, via: 11.0.0.1}, {to: 10.0.0.0/8, via: 11.0.0.1}]", `routes[1]: is the same route as routes[0]`},
	} {
		wantError(t, test.text, test.want)
	}
}

// wantError wants one error, no more, that has the text in it.
func wantError(t *testing.T, text, want string) {
	t.Helper()
	_, err := parse(text)
	if err == nil {
		t.Errorf("%.200s: no error, want %q", text, want)
		return
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("%.200s:\n got %s\nwant %s", text, err, want)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%.200s: more than one error:\n%s", text, err)
	}
}
