package bgp

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"fairway/internal/config"
	"fairway/internal/kernel"
	"fairway/internal/rib"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func adr(s string) netip.Addr   { return netip.MustParseAddr(s) }

func TestUsable(t *testing.T) {
	none := netip.Addr{}
	tests := []struct {
		name     string
		prefix   string
		hop      netip.Addr
		local    netip.Addr
		peer     string
		link     string
		want     netip.Addr
		wantLink string
	}{
		{"IPv4", "10.9.0.0/26", adr("10.0.0.2"), none, "10.0.0.2", "eth0", adr("10.0.0.2"), ""},
		{"a third router", "10.9.0.0/26", adr("10.0.0.3"), none, "10.0.0.2", "eth0", adr("10.0.0.3"), ""},
		{"IPv4 over IPv6", "10.9.0.0/26", adr("fd77::2"), none, "fd77::2", "eth0", adr("fd77::2"), ""},
		{"IPv6 over mapped IPv4", "fd00::/64", adr("::ffff:10.0.0.2"), none, "10.0.0.2", "eth0", none, ""},
		{"both addresses on a numbered session", "fd00::/64", adr("fd77::2"), adr("fe80::2"), "fd77::2", "eth0", adr("fd77::2"), ""},
		{"both addresses on an unnumbered session", "fd00::/64", adr("fd77::2"), adr("fe80::2"), "fe80::2%eth1", "eth1", adr("fe80::2"), "eth1"},
		{"link-local in the first place", "10.9.0.0/26", adr("fe80::2"), none, "fe80::2%eth1", "eth1", adr("fe80::2"), "eth1"},
		{"unspecified, with link-local", "fd00::/64", adr("::"), adr("fe80::2"), "10.0.0.2", "eth0", adr("fe80::2"), "eth0"},
		{"link-local behind nobody knows which link", "fd00::/64", adr("fe80::2"), none, "fd77::2", "", none, ""},
		{"unspecified", "10.9.0.0/26", adr("0.0.0.0"), none, "10.0.0.2", "eth0", none, ""},
		{"multicast", "10.9.0.0/26", adr("224.0.0.5"), none, "10.0.0.2", "eth0", none, ""},
		{"none", "10.9.0.0/26", none, none, "10.0.0.2", "eth0", none, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, link, ok := usable(pfx(tt.prefix), tt.hop, tt.local, adr(tt.peer), tt.link)
			if ok != tt.want.IsValid() || ok && (got != tt.want || link != tt.wantLink) {
				t.Errorf("usable = %v, %q, %v, want %v, %q", got, link, ok, tt.want, tt.wantLink)
			}
		})
	}
}

// heard is a path as GoBGP reports it.
func heard(t *testing.T, prefix, peer, hop string, id uint32, as ...uint32) *apiutil.Path {
	t.Helper()
	nlri, err := bgp.NewIPAddrPrefix(pfx(prefix))
	if err != nil {
		t.Fatal(err)
	}
	next, err := bgp.NewPathAttributeNextHop(adr(hop))
	if err != nil {
		t.Fatal(err)
	}
	attrs := []bgp.PathAttributeInterface{
		next, bgp.NewPathAttributeMultiExitDisc(7),
		bgp.NewPathAttributeLargeCommunities([]*bgp.LargeCommunity{
			{ASN: 64512, LocalData1: 100, LocalData2: 5},
			{ASN: 64512, LocalData1: nodeFunction, LocalData2: 0x0a4d0002},
		}),
	}
	if len(as) > 0 {
		attrs = append(attrs, bgp.NewPathAttributeAsPath([]bgp.AsPathParamInterface{bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, as)}))
	}
	return &apiutil.Path{Family: bgp.RF_IPv4_UC, Nlri: nlri, Attrs: attrs, PeerAddress: adr(peer), RemoteID: id}
}

func withdrawn(p *apiutil.Path) *apiutil.Path {
	w := *p
	w.Withdrawal = true
	return &w
}

func TestParse(t *testing.T) {
	var c attrCache
	prefix, got, ok := c.parse(heard(t, "10.9.0.0/26", "10.0.0.2", "10.0.0.2", 0, 64513, 64514), "eth0")
	want := rib.Path{
		NextHop: adr("10.0.0.2"), Source: rib.BGP, Peer: "10.0.0.2", Node: adr("10.77.0.2"),
		OriginAS: 64514, ASPath: []uint32{64513, 64514}, MED: 7,
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" || !ok || prefix != pfx("10.9.0.0/26") {
		t.Errorf("parse = %v, %v (-want +got):\n%s", prefix, ok, d)
	}
	// The next path has other attributes, and must not get those of this one.
	if _, got, _ = c.parse(heard(t, "10.9.0.64/26", "10.0.0.3", "10.0.0.3", 0), ""); got.OriginAS != 0 || got.ASPath != nil || got.Peer != "10.0.0.3" {
		t.Errorf("parse = %+v", got)
	}
}

func TestOriginTellsTheNode(t *testing.T) {
	o, err := newOrigin(64512, adr("10.77.0.2"))
	if err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"10.9.0.0/26", "fd00:9::/122"} {
		p, err := o.path(pfx(prefix))
		if err != nil {
			t.Fatal(err)
		}
		var node netip.Addr
		for _, a := range p.Attrs {
			if c, ok := a.(*bgp.PathAttributeLargeCommunities); ok {
				node = nodeOf(c)
			}
		}
		if node != adr("10.77.0.2") {
			t.Errorf("%s: node %v", prefix, node)
		}
	}
}

// hops are the next hops that the rib has for a prefix.
func hops(table *rib.Table, prefix string) string {
	var all []string
	for _, p := range table.Snapshot()[pfx(prefix)].Paths {
		text := p.NextHop.String()
		if p.Stale {
			text += "*"
		}
		all = append(all, text)
	}
	return strings.Join(all, " ")
}

func TestLearned(t *testing.T) {
	const p = "10.9.0.0/26"
	a, b := heard(t, p, "10.0.0.2", "10.0.0.2", 0), heard(t, p, "10.0.0.3", "10.0.0.3", 0)
	second := heard(t, p, "10.0.0.2", "10.0.0.9", 1) // another path of the first peer
	own := heard(t, p, "10.0.0.2", "10.0.0.1", 0)    // over ourselves
	local := heard(t, p, "10.0.0.2", "0.0.0.0", 0)
	local.PeerAddress = netip.Addr{}
	tests := []struct {
		name string
		do   func(*learned)
		want string
	}{
		{"multipath adds up", func(l *learned) { l.merge([]*apiutil.Path{a, b, second}, true) }, "10.0.0.2 10.0.0.9 10.0.0.3"},
		{"and takes away one", func(l *learned) { l.merge([]*apiutil.Path{a, b, second, withdrawn(a)}, true) }, "10.0.0.9 10.0.0.3"},
		{"our own route is not ours to see", func(l *learned) { l.merge([]*apiutil.Path{local}, true) }, ""},
		{"best only replaces", func(l *learned) { l.merge([]*apiutil.Path{a, b}, false) }, "10.0.0.3"},
		{"our own is best", func(l *learned) { l.merge([]*apiutil.Path{a, local}, false) }, ""},
		{"best only, gone", func(l *learned) { l.merge([]*apiutil.Path{a, withdrawn(a)}, false) }, ""},
		{"over ourselves", func(l *learned) { l.merge([]*apiutil.Path{own}, true) }, ""},
		{"becomes unusable", func(l *learned) { l.merge([]*apiutil.Path{a, own}, true) }, ""},
		{"blocked", func(l *learned) {
			l.merge([]*apiutil.Path{a, b}, true)
			l.block(adr("10.0.0.2"))
			l.merge([]*apiutil.Path{a}, true) // was on its way
		}, "10.0.0.3"},
		{"unblocked", func(l *learned) {
			l.block(adr("10.0.0.2"))
			l.unblock(adr("10.0.0.2"), "")
			l.merge([]*apiutil.Path{a}, true)
		}, "10.0.0.2"},
		{"stale", func(l *learned) {
			l.merge([]*apiutil.Path{a, b}, true)
			l.mark(adr("10.0.0.2"), true)
		}, "10.0.0.2* 10.0.0.3"},
		{"fresh again", func(l *learned) {
			l.merge([]*apiutil.Path{a}, true)
			l.mark(adr("10.0.0.2"), true)
			l.mark(adr("10.0.0.2"), false)
		}, "10.0.0.2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := rib.New(nil)
			l := newLearned(table)
			l.own = []netip.Addr{adr("10.0.0.1")}
			tt.do(l)
			if got := hops(table, p); got != tt.want {
				t.Errorf("next hops %q, want %q", got, tt.want)
			}
		})
	}
}

func TestPolicyAllows(t *testing.T) {
	f := &Fabric{
		cfg:   &config.Config{Pools: []config.Pool{{CIDR: pfx("10.9.0.0/16")}, {CIDR: pfx("::/0")}}},
		pools: []netip.Prefix{pfx("10.8.0.0/24")},
	}
	f.cfg.BGP.Import.Prefixes = []netip.Prefix{pfx("0.0.0.0/0")}
	wide := f.newPolicy()
	f.cfg.BGP.Import.Prefixes = []netip.Prefix{pfx("192.0.2.0/24")}
	narrow := f.newPolicy()
	tests := []struct {
		prefix       string
		wide, narrow bool
	}{
		{"10.9.0.0/16", true, true},
		{"10.9.1.0/26", true, true},
		{"10.8.0.7/32", true, true},
		{"10.8.0.0/16", true, false},
		{"192.0.2.128/25", true, true},
		{"198.51.100.0/24", true, false},
		{"0.0.0.0/0", true, false},
		{"::/0", false, false},
		{"fd00::/8", true, true},
	}
	for _, tt := range tests {
		if got := wide.allows(pfx(tt.prefix)); got != tt.wide {
			t.Errorf("wide: allows(%s) = %v", tt.prefix, got)
		}
		if got := narrow.allows(pfx(tt.prefix)); got != tt.narrow {
			t.Errorf("narrow: allows(%s) = %v", tt.prefix, got)
		}
	}
}

func TestNewVias(t *testing.T) {
	f := &Fabric{
		cfg: &config.Config{}, asn: 64512, node6: adr("fd77::1"),
		facts: kernel.Facts{Links: map[string]kernel.FactLink{
			"eth0": {Addrs: []netip.Prefix{pfx("10.0.0.1/24"), pfx("fe80::1/64")}},
			"eth1": {Addrs: []netip.Prefix{pfx("10.1.0.1/24"), pfx("fd01::1/64")}},
		}},
		sessions: map[string]*session{},
	}
	for _, s := range []struct {
		addr, link string
		asn        uint32
	}{
		{"10.0.0.2", "eth0", 64512}, {"10.0.0.3", "eth0", 64512}, {"10.1.0.2", "eth1", 64513}, {"10.2.0.2", "", 64512}, {"fd01::2", "eth1", 64513},
	} {
		f.sessions[s.addr] = &session{addr: adr(s.addr), link: s.link, set: settings{peer: config.Peer{ASN: s.asn}}}
	}
	want := []via{
		{hop: adr("fd01::1"), external: true, peers: []string{"10.1.0.2/32"}},
		{hop: adr("fd77::1"), peers: []string{"10.0.0.2/32", "10.0.0.3/32", "10.2.0.2/32"}},
	}
	if d := cmp.Diff(want, f.newVias(), cmp.AllowUnexported(via{}), cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Errorf("vias (-want +got):\n%s", d)
	}
}

func TestQuietLog(t *testing.T) {
	var out bytes.Buffer
	to := func(level slog.Level) *slog.Logger {
		out.Reset()
		return quietLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level})))
	}
	log := to(slog.LevelInfo)
	log.Info("Peer Up")
	log.Warn("hold timer expired")
	if out.Len() > 0 {
		t.Errorf("logged at info: %s", &out)
	}
	log.Error("broken", slog.String("Communicated-Reason", "x")) //nolint:sloglint // as GoBGP writes it
	if s := out.String(); !strings.Contains(s, "level=WARN") || !strings.Contains(s, "communicated_reason=x") {
		t.Errorf("an error is logged as %q", s)
	}
	log = to(slog.LevelDebug)
	log.Debug("received update")
	if out.Len() > 0 {
		t.Errorf("every UPDATE is logged: %s", &out)
	}
	log.With(slog.String("Key", "10.0.0.2")).Info("Peer Up") //nolint:sloglint // as GoBGP writes it
	if s := out.String(); !strings.Contains(s, "level=DEBUG") || !strings.Contains(s, "key=10.0.0.2") {
		t.Errorf("at debug it is logged as %q", s)
	}
}

func TestRestartKeys(t *testing.T) {
	a, b := config.Default(), config.Default()
	if got := RestartKeys(a, b); got != nil {
		t.Errorf("nothing changed, and %v need a restart", got)
	}
	b.BGP.ASN, b.BGP.Multipath, b.BGP.HoldTime = 65000, false, 0
	if d := cmp.Diff([]string{"bgp.asn", "bgp.multipath"}, RestartKeys(a, b)); d != "" {
		t.Errorf("keys (-want +got):\n%s", d)
	}
}
