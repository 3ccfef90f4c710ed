// Package machine makes one host of the lab: a process tree with its own network, mount, PID, UTS, IPC and cgroup
// namespaces, its own root file system and its own supervisor as PID 1. PID 1 is this program, executed again as a
// hidden command; it starts services on request and reaps whatever dies. When it is killed, the kernel ends the
// rest: processes, mounts and links.
//
// Outside of its namespaces a machine has one directory and one cgroup directory in each hierarchy, and nothing
// else. The package knows nothing about Docker, fairway or the lab's network plan.
package machine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Spec says what a machine is. It is written to the machine's directory before anything is made.
type Spec struct {
	// Name is the host name.
	Name string `json:"name"`
	// Dir is the machine's directory outside: specification, process ID, control socket.
	Dir string `json:"dir"`
	// Rootfs is the lower layer of the root file system. Empty: the machine sees this machine's files, with
	// its own network only. That is enough for a switch.
	Rootfs string `json:"rootfs,omitempty"`
	// Cgroups are the machine's own directories in the cgroup hierarchies.
	Cgroups []Cgroup `json:"cgroups"`
	// Binds are directories outside that are mounted inside.
	Binds []Bind `json:"binds,omitempty"`
	// Tmpfs are directories inside that get a memory file system of their own. An engine's data must not be on
	// the overlay of the root: an overlay cannot be the upper layer of another one.
	Tmpfs []string `json:"tmpfs,omitempty"`
	// Files are written before the machine starts: absolute path inside to content.
	Files map[string]string `json:"files,omitempty"`
	// Links are symbolic links made before the machine starts: absolute path inside to target.
	Links map[string]string `json:"links,omitempty"`
	// Sysctls are set in the machine's network namespace: path below /proc/sys to value. A name that the kernel
	// does not have is passed over.
	Sysctls []Sysctl `json:"sysctls,omitempty"`
	// BootID is what the machine sees as the kernel's boot ID. Empty: this machine's own.
	BootID string `json:"bootID,omitempty"`
}

// Bind is a directory outside (From) and where it is inside (To, absolute).
type Bind struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Sysctl is one setting, like net/ipv4/ip_forward = 0. Path may hold a * for one path element.
type Sysctl struct {
	Path  string `json:"path"`
	Value string `json:"value"`
}

// Paths of a machine's own files in its directory.
const (
	specFile    = "machine.json"
	pidFile     = "init.pid"
	socketFile  = "init.sock"
	initLogFile = "init.log"
	mountDir    = "mnt"
)

func (s Spec) path(name string) string { return filepath.Join(s.Dir, name) }

// save writes the specification to its directory.
func (s Spec) save() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode machine %q: %w", s.Name, err)
	}
	if err := os.WriteFile(s.path(specFile), data, 0o644); err != nil {
		return fmt.Errorf("write machine %q: %w", s.Name, err)
	}
	return nil
}

func loadSpec(path string) (Spec, error) {
	var s Spec
	data, err := os.ReadFile(path)
	if err != nil {
		return s, fmt.Errorf("read machine: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read machine %s: %w", path, err)
	}
	return s, nil
}
