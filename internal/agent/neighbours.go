package agent

import (
	"os"
	"strconv"
	"strings"

	"fairway/internal/api"
)

// neighbourTables reads how full the kernel's ARP and ND tables are. The limit is one for the whole kernel, and shown
// only in the machine's first network namespace (net/core/neighbour.c).
func neighbourTables() []api.NeighbourTable {
	var out []api.NeighbourTable
	for _, f := range []struct{ family, stat, limit string }{
		{"ipv4", "/proc/net/stat/arp_cache", "/proc/sys/net/ipv4/neigh/default/gc_thresh3"},
		{"ipv6", "/proc/net/stat/ndisc_cache", "/proc/sys/net/ipv6/neigh/default/gc_thresh3"},
	} {
		entries, ok := firstEntry(f.stat)
		limit, err := os.ReadFile(f.limit)
		if !ok || err != nil {
			continue
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(limit)))
		if err != nil {
			continue
		}
		out = append(out, api.NeighbourTable{Family: f.family, Entries: entries, Limit: n})
	}
	return out
}

// firstEntry reads the first column of the first line of numbers: entries, in hexadecimal.
func firstEntry(path string) (int, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	lines := strings.SplitN(string(b), "\n", 3)
	if len(lines) < 2 {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.SplitN(lines[1], " ", 2)[0], 16, 64)
	return int(n), err == nil
}
