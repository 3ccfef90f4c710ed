package daemonjson_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairway/internal/daemonjson"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// change reads a file and sets bip in it.
func change(t *testing.T, path, value string) (backup string, err error) {
	t.Helper()
	f, err := daemonjson.Read(path)
	if err != nil {
		return "", err
	}
	next, err := f.Document.Set(set("bip", value))
	if err != nil {
		return "", err
	}
	return f.Write(next, noon)
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// names are the files of a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "daemon.json")
	write(t, path, `{"debug":true}`, 0o640)
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 1234, 4321); err != nil {
			t.Fatal(err)
		}
	}
	backup, err := change(t, path, `"x"`)
	if err != nil || backup != path+".before-fairway-20261123T120000Z" {
		t.Fatalf("backup %q, error %v", backup, err)
	}
	if got := read(t, path); got != `{"debug":true,"bip":"x"}` {
		t.Errorf("the file is %s", got)
	}
	if got := read(t, backup); got != `{"debug":true}` {
		t.Errorf("the backup is %s", got)
	}
	for _, p := range []string{path, backup} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		if info.Mode().Perm() != 0o640 || os.Geteuid() == 0 && (st.Uid != 1234 || st.Gid != 4321) {
			t.Errorf("%s has mode %v, owner %d, group %d", p, info.Mode(), st.Uid, st.Gid)
		}
	}
	// In the same second another backup gets another name.
	if backup, err = change(t, path, `"y"`); err != nil || backup != path+".before-fairway-20261123T120000Z.1" {
		t.Fatalf("backup %q, error %v", backup, err)
	}
	if got := names(t, dir); got != "daemon.json daemon.json.before-fairway-20261123T120000Z daemon.json.before-fairway-20261123T120000Z.1" {
		t.Errorf("the directory has %s", got)
	}
}

func TestWriteNew(t *testing.T) {
	for name, path := range map[string]string{"file": "daemon.json", "directories": "etc/docker/daemon.json"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), path)
			f, err := daemonjson.Read(path)
			if err != nil || f.Exists() {
				t.Fatalf("there is a file: %v, error %v", f, err)
			}
			backup, err := change(t, path, `"x"`)
			if err != nil || backup != "" {
				t.Fatalf("backup %q, error %v", backup, err)
			}
			if got := read(t, path); got != "{\n  \"bip\": \"x\"\n}\n" {
				t.Errorf("the file is %q", got)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
				t.Errorf("mode %v, error %v", info.Mode(), err)
			}
			if got := names(t, filepath.Dir(path)); got != "daemon.json" {
				t.Errorf("the directory has %s", got)
			}
		})
	}
}

func TestWriteThroughLinks(t *testing.T) {
	for _, there := range []bool{true, false} {
		dir := t.TempDir()
		for _, d := range []string{"etc", "real"} {
			if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		target := filepath.Join(dir, "real", "config.json")
		if there {
			write(t, target, "{}", 0o600)
		}
		path := filepath.Join(dir, "etc", "daemon.json")
		for link, to := range map[string]string{path: "second", filepath.Join(dir, "etc", "second"): "../real/config.json"} {
			if err := os.Symlink(to, link); err != nil {
				t.Fatal(err)
			}
		}
		backup, err := change(t, path, `"x"`)
		if err != nil || there != strings.HasPrefix(backup, target+".before") {
			t.Fatalf("backup %q, error %v", backup, err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSymlink == 0 {
			t.Errorf("the link is a link no more: %v", err)
		}
		if got := read(t, target); !strings.Contains(got, `"bip": "x"`) {
			t.Errorf("the file behind the links is %q", got)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write(t, file, "{}", 0o644)
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	big := filepath.Join(dir, "big")
	write(t, big, `{"a": "`+strings.Repeat("x", 1<<20)+`"}`, 0o644)
	bad := filepath.Join(dir, "bad")
	write(t, bad, "{\n  \"a\": 1,\n}", 0o644)
	for name, c := range map[string]struct{ path, want string }{
		"directory":           {dir, "is not a regular file"},
		"device":              {"/dev/zero", "is not a regular file"},
		"below a file":        {filepath.Join(file, "daemon.json"), "not a directory"},
		"links in a circle":   {loop, "too many"},
		"too large":           {big, "larger than 1048576 bytes"},
		"not JSON":            {bad, bad + ":3:1: is not JSON"},
		"read-only directory": {"/proc/daemon.json", "/proc/"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := change(t, c.path, `"x"`); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("says %v, want %q", err, c.want)
			}
		})
	}
	if got := names(t, dir); got != "bad big file loop" {
		t.Errorf("the directory has %s", got)
	}
}

// What somebody writes between reading and writing is not lost.
func TestWriteMeanwhile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "daemon.json")
	write(t, path, "{}", 0o644)
	for _, first := range []bool{true, false} {
		meanwhile(t, dir, path)
		if first {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func meanwhile(t *testing.T, dir, path string) {
	t.Helper()
	f, err := daemonjson.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	next, err := f.Document.Set(set("bip", `"x"`))
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, `{"debug": true}`, 0o644)
	if backup, err := f.Write(next, noon); err == nil || backup != "" || !strings.Contains(err.Error(), "changed meanwhile") {
		t.Errorf("backup %q, error %v", backup, err)
	}
	if got := read(t, path); got != `{"debug": true}` || names(t, dir) != "daemon.json" {
		t.Errorf("the file is %s, the directory has %s", got, names(t, dir))
	}
}
