package machine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroup is one machine's directory in one hierarchy.
type Cgroup struct {
	// Dir is the machine's directory.
	Dir string `json:"dir"`
	// V2 says that the hierarchy is cgroup v2.
	V2 bool `json:"v2,omitempty"`
	// Options are the mount options that select a v1 hierarchy, like "cpu,cpuacct" or "name=systemd".
	Options string `json:"options,omitempty"`
	// Name is the directory name of a v1 hierarchy below /sys/fs/cgroup.
	Name string `json:"name,omitempty"`
}

// procsDir is where the machine's own processes are. In v2 a group that hands controllers down holds no processes
// itself ("no internal processes", Documentation/admin-guide/cgroup-v2.rst), so they are one level below.
func (c Cgroup) procsDir() string {
	if c.V2 {
		return filepath.Join(c.Dir, "init")
	}
	return c.Dir
}

// hierarchy is a mounted cgroup hierarchy.
type hierarchy struct {
	mount   string
	v2      bool
	options string
}

// hierarchies lists the cgroup hierarchies mounted on this machine.
func hierarchies() ([]hierarchy, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("list cgroups: %w", err)
	}
	defer func() { _ = f.Close() }()
	var list []hierarchy
	for sc := bufio.NewScanner(f); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		if len(fields) < 4 || (fields[2] != "cgroup" && fields[2] != "cgroup2") {
			continue
		}
		h := hierarchy{mount: fields[1], v2: fields[2] == "cgroup2"}
		if !h.v2 {
			h.options = selectingOptions(fields[3])
		}
		if !slices.ContainsFunc(list, func(o hierarchy) bool { return o.v2 == h.v2 && o.options == h.options }) {
			list = append(list, h)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("list cgroups: no cgroup hierarchy is mounted; mount one on /sys/fs/cgroup")
	}
	return list, nil
}

// selectingOptions keeps of a v1 mount's options the ones that say which hierarchy it is.
func selectingOptions(options string) string {
	var keep []string
	for opt := range strings.SplitSeq(options, ",") {
		key, _, _ := strings.Cut(opt, "=")
		switch key {
		case "rw", "ro", "nosuid", "nodev", "noexec", "relatime", "noatime", "nodiratime", "xattr", "clone_children",
			"release_agent", "seclabel", "cpuset_v2_mode":
		default:
			keep = append(keep, opt)
		}
	}
	return strings.Join(keep, ",")
}

// NewCgroups makes a machine's directories: group, and name below it, in every hierarchy. Nothing that exists is
// changed; a v2 group gets the controllers that its parent hands down and no more.
func NewCgroups(group, name string) ([]Cgroup, error) {
	list, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var groups []Cgroup
	for _, h := range list {
		parent := filepath.Join(h.mount, group)
		c := Cgroup{Dir: filepath.Join(parent, name), V2: h.v2, Options: h.options, Name: filepath.Base(h.mount)}
		for _, dir := range []string{parent, c.Dir} {
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, fmt.Errorf("create cgroup: %w", err)
			}
			if err := fillCpuset(dir); err != nil {
				return nil, err
			}
		}
		if h.v2 {
			handDown(parent)
		}
		groups = append(groups, c)
	}
	return groups, nil
}

// fillCpuset copies the parent's CPUs and memory nodes: a v1 cpuset without them takes no process.
func fillCpuset(dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.controllers")); err == nil {
			return nil // v2 inherits
		}
		val, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), val, 0o644)
		}
		if err != nil {
			return fmt.Errorf("fill cpuset: %w", err)
		}
	}
	return nil
}

// handDown enables every controller that the group has for its children. A controller that cannot be handed down
// is left out: the engine warns about what it misses.
func handDown(dir string) {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for name := range strings.FieldsSeq(string(have)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+name), 0o644)
	}
}

// enter moves the calling process into the directory.
func enter(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644); err != nil {
		return fmt.Errorf("enter cgroup: %w", err)
	}
	return nil
}

// settle moves PID 1 of a v2 machine below its group's top and hands the controllers down to what runs there.
func (c Cgroup) settle() error {
	if !c.V2 {
		return nil
	}
	if err := os.Mkdir(c.procsDir(), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create cgroup: %w", err)
	}
	if err := enter(c.procsDir()); err != nil {
		return err
	}
	handDown(c.Dir)
	return nil
}

// RemoveCgroups ends every process that is still in the group's directories and removes them, in every hierarchy.
// The kernel lets go of a group a moment after its last process, hence the retries. No group is no error.
func RemoveCgroups(ctx context.Context, group string) error {
	list, err := hierarchies()
	if err != nil {
		return err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var left error
		for _, h := range list {
			left = errors.Join(left, removeTree(filepath.Join(h.mount, group)))
		}
		if left == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroups: %w", errors.Join(ctx.Err(), left))
		case <-tick.C:
		}
	}
}

// removeTree kills what is in a cgroup directory and removes it, children first.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeTree(filepath.Join(dir, e.Name())))
		}
	}
	procs, readErr := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if readErr != nil && !errors.Is(readErr, fs.ErrNotExist) {
		return errors.Join(err, readErr)
	}
	for field := range strings.FieldsSeq(string(procs)) {
		// 0 stands for a process of a PID namespace that we cannot see: it dies with its PID 1.
		if pid, convErr := strconv.Atoi(field); convErr == nil && pid > 0 && pid != os.Getpid() {
			_ = unix.Kill(pid, unix.SIGKILL) // it may be gone by now
		}
	}
	if rmErr := os.Remove(dir); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
		err = errors.Join(err, rmErr)
	}
	return err
}
