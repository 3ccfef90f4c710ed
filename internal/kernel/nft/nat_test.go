package nft

import (
	"net/netip"
	"strings"
	"testing"

	"fairway/internal/kernel"

	"github.com/google/go-cmp/cmp"
)

func prefixes(all ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestRanges(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []netip.Prefix
		want string
	}{
		{"none", nil, ""},
		{"one", prefixes("10.9.0.0/16"), "10.9.0.0-10.10.0.0"},
		{"inside another", prefixes("10.0.0.0/8", "10.9.0.0/16", "10.255.0.0/16"), "10.0.0.0-11.0.0.0"},
		{"touching", prefixes("10.9.0.0/24", "10.9.1.0/24", "10.9.3.0/24"), "10.9.0.0-10.9.2.0 10.9.3.0-10.9.4.0"},
		{"the end of all", prefixes("224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32"), "224.0.0.0-invalid IP"},
		{"everything", prefixes("0.0.0.0/0", "10.0.0.0/8"), "0.0.0.0-invalid IP"},
		{"of both families", prefixes("10.9.0.0/16", "fd00::/8"), "10.9.0.0-10.10.0.0"},
		{"one address", prefixes("10.9.0.7/32"), "10.9.0.7-10.9.0.8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, r := range natFamilies()[0].ranges(c.in) {
				got = append(got, r.start.String()+"-"+r.end.String())
			}
			if d := cmp.Diff(c.want, strings.Join(got, " ")); d != "" {
				t.Error(d)
			}
		})
	}
	if got := natFamilies()[1].ranges(prefixes("10.0.0.0/8", "fd00:9::/48", "ff00::/8")); len(got) != 2 || got[1].end.IsValid() {
		t.Errorf("IPv6: %v", got)
	}
}

func TestMasqueradeRefused(t *testing.T) {
	for name, m := range map[string]kernel.Masquerade{
		"host bits": {From: prefixes("10.9.0.1/16")},
		"unsorted":  {From: prefixes("10.9.0.0/16", "10.8.0.0/16")},
		"twice":     {From: prefixes("10.9.0.0/16"), Direct: prefixes("10.8.0.0/16", "10.8.0.0/16")},
		"families":  {Except: []kernel.Exception{{From: prefixes("10.9.0.0/16")[0], To: prefixes("fd00::/8")[0]}}},
		"no prefix": {From: []netip.Prefix{{}}},
	} {
		if err := validate(kernel.Firewall{Masquerade: m}); err == nil {
			t.Errorf("%s: %+v is taken", name, m)
		}
	}
}
