package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// searchPath is PATH inside a machine.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// View is how much of a machine a command sees.
type View int

const (
	// Whole puts a command into all of the machine's namespaces.
	Whole View = iota
	// NetworkOnly gives a command the machine's network and processes, but the caller's files and tools.
	NetworkOnly
)

// joinScript moves the shell into the cgroup directories given before "--", then becomes the command after it.
// nsenter enters the cgroup namespace but moves nothing, and runc cannot work from outside of the namespace's root.
const joinScript = `while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@"`

// Args are the words of a command which runs args in the machine, to be executed in place of this process or as a
// child. The command ends with the machine, whoever started it.
func (m *Machine) Args(view View, args []string) ([]string, error) {
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return nil, fmt.Errorf("enter machine: %w; install it with: apt-get install util-linux", err)
	}
	words := []string{"/bin/sh", "-c", joinScript, "enter"}
	for _, g := range m.Cgroups {
		words = append(words, g.procsDir())
	}
	words = append(words, "--", nsenter, "-t", strconv.Itoa(m.PID), "-n", "-u", "-p")
	if view == Whole {
		words = append(words, "-m", "-i", "-C")
	}
	words = append(words, "--")
	return append(words, args...), nil
}

// Environ is the environment of a command inside.
func Environ() []string {
	env := []string{"PATH=" + searchPath, "HOME=/root", "LANG=C.UTF-8", "container=fairway-lab"}
	if term := os.Getenv("TERM"); term != "" {
		env = append(env, "TERM="+term)
	}
	return env
}

// Command is a command in the machine. When ctx ends, it and everything it started in its process group is killed.
// A machine that is dead gives a command that fails to start and says so.
func (m *Machine) Command(ctx context.Context, view View, args ...string) *exec.Cmd {
	words, err := m.Args(view, args)
	if err == nil && !m.Alive() {
		err = errors.New("enter machine: it is not running")
	}
	if err != nil {
		return &exec.Cmd{Args: args, Err: err}
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = Environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

// Root is a path outside that leads to the machine's file name (absolute inside). It is valid while PID 1 lives,
// and it must not lead over an absolute symbolic link, which would start from the caller's root.
func (m *Machine) Root(name string) string {
	return filepath.Join("/proc", strconv.Itoa(m.PID), "root", name)
}
