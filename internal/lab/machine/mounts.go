package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// buildRoot makes the root file system and moves into it. The old root is gone afterwards, mounts and all.
func (s Spec) buildRoot() error {
	root, err := s.mountOverlay()
	if err != nil {
		return err
	}
	steps := []func(root string) error{
		mountKernelViews, makeDev, s.mountOwn, s.mountCgroups, s.writeFiles,
		func(root string) error { return setSysctls(filepath.Join(root, "proc/sys"), s.Sysctls) },
		guardSysctls, s.coverBootID, moveInto,
	}
	for _, step := range steps {
		if err := step(root); err != nil {
			return err
		}
	}
	return nil
}

// mount makes the target directory and mounts on it; the error names the target.
func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", fstype, target, err)
	}
	return nil
}

func (s Spec) mountOverlay() (string, error) {
	if strings.ContainsAny(s.Rootfs, ":,\\") {
		return "", fmt.Errorf("mount root file system %q: its path must not hold a colon, comma or backslash", s.Rootfs)
	}
	base := s.path(mountDir)
	if err := mount("fairway-lab", base, "tmpfs", 0, "mode=755"); err != nil {
		return "", err
	}
	upper, work, root := filepath.Join(base, "upper"), filepath.Join(base, "work"), filepath.Join(base, "root")
	for _, dir := range []string{upper, work, root} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", fmt.Errorf("create layer: %w", err)
		}
	}
	data := "lowerdir=" + s.Rootfs + ",upperdir=" + upper + ",workdir=" + work
	return root, mount("fairway-lab", root, "overlay", 0, data)
}

// mountKernelViews mounts what shows the machine's own namespaces: its processes, and its links in /sys.
func mountKernelViews(root string) error {
	err := mount("proc", filepath.Join(root, "proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if err != nil {
		return err
	}
	return mount("sysfs", filepath.Join(root, "sys"), "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}

// makeDev fills a /dev with what containers need.
func makeDev(root string) error {
	dev := filepath.Join(root, "dev")
	if err := mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		return err
	}
	nodes := []struct {
		name         string
		major, minor uint32
	}{
		{"null", 1, 3},
		{"zero", 1, 5},
		{"full", 1, 7},
		{"random", 1, 8},
		{"urandom", 1, 9},
		{"kmsg", 1, 11},
		{"tty", 5, 0},
		{"fuse", 10, 229},
		{"net/tun", 10, 200},
	}
	if err := os.Mkdir(filepath.Join(dev, "net"), 0o755); err != nil {
		return fmt.Errorf("create /dev: %w", err)
	}
	for _, n := range nodes {
		path := filepath.Join(dev, n.name)
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(n.major, n.minor))); err != nil {
			return fmt.Errorf("create device %s: %w", n.name, err)
		}
		if err := os.Chmod(path, 0o666); err != nil {
			return fmt.Errorf("create device %s: %w", n.name, err)
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return fmt.Errorf("create device: %w", err)
		}
	}
	return errors.Join(
		mount("devpts", filepath.Join(dev, "pts"), "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"),
		mount("tmpfs", filepath.Join(dev, "shm"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"),
		mount("mqueue", filepath.Join(dev, "mqueue"), "mqueue", 0, ""),
	)
}

// mountOwn mounts the machine's directories: its memory file systems, then what it shares with the outside.
func (s Spec) mountOwn(root string) error {
	for _, dir := range s.Tmpfs {
		mode := "mode=755"
		if filepath.Base(dir) == "tmp" {
			mode = "mode=1777"
		}
		if err := mount("tmpfs", filepath.Join(root, dir), "tmpfs", 0, mode); err != nil {
			return err
		}
	}
	for _, b := range s.Binds {
		target := filepath.Join(root, b.To)
		if err := mount(b.From, target, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		// The lab's directory is often below /run, which Debian mounts noexec; a remount without flags ends that.
		if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", target, err)
		}
	}
	return nil
}

// mountCgroups shows the machine its own part of the hierarchies, in the way this kernel is used: v2 alone, or v1.
func (s Spec) mountCgroups(root string) error {
	top := filepath.Join(root, "sys/fs/cgroup")
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if !slices.ContainsFunc(s.Cgroups, func(c Cgroup) bool { return !c.V2 }) {
		return mount("cgroup2", top, "cgroup2", flags, "")
	}
	if err := mount("tmpfs", top, "tmpfs", flags, "mode=755"); err != nil {
		return err
	}
	for _, c := range s.Cgroups {
		if c.V2 {
			continue
		}
		if err := mount("cgroup", filepath.Join(top, c.Name), "cgroup", flags, c.Options); err != nil {
			return err
		}
	}
	return nil
}

// writeFiles puts the specification's files and links in place. Whatever the root file system has under a name is
// replaced, and no symbolic link in it leads out of root.
func (s Spec) writeFiles(root string) error {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return fmt.Errorf("open root file system: %w", err)
	}
	defer func() { _ = dir.Close() }()
	clean := func(name string) error {
		if err := dir.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return fmt.Errorf("write /%s: %w", name, err)
		}
		if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("replace /%s: %w", name, err)
		}
		return nil
	}
	for name, content := range s.Files {
		name = strings.TrimPrefix(name, "/")
		if err := clean(name); err != nil {
			return err
		}
		if err := dir.WriteFile(name, []byte(content), 0o644); err != nil {
			return fmt.Errorf("write /%s: %w", name, err)
		}
	}
	for name, target := range s.Links {
		name = strings.TrimPrefix(name, "/")
		if err := clean(name); err != nil {
			return err
		}
		if err := dir.Symlink(target, name); err != nil {
			return fmt.Errorf("link /%s: %w", name, err)
		}
	}
	return nil
}

// guardSysctls leaves the machine its own network settings and makes every other one read-only: those are not in
// a namespace, and an engine would change them for this whole machine (dockerd raises kernel.keys.root_maxkeys).
func guardSysctls(root string) error {
	for _, m := range []struct {
		dir   string
		flags uintptr
	}{{"proc/sys", unix.MS_RDONLY}, {"proc/sys/net", 0}} {
		dir := filepath.Join(root, m.dir)
		if err := mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		flags := unix.MS_REMOUNT | unix.MS_BIND | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | m.flags
		if err := unix.Mount("", dir, "", flags, ""); err != nil {
			return fmt.Errorf("protect %s: %w", m.dir, err)
		}
	}
	return nil
}

// coverBootID shows the machine a boot ID of its own: the kernel's is the same in all namespaces.
func (s Spec) coverBootID(root string) error {
	if s.BootID == "" {
		return nil
	}
	file, target := filepath.Join(root, "tmp/.boot_id"), filepath.Join(root, "proc/sys/kernel/random/boot_id")
	if err := os.WriteFile(file, []byte(s.BootID+"\n"), 0o444); err != nil {
		return fmt.Errorf("write boot ID: %w", err)
	}
	if err := unix.Mount(file, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount boot ID: %w", err)
	}
	return os.Remove(file) // the mount keeps it
}

// moveInto makes root the root. runc needs a real one (pivot_root, not chroot), and engines expect it shared, as
// systemd makes it: managed plugins propagate mounts.
func moveInto(root string) error {
	if err := os.Chdir(root); err != nil {
		return fmt.Errorf("enter root file system: %w", err)
	}
	// With both names ".", the old root ends up on top of the new one and is taken off from there: pivot_root(2).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("take off old root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("enter root file system: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	return nil
}
