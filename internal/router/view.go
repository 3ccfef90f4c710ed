package router

import (
	"net/netip"
	"slices"
	"strings"
)

// View is what the router knows at one moment, as plain values. Decide only reads it.
type View struct {
	Self       string // own container ID
	Networks   []Network
	Containers []Container // running ones that have a network namespace of their own; not this router, nor another one
	Links      []Link      // of the router's namespace
	// Learned are prefixes that other routers tell of, with the next hops to the nearest ones.
	Learned map[netip.Prefix][]netip.Addr
	// ByHost are prefixes that the host routes itself: networks of the fairway driver here and on other nodes.
	ByHost []netip.Prefix
	Agent  bool // the host has an agent, which tells other nodes of the networks
	// Host are the host's own addresses, by which other machines know it: one of a family at most. The host's packets to
	// containers carry them, so that containers of other hosts can answer.
	Host []netip.Addr
}

// Network is a network of the engine.
type Network struct {
	ID, Name, Driver string
	Marked           bool // for this instance
	Others           bool // marked for another one
	Transit          bool
	Subnets          []Subnet
	Local            int    // running containers of this host on it, without the router
	Joined           bool   // the router is on it
	Bridge           string // Docker's bridge on the host; "" for other drivers
	Left             bool   // somebody took the router off it by hand: it is not joined again until the router starts anew
}

// Subnet is a subnet of a network.
type Subnet struct {
	Prefix  netip.Prefix
	Gateway netip.Addr // zero: none
}

// Container is a running container.
type Container struct {
	ID, Name  string
	Namespace string                // path of its network namespace
	Gateway   netip.Addr            // next hop of its own IPv4 default route; zero: unknown or none
	Nets      map[string]netip.Addr // its IPv4 address, or its IPv6 one when it has no other, by network ID
	V6        bool                  // it has an IPv6 address
}

// Link is a link of the router's namespace.
type Link struct {
	Name  string
	Addrs []netip.Prefix
}

// marks are the keys that mark a network for a router, as an option or as a label.
func marks() []string { return []string{"fairway.router", "drouter"} }

// Others says whether a network's options and labels are for another instance.
func Others(options, labels map[string]string, instance string) bool {
	if Marked(options, labels, instance) {
		return false
	}
	for _, m := range []map[string]string{options, labels} {
		for _, key := range marks() {
			if v, ok := m[key]; ok && !slices.Contains([]string{"", "false", "0", "no", "off"}, strings.ToLower(v)) {
				return true
			}
		}
	}
	return false
}

// Marked says whether a network's options and labels are for the instance.
func Marked(options, labels map[string]string, instance string) bool {
	for _, m := range []map[string]string{options, labels} {
		for _, key := range marks() {
			v, ok := m[key]
			switch {
			case !ok:
			case instance != "" && v == instance:
				return true
			case instance == "" && slices.Contains([]string{"true", "1", "yes", "on"}, strings.ToLower(v)):
				return true
			}
		}
	}
	return false
}
