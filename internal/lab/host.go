package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"fairway/internal/lab/machine"
)

// Host is one Docker host, or the router, of a lab that is up. It is safe for concurrent use.
type Host struct {
	HostInfo
	lab     *Lab
	machine *machine.Machine
}

// What a host's directory in the lab holds, each mounted into the host.
const (
	runDir = "run" // /run: sockets of engine, agent and plugins
	logDir = "log" // /var/log/fairway-lab
	etcDir = "etc" // /etc/fairway
	binDir = "bin" // /opt/fairway/bin, which /usr/local/bin/fairway points to
)

// logsInside is where a host sees its logs.
const logsInside = "/var/log/fairway-lab/"

// newSpec makes the directory and the cgroups of a machine.
func (l *Lab) newSpec(name string) (machine.Spec, error) {
	spec := machine.Spec{Name: name, Dir: l.path(name)}
	if err := os.MkdirAll(spec.Dir, 0o755); err != nil {
		return spec, fmt.Errorf("create directory of %s: %w", name, err)
	}
	groups, err := machine.NewCgroups(l.state.Group, name)
	if err != nil {
		return spec, fmt.Errorf("make %s: %w", name, err)
	}
	spec.Cgroups = groups
	return spec, nil
}

// hostSpec adds to it what makes a Docker host.
func (l *Lab) hostSpec(h HostInfo) (machine.Spec, error) {
	spec, err := l.newSpec(h.Name)
	if err != nil {
		return spec, err
	}
	for dir, inside := range map[string]string{
		runDir: "/run", logDir: filepath.Clean(logsInside), etcDir: "/etc/fairway", binDir: "/opt/fairway/bin",
	} {
		path := l.path(h.Name, dir)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return spec, fmt.Errorf("create directory of %s: %w", h.Name, err)
		}
		spec.Binds = append(spec.Binds, machine.Bind{From: path, To: inside})
	}
	if err := os.MkdirAll(l.path(h.Name, runDir, "docker/plugins"), 0o755); err != nil {
		return spec, fmt.Errorf("create directory of %s: %w", h.Name, err)
	}
	daemon, err := daemonJSON(h, l.opts.DaemonJSON)
	if err != nil {
		return spec, err
	}
	spec.Rootfs = h.Tree
	spec.Tmpfs = []string{"/tmp"}
	spec.Sysctls = hostSysctls(l.opts.IPForward || h.Router(), h.Router())
	spec.Files = map[string]string{
		"/etc/hostname": h.Name + "\n",
		"/etc/hosts":    l.hostsFile(),
		// An address of the segment that nobody has: without a name server Docker falls back to a public one.
		"/etc/resolv.conf": "nameserver " + nameServer + "\n",
		engineConfig:       daemon,
	}
	if !l.opts.Disk {
		spec.Tmpfs = append(spec.Tmpfs, persistent()...)
	} else if err := l.onDisk(&spec); err != nil {
		return spec, err
	}
	spec.Links = map[string]string{
		"/usr/local/bin/fairway": "/opt/fairway/bin/fairway",
		"/run/netns":             "/run/docker/netns", // `ip netns` shows containers
	}
	return spec, nil
}

const nameServer = "10.77.0.254"

// hostsFile is /etc/hosts of every host.
func (l *Lab) hostsFile() string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost\n")
	for _, h := range l.infos() {
		fmt.Fprintf(&b, "%s %s\n%s %s\n", h.Address(), h.Name, h.Address6(), h.Name)
	}
	if l.store != nil {
		fmt.Fprintf(&b, "%s %s\n", l.store.nics[0].Address4.Addr(), storeName)
	}
	return b.String()
}

// daemonJSON is the engine's configuration: Docker's own ranges are kept apart from host to host, so that nothing
// but fairway makes two hosts' containers reach each other.
func daemonJSON(h HostInfo, extra map[string]any) (string, error) {
	config := map[string]any{
		"bip":                   fmt.Sprintf("172.18.%d.1/24", h.Number),
		"default-address-pools": []map[string]any{{"base": fmt.Sprintf("10.%d.0.0/16", 100+h.Number), "size": 24}},
		"dns":                   []string{nameServer},
		"live-restore":          true,
		"storage-driver":        "overlay2",
	}
	maps.Copy(config, extra)
	data, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return "", fmt.Errorf("encode daemon.json: %w", err)
	}
	return string(data) + "\n", nil
}

// raiseHost makes one host, with everything that runs on it.
func (l *Lab) raiseHost(ctx context.Context, info HostInfo) (*Host, error) {
	tell := func(step string, done bool) { l.opts.Progress(Event{Subject: info.Name, Step: step, Done: done}) }
	tell("making namespaces", false)
	spec, err := l.hostSpec(info)
	if err != nil {
		return nil, err
	}
	if err := os.Link(l.path("fairway"), l.path(info.Name, binDir, "fairway")); err != nil {
		return nil, fmt.Errorf("install agent: %w", err)
	}
	m, err := machine.Start(ctx, l.opts.Binary, spec)
	if err != nil {
		return nil, err
	}
	h := &Host{HostInfo: info, lab: l, machine: m}
	if err := l.plug(ctx, info, m); err != nil {
		return nil, err
	}
	if err := h.writeConfig(); err != nil {
		return nil, err
	}
	if !l.opts.NoAgent {
		tell("starting agent", false)
		if err := h.StartAgent(ctx); err != nil {
			return nil, err
		}
	}
	if info.Router() {
		tell("ready", true)
		return h, nil
	}
	tell("starting engine", false)
	if err := h.StartEngine(ctx); err != nil {
		return nil, err
	}
	tell("loading image", false)
	if err := h.loadImage(ctx); err != nil {
		return nil, err
	}
	version, err := h.EngineVersion(ctx)
	if err != nil {
		return nil, err
	}
	tell("ready: Docker "+version, true)
	return h, nil
}

// Command is a command in all namespaces of the host, with its files. It dies with ctx and with the host.
func (h *Host) Command(ctx context.Context, args ...string) *exec.Cmd {
	return h.machine.Command(ctx, machine.Whole, args...)
}

// NetCommand is a command in the host's network and PID namespaces, with this machine's files and tools.
func (h *Host) NetCommand(ctx context.Context, args ...string) *exec.Cmd {
	return h.machine.Command(ctx, machine.NetworkOnly, args...)
}

// Docker is the docker client on the host.
func (h *Host) Docker(ctx context.Context, args ...string) *exec.Cmd {
	return h.Command(ctx, append([]string{"docker"}, args...)...)
}

// Path leads from outside to a file of the host, which is given by its absolute name inside. No directory on the way
// may be an absolute symbolic link.
func (h *Host) Path(inside string) string { return h.machine.Root(inside) }

// PID is the host's PID 1 as this machine sees it: its namespaces are in /proc/PID/ns.
func (h *Host) PID() int { return h.machine.PID }

// Log is the path outside of a service's log: "agent", "dockerd" or "containerd".
func (h *Host) Log(service string) string { return h.lab.path(h.Name, logDir, service+".log") }

// DockerSocket is the path outside of the engine's socket.
func (h *Host) DockerSocket() string { return h.lab.path(h.Name, runDir, "docker.sock") }

// AgentSocket is the path outside of the agent's API socket.
func (h *Host) AgentSocket() string { return h.lab.path(h.Name, runDir, "fairway/fairway.sock") }

// PluginDir is the path outside of the directory in which the engine looks for plugins' sockets.
func (h *Host) PluginDir() string { return h.lab.path(h.Name, runDir, "docker/plugins") }
