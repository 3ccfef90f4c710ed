package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"fairway/internal/lab/machine"
)

// Errors that callers tell apart.
var (
	// ErrNoLab says that there is no lab in the directory.
	ErrNoLab = errors.New("no lab")
	// ErrExists says that there is one already.
	ErrExists = errors.New("lab exists")
)

// state is what is known about a lab by its directory. It is written before what it tells of is made.
type state struct {
	// Boot is the boot of the machine that process numbers belong to.
	Boot string `json:"boot"`
	// Owner is the process that makes the lab. While it lives and Up is false, the lab is being made.
	Owner    machine.Process `json:"owner"`
	Up       bool            `json:"up"`
	Created  time.Time       `json:"created"`
	Topology Topology        `json:"topology"`
	Group    string          `json:"cgroup"`
	Binary   string          `json:"binary"`
	// Agents says that the hosts are meant to run agents.
	Agents bool       `json:"agents"`
	Hosts  []HostInfo `json:"hosts"`

	Store     string         `json:"store,omitempty"`
	Fabric    string         `json:"fabric,omitempty"`
	Planned   int            `json:"planned"` // hosts that it was made with
	Daemon    map[string]any `json:"daemon,omitempty"`
	IPForward bool           `json:"ipForward,omitempty"`
	Disk      bool           `json:"disk,omitempty"`
	Image     string         `json:"image"` // path of the image's tar
}

const stateFile = "lab.json"

// groupName is the lab's cgroup: one name per directory, so that labs do not meet.
func groupName(dir string) string {
	if dir == DefaultDir {
		return "fairway-lab"
	}
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(dir)) // a hash takes everything
	return fmt.Sprintf("fairway-lab-%08x", sum.Sum32())
}

func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot ID: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}

// claim makes the lab's directory and its state, which only one can.
func claim(dir string, s state) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create lab directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read lab directory: %w", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), stateFile) {
			return fmt.Errorf("make lab in %s: the directory holds %q, which is of no lab; empty it or name another one",
				dir, e.Name())
		}
	}
	data, err := encodeState(s)
	if err != nil {
		return err
	}
	// Written aside and linked: whoever sees the file sees all of it, and only one can make it.
	tmp := filepath.Join(dir, fmt.Sprintf("%s.%d", stateFile, os.Getpid()))
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return fmt.Errorf("write lab: %w", err)
	}
	err = os.Link(tmp, filepath.Join(dir, stateFile))
	if rmErr := os.Remove(tmp); rmErr != nil {
		return fmt.Errorf("write lab: %w", rmErr)
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make lab in %s: %w", dir, ErrExists)
	}
	if err != nil {
		return fmt.Errorf("write lab: %w", err)
	}
	return nil
}

func encodeState(s state) ([]byte, error) {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode lab: %w", err)
	}
	return append(data, '\n'), nil
}

// save replaces the state of a lab that is ours.
func (s state) save(dir string) error {
	data, err := encodeState(s)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, stateFile), data, 0o644)
}

// replaceFile writes a file so that readers see the old or the new content.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	if err := os.WriteFile(path+".new", data, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}

// load reads the state of the lab in dir. No lab is ErrNoLab.
func load(dir string) (state, error) {
	var s state
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("%w in %s", ErrNoLab, dir)
	}
	if err != nil {
		return s, fmt.Errorf("read lab: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read lab in %s: %w", dir, err)
	}
	return s, nil
}

func (s state) sameBoot() bool {
	boot, err := bootID()
	return err == nil && boot == s.Boot
}

// beingMade says that another process is making the lab right now.
func (s state) beingMade() bool { return !s.Up && s.sameBoot() && s.Owner.Alive() }
