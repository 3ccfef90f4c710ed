package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fairway/internal/lab/rootfs"
)

// program is the fairway that is tested, built once.
var program = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("FAIRWAY_TEST_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	return build("fairway", "e2e")
})

// otherProgram is another build of the same program, with another version.
var otherProgram = sync.OnceValues(func() (string, error) { return build("fairway-other", otherVersion) })

const otherVersion = "e2e-other"

// build compiles cmd/fairway.
func build(name, version string) (string, error) {
	tool, err := exec.LookPath("go")
	if err != nil {
		tool = "/usr/local/go/bin/go" // sudo has a PATH of its own
	}
	out := filepath.Join(os.Getenv(baseEnv), "bin", name)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, "build", "-o", out, "-ldflags", "-X main.version="+version, "fairway/cmd/fairway")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build fairway: %w: %s", err, text)
	}
	return out, nil
}

// required says that a test that cannot run has failed.
func required() bool { return os.Getenv("CI") == "true" || os.Getenv("FAIRWAY_REQUIRE_NETNS") == "1" }

// cannot skips the test, or fails it where tests are required.
func cannot(tb testing.TB, format string, args ...any) {
	tb.Helper()
	if required() {
		tb.Fatalf(format, args...)
	}
	tb.Skipf(format, args...)
}

// suites are the root file systems of the hosts, in turn: of those asked for the ones that are in the cache or can be
// built.
func suites(tb testing.TB) []string {
	tb.Helper()
	list := "bookworm,trixie,forky"
	if v := os.Getenv("FAIRWAY_TEST_ROOTFS"); v != "" {
		list = v
	}
	cache := rootfs.Cache{Dir: os.Getenv("FAIRWAY_LAB_CACHE")}
	if cache.Dir == "" {
		cache.Dir = rootfs.DefaultCache
	}
	_, noBuilder := exec.LookPath("mmdebstrap")
	var have []string
	for suite := range strings.SplitSeq(list, ",") {
		if _, ok := cache.Lookup(suite); ok || noBuilder == nil || strings.Contains(suite, "/") {
			have = append(have, suite)
		}
	}
	if len(have) == 0 {
		cannot(tb, "none of the root file systems %s is in %s, and %v", list, cache.Dir, rootfs.ErrNoBuilder)
	}
	return have
}
