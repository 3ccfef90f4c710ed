package cnm_test

import (
	"net/netip"
	"strings"
	"testing"

	"fairway/internal/cnm"
)

func TestCheckNetwork(t *testing.T) {
	for _, tt := range []struct {
		subnets, opts, want string // opts as key=value, by blanks; want "": accepted
	}{
		{"10.9.0.0/16 fd00:9::/64", "mtu=1400 mode=routed staticRange=10.9.128.0/17,fd00:9::/72", ""},
		{"10.9.0.1/16", "", "did you mean 10.9.0.0/16?"},
		{"10.9.0.0/16 10.9.1.0/24", "", "subnets 10.9.0.0/16 and 10.9.1.0/24 of one network overlap"},
		{"10.9.0.0/16", "mtu=1", "option mtu=1: want bytes"},
		{"10.9.0.0/16", "colour=red", "unknown option colour=red"},
		{"10.9.0.0/16", "network=front", "has its name from the command"},
		{"10.9.0.0/16", "staticRange=10.8.0.0/24", "10.8.0.0/24 is in no subnet of the network"},
		{"10.9.0.0/16", "staticRange=10.9.1.0/24,10.9.2.0/24", "10.9.2.0/24 is the second one in the subnet 10.9.0.0/16"},
		{"10.9.0.0/16 fd00:9::/48", "mode=subnet staticRange=10.9.1.0/24", "there is no range for all nodes"},
		{"10.9.0.0/24!10.9.0.0", "", "gateway 10.9.0.0 is the network address of the subnet 10.9.0.0/24"},
		{"10.9.0.0/24!10.9.0.255", "", "gateway 10.9.0.255 is the broadcast address of the subnet"},
		{"10.9.0.0/24 fd00:9::/64!fd00:9::", "", "gateway fd00:9:: is the subnet-router anycast address"},
		{"10.9.0.0/24!10.8.0.1", "", "gateway 10.8.0.1 is not in the subnet 10.9.0.0/24"},
		{"10.9.0.0/32", "", "subnet 10.9.0.0/32 has one address"},
		{"10.9.0.0/31!10.9.0.1 fd00:9::/127", "staticRange=10.9.0.1/32,fd00:9::1/128", ""},
		{"10.9.0.0/16!10.9.0.1", "mode=subnet", "gateway 10.9.0.1: with mode=subnet each node's gateway"},
	} {
		var subnets []cnm.Subnet
		for s := range strings.FieldsSeq(tt.subnets) {
			prefix, gateway, given := strings.Cut(s, "!")
			sub := cnm.Subnet{Prefix: netip.MustParsePrefix(prefix)}
			if given {
				sub.Gateway = netip.MustParseAddr(gateway)
			}
			subnets = append(subnets, sub)
		}
		opts := map[string]string{}
		for o := range strings.FieldsSeq(tt.opts) {
			k, v, _ := strings.Cut(o, "=")
			opts[k] = v
		}
		static, err := cnm.CheckNetwork(subnets, opts)
		switch {
		case tt.want == "" && (err != nil || len(static) != 2):
			t.Errorf("%s %s: %v, %v", tt.subnets, tt.opts, static, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s %s: %v, want %q", tt.subnets, tt.opts, err, tt.want)
		}
	}
}
