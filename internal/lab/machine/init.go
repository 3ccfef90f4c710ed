package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	goFD      = 3 // one byte here means: go on
	readyFD   = 4 // readyWord is written here, once
	readyWord = "ready"
	// inGroup marks the second life of PID 1, in its cgroups.
	inGroup = "--in-cgroup"
)

// Init is PID 1 of a machine. args are the words after InitCommand. It returns only when the machine could not be
// made, or never had to be.
func Init(ctx context.Context, args []string) error {
	if len(args) == 0 || os.Getpid() != 1 {
		return errors.New("lab init: this command is for the lab itself: it is the first process of a lab host")
	}
	spec, err := loadSpec(args[0])
	if err != nil {
		return err
	}
	if len(args) == 1 {
		return enterGroups(spec)
	}
	unix.CloseOnExec(readyFD)
	ready := os.NewFile(readyFD, "ready")
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGPIPE)
	sup, err := listen(spec.path(socketFile))
	if err != nil {
		return err
	}
	if err := spec.build(); err != nil {
		return err
	}
	if _, err := ready.WriteString(readyWord); err != nil {
		return fmt.Errorf("tell that the machine is ready: %w", err)
	}
	if err := ready.Close(); err != nil {
		return fmt.Errorf("tell that the machine is ready: %w", err)
	}
	return sup.run(ctx)
}

// enterGroups waits for the word to go on, enters the cgroups, makes a cgroup namespace of them, and executes PID 1
// again. A namespace belongs to a thread; after exec there is only the thread that did it.
func enterGroups(spec Spec) error {
	goOn := os.NewFile(goFD, "go on")
	if n, _ := goOn.Read(make([]byte, 1)); n != 1 {
		return errors.New("whoever started this machine is gone")
	}
	if err := goOn.Close(); err != nil {
		return fmt.Errorf("close pipe: %w", err)
	}
	for _, g := range spec.Cgroups {
		if err := enter(g.Dir); err != nil {
			return err
		}
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("make cgroup namespace: %w", err)
	}
	words := append([]string{os.Args[0]}, strings.Fields(InitCommand)...)
	words = append(words, spec.path(specFile), inGroup)
	if err := unix.Exec("/proc/self/exe", words, os.Environ()); err != nil {
		return fmt.Errorf("execute PID 1 again: %w", err)
	}
	return nil
}

// build makes the machine around PID 1.
func (s Spec) build() error {
	for _, g := range s.Cgroups {
		if err := g.settle(); err != nil {
			return err
		}
	}
	if err := unix.Sethostname([]byte(s.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if s.Rootfs == "" {
		if err := mountKernelViews("/"); err != nil {
			return err
		}
		return setSysctls("/proc/sys", s.Sysctls)
	}
	return s.buildRoot()
}

// setSysctls writes the settings below dir. Those that this kernel does not have are passed over.
func setSysctls(dir string, list []Sysctl) error {
	for _, ctl := range list {
		files, err := filepath.Glob(filepath.Join(dir, ctl.Path))
		if err != nil {
			return fmt.Errorf("set %s: %w", ctl.Path, err)
		}
		for _, file := range files {
			if err := os.WriteFile(file, []byte(ctl.Value), 0o644); err != nil {
				return fmt.Errorf("set %s to %s: %w", ctl.Path, ctl.Value, err)
			}
		}
	}
	return nil
}
