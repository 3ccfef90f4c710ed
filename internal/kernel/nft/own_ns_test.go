package nft

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// insideOwn tells the test's own program that it was started again in a namespace of its own.
const insideOwn = "FAIRWAY_TEST_OWN_NAMESPACE"

// The agent works in the namespace of its process, without a descriptor of it.
func TestOwnNamespace(t *testing.T) {
	if os.Getenv(insideOwn) == "" {
		newSpace(t) // skips or fails without the privilege
		cmd := exec.CommandContext(t.Context(), "unshare", "-n", os.Args[0], "-test.run=^TestOwnNamespace$", "-test.v")
		cmd.Env = append(os.Environ(), insideOwn+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "applied in the process's own") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	sh := func(line string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "sh", "-c", line).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		return string(out)
	}
	for _, line := range engine("28", "iptables") {
		sh(line)
	}
	h, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	changed := apply(t, h, wall())
	if !slices.Contains(changed, "iptables: put the accept rule into DOCKER-USER") || !strings.Contains(sh("iptables -S DOCKER-USER"), jumpLine) {
		t.Fatalf("changed %q", changed)
	}
	if err := h.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := sh("nft list tables; iptables -S"); strings.Contains(out, "FAIRWAY") || strings.Contains(out, "fairway") {
		t.Fatalf("left over:\n%s", out)
	}
	t.Log("applied in the process's own")
}
