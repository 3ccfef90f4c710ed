package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairway/internal/lab"
)

// baseEnv tells the process that runs the tests where its labs are. The process that does not have it is the guardian.
const baseEnv = "FAIRWAY_TEST_BASE"

// basePattern is where labs of these tests are, one directory for each guardian.
const basePattern = "/run/fairway-e2e-"

// TestMain splits the program in two: the guardian, which starts the other and takes its labs down however that one
// ended (a panic, a time-out of go test, an interrupt), and the one that runs the tests.
func TestMain(m *testing.M) {
	if os.Getenv(baseEnv) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run()) //nolint:forbidigo // TestMain is the main of a test
	}
	code, err := guard()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = max(code, 1)
	}
	os.Exit(code) //nolint:forbidigo // TestMain is the main of a test
}

// guard runs this program again, and cleans up after it.
func guard() (code int, err error) {
	if err := sweep(); err != nil {
		return 1, err
	}
	base := basePattern + strconv.Itoa(os.Getpid())
	if err := os.MkdirAll(base, 0o755); err != nil {
		return 1, fmt.Errorf("make directory of the labs: %w", err)
	}
	defer func() { err = errors.Join(err, takeDown(base)) }()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	self, err := os.Executable()
	if err != nil {
		return 1, fmt.Errorf("find own program: %w", err)
	}
	// The child goes with the thread that made it, so that thread has to stay.
	runtime.LockOSThread()
	cmd := exec.CommandContext(context.Background(), self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), baseEnv+"="+base)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("start tests: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case sig := <-signals:
			if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return 1, fmt.Errorf("pass on %v: %w", sig, err)
			}
		case err := <-done:
			var ended *exec.ExitError
			if err != nil && !errors.As(err, &ended) {
				return 1, fmt.Errorf("run tests: %w", err)
			}
			if code := cmd.ProcessState.ExitCode(); code >= 0 {
				return code, nil
			}
			return 1, nil // killed by a signal
		}
	}
}

// sweep takes down what guardians left that were killed themselves.
func sweep() error {
	dirs, err := filepath.Glob(basePattern + "*")
	if err != nil {
		return fmt.Errorf("look for old labs: %w", err)
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(strings.TrimPrefix(dir, basePattern))
		if err != nil || syscall.Kill(pid, 0) == nil {
			continue
		}
		if err := takeDown(dir); err != nil {
			return fmt.Errorf("clean up after process %d: %w", pid, err)
		}
	}
	return nil
}

// takeDown ends every lab below base and removes it.
func takeDown(base string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	entries, err := os.ReadDir(base)
	if err != nil {
		return fmt.Errorf("look for labs: %w", err)
	}
	for _, e := range entries {
		if err := lab.Down(ctx, filepath.Join(base, e.Name())); err != nil && !errors.Is(err, lab.ErrNoLab) {
			return fmt.Errorf("take lab down: %w", err)
		}
	}
	if err := os.RemoveAll(base); err != nil {
		return fmt.Errorf("remove %s: %w", base, err)
	}
	return nil
}
