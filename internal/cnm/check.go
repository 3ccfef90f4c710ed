package cnm

import (
	"fmt"
	"net/netip"
	"slices"

	"fairway/internal/ipam"
)

// CheckNetwork checks what can be checked of a network before any node makes it: its options, and subnets and gateways
// by themselves. It returns the static ranges that the options name, each of which lies in a subnet.
func CheckNetwork(subnets []Subnet, opts map[string]string) ([]netip.Prefix, error) {
	v6 := false
	for i, s := range subnets {
		if s.Prefix != s.Prefix.Masked() {
			return nil, fmt.Errorf("subnet %s: has host bits set; did you mean %s?", s.Prefix, s.Prefix.Masked())
		}
		for _, o := range subnets[:i] {
			if s.Prefix.Overlaps(o.Prefix) {
				return nil, fmt.Errorf("subnets %s and %s of one network overlap", o.Prefix, s.Prefix)
			}
		}
		if _, err := ipam.Gateway(s.Prefix, s.Gateway); err != nil {
			return nil, err
		}
		v6 = v6 || s.Prefix.Addr().Is6()
	}
	if name, ok := opts[OptNetwork]; ok {
		return nil, fmt.Errorf("option %s=%s: a network of the cluster has its name from the command", OptNetwork, name)
	}
	parsed, err := parseSettings(opts, v6)
	if err != nil {
		return nil, err
	}
	for _, s := range subnets {
		if parsed.mode == PerNode && s.Gateway.IsValid() {
			return nil, fmt.Errorf("gateway %s: with %s=%s each node's gateway is the first address of its own part of %s; leave it out", s.Gateway, OptMode, PerNode, s.Prefix)
		}
	}
	return parsed.static, checkStaticRanges(parsed.static, subnets)
}

// checkStaticRanges wants each range inside a subnet, and one in each at most.
func checkStaticRanges(ranges []netip.Prefix, subnets []Subnet) error {
	for i, static := range ranges {
		n := slices.IndexFunc(subnets, func(s Subnet) bool { return s.Prefix.Bits() <= static.Bits() && s.Prefix.Overlaps(static) })
		switch {
		case n < 0:
			return fmt.Errorf("option %s: %s is in no subnet of the network", OptStatic, static)
		case slices.ContainsFunc(ranges[:i], subnets[n].Prefix.Overlaps):
			return fmt.Errorf("option %s: %s is the second one in the subnet %s: give one for each subnet", OptStatic, static, subnets[n].Prefix)
		}
	}
	return nil
}
