package rootfs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// MachineSuite is the suite of this machine as /etc/os-release names it: the Debian or Ubuntu suite also on a
// derivative that says which one it is built on.
func MachineSuite() (string, error) {
	rel, err := osRelease("/etc/os-release")
	if err != nil {
		return "", err
	}
	for _, key := range []string{"UBUNTU_CODENAME", "DEBIAN_CODENAME", "VERSION_CODENAME"} {
		if rel[key] != "" {
			return rel[key], nil
		}
	}
	return "", fmt.Errorf("find this machine's suite: /etc/os-release of %q names none", rel["ID"])
}

func osRelease(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read os-release: %w", err)
	}
	defer func() { _ = f.Close() }()
	rel := map[string]string{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if key, val, ok := strings.Cut(sc.Text(), "="); ok {
			rel[key] = strings.Trim(val, `"'`)
		}
	}
	return rel, nil
}

// source is the apt source line to build suite from.
func (c Cache) source(ctx context.Context, suite string) (string, error) {
	mirror := c.Mirror
	if mirror == "" {
		mirror = machineMirror(ctx)
	}
	if mirror == "" {
		return "", errors.New("no apt mirror found in this machine's configuration; " +
			"run apt-get update, or set FAIRWAY_LAB_MIRROR to the URI of an archive that has the suite")
	}
	components := "main"
	rel, err := osRelease("/etc/os-release")
	if err == nil && (rel["ID"] == "ubuntu" || strings.Contains(rel["ID_LIKE"], "ubuntu")) {
		components = "main universe"
	}
	return fmt.Sprintf("deb %s %s %s", mirror, suite, components), nil
}

// machineMirror is the first archive of the distribution itself that apt is configured for, or "".
func machineMirror(ctx context.Context) string {
	cmd := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(SITE) $(RELEASE) $(ORIGIN)", "Created-By: Packages")
	if out, err := cmd.Output(); err == nil {
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line)
			if len(f) == 3 && !sideRelease(f[1]) && (f[2] == "Debian" || f[2] == "Ubuntu") {
				return f[0]
			}
		}
	}
	// No lists downloaded yet: what the files say.
	files, _ := filepath.Glob("/etc/apt/sources.list.d/*")
	slices.Sort(files)
	for _, path := range append([]string{"/etc/apt/sources.list"}, files...) {
		if f, err := os.Open(path); err == nil {
			mirror := mirrorIn(f)
			_ = f.Close() // only read
			if mirror != "" {
				return mirror
			}
		}
	}
	return ""
}

// sideRelease says that a release only adds to another one.
func sideRelease(name string) bool {
	return strings.Contains(name, "-") || strings.Contains(name, "/")
}

// mirrorIn finds the archive of a distribution in a sources file of either form (sources.list(5)): an entry whose
// component is main, that is no side release, and whose path is the one that Debian and Ubuntu mirrors use.
func mirrorIn(r io.Reader) string {
	var uri string
	for sc := bufio.NewScanner(r); sc.Scan(); {
		f := strings.Fields(sc.Text())
		switch {
		case len(f) == 0:
			uri = ""
		case f[0] == "URIs:" && len(f) > 1:
			uri = f[1]
		case f[0] == "Suites:" && len(f) > 1 && !sideRelease(f[1]) && distributionArchive(uri):
			return uri
		case f[0] == "deb":
			if f = oneLine(f); len(f) > 2 && !sideRelease(f[1]) && slices.Contains(f[2:], "main") && distributionArchive(f[0]) {
				return f[0]
			}
		}
	}
	return ""
}

// oneLine takes "deb" and an [option list] off a one-line source.
func oneLine(f []string) []string {
	f = f[1:]
	if len(f) > 0 && strings.HasPrefix(f[0], "[") {
		for len(f) > 0 && !strings.HasSuffix(f[0], "]") {
			f = f[1:]
		}
		f = f[min(1, len(f)):]
	}
	return f
}

func distributionArchive(uri string) bool {
	path := strings.TrimSuffix(uri, "/")
	return strings.HasSuffix(path, "/debian") || strings.HasSuffix(path, "/ubuntu") || strings.HasSuffix(path, "/ubuntu-ports")
}

// aptDateOptions are the machine's own decisions about the dates of release files: a machine whose mirror is a
// snapshot, or whose clock is off, has told its apt so, and the builder must follow.
func aptDateOptions(ctx context.Context) []string {
	out, err := exec.CommandContext(ctx, "apt-config", "dump", "--no-empty",
		"Acquire::Check-Valid-Until", "Acquire::Check-Date").Output()
	if err != nil {
		return nil
	}
	var opts []string
	for line := range strings.Lines(string(out)) {
		opts = append(opts, strings.TrimSuffix(strings.TrimSpace(line), ";"))
	}
	return opts
}
