package cnm

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"fairway/internal/kernel"
)

// Options of a network with a bridge, in any case.
const (
	OptBridgeName = "bridgeName"
	OptBridgeMTU  = "bridgeMTU"
	OptBridgeMAC  = "bridgeHardwareAddr"
)

// Bridge is what the user chose of a network's bridge. The zero value leaves everything to us.
type Bridge struct {
	Name string     `json:"name,omitempty"`
	MTU  int        `json:"mtu,omitempty"` // bytes; 0: the network's
	MAC  kernel.MAC `json:"mac,omitzero"`
}

// BridgeName is the network's bridge on this node: the name given, or "fwb" and 12 hexadecimal digits.
func (n Network) BridgeName() string {
	if n.Bridge.Name != "" {
		return n.Bridge.Name
	}
	return kernel.LinkPrefix + "b" + shortID(n.ID)
}

// bridgeOption takes in an option of a bridge; false when the key is none.
func (s *settings) bridgeOption(key, val string, v6 bool) (bool, error) {
	for _, o := range []struct {
		key   string
		set   func(string) error
		given bool
	}{
		{OptBridgeName, s.setBridgeName, s.bridge.Name != ""},
		{OptBridgeMTU, func(val string) (err error) { s.bridge.MTU, err = parseMTU(key, val, v6); return err }, s.bridge.MTU != 0},
		{OptBridgeMAC, s.setBridgeMAC, !s.bridge.MAC.IsZero()},
	} {
		if !strings.EqualFold(key, o.key) {
			continue
		}
		if o.given {
			return true, fmt.Errorf("option %s=%s: given twice, in different cases", key, val)
		}
		return true, o.set(val)
	}
	return false, nil
}

// setBridgeName takes names that the kernel takes (dev_valid_name), and that no program takes for a pattern or an option.
func (s *settings) setBridgeName(val string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	switch {
	case val == "" || len(val) > 15:
		return fmt.Errorf("option %s=%s: want 1 to 15 bytes", OptBridgeName, val)
	case strings.Trim(val, letters+"._-") != "" || !strings.Contains(letters, val[:1]):
		return fmt.Errorf("option %s=%s: want letters, digits, dots, dashes and underscores, a letter or digit first", OptBridgeName, val)
	case slices.Contains([]string{"lo", "all", "default"}, val):
		return fmt.Errorf("option %s=%s: the kernel has this name for something else; choose another", OptBridgeName, val)
	}
	s.bridge.Name = val
	return nil
}

func (s *settings) setBridgeMAC(val string) error {
	mac, err := kernel.ParseMAC(val)
	if err != nil {
		return fmt.Errorf("option %s=%s: %w", OptBridgeMAC, val, err)
	}
	if !mac.IsUnicast() {
		return fmt.Errorf("option %s=%s: want a unicast address: not zero, and the lowest bit of the first byte not set", OptBridgeMAC, val)
	}
	s.bridge.MAC = mac
	return nil
}

// checkMode refuses options that mean nothing in the mode.
func (s *settings) checkMode() error {
	switch {
	case s.mode == Routed && s.bridge != (Bridge{}):
		return fmt.Errorf("options %s, %s and %s: a network with mode=%s has no bridge; give mode=%s too", OptBridgeName, OptBridgeMTU, OptBridgeMAC, Routed, PerNode)
	case s.mode == PerNode && len(s.static) > 0:
		return fmt.Errorf("option %s: with mode=%s an address works only in its own node's subnet, so there is no range for all nodes; leave it out", OptStatic, PerNode)
	case s.bridge.MTU != 0 && s.mtu > s.bridge.MTU:
		return fmt.Errorf("options %s=%d and %s=%d: containers would send what the bridge does not pass; the bridge's has to be as large", OptMTU, s.mtu, OptBridgeMTU, s.bridge.MTU)
	}
	return nil
}

// parseMTU reads an MTU in bytes.
func parseMTU(key, val string, v6 bool) (int, error) {
	low := minMTU4
	if v6 {
		low = minMTU6
	}
	n, err := strconv.Atoi(val)
	if err != nil || n < low || n > maxMTU {
		return 0, fmt.Errorf("option %s=%s: want bytes, from %d to %d", key, val, low, maxMTU)
	}
	return n, nil
}

// checkBridge refuses a bridge whose name somebody has.
func (b *Book) checkBridge(n Network) error {
	if n.Mode != PerNode {
		return nil
	}
	name := n.BridgeName()
	for _, o := range b.networks {
		if o.ID != n.ID && o.Mode == PerNode && o.BridgeName() == name {
			return fmt.Errorf("option %s=%s: network %s has a bridge of this name; choose another", OptBridgeName, name, short(o.ID))
		}
	}
	for _, e := range b.endpoints {
		if e.LinkName() == name || e.PeerName() == name {
			return fmt.Errorf("option %s=%s: endpoint %s has a link of this name; choose another", OptBridgeName, name, short(e.ID))
		}
	}
	if b.node.Link == nil {
		return nil
	}
	if kind, foreign := b.node.Link(name); foreign {
		return fmt.Errorf("option %s=%s: the node has a link of this name, a %s that is not fairway's; choose another name, or remove or rename that link", OptBridgeName, name, kind)
	}
	return nil
}

// seen is the network as it is on this node now: with a subnet per node, what the node has of each subnet, and the
// gateway there.
func (b *Book) seen(n Network) Network {
	if n.Mode != PerNode {
		return n
	}
	n.Subnets = slices.Clone(n.Subnets)
	for i := range n.Subnets {
		s := &n.Subnets[i]
		s.Part, s.Gateway, _ = b.alloc.NodeSubnet(s.Pool)
	}
	return n
}

// Parts are this node's subnets of a network with a subnet per node, as far as it has them.
func (n Network) Parts() []Subnet {
	return slices.DeleteFunc(slices.Clone(n.Subnets), func(s Subnet) bool { return !s.Part.IsValid() })
}

// onLink says whether an address is in a subnet that is on the container's link, so that nothing needs a route to it.
func (n Network) onLink(a netip.Addr) bool {
	return slices.ContainsFunc(n.Subnets, func(s Subnet) bool { return s.Part.Contains(a) })
}
