package bgp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairway/internal/kernel"
)

const (
	envInside = "FAIRWAY_BGP_TEST_INSIDE" // this process has a network namespace of its own
	envNode   = "FAIRWAY_BGP_TEST_NODE"   // this process is a node: see node_test.go
	patience  = 30 * time.Second
)

func TestMain(m *testing.M) {
	if os.Getenv(envNode) != "" {
		nodeMain()
		return
	}
	m.Run()
}

// isolated runs the calling test again in a process with a network namespace of its own, and says whether this is the one.
// GoBGP opens sockets on any thread, so the whole process must be in there.
func isolated(t *testing.T) bool {
	t.Helper()
	if os.Getenv(envInside) == t.Name() {
		sh(t, "ip link set lo up")
		return true
	}
	if os.Geteuid() != 0 {
		if os.Getenv("FAIRWAY_REQUIRE_NETNS") == "1" {
			t.Fatal("namespaces need root, and FAIRWAY_REQUIRE_NETNS=1 is set")
		}
		t.Skip("namespaces need root")
	}
	t.Parallel() // most of the time goes into waiting
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), envInside+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in its own namespace: %v\n%s", err, out)
	}
	if bytes.Contains(out, []byte("--- SKIP")) {
		t.Skipf("in its own namespace: %s", out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "_test.go:") {
			t.Log(strings.TrimSpace(line))
		}
	}
	return false
}

// requireTool skips the test when a daemon is not installed, or fails it when it must be.
func requireTool(t *testing.T, path string) {
	t.Helper()
	if _, err := exec.LookPath(path); err == nil {
		return
	}
	if os.Getenv("FAIRWAY_REQUIRE_FRR") == "1" {
		t.Fatalf("%s is not installed, and FAIRWAY_REQUIRE_FRR=1 is set", path)
	}
	t.Skipf("%s is not installed", path)
}

// withoutRaceDetector skips a test that GoBGP v4.8 sometimes fails by itself under the race detector: it marks paths stale
// while its watcher reads the mark (Path.MarkStale, Path.IsStale).
func withoutRaceDetector(t *testing.T) {
	t.Helper()
	if raceDetector {
		t.Skip("GoBGP marks stale paths without a lock")
	}
}

// eventually waits for a condition; what describes it, and last is the latest reason why it does not hold.
func eventually(tb testing.TB, what string, cond func() error) time.Duration {
	tb.Helper()
	return within(tb, patience, what, cond)
}

// within is eventually with a bound that matters, and returns how long it took.
func within(tb testing.TB, bound time.Duration, what string, cond func() error) time.Duration {
	tb.Helper()
	start := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > bound {
			tb.Fatalf("%s: not within %v: %v", what, bound, err)
		}
		<-tick.C
	}
}

// holds checks that a condition stays true for a while.
func holds(tb testing.TB, span time.Duration, what string, cond func() error) {
	tb.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(span); time.Now().Before(end); <-tick.C {
		if err := cond(); err != nil {
			tb.Fatalf("%s: %v", what, err)
		}
	}
}

func sh(tb testing.TB, format string, args ...any) string {
	tb.Helper()
	line := fmt.Sprintf(format, args...)
	out, err := exec.CommandContext(tb.Context(), "sh", "-ec", line).CombinedOutput()
	if err != nil {
		tb.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// space is another network namespace, held open by a process.
type space struct {
	t   testing.TB
	pid int
}

func newSpace(tb testing.TB) *space {
	tb.Helper()
	cmd := exec.CommandContext(context.Background(), "sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	s := &space{tb, cmd.Process.Pid}
	s.sh("ip link set lo up")
	return s
}

func (s *space) sh(format string, args ...any) {
	s.t.Helper()
	sh(s.t, "nsenter -t %d -n -- sh -ec '%s'", s.pid, fmt.Sprintf(format, args...))
}

// command is a program inside the namespace that ends with the test.
func (s *space) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), "nsenter", append([]string{"-t", fmt.Sprint(s.pid), "-n", "--", name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// wire connects this namespace's link a with link b of the space. Addresses are put on before the links are up, without
// duplicate address detection, which would take seconds.
func (s *space) wire(a, b string, addrsA, addrsB []string) {
	s.t.Helper()
	sh(s.t, "ip link add %s type veth peer name %s netns %d", a, b, s.pid)
	quick := "echo 0 > /proc/sys/net/ipv6/conf/%s/accept_dad; echo 1 > /proc/sys/net/ipv6/conf/%[1]s/keep_addr_on_down; "
	sh(s.t, quick+"ip link set %[1]s up", a)
	s.sh(quick+"ip link set %[1]s up", b)
	for _, x := range addrsA {
		sh(s.t, "ip addr add %s dev %s", nodad(x), a)
	}
	for _, x := range addrsB {
		s.sh("ip addr add %s dev %s", nodad(x), b)
	}
}

func nodad(addr string) string {
	if strings.Contains(addr, ":") {
		return addr + " nodad"
	}
	return addr
}

// readFacts reads the links of the namespace of a command prefix, as the kernel room does for the agent.
func readFacts(ipCommand func(format string, args ...any) string) kernel.Facts {
	var links []struct {
		Name  string `json:"ifname"`
		Index int    `json:"ifindex"`
		MTU   int
		MAC   string `json:"address"`
		Flags []string
		State string `json:"operstate"`
		Addrs []struct {
			Local string
			Bits  int `json:"prefixlen"`
		} `json:"addr_info"`
	}
	out := ipCommand("ip -j addr")
	if err := json.Unmarshal([]byte(out), &links); err != nil {
		panic(fmt.Sprintf("ip -j addr: %v: %s", err, out))
	}
	facts := kernel.Facts{Links: map[string]kernel.FactLink{}}
	for _, l := range links {
		fact := kernel.FactLink{Name: l.Name, Index: l.Index, MTU: l.MTU, Carrier: l.State == "UP" || l.State == "UNKNOWN"}
		fmt.Sscanf(l.MAC, "%02x:%02x:%02x:%02x:%02x:%02x", &fact.MAC[0], &fact.MAC[1], &fact.MAC[2], &fact.MAC[3], &fact.MAC[4], &fact.MAC[5])
		for _, f := range l.Flags {
			fact.Up = fact.Up || f == "UP"
		}
		for _, a := range l.Addrs {
			fact.Addrs = append(fact.Addrs, netip.PrefixFrom(netip.MustParseAddr(a.Local), a.Bits))
		}
		facts.Links[l.Name] = fact
	}
	return facts
}

func hereFacts(tb testing.TB) kernel.Facts {
	tb.Helper()
	return readFacts(func(format string, args ...any) string { return sh(tb, format, args...) })
}

func write(tb testing.TB, dir, name, content string) string {
	tb.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		tb.Fatal(err)
	}
	return path
}

func takeUDP(tb testing.TB, addr string) net.PacketConn {
	tb.Helper()
	c, err := (&net.ListenConfig{}).ListenPacket(tb.Context(), "udp4", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

// carrier waits until a link of this namespace passes frames.
func carrier(tb testing.TB, link string) {
	tb.Helper()
	eventually(tb, "carrier of "+link, func() error {
		if l := hereFacts(tb).Links[link]; !l.Up || !l.Carrier {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
}
