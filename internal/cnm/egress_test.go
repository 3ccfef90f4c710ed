package cnm

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEgressOptions(t *testing.T) {
	for _, c := range []struct {
		opts map[string]string
		want Egress
	}{
		{nil, Egress{}},
		{map[string]string{"egress": "route"}, Egress{Way: EgressRoute}},
		{
			map[string]string{"egress": "masquerade", "noMasqueradeTo": "192.0.2.0/24, fd00:7::/48,10.7.0.0/16,192.0.2.0/24"},
			Egress{Way: EgressMasquerade, NoMasqueradeTo: []netip.Prefix{
				netip.MustParsePrefix("10.7.0.0/16"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("fd00:7::/48"),
			}},
		},
	} {
		s, err := parseSettings(c.opts, false)
		if err != nil {
			t.Errorf("%v: %v", c.opts, err)
		}
		if d := cmp.Diff(c.want, s.egress, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
			t.Errorf("%v: %s", c.opts, d)
		}
	}
}
