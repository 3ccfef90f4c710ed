package plugin

import (
	"fmt"
	"slices"
	"strings"

	"fairway/internal/cnm"
	"fairway/internal/ipam"
)

// bookText is one line of what a book has: networks, endpoints, and addresses that are held.
func bookText(endpoints []cnm.Endpoint, networks []cnm.Network, holdings []ipam.Holding) string {
	var out []string
	for _, n := range networks {
		out = append(out, "network "+short(n.ID))
	}
	for _, e := range endpoints {
		out = append(out, fmt.Sprintf("endpoint %s %s %v", short(e.ID), e.State, e.All()))
	}
	var held []string
	for _, h := range holdings {
		if h.State == ipam.StateHeld {
			held = append(held, h.Addr.String())
		}
	}
	slices.Sort(held)
	return strings.Join(append(out, "held "+strings.Join(held, " ")), "; ")
}
