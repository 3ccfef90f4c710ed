package bgp_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkLearn measures a peer's whole table: from the announcement on the other node to the routes in our rib, what they
// cost in memory, and how fast they go with their link. One iteration is one session.
func BenchmarkLearn(b *testing.B) {
	for _, routes := range []int{10000, 65536} {
		b.Run(fmt.Sprint(routes), func(b *testing.B) {
			if os.Getenv(envInside) == "" {
				benchInside(b)
				return
			}
			learn(b, routes)
		})
	}
}

// benchInside runs the benchmark in a process with its own network namespace and reports what that measured.
func benchInside(b *testing.B) {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("namespaces need root")
	}
	for b.Loop() {
		dir := b.TempDir()
		cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^$", "-test.bench=^"+strings.ReplaceAll(b.Name(), "/", "$/^")+"$", "-test.benchtime=1x", "-test.cpuprofile=/tmp/bgp.cpu")
		cmd.Env = append(os.Environ(), envInside+"="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("in its own namespace: %v\n%s", err, out)
		}
		measured := map[string]float64{}
		text, err := os.ReadFile(filepath.Join(dir, "metrics"))
		if err != nil {
			b.Fatal(err)
		}
		if err := json.Unmarshal(text, &measured); err != nil {
			b.Fatal(err)
		}
		for unit, value := range measured {
			b.ReportMetric(value, unit)
		}
	}
}

func learn(b *testing.B, routes int) {
	b.Helper()
	sh(b, "ip link set lo up")
	measured := map[string]float64{}
	for b.Loop() {
		other := newSpace(b)
		other.wire("va", "vb", []string{"10.77.0.1/24"}, []string{"10.77.0.2/24"})
		before := heap()
		theirs := them(at("10.77.0.1", 64512))
		r := other.start(theirs)
		ours := us(at("10.77.0.2", 64512))
		ours.Pools = []netip.Prefix{pfx("10.0.0.0/8")}
		ours.BGP.Import.MaxPrefixes = 100000
		n := startNode(b, ours)
		n.up("10.77.0.2")

		prefixes := make([]string, routes)
		for i := range prefixes {
			prefixes[i] = fmt.Sprintf("10.%d.%d.%d/32", 128+i>>16, i>>8&255, i&255)
		}
		ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
		start := time.Now()
		r.announce(prefixes...)
		all := func(want int) func() error {
			return func() error {
				if got := n.rib.Len(); got != want {
					return fmt.Errorf("%d routes", got)
				}
				return nil
			}
		}
		eventually(b, "all routes", all(routes))
		measured["learn-ms"] = ms(time.Since(start))
		measured["heap-MiB"] = heap() - before
		measured["rss-MiB"] = rss(b)
		start = time.Now()
		if got := n.peer("10.77.0.2").Received; got != routes {
			b.Fatalf("%d received", got)
		}
		measured["status-ms"] = ms(time.Since(start))
		start = time.Now()
		n.peer("10.77.0.2")
		measured["status-again-ms"] = ms(time.Since(start))
		sh(b, "ip link set va down")
		facts := hereFacts(b)
		start = time.Now()
		updated := make(chan error, 1)
		go func() { updated <- n.fabric.Update(b.Context(), ours.config(), facts) }()
		measured["link-loss-ms"] = ms(eventually(b, "withdrawn", all(0)))
		if err := <-updated; err != nil {
			b.Fatal(err)
		}
		measured["link-update-ms"] = ms(time.Since(start))
		n.stop()
		r.kill()
		sh(b, "ip link del va")
	}
	text, err := json.Marshal(measured)
	if err != nil {
		b.Fatal(err)
	}
	write(b, os.Getenv(envInside), "metrics", string(text))
}

// rss is what the process holds of the machine's memory, in MiB.
func rss(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	b.Fatal("no VmRSS in /proc/self/status")
	return 0
}
