package ipam_test

import (
	"net/netip"
	"strings"
	"testing"

	"fairway/internal/ipam"
)

func TestShapeOf(t *testing.T) {
	for _, tt := range []struct {
		subnet, static string
		asked, size    int
		want, wrong    string
	}{
		{"10.9.0.0/16", "", 0, 26, "10.9.192.0/18", ""},
		{"10.9.0.0/16", "", 24, 24, "10.9.192.0/18", ""},
		{"10.9.0.0/25", "", 0, 27, "10.9.0.96/27", ""},
		{"fd00:9::/64", "", 0, 122, "fd00:9:0:0:c000::/66", ""},
		{"10.9.0.0/16", "10.9.128.0/17", 0, 26, "10.9.128.0/17", ""},
		{"10.9.0.1/16", "", 0, 0, "", "host bits"},
		{"127.9.0.0/16", "", 0, 0, "", "not routed"},
		{"10.9.0.0/16", "10.8.0.0/24", 0, 0, "", "staticRange 10.8.0.0/24 is not a part of the subnet 10.9.0.0/16"},
		{"10.9.0.0/16", "10.9.0.0/16", 0, 0, "", "nothing would be left"},
	} {
		var static netip.Prefix
		if tt.static != "" {
			static = netip.MustParsePrefix(tt.static)
		}
		s, err := ipam.ShapeOf(netip.MustParsePrefix(tt.subnet), tt.asked, static)
		if tt.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), tt.wrong) {
				t.Errorf("%s, static %s: %v, want an error with %q", tt.subnet, tt.static, err, tt.wrong)
			}
			continue
		}
		if err != nil || s.BlockSize != tt.size || s.Static != netip.MustParsePrefix(tt.want) {
			t.Errorf("%s: %+v, %v; want blocks of /%d and %s", tt.subnet, s, err, tt.size, tt.want)
		}
	}
}
