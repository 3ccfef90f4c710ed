package daemonjson

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// DefaultPath is where an engine looks for its daemon.json unless it is told another place.
const DefaultPath = "/etc/docker/daemon.json"

// maxSize bounds what is read, in bytes; a daemon.json has some hundreds.
const maxSize = 1 << 20

// File is a daemon.json on disk as it was read.
type File struct {
	Path     string // behind all symbolic links
	Document *Document
	info     fs.FileInfo // nil: there was none
}

// Exists says that there was a file.
func (f *File) Exists() bool { return f.info != nil }

// Read reads and checks a file. One that is not there is an empty document; an error about what is in it begins with
// the path, line and column.
func Read(path string) (*File, error) {
	target, err := follow(path)
	if err != nil {
		return nil, err
	}
	f := &File{Path: target}
	info, err := os.Stat(target)
	if errors.Is(err, fs.ErrNotExist) {
		f.Document, err = Parse(nil)
		return f, err
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: is not a regular file", target)
	}
	f.info = info
	text, err := readLimited(target)
	if err != nil {
		return nil, err
	}
	if f.Document, err = Parse(text); err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	return f, nil
}

func readLimited(path string) ([]byte, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }() // nothing was written
	text, err := io.ReadAll(io.LimitReader(in, maxSize+1))
	if err == nil && len(text) > maxSize {
		err = fmt.Errorf("read %s: is larger than %d bytes", path, maxSize)
	}
	return text, err
}

// follow resolves symbolic links, also where the last one leads to nothing yet.
func follow(path string) (string, error) {
	const most = 40 // as the kernel (path_resolution(7))
	for range most {
		target, err := filepath.EvalSymlinks(path)
		if err == nil {
			return target, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil //nolint:nilerr // no link: the file, or its directory, is not there
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return "", fmt.Errorf("read %s: too many symbolic links", path)
}

// Write puts another document in the place of the file, and returns where the one before is kept; "" when there was
// none. It is all or nothing: the new file is written beside, with mode and owner of the old one, and takes its place once
// it is on the disk. A file that somebody else has changed since it was read is left alone.
func (f *File) Write(next *Document, now time.Time) (backup string, err error) {
	dir := filepath.Dir(f.Path)
	if !f.Exists() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
	}
	tmp, err := os.CreateTemp(dir, ".daemon.json-*")
	if err != nil {
		return "", err
	}
	defer func() {
		_ = tmp.Close()
		if err != nil {
			_ = os.Remove(tmp.Name())
			if backup != "" {
				_ = os.Remove(backup)
				backup = ""
			}
		}
	}()
	if err := f.fill(tmp, next.Text()); err != nil {
		return "", err
	}
	if err := f.unchanged(); err != nil {
		return "", err
	}
	if f.Exists() {
		if backup, err = f.keep(now); err != nil {
			return backup, err
		}
	}
	if err := os.Rename(tmp.Name(), f.Path); err != nil {
		return backup, err
	}
	return backup, syncDir(dir)
}

// fill writes a text to a new file, with mode and owner of the old one, and waits for the disk.
func (f *File) fill(to *os.File, text []byte) error {
	mode := fs.FileMode(0o644)
	if f.Exists() {
		mode = f.info.Mode().Perm()
		if st, ok := f.info.Sys().(*syscall.Stat_t); ok {
			if err := to.Chown(int(st.Uid), int(st.Gid)); err != nil {
				return err
			}
		}
	}
	if _, err := to.Write(text); err != nil {
		return err
	}
	return errors.Join(to.Chmod(mode), to.Sync(), to.Close())
}

func (f *File) unchanged() error {
	text, err := readLimited(f.Path)
	if !f.Exists() && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && (!f.Exists() || !bytes.Equal(text, f.Document.Text())) {
		err = fmt.Errorf("%s was changed meanwhile; try again", f.Path)
	}
	return err
}

// keep copies the old file beside it, under a name that is not taken.
func (f *File) keep(now time.Time) (string, error) {
	base := f.Path + ".before-fairway-" + now.UTC().Format("20060102T150405Z")
	for i := 0; ; i++ {
		name := base
		if i > 0 {
			name = fmt.Sprintf("%s.%d", base, i)
		}
		out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) && i < 100 {
			continue
		}
		if err != nil {
			return "", err
		}
		if err := f.fill(out, f.Document.Text()); err != nil {
			_ = out.Close()
			return name, fmt.Errorf("keep %s: %w", f.Path, err)
		}
		return name, nil
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
