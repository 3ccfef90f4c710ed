package router

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"

	"fairway/internal/config"
	"fairway/internal/fabric/bgp"
	"fairway/internal/rib"
)

// forward makes the container a router that is no filter and tells nobody of better ways: containers ask their gateway,
// which is right here for all of them.
func (r *Router) forward(ctx context.Context) error {
	for key, val := range map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/ipv4/conf/all/rp_filter": "0",
		"net/ipv4/conf/default/rp_filter": "0", "net/ipv4/conf/all/send_redirects": "0", "net/ipv4/conf/default/send_redirects": "0",
	} {
		if err := r.own.Sysctls().Set(ctx, key, val); err != nil {
			return fmt.Errorf("make this container a router: %w; run it with --privileged", err)
		}
	}
	return nil
}

// quietLinks sets what of a link's own the kernel combines with "all".
func (r *Router) quietLinks(ctx context.Context, links []Link) error {
	want := map[string]string{}
	for _, l := range links {
		want["net/ipv4/conf/"+l.Name+"/rp_filter"] = "0"
		want["net/ipv4/conf/"+l.Name+"/send_redirects"] = "0"
	}
	keys := make([]string, 0, len(want))
	for k := range want {
		keys = append(keys, k)
	}
	have, err := r.own.Sysctls().Read(ctx, keys)
	if err != nil {
		return err
	}
	for k, v := range have {
		if v != want[k] {
			if err := r.own.Sysctls().Set(ctx, k, want[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

// speaker makes the BGP speaker. Each router is an AS of its own, of the private range (RFC 6996): so paths have lengths,
// routers pass on what they hear, and the nearest one wins.
func (r *Router) speaker() error {
	sum := sha256.Sum256([]byte(r.self.ID))
	id := netip.AddrFrom4([4]byte{10, sum[0], sum[1], sum[2] | 1})
	asn := firstPrivateAS + binary.BigEndian.Uint32(sum[4:8])%privateASes
	c := config.Default()
	c.BGP.ASN, c.BGP.RouterID = asn, id
	c.BGP.Listen = netip.MustParseAddrPort("0.0.0.0:179")
	c.BGP.Import.Prefixes = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	c.BGP.Multipath = true
	// What a router forwards ends with it: its namespace goes when it is killed, and there is nothing to keep routes for.
	c.BGP.GracefulRestart.Enabled = false
	r.bgp = c
	r.rib = rib.New(r.mark)
	r.hear = newNeighbours(r.log, hello{Version: 1, RouterID: id, ASN: asn, Instance: r.opt.Instance}, r.opt.Peers, r.mark)
	fab, err := bgp.New(bgp.Config{Node: id, Cfg: c, RIB: r.rib, Log: r.log, Changed: r.mark})
	if err != nil {
		return fmt.Errorf("start bgp: %w", err)
	}
	r.fab = fab
	return nil
}

// The private AS numbers of four bytes (RFC 6996, 5).
const (
	firstPrivateAS = 4200000000
	privateASes    = 94967295
)
