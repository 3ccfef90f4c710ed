package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"fairway/internal/lab/machine"
)

// ipBatch runs lines of ip(8) in the network namespace of a machine. It does not enter the PID namespace: the lines
// name other machines' namespaces by process IDs as we see them.
func ipBatch(ctx context.Context, m *machine.Machine, lines []string) error {
	cmd := exec.CommandContext(ctx, "nsenter", "-t", strconv.Itoa(m.PID), "-n", "--", "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("set up network of %s: %w: %s", m.Name, err, bytes.TrimSpace(out))
	}
	return nil
}

// startSwitch makes the namespace of the switch and its bridges.
func (l *Lab) startSwitch(ctx context.Context) error {
	spec, err := l.newSpec(switchName)
	if err != nil {
		return err
	}
	// The switch is not on its own network: no addresses, no forwarding, and no firewall for what it bridges.
	spec.Sysctls = []machine.Sysctl{
		{Path: "net/ipv6/conf/all/disable_ipv6", Value: "1"},
		{Path: "net/ipv6/conf/default/disable_ipv6", Value: "1"},
		{Path: "net/ipv4/ip_forward", Value: "0"},
		{Path: "net/bridge/bridge-nf-call-*tables", Value: "0"},
	}
	if l.wires, err = machine.Start(ctx, l.opts.Binary, spec); err != nil {
		return err
	}
	var lines []string
	for _, segment := range l.opts.Topology.segments() {
		name := segmentName(segment)
		lines = append(lines,
			"link add "+name+" type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
			"link set "+name+" up")
	}
	return ipBatch(ctx, l.wires, lines)
}

// plug puts a host's cards into the switch and gives them their addresses. Routes lead to the lab's own segments and
// nowhere else: there is no default route.
func (l *Lab) plug(ctx context.Context, h HostInfo, m *machine.Machine) error {
	atSwitch, inHost := []string{}, []string{"link set lo up"}
	for _, nic := range h.NICs {
		atSwitch = append(atSwitch,
			fmt.Sprintf("link add %s type veth peer name %s address %s netns %d", nic.Port, nic.Name, nic.MAC, m.PID),
			fmt.Sprintf("link set %s master %s up", nic.Port, segmentName(nic.Segment)))
		inHost = append(inHost,
			fmt.Sprintf("addr add %s dev %s", nic.Address4, nic.Name),
			fmt.Sprintf("addr add %s dev %s nodad", nic.Address6, nic.Name),
			fmt.Sprintf("link set %s up", nic.Name))
		if l.opts.Topology == TwoSegments && !h.Router() {
			via4, via6 := gateway(nic.Segment)
			inHost = append(inHost,
				fmt.Sprintf("route add 10.77.0.0/16 via %s", via4),
				fmt.Sprintf("route add fd77::/48 via %s", via6))
		}
	}
	if err := ipBatch(ctx, l.wires, atSwitch); err != nil {
		return err
	}
	return ipBatch(ctx, m, inHost)
}

// hostSysctls are a host's network settings at its start. A new namespace inherits IPv4's from this machine, which
// must not matter.
func hostSysctls(forward4, forward6 bool) []machine.Sysctl {
	flag := map[bool]string{false: "0", true: "1"}
	return []machine.Sysctl{
		{Path: "net/ipv4/ip_forward", Value: flag[forward4]},
		{Path: "net/ipv4/conf/all/rp_filter", Value: "0"},
		{Path: "net/ipv4/conf/default/rp_filter", Value: "0"},
		{Path: "net/ipv6/conf/all/disable_ipv6", Value: "0"},
		{Path: "net/ipv6/conf/default/disable_ipv6", Value: "0"},
		{Path: "net/ipv6/conf/all/forwarding", Value: flag[forward6]},
	}
}

// SetLink unplugs the host from the switch, or plugs it in again. The carrier goes at once: the host notices.
func (h *Host) SetLink(ctx context.Context, up bool) error {
	word := map[bool]string{false: "down", true: "up"}[up]
	return h.ports(ctx, func(nic NIC) string { return fmt.Sprintf("link set %s %s", nic.Port, word) })
}

// Silence makes the switch drop every frame from and to the host, or carry them again. The carrier stays: nobody is
// told, and only missing answers show it.
func (h *Host) Silence(ctx context.Context, silent bool) error {
	return h.ports(ctx, func(nic NIC) string {
		if silent {
			return fmt.Sprintf("link set %s nomaster", nic.Port)
		}
		return fmt.Sprintf("link set %s master %s", nic.Port, segmentName(nic.Segment))
	})
}

func (h *Host) ports(ctx context.Context, line func(NIC) string) error {
	var lines []string
	for _, nic := range h.NICs {
		lines = append(lines, line(nic))
	}
	return ipBatch(ctx, h.lab.wires, lines)
}

// The states of a host's link.
const (
	LinkUp     = "up"
	LinkDown   = "down"   // SetLink(false)
	LinkSilent = "silent" // Silence(true)
)

// links reads the state of every port at the switch.
func (l *Lab) links(ctx context.Context) (map[string]string, error) {
	cmd := exec.CommandContext(ctx, "nsenter", "-t", strconv.Itoa(l.wires.PID), "-n", "--", "ip", "-json", "link", "show")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("read ports of the switch: %w", err)
	}
	var list []struct {
		Name   string   `json:"ifname"`
		Flags  []string `json:"flags"`
		Master string   `json:"master"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("read ports of the switch: %w", err)
	}
	links := map[string]string{}
	for _, port := range list {
		switch {
		case !slices.Contains(port.Flags, "UP"):
			links[port.Name] = LinkDown
		case port.Master == "":
			links[port.Name] = LinkSilent
		default:
			links[port.Name] = LinkUp
		}
	}
	return links, nil
}
