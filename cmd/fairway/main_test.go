package main

import (
	"bytes"
	"context"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/api"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// serve runs a real server for the test and returns its socket.
func serve(t *testing.T, b api.Backend) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), api.SocketName)
	s := api.NewServer(api.ServerConfig{Backend: b, Metrics: api.NewMetrics("v0.1.0"), Socket: socket, Listen: netip.AddrPort{}, Log: slog.New(slog.DiscardHandler)})
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return socket
}

// command runs a command line as main does.
func command(t *testing.T, socket string, args ...string) (out, errOut string, code int) {
	t.Helper()
	return typed(t, socket, "", args...)
}

// typed runs a command line with a person who types.
func typed(t *testing.T, socket, text string, args ...string) (out, errOut string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	root := newRoot(&app{socket: socket, now: func() time.Time { return now }})
	root.SetOut(&o)
	root.SetErr(&e)
	root.SetIn(strings.NewReader(text))
	code = run(t.Context(), root, args)
	return o.String(), e.String(), code
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	compare(t, filepath.Join("testdata", name), got)
}

func compare(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (rewrite with -update): -want +got\n%s", path, d)
	}
}

// checkWidth fails on lines that a terminal of 80 columns would wrap, and on what a terminal would obey.
func checkWidth(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if n := utf8.RuneCountInString(line); n > screen {
			t.Errorf("%d columns: %s", n, line)
		}
		if strings.ContainsAny(line, "\x1b\r\t\u202e") {
			t.Errorf("control characters: %q", line)
		}
		if strings.TrimRight(line, " ") != line {
			t.Errorf("blanks at the end: %q", line)
		}
	}
}

func TestOutput(t *testing.T) {
	good, bad, none := serve(t, usual()), serve(t, worst()), serve(t, &sample{status: api.Status{Ready: true, Fabric: api.Fabric{Name: "none"}}})
	for _, tt := range []struct {
		name string
		args string
		code int // of the worst node; the usual one is always 0 unless found is set
		both int // of the usual one
	}{
		{"status", "status", 1, 0},
		{"ps", "ps", 0, 0},
		{"network", "network ls", 0, 0},
		{"inspect", "network inspect 0f3a", 0, 0},
		{"route", "route ls", 0, 0},
		{"peer", "peer ls", 0, 0},
		{"ipam", "ipam show", 0, 0},
		{"check", "ipam check", 1, 1},
		{"fix", "ipam check --fix", 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := strings.Fields(tt.args)
			for node, socket := range map[string]string{"": good, "-worst": bad} {
				want := tt.both
				if node != "" {
					want = tt.code
				}
				out, errOut, code := command(t, socket, args...)
				if code != want || errOut != "" {
					t.Errorf("%s%s: exit code %d, want %d; on standard error: %q", tt.args, node, code, want, errOut)
				}
				checkWidth(t, out)
				golden(t, tt.name+node+".txt", out)
			}
			out, _, code := command(t, good, append(args, "-o", "json")...)
			if code != tt.both {
				t.Errorf("-o json: exit code %d, want %d", code, tt.both)
			}
			golden(t, tt.name+".json", out)
			if tt.name == "inspect" {
				return
			}
			out, errOut, code := command(t, none, args...)
			if code != exitOK || errOut != "" {
				t.Errorf("empty node: exit code %d: %s", code, errOut)
			}
			checkWidth(t, out)
			golden(t, tt.name+"-empty.txt", out)
		})
	}
}

func TestWide(t *testing.T) {
	socket := serve(t, usual())
	for _, name := range []string{"ps", "network ls", "route ls", "peer ls", "ipam show"} {
		out, errOut, code := command(t, socket, append(strings.Fields(name), "-o", "wide")...)
		if code != exitOK {
			t.Errorf("%s: exit code %d: %s", name, code, errOut)
		}
		golden(t, strings.Fields(name)[0]+"-wide.txt", out)
	}
}

func TestFilters(t *testing.T) {
	socket := serve(t, usual())
	for args, name := range map[string]string{
		"route ls 10.9.0.70":      "route-address.txt",
		"route ls 192.0.2.0/24":   "route-nothing.txt",
		"ipam show 10.9.0.3":      "ipam-address.txt",
		"ipam show 192.0.2.1":     "ipam-nothing.txt",
		"network inspect " + netB: "inspect-id.txt",
	} {
		out, errOut, code := command(t, socket, strings.Fields(args)...)
		if code != exitOK {
			t.Errorf("%s: exit code %d: %s", args, code, errOut)
		}
		golden(t, name, out)
	}
	out, _, _ := command(t, socket, "__complete", "network", "inspect", "")
	if !strings.HasPrefix(out, "front\n"+shortID(netB)+"\n") {
		t.Errorf("completion of networks: got %q", out)
	}
}

func TestErrors(t *testing.T) {
	socket := serve(t, usual())
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"frobnicate", 2, `unknown command "frobnicate" for "fairway"`},
		{"network frobnicate", 2, `unknown command "frobnicate" for "fairway network"`},
		{"network inspct x", 2, `unknown command "inspct" for "fairway network"; did you mean "inspect"?`},
		{"ps web", 2, `unknown command "web" for "fairway ps"`},
		{"status --wiat", 2, "unknown flag: --wiat"},
		{"status -o yaml", 2, "want table or json"},
		{"version -o wide", 2, "want table or json"},
		{"network inspect", 2, "accepts 1 arg(s), received 0"},
		{"network inspect nosuch", 1, "no network \"nosuch\" of ours; `fairway network ls` lists them"},
		{"network inspect 0f", 1, `"0f" is the beginning of 2 network IDs; give more of it`},
		{"ipam release web", 2, `"web" is not an address`},
		{"ipam release 10.9.0.3", 1, "address 10.9.0.3 belongs to endpoint a1b2c3d4e5f6; stop its container, or use --force"},
		{"ipam release 192.0.2.1", 1, "address 192.0.2.1 is not held on this node"},
		{"route ls all", 2, `"all" is neither a prefix (10.9.0.0/16) nor an address (10.9.1.2)`},
		{"completion csh", 2, `invalid argument "csh" for "fairway completion"`},
		{"cleanup --yes --dry-run", 2, "none of the others can be"},
		{"status --socket /nowhere/fairway.sock", 1, "the agent is not running here (no socket /nowhere/fairway.sock): start it with `systemctl start fairway`"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			out, errOut, code := command(t, socket, strings.Fields(tt.args)...)
			if code != tt.code || !strings.Contains(errOut, tt.want) || !strings.HasPrefix(errOut, "fairway: ") {
				t.Errorf("got exit code %d and %q, want %d and %q", code, errOut, tt.code, tt.want)
			}
			if out != "" {
				t.Errorf("on standard output: %q", out)
			}
			if hint := strings.Contains(errOut, "--help`"); hint != (tt.code == exitUsage) {
				t.Errorf("a pointer to --help: %v, with exit code %d", hint, tt.code)
			}
		})
	}
}

// A node in ordinary trouble: one session down, a pool nearly full.
func TestStatusTrouble(t *testing.T) {
	s := usual()
	down := &s.status.Fabric.Peers[1]
	down.State, down.Since, down.Received, down.Sent = "active", ago(192*time.Second), 0, 0
	s.status.Fabric.PeersEstablished = 1
	s.status.Pools[0].Usage = 0.934
	s.status.Conditions = []api.Condition{
		{Code: "pool-nearly-full", Severity: api.SeverityWarning, Since: ago(5 * time.Hour), Text: "pool 10.9.0.0/16: 93 % of what this node can give out is used", Hint: "`fairway ipam check --fix` ends leaks; else give the network a larger subnet"},
		{Code: "peer-down", Severity: api.SeverityError, Since: ago(192 * time.Second), Text: "peer fe80::1%eth1 is active: hold timer expired", Hint: "check that it runs, and that TCP port 179 is open between the two"},
	}
	socket := serve(t, s)
	out, errOut, code := command(t, socket, "status")
	if code != exitBad || errOut != "" {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	checkWidth(t, out)
	golden(t, "status-trouble.txt", out)
	if n := strings.Count(out, "\n"); n > 24 {
		t.Errorf("%d lines, want one screen of 24", n)
	}
	s.status.Conditions = s.status.Conditions[:1]
	if _, _, code := command(t, serve(t, s), "status"); code != exitOK {
		t.Errorf("a warning alone: exit code %d, want 0", code)
	}
}

func TestColour(t *testing.T) {
	peers := usual().status.Fabric.Peers
	peers[1].State = "active"
	var plainText, painted bytes.Buffer
	if err := peerTable(peers, now).write(&plainText, false); err != nil {
		t.Fatal(err)
	}
	if err := peerTable(peers, now).write(&painted, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\x1b[32mestablished\x1b[0m", "\x1b[31mactive\x1b[0m", "\x1b[1mPEER\x1b[0m"} {
		if !strings.Contains(painted.String(), want) {
			t.Errorf("no %q in %q", want, painted.String())
		}
	}
	// Colours take no room: without them the tables are the same.
	stripped := regexp.MustCompile("\x1b\\[[0-9]*m").ReplaceAllString(painted.String(), "")
	if d := cmp.Diff(plainText.String(), stripped); d != "" {
		t.Errorf("-plain +painted without colours\n%s", d)
	}
	if painterFor(&painted) {
		t.Error("colours for what is no terminal")
	}
	t.Setenv("NO_COLOR", "1")
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	defer tty.Close()
	if painterFor(tty) {
		t.Error("colours in spite of NO_COLOR")
	}
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	if !painterFor(tty) {
		t.Error("no colours on a terminal")
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Minute: "0s", 59 * time.Second: "59s", 192 * time.Second: "3m12s", 5*time.Hour + 3*time.Minute: "5h3m",
		52 * time.Hour: "2d4h", 99*day + 23*time.Hour: "99d23h", 412 * day: "412d",
	} {
		if got := age(now, ago(d)); got != want {
			t.Errorf("%v ago: got %s, want %s", d, got, want)
		}
	}
	if got := age(now, time.Time{}); got != "-" {
		t.Errorf("never: got %s, want -", got)
	}
}

func TestRelease(t *testing.T) {
	out, errOut, code := command(t, serve(t, usual()), "ipam", "release", "10.9.0.3", "--force")
	if out != "released 10.9.0.3\n" || code != exitOK {
		t.Errorf("got %q, %q, exit code %d", out, errOut, code)
	}
}

func TestSocketFromEnvironment(t *testing.T) {
	t.Setenv("FAIRWAY_SOCKET", serve(t, usual()))
	if _, errOut, code := command(t, "", "ps"); code != exitOK {
		t.Errorf("exit code %d: %s", code, errOut)
	}
}

func TestStatusWait(t *testing.T) {
	s := usual()
	s.readyAfter = 3
	out, errOut, code := command(t, serve(t, s), "status", "--wait", "--timeout", "30s")
	if code != exitOK || !strings.HasPrefix(out, "host1: ready\n") || s.asked < 4 {
		t.Errorf("exit code %d, asked %d times: %s%s", code, s.asked, out, errOut)
	}
	s = usual()
	s.readyAfter = 1 << 30
	_, errOut, code = command(t, serve(t, s), "status", "--wait", "--timeout", "300ms")
	if code != exitBad || !strings.Contains(errOut, "not ready after 300ms: reading the kernel") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	_, errOut, code = command(t, "/nowhere/fairway.sock", "status", "--wait", "--timeout", "300ms")
	if code != exitBad || !strings.Contains(errOut, "not ready after 300ms: the agent is not running here") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
}

func TestVersion(t *testing.T) {
	out, _, code := command(t, "", "version")
	if code != exitOK || !strings.HasPrefix(out, "fairway "+buildVersion()+" (go") {
		t.Errorf("exit code %d: %s", code, out)
	}
	out, _, _ = command(t, "", "version", "-o", "json")
	for _, key := range []string{`"version": "`, `"go_version": "go`, `"platform": "linux/`} {
		if !strings.Contains(out, key) {
			t.Errorf("no %s in %s", key, out)
		}
	}
}

func TestCompletion(t *testing.T) {
	for shell, want := range map[string]string{"bash": "complete -o default", "zsh": "#compdef fairway", "fish": "complete -c fairway"} {
		out, _, code := command(t, "", "completion", shell)
		if code != exitOK || !strings.Contains(out, want) {
			t.Errorf("%s: exit code %d, no %q in the script", shell, code, want)
		}
	}
}
