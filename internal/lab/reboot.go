package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"fairway/internal/lab/machine"
)

// dataDir is the part of a host's directory that stands for its disk, in a lab whose hosts have one.
const dataDir = "data"

// engineConfig is the engine's config inside of a host.
const engineConfig = "/etc/docker/daemon.json"

// persistent are the directories inside of a host that outlive a reboot.
func persistent() []string {
	return []string{"/var/lib/docker", "/var/lib/containerd", "/var/lib/fairway"}
}

// onDisk gives the host's state and the engine's config a place that outlives its namespaces, and the host a boot of its
// own. The engine's config is written once, and is then whatever was made of it.
func (l *Lab) onDisk(spec *machine.Spec) error {
	spec.BootID = newBootID()
	for _, inside := range persistent() {
		path := l.path(spec.Name, dataDir, filepath.Base(inside))
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("create disk of %s: %w", spec.Name, err)
		}
		spec.Binds = append(spec.Binds, machine.Bind{From: path, To: inside})
	}
	etc := l.path(spec.Name, dataDir, "etc-docker")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return fmt.Errorf("create disk of %s: %w", spec.Name, err)
	}
	spec.Binds = append(spec.Binds, machine.Bind{From: etc, To: filepath.Dir(engineConfig)})
	if _, err := os.Stat(filepath.Join(etc, filepath.Base(engineConfig))); err == nil {
		delete(spec.Files, engineConfig)
	}
	return nil
}

// newBootID is a random UUID, as the kernel makes one at each boot (RFC 9562, 5.4).
func newBootID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Reboot cuts the host's power and starts it again: every process ends at once, and all namespaces, links, routes, rules
// and /run are made anew. Its disk and the configs of agent and engine stay. The agent is started first, and when it is ready, as
// systemd does with our unit, the engine, which then starts the containers that are to run always. Reboot returns when
// the engine answers. Nothing else may be done with the host meanwhile.
func (h *Host) Reboot(ctx context.Context) error {
	l := h.lab
	if !l.opts.Disk {
		return fmt.Errorf("reboot %s: its state is in memory and would be lost; make the lab with: fairway lab up --disk", h.Name)
	}
	if err := h.powerOff(ctx); err != nil {
		return fmt.Errorf("reboot %s: %w", h.Name, err)
	}
	spec, err := l.hostSpec(h.HostInfo)
	if err != nil {
		return err
	}
	m, err := machine.Start(ctx, l.opts.Binary, spec)
	if err != nil {
		return err
	}
	h.machine = m
	if err := l.plug(ctx, h.HostInfo, m); err != nil {
		return err
	}
	if !l.opts.NoAgent {
		if err := h.StartAgent(ctx); err != nil {
			return err
		}
	}
	if h.Router() {
		return nil
	}
	return h.StartEngine(ctx)
}

// powerOff ends the host and takes away what does not outlive it.
func (h *Host) powerOff(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	if err := h.machine.Kill(ctx); err != nil {
		return err
	}
	if err := machine.RemoveCgroups(ctx, filepath.Join(h.lab.state.Group, h.Name)); err != nil {
		return err
	}
	if err := os.RemoveAll(h.lab.path(h.Name, runDir)); err != nil {
		return fmt.Errorf("empty /run: %w", err)
	}
	// The kernel takes a dead network apart a moment later, and with it the ports at the switch.
	return poll(ctx, 10*time.Second, func(ctx context.Context) error {
		ports, err := h.lab.links(ctx)
		if err != nil {
			return err
		}
		for _, nic := range h.NICs {
			if _, there := ports[nic.Port]; there {
				return errors.New("its network is still being taken apart")
			}
		}
		return nil
	})
}
