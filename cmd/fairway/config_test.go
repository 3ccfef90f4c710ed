package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"fairway/internal/config"
)

// runConfig runs `fairway config args...` without the environment's settings.
func runConfig(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := newConfigCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	var out, errOut bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&errOut)
	cmd.SetArgs(args)
	err = cmd.Execute()
	return out.String(), errOut.String(), err
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fairway.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigCheck(t *testing.T) {
	t.Run("good", func(t *testing.T) {
		path := writeConfig(t, "bgp: {asn: 65001}\n")
		out, _, err := runConfig(t, "check", path)
		if err != nil || out != "ok: "+path+"\n" {
			t.Errorf("got %q, %v", out, err)
		}
	})
	t.Run("all errors", func(t *testing.T) {
		path := writeConfig(t, "bgp: {asn: 0}\nfabric: store\nstat: /x\n")
		out, stderr, err := runConfig(t, "check", path)
		if err == nil || err.Error() != "check config: 3 errors" {
			t.Errorf("error = %v, want 3 errors", err)
		}
		if out != "" {
			t.Errorf("stdout = %q, want nothing", out)
		}
		for _, want := range []string{path + ":1:12: bgp.asn: 0: ", path + `:2:9: fabric: "store": `, path + ":3:1: stat: "} {
			if !strings.Contains(stderr, want) {
				t.Errorf("stderr lacks %q:\n%s", want, stderr)
			}
		}
	})
	t.Run("missing file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "absent.yaml")
		if _, _, err := runConfig(t, "check", path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("error = %v, want one that names %s", err, path)
		}
	})
	t.Run("environment", func(t *testing.T) {
		t.Setenv("FAIRWAY_BGP_ASM", "1")
		_, stderr, err := runConfig(t, "check", writeConfig(t, ""))
		if err == nil || !strings.Contains(stderr, `did you mean "FAIRWAY_BGP_ASN"?`) {
			t.Errorf("error = %v, stderr %q, want the nearest variable", err, stderr)
		}
	})
}

func TestConfigShow(t *testing.T) {
	path := writeConfig(t, "bgp:\n  import:\n    prefixes: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7, 2001:db8::/32]\n")
	t.Setenv("FAIRWAY_BGP_GRACEFUL_RESTART_RESTART_TIME", "60s")

	out, _, err := runConfig(t, "show", "--config", path, "--log-level", "debug")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for _, line := range lines {
		if n := utf8.RuneCountInString(line); n > 80 {
			t.Errorf("line of %d columns: %q", n, line)
		}
	}
	if want := len(config.Default().Settings()) + 1; len(lines) != want {
		t.Errorf("got %d lines, want %d:\n%s", len(lines), want, out)
	}
	for _, want := range []string{"flag --log-level", "file:3", "env FAIRWAY_BGP_GRACEFU…", "[10.0.0.0/8, "} {
		if !strings.Contains(out, want) {
			t.Errorf("table lacks %q:\n%s", want, out)
		}
	}

	out, _, err = runConfig(t, "show", "--config", path, "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var settings []config.Setting
	if err := json.Unmarshal([]byte(out), &settings); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, s := range settings {
		if s.Key == "bgp.import.prefixes" {
			found = true
			if want := "[10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7, 2001:db8::/32]"; s.Value != want || s.Origin != "file:3" {
				t.Errorf("got %+v, want the whole value %s from file:3", s, want)
			}
		}
	}
	if !found {
		t.Errorf("no bgp.import.prefixes in %s", out)
	}

	if _, _, err := runConfig(t, "show", "--config", path, "-o", "yaml"); err == nil {
		t.Error("show took -o yaml")
	}
}

// Every config among the examples is one that works.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "examples", "*", "fairway.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("found %v, %v", files, err)
	}
	for _, path := range files {
		if _, stderr, err := runConfig(t, "check", path); err != nil {
			t.Errorf("%s: %v\n%s", path, err, stderr)
		}
	}
}
