package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"fairway/internal/config"
)

const bridgeConfig = `
dockerBridge:
  pool: 10.211.0.0/16
  subnet: 10.211.1.0/24
  pool6: fdfa:1f:b::/48
  subnet6: fdfa:1f:b:1::/64
  noMasqueradeTo: [192.0.2.0/24]
`

// bridgeRig is a machine with a config, a daemon.json and an engine.
type bridgeRig struct {
	t      *testing.T
	dir    string
	engine string // version that it tells; "" for none
	file   string
	conf   string
}

func newBridgeRig(t *testing.T, engine, daemon string) *bridgeRig {
	t.Helper()
	dir := t.TempDir()
	r := &bridgeRig{t: t, dir: dir, engine: engine, file: filepath.Join(dir, "daemon.json"), conf: filepath.Join(dir, "fairway.yaml")}
	r.put(r.conf, bridgeConfig)
	if daemon != "" {
		r.put(r.file, daemon)
	}
	return r
}

func (r *bridgeRig) put(path, text string) {
	r.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *bridgeRig) text() string {
	r.t.Helper()
	text, err := os.ReadFile(r.file)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

// run runs the command, and returns what it prints with the directory as DIR.
func (r *bridgeRig) run(args ...string) (out, errOut string, code int) {
	r.t.Helper()
	d := &dockerBridge{
		engines: func(context.Context, *config.Config) (string, string) { return r.engine, "told by the test" },
		now:     func() time.Time { return time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC) },
	}
	root := &cobra.Command{Use: "fairway", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(dockerBridgeCommand(d))
	var o, e bytes.Buffer
	root.SetOut(&o)
	root.SetErr(&e)
	code = run(r.t.Context(), root, append([]string{"docker-bridge", "--config", r.conf, "--file", r.file}, args...))
	short := func(b bytes.Buffer) string { return strings.ReplaceAll(b.String(), r.dir, "DIR") }
	return short(o), short(e), code
}

func TestDockerBridgePlan(t *testing.T) {
	for name, c := range map[string]struct{ engine, daemon string }{
		"20.10":  {"20.10.24+dfsg1", "{\n    \"debug\": true\n}\n"},
		"28.5":   {"28.5.2", "{\n    \"bip\": \"172.18.0.1/16\",\n    \"debug\": true\n}\n"},
		"no-one": {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newBridgeRig(t, c.engine, c.daemon)
			out, errOut, code := r.run("plan")
			if code != exitOK {
				t.Fatalf("exit code %d: %s", code, errOut)
			}
			golden(t, "docker-bridge-plan-"+name+".txt", out)
			if c.daemon != "" && r.text() != c.daemon {
				t.Errorf("the file became %s", r.text())
			}
		})
	}
}

func TestDockerBridgePlanJSON(t *testing.T) {
	out, _, code := newBridgeRig(t, "28.5.2", "").run("plan", "-o", "json")
	var got bridgeJSON
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitOK {
		t.Fatalf("exit code %d, %v: %s", code, err, out)
	}
	if !got.Changes || got.Exists || got.Keys["bip"] != "10.211.1.1/24" || got.Keys["allow-direct-routing"] != true || len(got.Subnets) != 2 || got.Engine != "28.5.2" {
		t.Errorf("got %+v", got)
	}
}

func TestDockerBridgeApply(t *testing.T) {
	const before = "{\r\n\t\"debug\": true,\r\n\t\"bip\": \"172.18.0.1/16\"\r\n}\r\n"
	r := newBridgeRig(t, "28.5.2", before)
	out, _, code := r.run("apply", "--dry-run")
	if code != exitOK || r.text() != before || !strings.Contains(out, "would change:") || strings.Contains(out, "Restart Docker") {
		t.Fatalf("exit code %d, file %q: %s", code, r.text(), out)
	}
	out, errOut, code := r.run("apply")
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, errOut)
	}
	golden(t, "docker-bridge-apply.txt", out)
	const after = "{\r\n\t\"debug\": true,\r\n\t\"bip\": \"10.211.1.1/24\",\r\n\t\"fixed-cidr\": \"10.211.1.0/24\",\r\n\t\"ip-masq\": false,\r\n\t\"ipv6\": true,\r\n" +
		"\t\"bip6\": \"fdfa:1f:b:1::1/64\",\r\n\t\"fixed-cidr-v6\": \"fdfa:1f:b:1::/64\",\r\n\t\"allow-direct-routing\": true\r\n}\r\n"
	if got := r.text(); got != after {
		t.Errorf("the file became %q, want %q", got, after)
	}
	files := func() int {
		list, err := os.ReadDir(r.dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	n := files()
	out, _, code = r.run("apply")
	if code != exitOK || r.text() != after || files() != n || out != "DIR/daemon.json is as it should be.\n" {
		t.Errorf("again: exit code %d, %d files, before %d: %s", code, files(), n, out)
	}
	backup, err := os.ReadFile(r.file + ".before-fairway-20261123T120000Z")
	if err != nil || string(backup) != before {
		t.Errorf("the backup is %q, error %v", backup, err)
	}
}

func TestDockerBridgeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		engine, daemon, conf string
		args                 []string
		want                 string
		code                 int
	}{
		"not JSON":            {"28.5.2", "{\n  // mine\n}", "", nil, "DIR/daemon.json:2:3: is not JSON, which has no comments", exitBad},
		"key twice":           {"28.5.2", `{"bip": "a", "bip": "b"}`, "", nil, `DIR/daemon.json:1:14: key "bip" stands twice`, exitBad},
		"array":               {"28.5.2", `[]`, "", nil, "DIR/daemon.json:1:1: is not an object", exitBad},
		"other bridge":        {"28.5.2", `{"bridge": "br0"}`, "", nil, `DIR/daemon.json: key "bridge" in line 1 is "br0"`, exitBad},
		"not configured":      {"28.5.2", "", "node: {name: a}", nil, "dockerBridge.pool is not set in the config", exitBad},
		"bad config":          {"28.5.2", "", "dockerBridge: {pool: 10.9.0.0/16}", nil, "has no part for this node", exitBad},
		"bad version":         {"28.5.2", "", "", []string{"--engine-version", "new"}, `--engine-version: engine version "new"`, exitUsage},
		"engine of no number": {"master", "", "", nil, `engine version "master": want numbers, as 28.5.2 (told by the test): give --engine-version`, exitBad},
	} {
		t.Run(name, func(t *testing.T) {
			r := newBridgeRig(t, c.engine, c.daemon)
			if c.conf != "" {
				r.put(r.conf, c.conf)
			}
			for _, command := range []string{"plan", "apply"} {
				out, errOut, code := r.run(append([]string{command}, c.args...)...)
				if code != c.code || out != "" || !strings.Contains(errOut, c.want) {
					t.Errorf("%s: exit code %d, prints %q, says %q; want %d, %q", command, code, out, errOut, c.code, c.want)
				}
			}
			if c.daemon != "" && r.text() != c.daemon {
				t.Errorf("the file became %s", r.text())
			}
		})
	}
}
