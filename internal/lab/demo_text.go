package lab

import (
	"fmt"
	"strings"
	"time"
)

// crossingTable shows who reaches whom, row by row as it is found out. Its columns are as wide as what is known to
// come; the path, which is not, is the last one.
type crossingTable struct{ name, addr int }

func newCrossingTable(containers []demoContainer) crossingTable {
	t := crossingTable{name: len("FROM"), addr: len("SEEN AS")}
	for _, c := range containers {
		t.name, t.addr = max(t.name, len(c.name)), max(t.addr, len(c.addr4.String()))
	}
	return t
}

func (t crossingTable) line(from, to, seenAs, rtt4, rtt6, path string) string {
	text := fmt.Sprintf("%-*s  %-*s  %-*s  %-8s  %-8s  %s", t.name, from, t.name, to, t.addr, seenAs, rtt4, rtt6, path)
	return strings.TrimRight(text, " ")
}

func (t crossingTable) head() string {
	return t.line("FROM", "TO", "SEEN AS", "IPv4 RTT", "IPv6 RTT", "PATH")
}

func (t crossingTable) row(x crossing) string {
	return t.line(x.from, x.to, x.seenAs.String(), milliseconds(x.rtt4), milliseconds(x.rtt6), strings.Join(x.path, " > "))
}

func milliseconds(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f ms", d.Seconds()*1000)
}

// whatNext are things to try, with the demo's own names in them. command is how the caller was called.
func whatNext(command string, containers []demoContainer, store bool) string {
	if len(containers) < 2 {
		return fmt.Sprintf("To take the lab down: %s lab down\n", command)
	}
	a, b := containers[0], containers[1]
	far := containers[len(containers)-1]
	var t strings.Builder
	fmt.Fprintf(&t, `Try next:

  %[1]s lab exec %[2]s fairway status
  %[1]s lab exec %[2]s fairway route ls
  %[1]s lab exec %[2]s ip route show proto 200
  %[1]s lab docker %[2]s exec %[3]s traceroute -n %[4]s
  %[1]s lab docker %[2]s exec %[3]s wget -qO- http://%[4]s/

An agent that dies does not stop a packet; a host off the wire is noticed.
Let a ping run in another terminal, then kill and start, unplug and plug in:

  %[1]s lab docker %[2]s exec %[3]s ping -i 0.1 %[5]s
  %[1]s lab agent %[6]s kill9
  %[1]s lab agent %[6]s start
  %[1]s lab link %[6]s down
  %[1]s lab link %[6]s up
`, command, a.host.Name, a.name, far.addr4, b.addr4, b.host.Name)
	if store {
		fmt.Fprintf(&t, `
A host that joins has the network, too; one that loses the store goes on:

  %[1]s lab add
  %[1]s lab exec %[2]s fairway node ls
  %[1]s lab exec %[2]s fairway network ls
  %[1]s lab store cut %[3]s
  %[1]s lab store heal %[3]s
`, command, a.host.Name, b.host.Name)
	}
	return t.String()
}
