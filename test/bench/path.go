package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"fairway/internal/lab"
	"fairway/internal/lab/rootfs"
)

// The networks of a run. Docker's own have subnets outside of the lab's pools and of the hosts' own ranges.
const (
	routedNet     = "bench-fairway"
	bridgeNet     = "bench-bridge"
	bridgeLink    = "bench0"
	overlayNet    = "bench-overlay"
	overlaySubnet = "10.200.0.0/24"
)

// Ports of the servers at the far end of a path.
const (
	iperfPort = "5201"
	echoPort  = "5202"
)

// oneCore is the core on which both ends of an echo run. On two, most of what is measured is how long a core sleeps, which
// on a virtual machine is ten times what the path takes. It is the last one, as the first one has most interrupts.
func oneCore() string { return strconv.Itoa(runtime.NumCPU() - 1) }

// servers are what runs at the far end.
func servers() [][]string {
	return [][]string{
		{"iperf3", "-s", "-p", iperfPort},
		{inside, "echo-server", ":" + echoPort, oneCore()},
	}
}

// The congestion control that connections begin with, in every namespace that is measured. iperf3 chooses its own when
// the connection is made already, and one that began with bbr, the default of some machines, goes on being paced by timers
// then: one and the same path is two to three times as fast in one run as in the next. Every namespace may have reno.
const (
	congestion = "net/ipv4/tcp_congestion_control"
	noPacing   = "reno"
)

// path is a way from host1 to host2, with somebody at both ends.
type path struct {
	name    string
	address string // of the far end
	near    func(ctx context.Context, args ...string) *exec.Cmd
	far     func(ctx context.Context, args ...string) *exec.Cmd
}

// bridgeSubnet is the part of host n.
func bridgeSubnet(n int) string { return fmt.Sprintf("10.%d.0.0/24", 110+n) }

// networks makes a network of each kind on both hosts; those that fail are noted.
func (b *bench) networks(ctx context.Context, s *site) {
	for name, create := range map[string]func(context.Context, *site) error{ours: routedNetwork, bridge: bridgeNetwork, overlay: overlayNetwork} {
		if name == overlay && !b.wants(trafficRows()...) {
			continue
		}
		if err := create(ctx, s); err != nil {
			s.failed[name] = err
		}
	}
}

func routedNetwork(ctx context.Context, s *site) error {
	for _, h := range []*host{s.one, s.two} {
		_, err := h.docker(ctx, "network", "create", "-d", "fairway", "--ipam-driver", "fairway", "--subnet", lab.Pool4, routedNet)
		if err != nil {
			return err
		}
	}
	return nil
}

// bridgeNetwork makes Docker's bridge the best router it can be: its firewall on, as nearly everybody has it, but
// addresses left as they are, and a static route to each other's part.
func bridgeNetwork(ctx context.Context, s *site) error {
	hosts := []*host{s.one, s.two}
	for i, h := range hosts {
		version, err := h.EngineVersion(ctx)
		if err != nil {
			return err
		}
		major, err := strconv.Atoi(strings.Split(version, ".")[0])
		if err != nil {
			return fmt.Errorf("read the engine's version %q: %w", version, err)
		}
		words := []string{
			"network", "create", "-d", "bridge", "--subnet", bridgeSubnet(h.Number),
			"-o", "com.docker.network.bridge.name=" + bridgeLink, "-o", "com.docker.network.bridge.enable_ip_masquerade=false",
		}
		// From 28 on the engine drops what comes to a container from outside unless the network allows it; before, an
		// accept in the chain for users is enough.
		if major >= 28 {
			words = append(words, "-o", "com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected")
		}
		if _, err := h.docker(ctx, append(words, bridgeNet)...); err != nil {
			return err
		}
		if major < 28 {
			if _, err := h.do(ctx, "iptables", "-I", "DOCKER-USER", "-i", "eth0", "-o", bridgeLink, "-j", "ACCEPT"); err != nil {
				return err
			}
		}
		other := hosts[1-i]
		if _, err := h.do(ctx, "ip", "route", "add", bridgeSubnet(other.Number), "via", other.Address().String()); err != nil {
			return err
		}
	}
	return nil
}

func overlayNetwork(ctx context.Context, s *site) error {
	first := s.one.Address().String()
	if _, err := s.one.docker(ctx, "swarm", "init", "--advertise-addr", first); err != nil {
		return err
	}
	token, err := s.one.docker(ctx, "swarm", "join-token", "-q", "worker")
	if err != nil {
		return err
	}
	_, err = s.two.docker(ctx, "swarm", "join", "--advertise-addr", s.two.Address().String(), "--token", token, first+":2377")
	if err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), token, "TOKEN"))
	}
	_, err = s.one.docker(ctx, "network", "create", "-d", "overlay", "--attachable", "--subnet", overlaySubnet, overlayNet)
	return err
}

// container starts one that has this program in it, and may choose its congestion control.
func (h *host) container(ctx context.Context, name, network string, words ...string) (address string, err error) {
	id, err := h.engine.create(ctx, container{
		Name: name, Image: rootfs.ImageName, Cmd: words, Network: network,
		Binds: []string{inside + ":" + inside + ":ro"}, CapAdd: []string{"NET_ADMIN"},
		Sysctls: map[string]string{strings.ReplaceAll(congestion, "/", "."): noPacing},
	})
	if err != nil {
		return "", within(h.Name, err)
	}
	if err := h.engine.start(ctx, id); err != nil {
		return "", within(h.Name, err)
	}
	address, err = h.engine.address(ctx, id, network)
	return address, within(h.Name, err)
}

func within(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// between makes the ends of a path over a network: a container on each host, the far one with the servers.
func (s *site) between(ctx context.Context, name, network string) (*path, error) {
	if err := s.failed[name]; err != nil {
		return nil, err
	}
	box := network + "-peer"
	near := func(ctx context.Context, args ...string) *exec.Cmd {
		return s.one.Docker(ctx, append([]string{"exec", "-i", box}, args...)...)
	}
	far := func(ctx context.Context, args ...string) *exec.Cmd {
		return s.two.Docker(ctx, append([]string{"exec", "-i", box}, args...)...)
	}
	if _, err := s.one.container(ctx, box, network, "sleep", "100000"); err != nil {
		return nil, err
	}
	var script []string
	for _, words := range servers() {
		script = append(script, strings.Join(words, " "))
	}
	address, err := s.two.container(ctx, box, network, "sh", "-c", strings.Join(script, " & ")+" & wait")
	if err != nil {
		return nil, err
	}
	return &path{name: name, address: address, near: near, far: far}, nil
}

// direct is the path without any container.
func (s *site) direct(ctx context.Context) (*path, error) {
	for _, h := range []*host{s.one, s.two} {
		if _, err := h.do(ctx, "sh", "-c", "echo "+noPacing+" >/proc/sys/"+congestion); err != nil {
			return nil, err
		}
	}
	for _, words := range servers() {
		cmd := s.two.Command(ctx, words...)
		if err := cmd.Start(); err != nil {
			return nil, fmt.Errorf("%s: start %s: %w", s.two.Name, words[0], err)
		}
		// It runs until the lab goes down; whether it answers is asked when it is needed.
		go func() { _ = cmd.Wait() }()
	}
	return &path{name: hostToHost, address: s.two.Address().String(), near: s.one.Command, far: s.two.Command}, nil
}

// open makes all paths; those that fail are in failed. Calling it again makes nothing anew.
func (s *site) open(ctx context.Context) {
	if s.paths != nil {
		return
	}
	keep := func(name string, p *path, err error) {
		if err != nil {
			s.failed[name] = err
			return
		}
		s.paths = append(s.paths, p)
	}
	p, err := s.between(ctx, ours, routedNet)
	keep(ours, p, err)
	p, err = s.direct(ctx)
	keep(hostToHost, p, err)
	p, err = s.between(ctx, bridge, bridgeNet)
	keep(bridge, p, err)
	if s.failed[overlay] == nil {
		p, err = s.between(ctx, overlay, overlayNet)
		keep(overlay, p, err)
	}
}

// path is the one of a name, or why there is none.
func (s *site) path(name string) (*path, error) {
	for _, p := range s.paths {
		if p.name == name {
			return p, nil
		}
	}
	if err := s.failed[name]; err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("there is no path %q", name)
}

// patience is how long anything may take to answer for the first time.
const patience = 20 * time.Second
