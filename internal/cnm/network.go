package cnm

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"time"

	"fairway/internal/kernel"
)

// Mode is how a network's containers are joined to the node.
type Mode string

// The modes that are in this version.
const (
	Routed  Mode = "routed" // a routed link to each container
	PerNode Mode = "subnet" // a bridge on each node, with a subnet that only this node has
)

// Network is a Docker network of our driver on this node.
type Network struct {
	ID       string    `json:"id"`
	Mode     Mode      `json:"mode"`
	Internal bool      `json:"internal,omitempty"` // no gateway is handed out, so containers reach only what is on their links
	MTU      int       `json:"mtu,omitempty"`      // bytes; 0: the underlay's
	Subnets  []Subnet  `json:"subnets"`            // in the engine's order, IPv4 before IPv6
	Static   []string  `json:"static,omitempty"`   // option staticRange as given
	Egress   Egress    `json:"egress,omitzero"`
	Bridge   Bridge    `json:"bridge,omitzero"`   // mode subnet
	Options  Options   `json:"options,omitempty"` // as given, known ones only
	Created  time.Time `json:"created"`
}

// Options are options as the user gave them, by key.
type Options map[string]string

// Subnet is one pool of a network.
type Subnet struct {
	Prefix  netip.Prefix `json:"prefix"`           // masked
	Gateway netip.Addr   `json:"gateway,omitzero"` // zero: none
	Part    netip.Prefix `json:"-"`                // mode subnet: what this node has of it; zero: nothing yet
	Pool    string       `json:"pool,omitempty"`   // our pool ID; "" when Docker's own IPAM gives the addresses
}

// Gateway returns the gateway of the subnet that has the address; zero when none has.
func (n Network) Gateway(a netip.Addr) netip.Addr {
	for _, s := range n.Subnets {
		if s.Prefix.Contains(a) {
			return s.Gateway
		}
	}
	return netip.Addr{}
}

// Gateways are all gateways of the network.
func (n Network) Gateways() []netip.Addr {
	var out []netip.Addr
	for _, s := range n.Subnets {
		if s.Gateway.IsValid() {
			out = append(out, s.Gateway)
		}
	}
	return out
}

// State is how far the engine has taken an endpoint.
type State string

// The states of an endpoint. The engine's calls move it: CreateEndpoint, Join, Leave; DeleteEndpoint removes it.
const (
	Created State = "created" // known, nothing in the kernel
	Joined  State = "joined"  // plugged into a sandbox, routed, announced
	Left    State = "left"    // withdrawn; its link stays until DeleteEndpoint, the engine moves it about
)

// Endpoint is a container's place on a network.
type Endpoint struct {
	ID      string         `json:"id"`
	Network string         `json:"network"`
	State   State          `json:"state"`
	Addrs   []netip.Prefix `json:"addrs"`           // as in the container: one IPv4, one IPv6 at most
	Extra   []netip.Addr   `json:"extra,omitempty"` // fairway.addresses
	MAC     kernel.MAC     `json:"mac"`
	MACSet  bool           `json:"mac_set,omitempty"` // the user or the engine chose it
	Sandbox string         `json:"sandbox,omitempty"` // sandbox key, known from Join on
	Options Options        `json:"options,omitempty"`
	Created time.Time      `json:"created"`
	Changed time.Time      `json:"changed"` // of the state
}

// LinkName is the node's end of the endpoint's veth: "fw" and 12 hexadecimal digits.
func (e Endpoint) LinkName() string { return kernel.LinkPrefix + shortID(e.ID) }

// PeerName is the container's end until the engine renames it: "fv" and 12 hexadecimal digits.
func (e Endpoint) PeerName() string { return "fv" + shortID(e.ID) }

// All are all addresses of the endpoint, the further ones last.
func (e Endpoint) All() []netip.Addr {
	var out []netip.Addr
	for _, p := range e.Addrs {
		out = append(out, p.Addr())
	}
	return append(out, e.Extra...)
}

// shortID keeps the first 12 characters of an engine's ID, as Docker's own listings do.
func shortID(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

// Option keys of a network and of an endpoint.
const (
	OptMode        = "mode"
	OptMTU         = "mtu"
	OptDockerMTU   = "com.docker.network.driver.mtu"
	OptEgress      = "egress"
	OptNoMasq      = "noMasqueradeTo"
	OptIngress     = "ingress"
	OptStatic      = "staticRange"
	OptNetwork     = "network"
	OptEPAddresses = "fairway.addresses"
	OptEPIngress   = "fairway.ingress"
)

// settings are the checked options of a network.
type settings struct {
	mode   Mode
	mtu    int
	static []netip.Prefix
	egress Egress
	bridge Bridge
}

// notHere are options of the design that later versions bring; accepting and ignoring them would be a lie.
func notHere(key string) string {
	switch strings.ToLower(key) {
	case strings.ToLower(OptIngress), strings.ToLower(OptEPIngress):
		return "ingress filters are"
	}
	return ""
}

// mtuRange: the smallest is IPv4's (RFC 791), or IPv6's (RFC 8200, 5) once a subnet is IPv6; the largest is the
// kernel's for a veth (ETH_MAX_MTU).
const (
	minMTU4 = 68
	minMTU6 = 1280
	maxMTU  = 65535
)

func parseSettings(opts map[string]string, v6 bool) (settings, error) {
	s := settings{mode: Routed}
	for _, key := range sortedKeys(opts) {
		if err := s.set(key, opts[key], v6); err != nil {
			return settings{}, err
		}
	}
	if a, b := opts[OptMTU], opts[OptDockerMTU]; a != "" && b != "" && a != b {
		return settings{}, fmt.Errorf("options %s=%s and %s=%s: both set the MTU, to different values; give one", OptMTU, a, OptDockerMTU, b)
	}
	return s, s.checkMode()
}

func (s *settings) set(key, val string, v6 bool) error {
	if ours, err := s.bridgeOption(key, val, v6); ours {
		return err
	}
	switch key {
	case OptMode:
		if s.mode = Mode(val); s.mode != Routed && s.mode != PerNode {
			return fmt.Errorf("option mode=%s: allowed in this version: %s, %s", val, Routed, PerNode)
		}
	case OptMTU, OptDockerMTU:
		var err error
		s.mtu, err = parseMTU(key, val, v6)
		return err
	case OptEgress, OptNoMasq:
		return s.egress.set(key, val)
	case OptStatic:
		return s.setStatic(val)
	case OptNetwork: // compared with the cluster's record by CreateNetwork
		if val == "" {
			return fmt.Errorf("option %s: want the name of a network of the cluster", key)
		}
	default:
		// Docker's own generic keys for bridges and the like are refused as well: they would promise what is not done.
		if what := notHere(key); what != "" {
			return fmt.Errorf("option %s=%s: %s not available in this version", key, val, what)
		}
		return fmt.Errorf("unknown option %s=%s: allowed are %s, %s (or %s), %s, %s, %s, %s, %s, %s and %s", key, val,
			OptMode, OptMTU, OptDockerMTU, OptEgress, OptNoMasq, OptStatic, OptNetwork, OptBridgeName, OptBridgeMTU, OptBridgeMAC)
	}
	return nil
}

func (s *settings) setStatic(val string) error {
	for part := range strings.SplitSeq(val, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil {
			return fmt.Errorf("option %s=%s: want prefixes inside the subnets, as 10.9.192.0/18, comma-separated", OptStatic, val)
		}
		if p != p.Masked() {
			return fmt.Errorf("option %s=%s: %s has host bits set; did you mean %s?", OptStatic, val, p, p.Masked())
		}
		s.static = append(s.static, p)
	}
	return nil
}

// endpointOptions reads the keys of ours in an endpoint's options; others' keys are the engine's business.
func endpointOptions(opts map[string]string) (extra []netip.Addr, kept Options, err error) {
	for _, key := range sortedKeys(opts) {
		if !strings.HasPrefix(key, "fairway.") {
			continue
		}
		switch key {
		case OptEPAddresses:
			if extra, err = parseAddresses(opts[key]); err != nil {
				return nil, nil, err
			}
			kept = Options{key: opts[key]}
		case OptEPIngress:
			return nil, nil, fmt.Errorf("option %s=%s: ingress filters are not available in this version", key, opts[key])
		default:
			return nil, nil, fmt.Errorf("unknown endpoint option %s=%s: allowed is %s", key, opts[key], OptEPAddresses)
		}
	}
	return extra, kept, nil
}

func parseAddresses(val string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, part := range strings.FieldsFunc(val, func(r rune) bool { return r == ',' || r == ' ' || r == ';' }) {
		a, err := netip.ParseAddr(part)
		if err != nil || a.Zone() != "" || a.IsMulticast() || a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.Is4In6() {
			return nil, fmt.Errorf("option %s=%s: %q is not a unicast IPv4 or IPv6 address", OptEPAddresses, val, part)
		}
		if slices.Contains(out, a) {
			return nil, fmt.Errorf("option %s=%s: %s stands twice", OptEPAddresses, val, a)
		}
		out = append(out, a)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("option %s=%q: want addresses, comma-separated", OptEPAddresses, val)
	}
	return out, nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
