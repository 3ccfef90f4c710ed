package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
)

// kernelScript prints everything in the kernel that an agent might have changed. What the kernel itself counts or
// ages is taken out by settle.
const kernelScript = `
echo "# links"; ip -details link show
echo "# addresses"; ip address show
echo "# routes"; ip route show table all
echo "# routes, IPv6"; ip -6 route show table all
echo "# permanent neighbours"; ip neighbour show nud permanent; ip -6 neighbour show nud permanent
for t in $(nft list tables | sort | tr ' ' ,); do echo "# nftables $t"; nft -s list $(echo $t | tr , ' '); done 2>/dev/null
echo "# iptables"; iptables-save; ip6tables-save
echo "# sysctls"; sysctl net.ipv4.ip_forward; grep -s . /proc/sys/net/ipv[46]/conf/*/* || true
`

var volatile = []*regexp.Regexp{
	regexp.MustCompile(`\[\d+:\d+\]`),                                           // counters of iptables-save
	regexp.MustCompile(`(?m)^# (Generated|Completed|Warning).*\n`),              // times
	regexp.MustCompile(`(hello|tcn|topology_change|gc)_timer +[0-9.]+`),         // of bridges
	regexp.MustCompile(`expires \d+sec`),                                        // of routes from advertisements
	regexp.MustCompile(`(valid|preferred)_lft \d+sec`),                          // of addresses from advertisements
	regexp.MustCompile(`(?m)^broadcast .* linkdown $|(?m)^ff00::/8 .* pref .*`), // the kernel's own, as links come and go
}

// kernel is the host's kernel state as text that is the same as long as nobody changes anything.
func (h *host) kernel() string {
	h.t.Helper()
	text := h.must("sh", "-c", kernelScript)
	for _, v := range volatile {
		text = v.ReplaceAllString(text, "")
	}
	return text
}

// settledKernel is kernel once it has come to rest: a new link's own addresses are checked for a while.
func (h *host) settledKernel() string {
	h.t.Helper()
	was := ""
	eventually(h.t, 10*time.Second, func() error {
		now := h.kernel()
		defer func() { was = now }()
		if now != was || strings.Contains(now, "tentative") {
			return errors.New("the kernel's state does not come to rest")
		}
		return nil
	})
	return was
}

// sameKernel says how a host's kernel differs from what it was.
func (h *host) sameKernel(before string) error {
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(h.kernel(), "\n")); diff != "" {
		return fmt.Errorf("%s: the kernel has changed (-before +now):\n%s", h, diff)
	}
	return nil
}

// diagnoseScript prints what one looks at first.
const diagnoseScript = `
echo "# status"; fairway status; fairway ps
echo "# containers"; docker ps -a; docker network ls
echo "# links"; ip -d -o link show | cut -c 1-200
echo "# routes"; ip route; ip -6 route
echo "# firewall"; nft list table inet fairway; iptables-save -c -t filter; ip6tables-save -c -t filter
`

// diagnose adds it to a failed test, with the ends of the logs.
func (s *site) diagnose() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, h := range s.hosts {
		s.t.Logf("---- %s, agent's log:\n%s", h.Name, h.logSince("agent", 60))
		s.t.Logf("---- %s, dockerd's log:\n%s", h.Name, h.logSince("dockerd", 25))
		out, err := h.Command(ctx, "timeout", "15", "sh", "-c", diagnoseScript).CombinedOutput()
		s.t.Logf("---- %s, kernel (%v):\n%s", h.Name, err, out)
	}
}

func fileSize(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}

// logSince are the last lines of a service's log, of those written since the test began.
func (h *host) logSince(service string, most int) string {
	data, err := os.ReadFile(h.Log(service))
	if err != nil {
		return err.Error()
	}
	data = data[min(h.logs[service], int64(len(data))):]
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}
