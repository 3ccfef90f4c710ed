package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strings"
	"unicode/utf8"
)

const (
	wantIPv4      = "an IPv4 unicast address, such as 10.77.0.11"
	wantIPv6      = "an IPv6 unicast address that is not link-local, such as fd00:77::11"
	wantNextHop   = "a unicast address, such as 10.77.0.1 or fd00:77::1; a link-local one with its link, such as fe80::1%eth1"
	wantPrefix    = "a prefix, such as 10.9.0.0/16 or fd00:9::/48"
	wantPath      = "an absolute path of at most 4095 bytes, without control characters"
	wantInterface = `the name of a link: 1 to 15 bytes without white space, "/" and ":"`
	wantNodeName  = "1 to 253 letters, digits, dots, dashes and underscores that start and end with a letter or digit"
	wantDriver    = "1 to 63 lower-case letters, digits, dots, dashes and underscores that start with a letter or digit"
)

func isUnicast(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && !a.Is4In6() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func parseIPv4(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() || !isUnicast(a) {
		return netip.Addr{}, errors.New("want " + wantIPv4)
	}
	return a, nil
}

func parseIPv6(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is6() || !isUnicast(a) || a.IsLinkLocalUnicast() || a.Zone() != "" {
		return netip.Addr{}, errors.New("want " + wantIPv6)
	}
	return a, nil
}

// parseNextHop reads the address of a router. It has a zone if, and only if, it is a link-local one of IPv6.
func parseNextHop(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !isUnicast(a) {
		return netip.Addr{}, errors.New("want " + wantNextHop)
	}
	if needsZone := a.Is6() && a.IsLinkLocalUnicast(); needsZone != (a.Zone() != "") {
		return netip.Addr{}, errors.New("want " + wantNextHop)
	}
	if a.Zone() != "" {
		if _, err := parseInterface(a.Zone()); err != nil {
			return netip.Addr{}, err
		}
	}
	return a, nil
}

// parsePrefix reads a prefix without host bits.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.Prefix{}, fmt.Errorf("has no prefix length; a single address is %s/%d", s, a.BitLen())
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, errors.New("want " + wantPrefix)
	}
	if m := p.Masked(); m != p {
		return netip.Prefix{}, fmt.Errorf("has host bits set; the prefix is %s", m)
	}
	return p, nil
}

// parseUnicastPrefix reads a prefix whose addresses can be given to containers.
func parseUnicastPrefix(s string) (netip.Prefix, error) {
	p, err := parsePrefix(s)
	if err != nil {
		return p, err
	}
	for _, special := range []string{
		"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32",
		"::/8", "fe80::/10", "ff00::/8",
	} {
		if q := netip.MustParsePrefix(special); q.Overlaps(p) {
			return netip.Prefix{}, fmt.Errorf("want addresses that can be routed; it overlaps %s", q)
		}
	}
	return p, nil
}

// parseRoutePrefix reads the destination of a route, which may be everything.
func parseRoutePrefix(s string) (netip.Prefix, error) {
	p, err := parsePrefix(s)
	if err == nil && p.Bits() == 0 {
		return p, nil
	}
	return parseUnicastPrefix(s)
}

func parsePath(s string) (string, error) {
	if !path.IsAbs(s) || len(s) > 4095 || hasControl(s) {
		return "", errors.New("want " + wantPath)
	}
	return path.Clean(s), nil
}

// parseSocketPath reads the path of a Unix socket, or of its directory when reserve bytes are needed
// for a slash and a name. The kernel takes 107 bytes (unix(7)).
func parseSocketPath(reserve int) func(string) (string, error) {
	return func(s string) (string, error) {
		p, err := parsePath(s)
		if err != nil {
			return "", err
		}
		if limit := maxSocketPath - reserve; len(p) > limit {
			return "", fmt.Errorf("is too long for a socket; want at most %d bytes", limit)
		}
		return p, nil
	}
}

const maxSocketPath = 107

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError })
}

func parseInterface(s string) (string, error) {
	bad := s == "" || len(s) > 15 || s == "." || s == ".." || strings.ContainsAny(s, "/: ") || hasControl(s)
	if bad {
		return "", errors.New("want " + wantInterface)
	}
	return s, nil
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// isWord is true for 1 to limit letters, digits, dots, dashes and underscores, the first of which is a letter or digit.
func isWord(s string, limit int) bool {
	if s == "" || len(s) > limit || !isAlnum(s[0]) {
		return false
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && !strings.ContainsRune("._-", rune(s[i])) {
			return false
		}
	}
	return true
}

func parseNodeName(s string) (string, error) {
	if !isWord(s, 253) || !isAlnum(s[len(s)-1]) {
		return "", errors.New("want " + wantNodeName)
	}
	return s, nil
}

func parseDriver(s string) (string, error) {
	if !isWord(s, 63) || s != strings.ToLower(s) {
		return "", errors.New("want " + wantDriver)
	}
	return s, nil
}
