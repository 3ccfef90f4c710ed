package daemonjson

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Version is an engine's. The zero value stands for one that is not known: only what every engine knows is written for
// it, since an engine does not start with a key that it does not know.
type Version struct {
	Major, Minor, Patch int
}

// ParseVersion reads "28.5.2", and what distributions make of it ("20.10.24+dfsg1", "v28.5", "27.5.1-1ubuntu2").
func ParseVersion(s string) (Version, error) {
	bad := fmt.Errorf("engine version %q: want numbers, as 28.5.2", s)
	text := strings.TrimPrefix(strings.TrimSpace(s), "v")
	if i := strings.IndexAny(text, "+-~ "); i >= 0 {
		text = text[:i]
	}
	parts := strings.Split(text, ".")
	if len(parts) > 4 {
		return Version{}, bad
	}
	var n [4]int
	for i, p := range parts {
		var err error
		if n[i], err = strconv.Atoi(p); err != nil || n[i] < 0 || p[0] == '+' {
			return Version{}, bad
		}
	}
	if n[0] == 0 {
		return Version{}, bad
	}
	return Version{n[0], n[1], n[2]}, nil
}

// Known says that this is a version.
func (v Version) Known() bool { return v != Version{} }

// String is the usual form.
func (v Version) String() string {
	if !v.Known() {
		return "unknown"
	}
	return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch)
}

func (v Version) atLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// Validates says that `dockerd --validate` is there (23.0).
func (v Version) Validates() bool { return v.atLeast(23, 0) }

// The keys of daemon.json that are about the default bridge.
const (
	keyBIP      = "bip"
	keyFixed    = "fixed-cidr"
	keyMasq     = "ip-masq"
	keyIPv6     = "ipv6"
	keyFixed6   = "fixed-cidr-v6"
	keyBIP6     = "bip6"                 // from 28.0
	keyDirect   = "allow-direct-routing" // from 28.2, which drops direct access to every container without it
	keyBridge   = "bridge"
	keyGateway  = "default-gateway"
	keyGateway6 = "default-gateway-v6"
	keyLive     = "live-restore"
	keyFirewall = "firewall-backend" // from 29
)

// Bridge is what the default bridge should be.
type Bridge struct {
	Subnet  netip.Prefix // IPv4, up to /30
	Subnet6 netip.Prefix // IPv6; zero: none of ours
}

// Settings are the keys for a bridge on an engine. What the file says in agreement with the bridge stays: an address of
// the bridge's own in the subnet, a range of addresses inside it. A file that contradicts is refused, naming the key and
// what to do.
func (d *Document) Settings(b Bridge, v Version) ([]Setting, error) {
	if err := d.contradicts(b); err != nil {
		return nil, err
	}
	out := []Setting{
		{keyBIP, d.address(keyBIP, b.Subnet)},
		{keyFixed, d.rangeOf(keyFixed, b.Subnet)},
		{keyMasq, json.RawMessage("false")},
	}
	if b.Subnet6.IsValid() {
		out = append(out, Setting{keyIPv6, json.RawMessage("true")})
		if v.atLeast(28, 0) {
			out = append(out, Setting{keyBIP6, d.address(keyBIP6, b.Subnet6)})
		}
		out = append(out, Setting{keyFixed6, d.rangeOf(keyFixed6, b.Subnet6)})
	}
	if v.atLeast(28, 2) {
		out = append(out, Setting{keyDirect, json.RawMessage("true")})
	}
	return out, nil
}

// Notes are what the operator has to know besides.
func (d *Document) Notes(b Bridge, v Version) []string {
	var out []string
	if !v.Known() {
		out = append(out, "the engine's version is not known, so only keys that every engine knows are written. Docker 28.2 and later also need "+
			keyDirect+": give --engine-version")
	}
	if v.Known() && v.atLeast(28, 0) && !v.atLeast(28, 2) {
		out = append(out, "Docker "+v.String()+" drops direct access to ports that a container publishes, and has no setting against it: use 28.2 or later, or do not publish them")
	}
	if on, ok := d.Value(keyLive); ok && string(on) == "true" {
		out = append(out, keyLive+" is on: as long as any container runs, on whichever network, an engine that starts keeps the bridge as it is, so stop all of them before Docker is restarted")
	}
	if backend, ok := d.stringOf(keyFirewall); ok && backend == "nftables" {
		out = append(out, keyFirewall+" is nftables: such an engine has no DOCKER-USER, where the agent accepts what comes for containers, and drops it: set it to iptables")
	}
	if on, ok := d.Value(keyIPv6); ok && string(on) == "true" && !b.Subnet6.IsValid() {
		out = append(out, "IPv6 is on for the default bridge with a subnet that is not of the cluster, and "+keyMasq+
			" ends Docker's masquerading of it too: give dockerBridge.pool6")
	}
	return out
}

// contradicts refuses what cannot be true together with a bridge.
func (d *Document) contradicts(b Bridge) error {
	if name, ok := d.stringOf(keyBridge); ok && name != "" {
		return d.contradiction(keyBridge, name, "the default bridge is another link, or none, which excludes bip: take the key out")
	}
	for _, k := range []struct {
		key    string
		subnet netip.Prefix
	}{{keyGateway, b.Subnet}, {keyGateway6, b.Subnet6}} {
		val, ok := d.stringOf(k.key)
		if !ok || val == "" || !k.subnet.IsValid() {
			continue
		}
		if a, err := netip.ParseAddr(val); err != nil || !k.subnet.Contains(a) {
			return d.contradiction(k.key, val, fmt.Sprintf("want an address in %s: change the key or take it out", k.subnet))
		}
	}
	return nil
}

func (d *Document) contradiction(key, val, what string) error {
	return fmt.Errorf("key %q in line %d is %q: %s", key, d.Line(key), val, what)
}

// stringOf is the value of a key as a string; a value that is none is told as it stands.
func (d *Document) stringOf(key string) (string, bool) {
	raw, ok := d.Value(key)
	if !ok || string(raw) == "null" {
		return "", false
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return string(raw), true
	}
	return s, true
}

// address is the bridge's own address in a subnet: the one that the file has, or the first.
func (d *Document) address(key string, subnet netip.Prefix) json.RawMessage {
	if val, ok := d.stringOf(key); ok {
		if p, err := netip.ParsePrefix(val); err == nil && p.Masked() == subnet && p.Addr() != subnet.Addr() {
			return quote(val)
		}
	}
	return quote(netip.PrefixFrom(subnet.Addr().Next(), subnet.Bits()).String())
}

// rangeOf is where containers' addresses are from: the part of the subnet that the file names, or all of it.
func (d *Document) rangeOf(key string, subnet netip.Prefix) json.RawMessage {
	if val, ok := d.stringOf(key); ok {
		if p, err := netip.ParsePrefix(val); err == nil && p == p.Masked() && p.Bits() >= subnet.Bits() && subnet.Contains(p.Addr()) {
			return quote(val)
		}
	}
	return quote(subnet.String())
}
