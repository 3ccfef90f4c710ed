package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
)

// maxPassword is the longest TCP MD5 key that the kernel takes, in bytes (TCP_MD5SIG_MAXKEYLEN of linux/tcp.h).
const maxPassword = 80

// checkAggregates refuses one inside another: it would be announced in place of itself.
func (l *loader) checkAggregates() {
	all := l.config.BGP.Aggregate
	for i, p := range all {
		for j, other := range all[:i] {
			if l.ok("bgp.aggregate") && p.Overlaps(other) {
				l.fail("bgp.aggregate", quote(kindText, p.String()), "overlaps %s, entry %d of the list", other, j)
			}
		}
	}
}

func (l *loader) checkPeers() {
	seen := map[string]int{}
	for i := range l.config.BGP.Peers {
		p := &l.config.BGP.Peers[i]
		key := fmt.Sprintf("bgp.peers[%d]", i)
		l.readPassword(key+".passwordFile", p)
		if !l.ok(key, key+".address", key+".interface", key+".range") {
			continue
		}
		if ways(p.Address.IsValid(), p.Interface != "", p.Range.IsValid()) != 1 {
			l.fail(key, "", "want one of address, interface and range")
			continue
		}
		if j, dup := seen[p.Name()]; dup {
			l.fail(key, quote(kindText, p.Name()), "is the same peer as bgp.peers[%d]", j)
		} else {
			seen[p.Name()] = i
		}
		l.checkPeer(key, *p)
	}
}

// ways counts the conditions that hold.
func ways(set ...bool) int {
	n := 0
	for _, s := range set {
		if s {
			n++
		}
	}
	return n
}

// checkRange looks at a peer that stands for all who call from a range.
func (l *loader) checkRange(key string, p Peer) {
	if !p.Range.IsValid() {
		return
	}
	if p.PasswordFile != "" && l.ok(key+".passwordFile") {
		l.fail(key+".passwordFile", quote(kindText, p.PasswordFile), "cannot be given together with range: the kernel keeps a password for each address; give each peer with its address")
	}
	if l.config.BGP.Listen == (netip.AddrPort{}) && l.ok("bgp.listen") {
		l.fail(key+".range", quote(kindText, p.Range.String()), "nobody can call, because bgp.listen is empty")
	}
}

// checkPeer looks at the combination of one peer's options.
func (l *loader) checkPeer(key string, p Peer) {
	b := l.config.BGP
	l.checkRange(key, p)
	if p.Address.IsValid() {
		if p.ASN == 0 && l.ok(key+".asn") {
			l.fail(key+".asn", "", "is missing; only a peer with an interface or a range can be in any autonomous system")
		}
		if p.Address == l.config.Node.Address || p.Address == l.config.Node.Address6 {
			l.fail(key+".address", quote(kindText, p.Name()), "is this node's own address")
		}
	}
	if p.Passive && b.Listen == (netip.AddrPort{}) && l.ok(key+".passive", "bgp.listen") {
		l.fail(key+".passive", "true", "waits for ever, because bgp.listen is empty")
	}
	if p.Multihop == 0 || !l.ok(key+".multihop") {
		return
	}
	value := fmt.Sprint(p.Multihop)
	switch {
	case p.TTLSecurity:
		l.fail(key+".multihop", value, "cannot be given together with ttlSecurity, which allows no hop")
	case p.Interface != "":
		l.fail(key+".multihop", value, "cannot be given together with interface, whose peer is on the link")
	case p.ASN == b.ASN && l.ok(key+".asn", "bgp.asn"):
		l.fail(key+".multihop", value, "is for external peers; an internal one may always be some hops away")
	}
}

// readPassword reads the file of a peer's TCP MD5 password (RFC 2385).
func (l *loader) readPassword(key string, p *Peer) {
	if p.PasswordFile == "" || !l.ok(key) {
		return
	}
	value := quote(kindText, p.PasswordFile)
	data, err := readLimited(p.PasswordFile, 4096)
	if err != nil {
		if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
			err = pathErr.Err // the value says the path already
		}
		l.fail(key, value, "cannot be read: %s", err)
		return
	}
	password := strings.TrimSpace(string(data))
	if len(password) == 0 || len(password) > maxPassword {
		l.fail(key, value, "holds %d bytes without the white space around them; want 1 to %d", len(password), maxPassword)
		return
	}
	p.Password = Secret(password)
}
