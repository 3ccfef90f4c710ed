package rtnl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Sysctls reads and writes sysctls of the handle's namespace.
func (h *Handle) Sysctls() Sysctls { return Sysctls{h} }

// Sysctls are files below /proc/sys by their paths ("net/ipv4/ip_forward"). The names of links in paths stand as they
// are, dots included. Safe for concurrent use.
type Sysctls struct{ h *Handle }

// Read returns the values of those that exist, without surrounding space and with single spaces between words.
func (s Sysctls) Read(ctx context.Context, keys []string) (map[string]string, error) {
	out := make(map[string]string, len(keys))
	if len(keys) == 0 {
		return out, ctx.Err()
	}
	// What /proc/sys/net shows depends on the thread that opens the file.
	err := inNamespace(s.h.ns, func() error {
		for _, key := range keys {
			if err := ctx.Err(); err != nil {
				return err
			}
			path, err := s.path(key)
			if err != nil {
				return err
			}
			b, err := os.ReadFile(path)
			switch {
			case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV):
			case err != nil:
				return fmt.Errorf("read sysctl: %w", err)
			default:
				out[key] = strings.Join(strings.Fields(string(b)), " ")
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Set writes a value.
func (s Sysctls) Set(ctx context.Context, key, value string) error {
	path, err := s.path(key)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = inNamespace(s.h.ns, func() error { return writeSysctl(path, value) })
	}
	if err != nil {
		return err
	}
	s.h.did(ctx, "sysctl -w %s=%s", key, value)
	return nil
}

func (s Sysctls) path(key string) (string, error) {
	if !filepath.IsLocal(key) || filepath.Clean(key) != key || key == "." {
		return "", fmt.Errorf("sysctl %q: want a path below %s, as net/ipv4/ip_forward", key, s.h.procSys)
	}
	return filepath.Join(s.h.procSys, key), nil
}

func writeSysctl(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(value)
		err = errors.Join(err, f.Close())
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("write sysctl value %q: %w; mount /proc/sys read-write for the agent (in a container: --privileged), or set the value on the host", value, err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("write sysctl value %q: %w; the kernel does not take this value", value, err)
	default:
		return fmt.Errorf("write sysctl value %q: %w", value, err)
	}
}
