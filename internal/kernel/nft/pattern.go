package nft

import (
	"fmt"
	"slices"
	"strings"

	"fairway/internal/kernel"
)

// maxLinkName is the longest name of a link in bytes (IFNAMSIZ without its final zero).
const maxLinkName = 15

// validate refuses what no rule can say.
func validate(fw kernel.Firewall) error {
	for _, p := range fw.Ports {
		if !validName(p.Link) {
			return fmt.Errorf("port %q: want the name of a link, at most %d bytes", p.Link, maxLinkName)
		}
	}
	for _, b := range fw.Bridges {
		if !validName(b) {
			return fmt.Errorf("bridge %q: want the name of a link, at most %d bytes", b, maxLinkName)
		}
	}
	for _, l := range fw.Links {
		if name, _ := strings.CutSuffix(l, "*"); !validName(name) {
			return fmt.Errorf("link pattern %q: want the name of a link, at most %d bytes, with or without a * at its end", l, maxLinkName)
		}
	}
	if slices.Contains(fw.ClosedTCP, 0) || slices.Contains(fw.ClosedUDP, 0) {
		return fmt.Errorf("closed port 0: want 1 to 65535")
	}
	if err := validateUnhidden(fw.Unhidden); err != nil {
		return err
	}
	return validateNAT(fw.Masquerade)
}

func validName(name string) bool {
	return name != "" && len(name) <= maxLinkName && !strings.ContainsAny(name, "*+!/ \t\r\n\x00\"")
}

func clone(fw kernel.Firewall) kernel.Firewall {
	fw.Links = slices.Clone(fw.Links)
	fw.ClosedTCP = slices.Clone(fw.ClosedTCP)
	fw.ClosedUDP = slices.Clone(fw.ClosedUDP)
	fw.Siblings = slices.Clone(fw.Siblings)
	fw.Internal = slices.Clone(fw.Internal)
	fw.Bridges = slices.Clone(fw.Bridges)
	fw.Ports = slices.Clone(fw.Ports) // their addresses are nobody's to change
	fw.Masquerade, fw.Unhidden = fw.Masquerade.Clone(), fw.Unhidden.Clone()
	return fw
}

// asIPTables is a link pattern as iptables writes it: its wildcard is a plus sign.
func asIPTables(pattern string) string {
	if name, ok := strings.CutSuffix(pattern, "*"); ok {
		return name + "+"
	}
	return pattern
}

// asPattern is a link as iptables writes it as a link pattern.
func asPattern(link string) string {
	if name, ok := strings.CutSuffix(link, "+"); ok {
		return name + "*"
	}
	return link
}

// asCompare is what a link's name, as nftables loads it (16 bytes, filled up with zeros), is compared with: the whole
// name with the zero that ends it, or the beginning of the name before a wildcard.
func asCompare(pattern string) []byte {
	if name, ok := strings.CutSuffix(pattern, "*"); ok {
		return []byte(name)
	}
	return append([]byte(pattern), 0)
}
