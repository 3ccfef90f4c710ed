// Package rootfs builds and keeps the root file systems that lab hosts run on: a Debian or Ubuntu suite with a
// Docker engine and the network tools, made by mmdebstrap from the machine's own apt mirror, and the tiny
// container image that the engines of the lab run. It writes nowhere but in its cache directory, and it installs
// nothing on the machine.
package rootfs

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoBuilder says that mmdebstrap is not on this machine.
var ErrNoBuilder = errors.New("mmdebstrap is not installed; install it with: apt-get install mmdebstrap")

// DefaultCache is where root file systems are kept unless FAIRWAY_LAB_CACHE names another directory.
const DefaultCache = "/var/cache/fairway/lab"

// packages is what every root file system has. docker-cli is added by a hook where the suite has split it off.
const packages = "docker.io,containerd,runc,iptables,nftables,iproute2,iputils-ping,traceroute,iperf3,procps," +
	"ethtool,tcpdump,conntrack,busybox-static,mount,frr,bird2"

// hooks run by mmdebstrap's shell; $1 is the new root.
const (
	// hookNoServices keeps maintainer scripts from starting anything.
	hookNoServices = `printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"; chmod 755 "$1/usr/sbin/policy-rc.d"`
	hookDockerCLI  = `test -x "$1/usr/bin/docker" || APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" ` +
		`apt-get --yes install -oDPkg::Chroot-Directory="$1" docker-cli`
	// hookTidy leaves no mirror name, no package list and no name server behind.
	hookTidy = `rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/* "$1"/etc/apt/sources.list ` +
		`"$1"/etc/apt/sources.list.d/* "$1/etc/resolv.conf"; : >"$1/etc/resolv.conf"`
)

// suiteName is what apt allows and what is safe in a file name.
var suiteName = regexp.MustCompile(`^[a-z][a-z0-9-]{1,30}$`)

// Cache is a directory with one tree per suite. Several builders may share it: a suite is built once, under a lock.
type Cache struct {
	// Dir is the cache directory; it is created when something is built.
	Dir string
	// Mirror is the archive to build from. Empty: the one the machine's own apt uses.
	Mirror string
}

// Path is where the tree of suite is, or will be. A new recipe gets a new path, so that a tree which a running lab
// uses is never changed under it.
func (c Cache) Path(suite string) string {
	sum := sha256.Sum256([]byte(packages + hookNoServices + hookDockerCLI + hookTidy))
	return filepath.Join(c.Dir, fmt.Sprintf("rootfs-%s-%x", suite, sum[:4]))
}

// Lookup returns the tree of suite if it is in the cache.
func (c Cache) Lookup(suite string) (string, bool) {
	dir := c.Path(suite)
	_, err := os.Stat(filepath.Join(dir, "usr/bin"))
	return dir, err == nil
}

// Build returns the tree of suite and makes it when it is missing, which takes half a minute and a network.
// progress, when not nil, gets one short line for each step. A build that fails or is cancelled leaves nothing
// but its log, whose path is in the error.
func (c Cache) Build(ctx context.Context, suite string, progress func(step string)) (string, error) {
	if !suiteName.MatchString(suite) {
		return "", fmt.Errorf("build root file system %q: want the name of a suite, like bookworm or noble", suite)
	}
	if dir, ok := c.Lookup(suite); ok {
		return dir, nil
	}
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("build root file system %q: needs root", suite)
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return "", fmt.Errorf("build root file system %q: %w", suite, ErrNoBuilder)
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return "", fmt.Errorf("create cache: %w", err)
	}
	unlock, err := c.lock(ctx, suite)
	if err != nil {
		return "", fmt.Errorf("lock cache for %q: %w", suite, err)
	}
	defer unlock()
	if dir, ok := c.Lookup(suite); ok { // somebody else built it while we waited
		return dir, nil
	}
	if progress == nil {
		progress = func(string) {}
	}
	return c.build(ctx, suite, progress)
}

func (c Cache) build(ctx context.Context, suite string, progress func(string)) (string, error) {
	source, err := c.source(ctx, suite)
	if err != nil {
		return "", fmt.Errorf("build root file system %q: %w", suite, err)
	}
	final := c.Path(suite)
	tmp := final + ".new"
	logPath := final + ".log"
	if err := os.RemoveAll(tmp); err != nil {
		return "", fmt.Errorf("remove left-over %s: %w", tmp, err)
	}
	if err := mmdebstrap(ctx, suite, tmp, source, logPath, progress); err != nil {
		rmErr := os.RemoveAll(tmp)
		return "", errors.Join(fmt.Errorf("build root file system %q (log: %s): %w", suite, logPath, err), rmErr)
	}
	if _, err := os.Stat(filepath.Join(tmp, "usr/bin/docker")); err != nil {
		return "", errors.Join(fmt.Errorf("build root file system %q: its packages have no docker client", suite),
			os.RemoveAll(tmp))
	}
	if err := os.Rename(tmp, final); err != nil {
		return "", fmt.Errorf("put root file system %q in place: %w", suite, err)
	}
	return final, nil
}

// mmdebstrap runs the builder in a mount namespace of its own, so that nothing it mounts can outlive it or be
// reached when its directory is removed.
func mmdebstrap(ctx context.Context, suite, dir, source, logPath string, progress func(string)) error {
	args := []string{
		"--mode=root", "--variant=apt", "--include=" + packages, "--skip=output/dev",
		"--aptopt=APT::Install-Recommends \"false\"",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		"--essential-hook=" + hookNoServices, "--customize-hook=" + hookDockerCLI, "--customize-hook=" + hookTidy,
	}
	for _, opt := range aptDateOptions(ctx) {
		args = append(args, "--aptopt="+opt)
	}
	args = append(args, suite, dir, source)

	logFile, err := os.Create(logPath)
	if err != nil {
		return fmt.Errorf("create log: %w", err)
	}
	defer func() { _ = logFile.Close() }()
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	out, feed := io.Pipe()
	cmd.Stdout, cmd.Stderr = feed, feed
	lines := make(chan struct{})
	var tail []string
	go func() {
		defer close(lines)
		tail = follow(out, logFile, progress)
	}()
	err = cmd.Run()
	_ = feed.Close() // an io.Pipe never fails to close
	<-lines
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("run mmdebstrap: %w\n  %s", err, strings.Join(tail, "\n  "))
	}
	return nil
}

// follow copies what the builder prints to its log, tells its "I:" lines as steps, and returns its last complaints.
func follow(r io.Reader, log io.Writer, progress func(string)) []string {
	var tail []string
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := sc.Text()
		_, _ = fmt.Fprintln(log, line) // the log is an aid; its loss must not stop the build
		if step, ok := strings.CutPrefix(line, "I: "); ok {
			if !strings.Contains(step, "-hook in shell") {
				progress(strings.TrimSuffix(step, "..."))
			}
			continue
		}
		if strings.HasPrefix(line, "E: ") || strings.HasPrefix(line, "W: ") || strings.HasPrefix(line, "Err:") {
			tail = append(tail, line)
			tail = tail[max(0, len(tail)-6):]
		}
	}
	_, _ = io.Copy(io.Discard, r) // never let the builder block on its pipe
	return tail
}

// lock holds an exclusive lock on the suite until the returned function is called.
func (c Cache) lock(ctx context.Context, name string) (func(), error) {
	f, err := os.OpenFile(filepath.Join(c.Dir, "."+name+".lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing gives the lock back
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-tick.C:
		}
	}
}
