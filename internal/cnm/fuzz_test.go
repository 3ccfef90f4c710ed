package cnm

import (
	"strings"
	"testing"

	"fairway/internal/kernel"
)

// FuzzOptions gives one option of a network and one of an endpoint any key and value: what is accepted is within its
// range, what is refused is named, and nothing panics.
func FuzzOptions(f *testing.F) {
	for _, o := range [][2]string{
		{"mode", "routed"},
		{"mode", "vxlan"},
		{"mtu", "1400"},
		{"mtu", "-1"},
		{"mtu", "99999999999999999999"},
		{"com.docker.network.driver.mtu", "68"},
		{"egress", "masquerade"},
		{"staticRange", "10.9.192.0/18,fd09::/120"},
		{"staticRange", ","},
		{"ingress", ""},
		{"network", "x"},
		{"", ""},
		{"\x00", "\xff"},
		{"fairway.addresses", "10.9.200.7, fd09::7"},
		{"fairway.addresses", "::ffff:1.2.3.4"},
		{"fairway.addresses", "fe80::1%eth0"},
		{"fairway.ingress", "any"},
		{"fairway.", "1"},
	} {
		f.Add(o[0], o[1], true)
		f.Add(o[0], o[1], false)
	}
	f.Fuzz(func(t *testing.T, key, val string, v6 bool) {
		s, err := parseSettings(map[string]string{key: val}, v6)
		switch {
		case err != nil && !strings.Contains(err.Error(), key):
			t.Errorf("error %q does not name option %q", err, key)
		case err == nil && (s.mode != Routed || s.mtu < 0 || s.mtu > maxMTU || (v6 && s.mtu != 0 && s.mtu < minMTU6)):
			t.Errorf("%s=%s gives %+v", key, val, s)
		}
		for _, p := range s.static {
			if p != p.Masked() {
				t.Errorf("static range %s has host bits", p)
			}
		}
		extra, kept, err := endpointOptions(map[string]string{key: val})
		if err != nil && !strings.Contains(err.Error(), key) {
			t.Errorf("error %q does not name option %q", err, key)
		}
		if (len(extra) > 0) != (len(kept) > 0) {
			t.Errorf("%s=%s: addresses %v, kept %v", key, val, extra, kept)
		}
		for _, a := range extra {
			if !a.IsValid() || a.Zone() != "" || a.Is4In6() || a.IsMulticast() {
				t.Errorf("further address %s", a)
			}
		}
	})
}

// FuzzMAC parses what it prints.
func FuzzMAC(f *testing.F) {
	f.Add("02:42:ac:11:00:02")
	f.Add("02-42-AC-11-00-02")
	f.Add("0:0:0:0:0:0")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := kernel.ParseMAC(s)
		if err != nil {
			return
		}
		if again, err := kernel.ParseMAC(m.String()); err != nil || again != m {
			t.Errorf("%q gives %s, which gives %s (%v)", s, m, again, err)
		}
	})
}
