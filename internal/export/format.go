package export

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Format is the program that the routes are for.
type Format string

// The formats.
const (
	IPRoute2 Format = "iproute2"         // a batch of ip(8)
	Netplan  Format = "netplan"          // a YAML file of /etc/netplan
	Networkd Format = "systemd-networkd" // a drop-in of a .network file
	FRR      Format = "frr"              // lines of frr.conf
	BIRD     Format = "bird"             // a part of bird.conf, BIRD 2 or later
)

// Formats are all of them.
func Formats() []Format { return []Format{IPRoute2, Netplan, Networkd, FRR, BIRD} }

// ErrLink says that a format needs to know the router's links.
var ErrLink = errors.New("the router's links must be given")

// Text prints routes.
func Text(f Format, routes []Route) (string, error) {
	switch f {
	case IPRoute2:
		return ipBatch(routes), nil
	case Netplan:
		return netplan(routes)
	case Networkd:
		return networkd(routes)
	case FRR:
		return frr(routes), nil
	case BIRD:
		return bird(routes), nil
	}
	return "", fmt.Errorf("format %q is none of %v", f, Formats())
}

// title is the first lines of each output.
func title(sign string, lines ...string) string {
	var b strings.Builder
	for _, l := range append([]string{"Routes to the containers of fairway's nodes. Made by `fairway export`; make it anew instead of changing it."}, lines...) {
		b.WriteString(sign + " " + l + "\n")
	}
	return b.String()
}

// names are the nodes behind a route, for a comment.
func (r Route) names() string {
	var list []string
	for _, h := range r.Hops {
		if name := clean(h.Node); name != "" && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return strings.Join(list, ", ")
}

// clean makes a name fit for a comment: no line breaks nor other control characters, and no backslash, which at the end of a
// line would join the next one to it in some of the formats.
func clean(name string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == '\\' {
			return '?'
		}
		return r
	}, name)
}

func ipBatch(routes []Route) string {
	var b strings.Builder
	b.WriteString(title("#", "Load: ip -batch FILE. It may be loaded again; what is gone from it has to be deleted by hand."))
	for _, r := range routes {
		fmt.Fprintf(&b, "# %s\nroute replace %s proto static", r.names(), r.Prefix)
		for _, h := range r.Hops {
			if len(r.Hops) > 1 {
				b.WriteString(" nexthop")
			}
			fmt.Fprintf(&b, " via %s", h.Via)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// spare is the metric of the first of several ways in netplan, which has no routes with several; the next one has twice that.
const spare = 100

func netplan(routes []Route) (string, error) {
	links := map[string][]string{}
	for _, r := range routes {
		for i, h := range r.Hops {
			if h.Link.Name == "" {
				return "", fmt.Errorf("netplan has routes under the name of their link, and that of next hop %s is not known: %w", h.Via, ErrLink)
			}
			lines := []string{
				"        # " + clean(h.Node),
				"        - to: " + strconv.Quote(r.Prefix.String()),
				"          via: " + strconv.Quote(h.Via.String()),
			}
			if len(r.Hops) > 1 {
				lines = append(lines, fmt.Sprintf("          metric: %d", spare*(i+1)))
			}
			links[h.Link.Name] = append(links[h.Link.Name], lines...)
		}
	}
	var b strings.Builder
	b.WriteString(title("#", "Goes to /etc/netplan/60-fairway.yaml; then: netplan apply. A link that is a bond, a bridge or a VLAN",
		"belongs under bonds:, bridges: or vlans:, as in the file that makes it."))
	b.WriteString("network:\n  version: 2\n")
	if len(links) > 0 {
		b.WriteString("  ethernets:\n")
	}
	for _, name := range sortedKeys(links) {
		// A quoted name of YAML and one of JSON are the same thing.
		fmt.Fprintf(&b, "    %s:\n      routes:\n%s\n", strconv.Quote(name), strings.Join(links[name], "\n"))
	}
	return b.String(), nil
}

func networkd(routes []Route) (string, error) {
	links := map[string][]string{}
	for _, r := range routes {
		for _, h := range r.Hops {
			links[h.Link.String()] = nil
		}
	}
	if len(links) > 1 {
		return "", fmt.Errorf("systemd-networkd has a file for each link, and the next hops are on %s: give one of them at a time: %w",
			strings.Join(sortedKeys(links), ", "), ErrLink)
	}
	var b strings.Builder
	b.WriteString(title("#", "A drop-in of the file that configures the link to the nodes: when that is /etc/systemd/network/X.network,",
		"it goes to /etc/systemd/network/X.network.d/fairway.conf; then: networkctl reload."))
	for _, r := range routes {
		fmt.Fprintf(&b, "\n# %s\n[Route]\nDestination=%s\n", r.names(), r.Prefix)
		for _, h := range r.Hops {
			key := "Gateway"
			if len(r.Hops) > 1 {
				key = "MultiPathRoute"
			}
			fmt.Fprintf(&b, "%s=%s\n", key, h.Via)
		}
	}
	return b.String(), nil
}

func frr(routes []Route) string {
	var b strings.Builder
	b.WriteString(title("!", "Lines of /etc/frr/frr.conf, or: vtysh -f FILE. FRR's staticd has to run. Quagga takes the same lines."))
	for _, r := range routes {
		family := "ip"
		if r.Prefix.Addr().Is6() {
			family = "ipv6"
		}
		fmt.Fprintf(&b, "! %s\n", r.names())
		for _, h := range r.Hops {
			fmt.Fprintf(&b, "%s route %s %s\n", family, r.Prefix, h.Via)
		}
	}
	return b.String()
}

func bird(routes []Route) string {
	var b strings.Builder
	b.WriteString(title("#", "In /etc/bird/bird.conf: include \"fairway.conf\"; then: birdc configure. A protocol kernel there puts them into the kernel."))
	for _, family := range []struct {
		name string
		is4  bool
	}{{"ipv4", true}, {"ipv6", false}} {
		fmt.Fprintf(&b, "protocol static fairway_%s {\n  %[1]s;\n", family.name)
		for _, r := range routes {
			if r.Prefix.Addr().Is4() != family.is4 {
				continue
			}
			fmt.Fprintf(&b, "  # %s\n  route %s", r.names(), r.Prefix)
			for _, h := range r.Hops {
				fmt.Fprintf(&b, " via %s", h.Via)
			}
			b.WriteString(";\n")
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func sortedKeys(m map[string][]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
