package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process names a process so that it cannot be taken for a later one with the same number.
type Process struct {
	// PID is the process ID as this machine sees it.
	PID int `json:"pid"`
	// Start is when it started, in clock ticks since boot (field 22 of /proc/PID/stat).
	Start uint64 `json:"start"`
}

// errGone says that a process does not exist, or is not the one that was meant.
var errGone = errors.New("process is gone")

// processAt names the process that has pid now. pid may be "self".
func processAt(pid string) (Process, error) {
	data, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return Process{}, fmt.Errorf("read process %s: %w", pid, err)
	}
	// The command name, in parentheses, may hold anything: count from its end.
	text := string(data)
	end := strings.LastIndexByte(text, ')')
	fields := strings.Fields(text[end+1:])
	if end < 0 || len(fields) < 20 {
		return Process{}, fmt.Errorf("read process %s: unexpected form %q", pid, text)
	}
	number, err := strconv.Atoi(strings.Fields(text)[0])
	if err != nil {
		return Process{}, fmt.Errorf("read process %s: %w", pid, err)
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return Process{}, fmt.Errorf("read process %s: %w", pid, err)
	}
	return Process{PID: number, Start: start}, nil
}

// Self names the calling process.
func Self() (Process, error) { return processAt("self") }

// open returns a pidfd for the process, or errGone.
func (p Process) open() (int, error) {
	if p.PID <= 0 {
		return -1, errGone
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return -1, errGone
	}
	if err != nil {
		return -1, fmt.Errorf("open process %d: %w", p.PID, err)
	}
	now, err := processAt(strconv.Itoa(p.PID))
	if err != nil || now.Start != p.Start {
		_ = unix.Close(fd)
		return -1, errGone
	}
	return fd, nil
}

// Alive says whether the process still runs.
func (p Process) Alive() bool {
	fd, err := p.open()
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	return !exited(fd, 0)
}

// Kill sends SIGKILL and waits until the process is gone, as is everything in its PID namespace when it was PID 1
// there. A process that is gone already is no error.
func (p Process) Kill(ctx context.Context) error {
	fd, err := p.open()
	if errors.Is(err, errGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	for !exited(fd, 50*time.Millisecond) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait for process %d: %w", p.PID, err)
		}
	}
	return nil
}

// exited waits for at most the given time for the process behind a pidfd to end.
func exited(fd int, wait time.Duration) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(wait.Milliseconds()))
	return err == nil && n > 0
}
