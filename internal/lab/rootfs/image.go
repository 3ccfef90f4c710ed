package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// ImageName is what the engines of a lab call the image.
const ImageName = "fairway/lab:latest"

// recipe grows with each change of what Image puts in: the cache may hold images of earlier builds.
const recipe = "2"

// applets are what the lab and its tests rely on in the image's busybox.
const applets = "sh ping traceroute ip nc wget httpd sleep"

// Image writes a tar of the lab's container image: the static busybox of the tree at root (or of the machine, when
// root has none), a link for each of its applets, and iperf3 with its libraries if root has it. The image is the
// same, byte for byte, whenever the files are.
func Image(ctx context.Context, root string, w io.Writer) error {
	busybox, err := findBusybox(root)
	if err != nil {
		return err
	}
	list, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("list applets of %s: %w", busybox, err)
	}
	names := strings.Fields(string(list))
	for need := range strings.FieldsSeq(applets) {
		if !slices.Contains(names, need) {
			return fmt.Errorf("build image: %s has no applet %q", busybox, need)
		}
	}
	files, err := iperf3Files(root)
	if err != nil {
		return err
	}
	files["bin/busybox"] = busybox

	t := &imageTar{w: tar.NewWriter(w)}
	for _, dir := range []string{"bin", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sys", "usr", "usr/bin", "var", "www"} {
		t.dir(dir, 0o755)
	}
	t.dir("tmp", 0o1777)
	for _, dir := range parents(files) {
		t.dir(dir, 0o755)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		t.file(name, files[name])
	}
	for _, name := range names {
		if name != "busybox" {
			t.link("bin/"+name, "busybox")
		}
	}
	t.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
	t.text("etc/group", "root:x:0:\n")
	if err := t.close(); err != nil {
		return fmt.Errorf("build image: %w", err)
	}
	return nil
}

// ImageFile returns the path of the image built from root, kept in the cache under key.
func (c Cache) ImageFile(ctx context.Context, root, key string) (string, error) {
	file := filepath.Join(c.Dir, "image-"+recipe+"-"+key+".tar")
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return "", fmt.Errorf("create cache: %w", err)
	}
	unlock, err := c.lock(ctx, "image")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	var buf bytes.Buffer
	if err := Image(ctx, root, &buf); err != nil {
		return "", err
	}
	if err := os.WriteFile(file+".new", buf.Bytes(), 0o644); err != nil {
		return "", fmt.Errorf("write image: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return "", fmt.Errorf("put image in place: %w", err)
	}
	return file, nil
}

// findBusybox finds a busybox that needs no libraries.
func findBusybox(root string) (string, error) {
	for _, name := range []string{filepath.Join(root, "usr/bin/busybox"), filepath.Join(root, "bin/busybox"), "/usr/bin/busybox", "/bin/busybox"} {
		f, err := elf.Open(name)
		if err != nil {
			continue
		}
		libs, err := f.ImportedLibraries()
		if closeErr := f.Close(); err == nil && closeErr == nil && len(libs) == 0 {
			return name, nil
		}
	}
	return "", fmt.Errorf("build image: no static busybox in %s or on this machine; install it with: apt-get install busybox-static", root)
}

// iperf3Files maps names in the image to files: iperf3, its interpreter and every library it needs, directly or not.
// It is empty when root has no iperf3.
func iperf3Files(root string) (map[string]string, error) {
	files := map[string]string{}
	program := filepath.Join(root, "usr/bin/iperf3")
	if _, err := os.Stat(program); errors.Is(err, fs.ErrNotExist) {
		return files, nil
	}
	files["usr/bin/iperf3"] = program
	// No program names this one: the C library loads it when the first thread is cancelled, as iperf3 does from 3.16 on
	// at the end of each test, and aborts when it is missing.
	if name, file := findLibrary(root, "libgcc_s.so.1"); file != "" {
		files[name] = file
	}
	for queue := []string{program}; len(queue) > 0; queue = queue[1:] {
		libs, interp, err := needed(queue[0])
		if err != nil {
			return nil, err
		}
		if interp != "" {
			name := strings.TrimPrefix(interp, "/")
			files[name] = inRoot(root, name)
		}
		for _, lib := range libs {
			name, file := findLibrary(root, lib)
			if file == "" {
				return nil, fmt.Errorf("build image: library %q of %s is not in %s", lib, queue[0], root)
			}
			if files[name] == "" {
				files[name] = file
				queue = append(queue, file)
			}
		}
	}
	return files, nil
}

// needed reads an ELF file's DT_NEEDED entries and its interpreter.
func needed(file string) (libs []string, interp string, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", file, err)
	}
	defer func() { _ = f.Close() }()
	libs, err = f.ImportedLibraries()
	if err != nil {
		return nil, "", fmt.Errorf("read libraries of %s: %w", file, err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			name, err := io.ReadAll(p.Open())
			if err != nil {
				return nil, "", fmt.Errorf("read interpreter of %s: %w", file, err)
			}
			interp = strings.TrimRight(string(name), "\x00")
		}
	}
	return libs, interp, nil
}

// findLibrary looks where Debian's linker looks: the multi-arch directories, then the plain ones. The name it
// returns is below lib, where the linker in the image looks too.
func findLibrary(root, lib string) (name, file string) {
	for _, pattern := range []string{"usr/lib/*-linux-*", "lib/*-linux-*", "usr/lib64", "lib64", "usr/lib", "lib"} {
		found, _ := filepath.Glob(filepath.Join(root, pattern, lib)) // the pattern is ours and well formed
		if len(found) > 0 {
			rel, err := filepath.Rel(root, found[0])
			if err == nil {
				return strings.TrimPrefix(rel, "usr/"), found[0]
			}
		}
	}
	return "", ""
}

// inRoot resolves the links of a name inside root, where an absolute link starts again from root.
func inRoot(root, name string) string {
	file := filepath.Join(root, name)
	for range 8 {
		target, err := os.Readlink(file)
		if err != nil {
			break
		}
		if filepath.IsAbs(target) {
			file = filepath.Join(root, target)
		} else {
			file = filepath.Join(filepath.Dir(file), target)
		}
	}
	return file
}

// parents are the directories of files, outermost first.
func parents(files map[string]string) []string {
	set := map[string]bool{}
	for name := range files {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			set[dir] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// imageTar collects the first error, so that the list of what goes in reads as a list.
type imageTar struct {
	w    *tar.Writer
	seen map[string]bool
	err  error
}

func (t *imageTar) dir(name string, mode int64) {
	if t.seen[name] {
		return
	}
	if t.seen == nil {
		t.seen = map[string]bool{}
	}
	t.seen[name] = true
	t.header(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode})
}

func (t *imageTar) link(name, target string) {
	t.header(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777})
}

func (t *imageTar) text(name, content string) {
	t.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))})
	t.write([]byte(content))
}

func (t *imageTar) file(name, from string) {
	if t.err != nil {
		return
	}
	content, err := os.ReadFile(from)
	if err != nil {
		t.err = err
		return
	}
	t.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content))})
	t.write(content)
}

func (t *imageTar) header(h *tar.Header) {
	if t.err == nil {
		t.err = t.w.WriteHeader(h)
	}
}

func (t *imageTar) write(b []byte) {
	if t.err == nil {
		_, t.err = t.w.Write(b)
	}
}

func (t *imageTar) close() error {
	return errors.Join(t.err, t.w.Close())
}
