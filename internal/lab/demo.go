package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"fairway/internal/lab/rootfs"
)

// demoNetwork is the name of the demo's network on every host; its containers are demo1, demo2, ...
const demoNetwork = "demo"

// reachLimit is how long the demo waits for routes to arrive.
const reachLimit = 15 * time.Second

// demoContainer is one container of the demo.
type demoContainer struct {
	name    string
	host    *Host
	addr4   netip.Addr
	addr6   netip.Addr // zero: the network has no IPv6
	gateway netip.Addr
}

// crossing is what one container found out about another one.
type crossing struct {
	from, to   string
	rtt4, rtt6 time.Duration // average; 0: no answer
	seenAs     netip.Addr    // the sender's address as the receiver saw it
	path       []string      // nodes on the way
}

// Demo makes the network demo on every host, runs a container on each, and shows who reaches whom: round-trip times,
// the address that the receiver saw, and the nodes on the way. Run again, it starts the containers anew. It is an
// error when a container does not reach another one, or is seen with another address than its own. command is what
// the hints at the end call this program.
func (l *Lab) Demo(ctx context.Context, w io.Writer, command string) error {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	hosts := l.Hosts()
	if err := l.demoNetwork(ctx, say); err != nil {
		return fmt.Errorf("run demo: %w", err)
	}
	say("  docker run -d --network %s --name demoN %s\n", demoNetwork, strings.TrimSuffix(rootfs.ImageName, ":latest"))

	containers := make([]demoContainer, len(hosts))
	jobs := newJobs(ctx)
	for i, h := range hosts {
		jobs.add(func(ctx context.Context) error {
			c, err := h.runDemo(ctx, fmt.Sprintf("demo%d", h.Number))
			containers[i] = c
			return err
		})
	}
	if err := jobs.wait(); err != nil {
		return fmt.Errorf("run demo: %w", err)
	}
	for _, c := range containers {
		say("  %s on %s (Docker %s): %s", c.name, c.host.Name, c.engineVersion(ctx), c.addresses())
	}
	say("")
	table := newCrossingTable(containers)
	say("%s", table.head())
	var list []crossing
	for _, from := range containers {
		for _, to := range containers {
			if from.name == to.name {
				continue
			}
			x, err := l.cross(ctx, from, to)
			if err != nil {
				return fmt.Errorf("run demo: %w", err)
			}
			list = append(list, x)
			say("%s", table.row(x))
		}
	}
	if err := verdict(list, containers); err != nil {
		return err
	}
	say("\nEvery container is seen with its own address: no NAT, no overlay.")
	if l.store != nil {
		if err := l.withoutStore(ctx, containers, say); err != nil {
			return fmt.Errorf("run demo without the store: %w", err)
		}
	}
	say("")
	say("%s", strings.TrimSuffix(whatNext(command, containers, l.store != nil), "\n"))
	return nil
}

// demoNetwork makes the demo's network: with a store once, without one on each host.
func (l *Lab) demoNetwork(ctx context.Context, say func(string, ...any)) error {
	hosts := l.Hosts()
	if l.store != nil {
		say("Making the network %q once, for all %d hosts, and a container on each:\n", demoNetwork, len(hosts))
		say("  fairway network create %s --subnet %s --subnet %s", demoNetwork, Pool4, Pool6)
		return l.recordNetwork(ctx)
	}
	say("Making the network %q on %d hosts and a container on each:\n", demoNetwork, len(hosts))
	say("  docker network create -d fairway --ipam-driver fairway \\\n    --ipv6 --subnet %s --subnet %s %s", Pool4, Pool6, demoNetwork)
	jobs := newJobs(ctx)
	for _, h := range hosts {
		jobs.add(func(ctx context.Context) error {
			if _, err := h.output(ctx, "docker", "network", "inspect", demoNetwork); err == nil {
				return nil
			}
			_, err := h.output(ctx, "docker", "network", "create", "-d", "fairway", "--ipam-driver", "fairway",
				"--ipv6", "--subnet", Pool4, "--subnet", Pool6, demoNetwork)
			return err
		})
	}
	return jobs.wait()
}

// runDemo runs a container on the demo's network, in the place of one of that name.
func (h *Host) runDemo(ctx context.Context, name string) (demoContainer, error) {
	c := demoContainer{name: name, host: h}
	if _, err := h.output(ctx, "docker", "container", "inspect", c.name); err == nil {
		if _, err := h.output(ctx, "docker", "rm", "-f", c.name); err != nil {
			return c, err
		}
	}
	_, err := h.output(ctx, "docker", "run", "-d", "--network", demoNetwork, "--name", c.name, "--hostname", c.name,
		rootfs.ImageName, "sh", "-c", "hostname >/www/index.html; exec httpd -f -v -p 80 -h /www")
	if err != nil {
		return c, err
	}
	const format = "{{range .NetworkSettings.Networks}}{{.IPAddress}},{{.GlobalIPv6Address}},{{.Gateway}}{{end}}"
	out, err := h.output(ctx, "docker", "inspect", "-f", format, c.name)
	if err != nil {
		return c, err
	}
	fields := strings.Split(out, ",")
	if len(fields) != 3 {
		return c, fmt.Errorf("%s: read addresses of %s: unexpected answer %q", h.Name, c.name, out)
	}
	if c.addr4, err = netip.ParseAddr(fields[0]); err != nil {
		return c, fmt.Errorf("%s: read address of %s: %w", h.Name, c.name, err)
	}
	c.addr6, _ = netip.ParseAddr(fields[1])   // a network may have none
	c.gateway, _ = netip.ParseAddr(fields[2]) // the same
	return c, nil
}

// output runs a command on the host and returns what it prints, without the last line break.
func (h *Host) output(ctx context.Context, args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := h.Command(ctx, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %s: %w: %s", h.Name, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}

// exec runs a command in the container.
func (c demoContainer) exec(ctx context.Context, args ...string) (string, error) {
	return c.host.output(ctx, append([]string{"docker", "exec", c.name}, args...)...)
}

func (c demoContainer) engineVersion(ctx context.Context) string {
	version, err := c.host.EngineVersion(ctx)
	if err != nil {
		return "?"
	}
	return version
}

func (c demoContainer) addresses() string {
	if !c.addr6.IsValid() {
		return c.addr4.String()
	}
	return c.addr4.String() + ", " + c.addr6.String()
}

// probe is what a container runs to find out about another one, whose IPv4 address is $1 and whose IPv6 address, if it
// has one, is $2. The first packets resolve neighbours; the ones after them count.
const probe = `set -e
ping -q -c 1 -W 1 $1 >/dev/null
ping -q -c 5 -i 0.05 $1
if [ -n "$2" ]; then
	ping -6 -q -c 1 -W 1 $2 >/dev/null
	ping -6 -q -c 5 -i 0.05 $2
fi
traceroute -n -q 1 -w 1 -m 8 $1
wget -q -O /dev/null http://$1/`

// cross measures the way from one container to another one.
func (l *Lab) cross(ctx context.Context, from, to demoContainer) (crossing, error) {
	x := crossing{from: from.name, to: to.name}
	addr6 := ""
	if to.addr6.IsValid() {
		addr6 = to.addr6.String()
	}
	var out string
	err := poll(ctx, reachLimit, func(ctx context.Context) (err error) {
		out, err = from.exec(ctx, "sh", "-c", probe, "probe", to.addr4.String(), addr6)
		return err
	})
	if err != nil {
		return x, fmt.Errorf("%s does not reach %s: %w", from.name, to.name, err)
	}
	rtts := averageRTTs(out)
	if len(rtts) > 0 {
		x.rtt4 = rtts[0]
	}
	if len(rtts) > 1 {
		x.rtt6 = rtts[1]
	}
	x.path = l.nodePath(hops(out), from, to)
	x.seenAs, err = to.lastVisitor(ctx)
	return x, err
}

// visitor is how busybox's httpd -v tells of a request.
var visitor = regexp.MustCompile(`\[?(?:::ffff:)?([0-9a-fA-F.:]+?)\]?:[0-9]+: response:`)

// lastVisitor is the address of whoever asked the container's web server last.
func (c demoContainer) lastVisitor(ctx context.Context) (netip.Addr, error) {
	cmd := c.host.Docker(ctx, "logs", c.name)
	out, err := cmd.CombinedOutput() // httpd tells on standard error
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s: read log of %s: %w", c.host.Name, c.name, err)
	}
	found := visitor.FindAllSubmatch(out, -1)
	if len(found) == 0 {
		return netip.Addr{}, fmt.Errorf("%s: nobody is in the log of %s: %q", c.host.Name, c.name, out)
	}
	addr, err := netip.ParseAddr(string(found[len(found)-1][1]))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s: read log of %s: %w", c.host.Name, c.name, err)
	}
	return addr, nil
}

// roundTrip is the summary of busybox's ping, and of the other ping.
var roundTrip = regexp.MustCompile(`min/avg/max[^=]*= [0-9.]+/([0-9.]+)/`)

// averageRTTs reads the averages from the summaries of pings.
func averageRTTs(out string) []time.Duration {
	var list []time.Duration
	for _, m := range roundTrip.FindAllStringSubmatch(out, -1) {
		if ms, err := strconv.ParseFloat(m[1], 64); err == nil {
			list = append(list, time.Duration(ms*float64(time.Millisecond)))
		}
	}
	return list
}

// hop is a line of traceroute: its number, then an address or a star.
var hop = regexp.MustCompile(`(?m)^ *[0-9]+ +([0-9a-fA-F.:]+|\*)`)

// hops are the addresses on the way; the zero address stands for no answer.
func hops(out string) []netip.Addr {
	var list []netip.Addr
	for _, m := range hop.FindAllStringSubmatch(out, -1) {
		addr, _ := netip.ParseAddr(m[1]) // a star gives the zero address
		list = append(list, addr)
	}
	return list
}

// nodePath names the nodes that hops belong to. The first one may answer with the network's gateway address, which
// every node has: it is the sender's own node.
func (l *Lab) nodePath(list []netip.Addr, from, to demoContainer) []string {
	names := map[netip.Addr]string{}
	for _, h := range l.infos() {
		for _, nic := range h.NICs {
			names[nic.Address4.Addr()], names[nic.Address6.Addr()] = h.Name, h.Name
		}
	}
	var path []string
	for i, addr := range list {
		name, known := names[addr]
		switch {
		case !addr.IsValid():
			name = "?"
		case addr == to.addr4 || addr == to.addr6:
			continue
		case i == 0 && addr == from.gateway:
			name = from.host.Name
		case !known:
			name = addr.String()
		}
		path = append(path, name)
	}
	return path
}

// verdict says whether the demo showed what it should.
func verdict(list []crossing, containers []demoContainer) error {
	own := map[string]netip.Addr{}
	for _, c := range containers {
		own[c.name] = c.addr4
	}
	var errs []error
	for _, x := range list {
		if x.seenAs != own[x.from] {
			errs = append(errs, fmt.Errorf("%s has the address %s, but %s saw %s", x.from, own[x.from], x.to, x.seenAs))
		}
	}
	return errors.Join(errs...)
}
