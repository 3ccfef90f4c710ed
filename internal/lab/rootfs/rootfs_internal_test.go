package rootfs

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMirrorIn(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"deb822": {"Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n", "http://mirror.example/debian"},
		"deb822, security first": {
			"URIs: http://sec.example/debian-security\nSuites: bookworm-security\n\nURIs: http://m.example/debian/\nSuites: bookworm\n",
			"http://m.example/debian/",
		},
		"one line":               {"deb http://m.example/ubuntu noble main universe\n", "http://m.example/ubuntu"},
		"one line with options":  {"deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian trixie main\n", "http://m.example/debian"},
		"source packages":        {"deb-src http://m.example/debian trixie main\n", ""},
		"somebody else's":        {"deb https://dl.example/linux/debian-docker bookworm stable\n", ""},
		"somebody else's, main":  {"deb https://dl.example/apt cloud main\n", ""},
		"comment":                {"# deb http://m.example/debian trixie main\n", ""},
		"options without an end": {"deb [arch=amd64\n", ""},
		"empty":                  {"", ""},
	} {
		if got := mirrorIn(strings.NewReader(c.text)); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestSuiteNames(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	for _, suite := range []string{"", "../etc", "a/b", "Bookworm", "-x", "a b"} {
		if _, err := c.Build(t.Context(), suite, nil); err == nil || !strings.Contains(err.Error(), "want the name of a suite") {
			t.Errorf("suite %q: got %v", suite, err)
		}
	}
}

func TestLookup(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	if dir, ok := c.Lookup("bookworm"); ok {
		t.Errorf("found %s in an empty cache", dir)
	}
	if err := os.MkdirAll(filepath.Join(c.Path("bookworm"), "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := c.Build(t.Context(), "bookworm", nil) // must not build what is there
	if err != nil || dir != c.Path("bookworm") {
		t.Errorf("got %q, %v", dir, err)
	}
}

func TestFollow(t *testing.T) {
	var steps []string
	var log bytes.Buffer
	tail := follow(strings.NewReader("I: downloading packages...\nGet:1 x\nI: running --customize-hook in shell: rm\nE: no such suite\n"),
		&log, func(s string) { steps = append(steps, s) })
	if got := strings.Join(steps, "|"); got != "downloading packages" {
		t.Errorf("steps: %q", got)
	}
	if got := strings.Join(tail, "|"); got != "E: no such suite" {
		t.Errorf("tail: %q", got)
	}
	if !strings.Contains(log.String(), "Get:1 x") {
		t.Errorf("log: %q", log.String())
	}
}

// The image is made of a tree of the cache when there is one, else of the machine; without a static busybox anywhere
// it says so.
func TestImage(t *testing.T) {
	root := t.TempDir()
	if found, _ := filepath.Glob(DefaultCache + "/rootfs-*/usr/bin/busybox"); len(found) > 0 {
		root = strings.TrimSuffix(found[0], "/usr/bin/busybox")
	}
	var first, second bytes.Buffer
	if err := Image(t.Context(), root, &first); err != nil {
		if strings.Contains(err.Error(), "busybox-static") && os.Getenv("FAIRWAY_REQUIRE_NETNS") != "1" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	if err := Image(t.Context(), root, &second); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same files give another image")
	}
	names := map[string]int{}
	r := tar.NewReader(&first)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names[h.Name]++
		if strings.HasPrefix(h.Name, "/") || strings.Contains(h.Name, "..") || strings.HasPrefix(h.Linkname, "/") {
			t.Errorf("%s -> %s leads out", h.Name, h.Linkname)
		}
	}
	for _, need := range []string{"bin/busybox", "bin/sh", "bin/ping", "bin/traceroute", "bin/ip", "bin/nc", "bin/wget", "tmp/"} {
		if names[need] != 1 {
			t.Errorf("%s is there %d times", need, names[need])
		}
	}
}

func TestNoBusybox(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "usr/bin/iperf3"), []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Image(t.Context(), root, io.Discard); err == nil {
		t.Error("an image was made of a program that is none")
	}
}
