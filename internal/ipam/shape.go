package ipam

import (
	"fmt"
	"net/netip"
)

// NodeShape is the shape of a subnet of which each node has one part (mode=subnet). asked is the prefix length of the
// parts; 0: 24 for IPv4, 64 for IPv6. There is no static range.
func NodeShape(subnet netip.Prefix, asked int) (Shape, error) {
	if err := checkSubnet(subnet); err != nil {
		return Shape{}, err
	}
	size := nodeSize(subnet, asked)
	if size == subnet.Bits() {
		return Shape{}, fmt.Errorf("subnet %v is one part, of /%d, and each node needs its own: give a larger subnet, or a pool with smaller parts (pools[].blockSize)", subnet, size)
	}
	if subnet.Addr().BitLen()-size < 2 {
		return Shape{}, fmt.Errorf("subnet %v has no room for a part with a gateway and a container", subnet)
	}
	return Shape{BlockSize: size}, nil
}

// PerNode says whether a subnet of this shape has a part for each node: only such a subnet has no static range, if it is not
// too small for one.
func (s Shape) PerNode(subnet netip.Prefix) bool { return !s.Static.IsValid() && hostBits(subnet) >= 2 }

// ShapeOf says how a subnet is cut that nodes share: into blocks of the prefix length asked for (0: the usual one), or
// smaller ones where the static range would not stay whole. The static range is the one given, or the last quarter. The
// error says what is wrong with the subnet or the range.
func ShapeOf(subnet netip.Prefix, asked int, static netip.Prefix) (Shape, error) {
	if err := checkSubnet(subnet); err != nil {
		return Shape{}, err
	}
	s := Shape{BlockSize: blockSize(subnet, asked), Static: quarter(subnet)}
	if !static.IsValid() {
		return s, nil
	}
	if static != static.Masked() || !covers(subnet, static) {
		return Shape{}, fmt.Errorf("staticRange %v is not a part of the subnet %v", static, subnet)
	}
	if static == subnet {
		return Shape{}, fmt.Errorf("staticRange %v is all of the subnet: nothing would be left for containers that ask for no address", static)
	}
	s.Static = static
	return s, nil
}
