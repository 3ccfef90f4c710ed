package lab

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// crossingTable shows who reaches whom; no line is longer than width.
func crossingTable(list []crossing) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FROM\tTO\tSEEN AS\tIPv4 RTT\tIPv6 RTT\tPATH")
	for _, x := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", x.from, x.to, x.seenAs, milliseconds(x.rtt4), milliseconds(x.rtt6),
			strings.Join(x.path, " > "))
	}
	_ = t.Flush() // a strings.Builder takes everything
	var lines []string
	for line := range strings.Lines(b.String()) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return strings.Join(lines, "\n") + "\n"
}

func milliseconds(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f ms", d.Seconds()*1000)
}

// whatNext are things to try, with the demo's own names in them. command is how the caller was called.
func whatNext(command string, containers []demoContainer) string {
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
	return t.String()
}
