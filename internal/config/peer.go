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
		if !l.ok(key, key+".address", key+".interface") {
			continue
		}
		if p.Address.IsValid() == (p.Interface != "") {
			l.fail(key, "", "want either an address or an interface")
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

// checkPeer looks at the combination of one peer's options.
func (l *loader) checkPeer(key string, p Peer) {
	b := l.config.BGP
	if p.Address.IsValid() {
		if p.ASN == 0 && l.ok(key+".asn") {
			l.fail(key+".asn", "", "is missing; only a peer with an interface can be in any autonomous system")
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
