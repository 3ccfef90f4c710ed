package ipam

import (
	"fmt"
	"math"
	"net/netip"
)

// special are the prefixes that no pool may touch: their addresses are not routed between hosts.
func special() []struct{ cidr, what string } {
	return []struct{ cidr, what string }{
		{"0.0.0.0/8", "this network"},
		{"127.0.0.0/8", "loopback"},
		{"169.254.0.0/16", "link-local"},
		{"224.0.0.0/4", "multicast"},
		{"255.255.255.255/32", "broadcast"},
		{"::/127", "unspecified and loopback"},
		{"::ffff:0:0/96", "IPv4-mapped"},
		{"fe80::/10", "link-local"},
		{"ff00::/8", "multicast"},
	}
}

// checkRoutable refuses what overlaps special addresses.
func checkRoutable(p netip.Prefix) error {
	for _, s := range special() {
		if cidr := netip.MustParsePrefix(s.cidr); cidr.Overlaps(p) {
			return fmt.Errorf("%v overlaps %v (%s), which is not routed between hosts", p, cidr, s.what)
		}
	}
	return nil
}

func checkSubnet(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return fmt.Errorf("subnet is missing: want a prefix like 10.9.0.0/16")
	case p != p.Masked():
		return fmt.Errorf("subnet %v has host bits set: write %v", p, p.Masked())
	}
	if err := checkRoutable(p); err != nil {
		return fmt.Errorf("subnet %w", err)
	}
	return nil
}

// covers tells that all of b is in a.
func covers(a, b netip.Prefix) bool {
	return a.IsValid() && b.IsValid() && a.Bits() <= b.Bits() && a.Overlaps(b)
}

// overlap is what both prefixes have: the longer one, or zero.
func overlap(a, b netip.Prefix) netip.Prefix {
	switch {
	case covers(a, b):
		return b
	case covers(b, a):
		return a
	}
	return netip.Prefix{}
}

// last is the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b) // 4 or 16 bytes, as AsSlice made them
	return a
}

// after is the prefix of the given length that follows p. It is zero at
// the end of the family. The length is at least that of p.
func after(p netip.Prefix, bits int) netip.Prefix {
	next := last(p).Next()
	if !next.IsValid() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(next, bits)
}

// hostBits is how many bits of an address a prefix leaves open.
func hostBits(p netip.Prefix) int { return p.Addr().BitLen() - p.Bits() }

// size is the number of addresses of a prefix, math.MaxUint64 if there are more.
func size(p netip.Prefix) uint64 {
	if hostBits(p) >= 64 {
		return math.MaxUint64
	}
	return 1 << hostBits(p)
}

// quarter is the last quarter of a prefix, zero if it has fewer than four addresses.
func quarter(p netip.Prefix) netip.Prefix {
	if hostBits(p) < 2 {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(last(p), p.Bits()+2).Masked()
}

// reserved tells what an address of the pool is when it cannot be anybody's, "" if it can.
func reserved(pool netip.Prefix, addr netip.Addr) string {
	if hostBits(pool) < 2 {
		return ""
	}
	switch {
	case addr.Is4() && addr == pool.Addr():
		return "network address"
	case addr.Is4() && addr == last(pool):
		return "broadcast address"
	case addr == pool.Addr():
		return "subnet-router anycast address"
	}
	return ""
}

// firstUsable is the pool's default gateway.
func firstUsable(pool netip.Prefix) netip.Addr {
	if hostBits(pool) < 2 {
		return pool.Addr()
	}
	return pool.Addr().Next()
}

// Gateway is the gateway of a pool whose network asks for this one, or, with the zero value, for none: its first usable
// address. It refuses one that no node could have, and a pool that has room for nothing else.
func Gateway(pool netip.Prefix, asked netip.Addr) (netip.Addr, error) {
	switch {
	case hostBits(pool) == 0:
		return netip.Addr{}, fmt.Errorf("subnet %v has one address, which is the gateway's: nothing would be left for containers", pool)
	case !asked.IsValid():
		return firstUsable(pool), nil
	case !pool.Contains(asked):
		return netip.Addr{}, fmt.Errorf("gateway %v is not in the subnet %v", asked, pool)
	case reserved(pool, asked) != "":
		return netip.Addr{}, fmt.Errorf("gateway %v is the %s of the subnet %v: choose another", asked, reserved(pool, asked), pool)
	}
	return asked, nil
}
