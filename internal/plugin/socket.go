package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// maxSocketPath is what sockaddr_un has room for, the closing zero not counted (unix(7)).
const maxSocketPath = 107

// probeTimeout bounds the question whether somebody listens at a socket that is already there.
const probeTimeout = 500 * time.Millisecond

// socket is a listening socket and the file by which it is found.
type socket struct {
	path string
	ln   net.Listener
	file os.FileInfo // of the moment it was made
}

// listenAt binds DIR/NAME.sock. The file comes into being by renaming one that is already listening, so that an engine
// never finds a file at which nobody listens, which costs it 15 s; a stale one of a killed agent is replaced in the same
// step.
func listenAt(dir, name string) (*socket, error) {
	if name == "" || strings.ContainsAny(name, "/\x00") {
		return nil, fmt.Errorf("driver name %q: want a file name", name)
	}
	s := &socket{path: filepath.Join(dir, name+".sock")}
	// As the engine makes its own: nobody else has business there.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make plugin directory: %w", err)
	}
	if err := checkFree(s.path); err != nil {
		return nil, err
	}
	// In a directory of its own: the engine takes any socket in the plugin directory for a plugin.
	tmp, err := os.MkdirTemp(dir, ".fairway-")
	if err != nil {
		return nil, fmt.Errorf("make plugin socket %s: %w", s.path, err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	bound := filepath.Join(tmp, "s")
	if n := max(len(s.path), len(bound)); n > maxSocketPath {
		return nil, fmt.Errorf("plugin socket %s: a path of %d bytes is too long, a socket's has at most %d; choose a shorter directory or name", s.path, n, maxSocketPath)
	}
	var lc net.ListenConfig
	if s.ln, err = lc.Listen(context.Background(), "unix", bound); err != nil {
		return nil, fmt.Errorf("make plugin socket %s: %w", s.path, err)
	}
	if u, ok := s.ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the name it was bound to is gone by then
	}
	if err := s.publish(bound); err != nil {
		return nil, errors.Join(fmt.Errorf("make plugin socket %s: %w", s.path, err), s.ln.Close())
	}
	return s, nil
}

func (s *socket) publish(bound string) error {
	if err := os.Chmod(bound, 0o600); err != nil {
		return err
	}
	var err error
	if s.file, err = os.Lstat(bound); err != nil {
		return err
	}
	return os.Rename(bound, s.path)
}

// remove takes the name away if it is still ours: an agent that replaces this one may have bound its own there.
func (s *socket) remove() error {
	now, err := os.Lstat(s.path)
	if err == nil {
		// An inode's number may come again, with another time.
		if !os.SameFile(now, s.file) || !now.ModTime().Equal(s.file.ModTime()) {
			return nil
		}
		err = os.Remove(s.path)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove plugin socket: %w", err)
	}
	return nil
}

// checkFree refuses a path at which somebody listens or that is no socket. A socket at which nobody listens is free.
func checkFree(path string) error {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at plugin socket: %w", err)
	case fi.Mode().Type() != os.ModeSocket:
		return fmt.Errorf("plugin socket %s: there is something else of that name (%s); move it away, or choose another docker.name", path, fi.Mode())
	}
	d := net.Dialer{Timeout: probeTimeout}
	conn, err := d.DialContext(context.Background(), "unix", path)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	who := "another process"
	if err == nil {
		who = owner(conn)
		_ = conn.Close()
	}
	return fmt.Errorf("plugin socket %s is served by %s; stop it, or choose another docker.name", path, who)
}

// owner names the process at the other end, as unix(7) SO_PEERCRED knows it.
func owner(conn net.Conn) string {
	const unknown = "another process"
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return unknown
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return unknown
	}
	var cred *syscall.Ucred
	if err := raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil || cred == nil {
		return unknown
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cred.Pid))
	if err != nil {
		return fmt.Sprintf("process %d", cred.Pid)
	}
	return fmt.Sprintf("process %d (%s)", cred.Pid, strings.TrimSpace(string(comm)))
}
