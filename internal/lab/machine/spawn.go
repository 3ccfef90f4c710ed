package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Machine is a machine that was started. Its process may have died since.
type Machine struct {
	Spec
	Process
}

// InitCommand is what a program must be called with to become a machine's PID 1: these words, then the path of the
// specification. Whoever offers them calls Init.
const InitCommand = "lab init"

// Start makes the machine with binary as its PID 1 and returns when it is ready for services: its root file system
// is in place and its network namespace is empty but for lo. After an error, a kill -9 of the caller, or when ctx
// ends first, nothing of the machine runs; its directory and cgroups are the caller's to remove.
//
// The new process holds nothing until its caller, having noted who it is, tells it to go on: the pipe between them
// breaks when the caller dies, and that ends it.
func Start(ctx context.Context, binary string, spec Spec) (*Machine, error) {
	if err := spec.save(); err != nil {
		return nil, err
	}
	if err := os.Remove(spec.path(socketFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("start %q again: %w", spec.Name, err)
	}
	logFile, err := os.Create(spec.path(initLogFile))
	if err != nil {
		return nil, fmt.Errorf("create log of %q: %w", spec.Name, err)
	}
	defer func() { _ = logFile.Close() }()
	goRead, goWrite, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %q: %w", spec.Name, err)
	}
	defer func() { _ = goRead.Close() }()
	defer func() { _ = goWrite.Close() }()
	readyRead, readyWrite, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %q: %w", spec.Name, err)
	}
	defer func() { _ = readyRead.Close() }()
	defer func() { _ = readyWrite.Close() }()

	args := append(strings.Fields(InitCommand), spec.path(specFile))
	cmd := exec.Command(binary, args...) //nolint:noctx // the machine outlives the context that it is started under
	cmd.Env = []string{"PATH=" + searchPath, "LANG=C.UTF-8", "GOMAXPROCS=1"}
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.ExtraFiles = []*os.File{goRead, readyWrite}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, // a Ctrl-C is for the command at the terminal, not for the machines
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %q: %w", spec.Name, err)
	}
	go func() { _ = cmd.Wait() }() // reaps it if we live longer; how it ended is told by its log
	_ = goRead.Close()
	_ = readyWrite.Close()
	proc, err := letGo(ctx, spec, cmd.Process.Pid, goWrite, readyRead)
	if err != nil {
		return nil, errors.Join(err, proc.Kill(context.WithoutCancel(ctx)))
	}
	return &Machine{Spec: spec, Process: proc}, nil
}

// letGo notes who the new process is, tells it to go on, and waits until it says that it is ready.
func letGo(ctx context.Context, spec Spec, pid int, goOn, ready *os.File) (Process, error) {
	proc, err := processAt(fmt.Sprint(pid))
	if err != nil {
		return Process{PID: pid}, fmt.Errorf("start %q: %w", spec.Name, err)
	}
	if err := spec.note(proc); err != nil {
		return proc, err
	}
	if _, err := goOn.Write([]byte{1}); err != nil {
		return proc, fmt.Errorf("start %q: %w", spec.Name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = ready.Close() })
	defer stop()
	said, err := io.ReadAll(ready)
	if ctx.Err() != nil {
		return proc, fmt.Errorf("start %q: %w", spec.Name, ctx.Err())
	}
	if err != nil {
		return proc, fmt.Errorf("start %q: %w", spec.Name, err)
	}
	if string(said) != readyWord {
		log, readErr := os.ReadFile(spec.path(initLogFile))
		if readErr != nil {
			return proc, fmt.Errorf("start %q: it ended, and left no log: %w", spec.Name, readErr)
		}
		return proc, fmt.Errorf("start %q: %s", spec.Name, bytes.TrimSpace(log))
	}
	return proc, nil
}

// note writes the process to the machine's directory, for whoever has to end it.
func (s Spec) note(proc Process) error {
	data, err := json.Marshal(proc)
	if err != nil {
		return fmt.Errorf("note process of %q: %w", s.Name, err)
	}
	if err := os.WriteFile(s.path(pidFile), data, 0o644); err != nil {
		return fmt.Errorf("note process of %q: %w", s.Name, err)
	}
	return nil
}

// Open returns the machine whose directory is dir. Its process may be dead, and is the zero Process when the machine
// was never started. A directory without a machine gives an error that wraps fs.ErrNotExist.
func Open(dir string) (*Machine, error) {
	spec, err := loadSpec(Spec{Dir: dir}.path(specFile))
	if err != nil {
		return nil, err
	}
	m := &Machine{Spec: spec}
	data, err := os.ReadFile(spec.path(pidFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find process of %q: %w", spec.Name, err)
	}
	if err := json.Unmarshal(data, &m.Process); err != nil {
		return nil, fmt.Errorf("find process of %q: %w", spec.Name, err)
	}
	return m, nil
}
