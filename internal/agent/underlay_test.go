package agent

import (
	"net/netip"
	"strings"
	"testing"

	"fairway/internal/config"
	"fairway/internal/kernel"
)

func facts() kernel.Facts {
	pfx := netip.MustParsePrefix
	return kernel.Facts{
		Links: map[string]kernel.FactLink{
			"lo":      {Name: "lo", Index: 1, Up: true, Addrs: []netip.Prefix{pfx("127.0.0.1/8")}},
			"docker0": {Name: "docker0", Index: 2, Up: true, MTU: 1500, Addrs: []netip.Prefix{pfx("172.17.0.1/16")}},
			"eth0":    {Name: "eth0", Index: 3, Up: true, MTU: 1500, Addrs: []netip.Prefix{pfx("fe80::1/64"), pfx("10.77.0.11/24"), pfx("fd77::11/64")}},
			"eth1":    {Name: "eth1", Index: 4, Up: true, MTU: 9000, Addrs: []netip.Prefix{pfx("192.168.5.11/24")}},
		},
		Default4: kernel.NextHop{Via: netip.MustParseAddr("192.168.5.1"), Link: "eth1"},
	}
}

func TestChooseUnderlay(t *testing.T) {
	ip := netip.MustParseAddr
	noDefault := facts()
	noDefault.Default4 = kernel.NextHop{}
	tests := []struct {
		name       string
		cfg        config.Node
		facts      kernel.Facts
		link       string
		a4, a6     string
		mtu        int
		why, fails string
	}{
		{name: "default route", facts: facts(), link: "eth1", a4: "192.168.5.11", mtu: 9000, why: "default route"},
		{name: "no default route, never docker0", facts: noDefault, link: "eth0", a4: "10.77.0.11", a6: "fd77::11", mtu: 1500, why: "first link"},
		{name: "address", cfg: config.Node{Address: ip("10.77.0.11")}, facts: facts(), link: "eth0", a4: "10.77.0.11", a6: "fd77::11", mtu: 1500, why: "node.address"},
		{name: "address of nobody", cfg: config.Node{Address: ip("10.1.1.1")}, facts: facts(), fails: "eth0 [fe80::1/64 10.77.0.11/24 fd77::11/64]"},
		{name: "interface", cfg: config.Node{Interface: "eth0"}, facts: facts(), link: "eth0", a4: "10.77.0.11", a6: "fd77::11", mtu: 1500, why: "node.interface"},
		{name: "interface of nobody", cfg: config.Node{Interface: "eth7"}, facts: facts(), fails: `"eth7"`},
		{name: "cidr", cfg: config.Node{CIDR: netip.MustParsePrefix("10.77.0.0/16")}, facts: facts(), link: "eth0", a4: "10.77.0.11", a6: "fd77::11", mtu: 1500, why: "10.77.0.0/16"},
		{name: "cidr of nobody", cfg: config.Node{CIDR: netip.MustParsePrefix("10.1.0.0/16")}, facts: facts(), fails: "10.1.0.0/16"},
		{name: "no network at all", facts: kernel.Facts{}, why: "no link has an address"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			u, err := chooseUnderlay(tc.cfg, tc.facts)
			if tc.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fails) {
					t.Fatalf("error %v does not say %q", err, tc.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if u.Link != tc.link || text(u.Addr4) != tc.a4 || text(u.Addr6) != tc.a6 || u.MTU != tc.mtu || !strings.Contains(u.Why, tc.why) {
				t.Errorf("chose %+v", u)
			}
		})
	}
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
