package lab

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
)

// StartAgent starts the host's agent and returns when it is ready.
func (h *Host) StartAgent(ctx context.Context) error {
	err := h.machine.StartService(ctx, "agent", logsInside+"agent.log", nil,
		"/usr/local/bin/fairway", "agent", "--config", "/etc/fairway/fairway.yaml")
	if err != nil {
		return err
	}
	return h.WaitAgent(ctx)
}

// WaitAgent returns when the agent says that it is ready. An agent that has ended is an error.
func (h *Host) WaitAgent(ctx context.Context) error {
	return h.wait(ctx, "agent", agentLimit, func(ctx context.Context) error {
		_, err := ask(ctx, h.AgentSocket(), http.MethodGet, "/readyz", nil)
		return err
	})
}

// StopAgent sends a signal that ends the agent (SIGTERM, SIGKILL) and waits until it has ended.
func (h *Host) StopAgent(ctx context.Context, sig syscall.Signal) error {
	return h.stop(ctx, "agent", sig)
}

// SignalAgent sends a signal and does not wait: SIGHUP reloads the config.
func (h *Host) SignalAgent(ctx context.Context, sig syscall.Signal) error {
	return h.machine.SignalService(ctx, "agent", sig)
}

// AgentPID is the agent's process ID inside the host; 0 when it does not run.
func (h *Host) AgentPID(ctx context.Context) (int, error) {
	services, err := h.machine.Services(ctx)
	if err != nil {
		return 0, err
	}
	if agent := services["agent"]; agent.Running {
		return agent.PID, nil
	}
	return 0, nil
}

// ReplaceAgent puts another program in the place of the host's agent, as a package upgrade does. An agent that runs
// goes on running the old one until it is stopped and started.
func (h *Host) ReplaceAgent(path string) error {
	target := h.lab.path(h.Name, binDir, "fairway")
	if err := copyFile(path, target+".new"); err != nil {
		return err
	}
	if err := os.Rename(target+".new", target); err != nil {
		return fmt.Errorf("replace agent of %s: %w", h.Name, err)
	}
	return nil
}

// copyFile copies a program.
func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy program: %w", err)
	}
	defer func() { _ = src.Close() }()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return fmt.Errorf("copy program: %w", err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		_ = dst.Close() // the copy is of no use
		return fmt.Errorf("copy program %s: %w", from, err)
	}
	if err := dst.Close(); err != nil {
		return fmt.Errorf("copy program %s: %w", from, err)
	}
	return nil
}

// ConfigPath is the path outside of the agent's config. A changed one is read after SignalAgent(SIGHUP).
func (h *Host) ConfigPath() string { return h.lab.path(h.Name, etcDir, "fairway.yaml") }

// writeConfig writes the agent's config.
func (h *Host) writeConfig() error {
	return replaceFile(h.ConfigPath(), []byte(h.config()), 0o644)
}

// config is the agent's config for the lab's hosts as they are now.
func (h *Host) config() string {
	in := surroundings{hosts: h.lab.infos(), topology: h.lab.opts.Topology, fabric: h.lab.opts.Fabric}
	if h.lab.store != nil {
		in.store = h.lab.store.Endpoint(h.HostInfo)
	}
	config := agentConfig(h.HostInfo, in)
	if h.lab.opts.AgentConfig != nil {
		config = h.lab.opts.AgentConfig(h.HostInfo, config)
	}
	return config
}

// meet tells a running host about the lab's hosts as they are now. An agent whose config stays what it is is left alone.
func (h *Host) meet(ctx context.Context) error {
	if err := os.WriteFile(h.Path("/etc/hosts"), []byte(h.lab.hostsFile()), 0o644); err != nil {
		return fmt.Errorf("write /etc/hosts: %w", err)
	}
	before, err := os.ReadFile(h.ConfigPath())
	if err != nil {
		return fmt.Errorf("read config of %s: %w", h.Name, err)
	}
	now := h.config()
	if string(before) == now {
		return nil
	}
	if err := replaceFile(h.ConfigPath(), []byte(now), 0o644); err != nil {
		return err
	}
	pid, err := h.AgentPID(ctx)
	if err != nil || pid == 0 {
		return err
	}
	return h.SignalAgent(ctx, syscall.SIGHUP)
}

// surroundings are what a node's config says of the lab around it.
type surroundings struct {
	hosts    []HostInfo
	topology Topology
	store    string // endpoint; "": none
	fabric   string
}

// agentConfig is the standard config of a node. Without a store it has its own block of each pool, and BGP with every
// other node; with one the blocks come from there, and so do the peers, as long as all are on one segment. Where there is
// a router, hosts speak with it alone, and it with whoever calls from its segments; it tells them of the pools as a
// whole. So a host has one route of a pool, and nobody's config has to change when another host comes.
func agentConfig(h HostInfo, in surroundings) string {
	var b strings.Builder
	fmt.Fprintf(&b, "node:\n  name: %s\n  address: %s\n  address6: %s\n", h.Name, h.Address(), h.Address6())
	if h.Router() {
		b.WriteString("docker:\n  enabled: false\n")
	}
	if in.store != "" {
		fmt.Fprintf(&b, "store:\n  etcd:\n    endpoints: [\"%s\"]\n", in.store)
	}
	if h.Router() || in.store != "" {
		fmt.Fprintf(&b, "pools:\n  - cidr: %s\n  - cidr: %s\n", Pool4, Pool6)
	} else {
		fmt.Fprintf(&b, "pools:\n  - cidr: %s\n    block: %s\n  - cidr: %s\n    block: %s\n", Pool4, h.Block4, Pool6, h.Block6)
	}
	if in.fabric == "store" {
		b.WriteString("fabric: store\n")
		return b.String()
	}
	fmt.Fprintf(&b, "bgp:\n  asn: %d\n  holdTime: %s\n", h.ASN, holdTime)
	if in.store != "" && in.topology == Flat {
		return b.String()
	}
	if in.store != "" {
		b.WriteString("  mesh: false\n") // not every node is on a segment of every other one
	}
	if h.Router() {
		fmt.Fprintf(&b, "  aggregate: [%s, \"%s\"]\n", Pool4, Pool6)
	}
	if peers := peersOf(h, in.hosts); len(peers) > 0 {
		b.WriteString("  peers:\n" + strings.Join(peers, ""))
	}
	return b.String()
}

// peersOf are the members of bgp.peers: for the router its segments, for everybody else addresses.
func peersOf(h HostInfo, all []HostInfo) []string {
	var peers []string
	if h.Router() {
		for _, nic := range h.NICs {
			peers = append(peers, fmt.Sprintf("    - range: %s\n", nic.Address4.Masked()))
		}
		return peers
	}
	routed := slices.ContainsFunc(all, HostInfo.Router)
	for _, other := range all {
		if other.Name == h.Name || routed && !other.Router() {
			continue
		}
		if nic, ok := shared(h, other); ok {
			peers = append(peers, fmt.Sprintf("    - address: %s\n      asn: %d\n", nic.Address4.Addr(), other.ASN))
		}
	}
	return peers
}

// shared returns the card of other that is on a segment of h.
func shared(h, other HostInfo) (NIC, bool) {
	for _, a := range h.NICs {
		for _, b := range other.NICs {
			if a.Segment == b.Segment {
				return b, true
			}
		}
	}
	return NIC{}, false
}
