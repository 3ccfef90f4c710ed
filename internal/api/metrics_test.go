package api_test

import (
	"errors"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/api"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMetrics(t *testing.T) {
	b := &backend{status: api.Status{
		Ready: true, Networks: 2, Containers: 3,
		Engine: api.Engine{Enabled: true, Reachable: true},
		Fabric: api.Fabric{Name: "bgp", Converged: true, Learned: 7, Announced: 2, Peers: []api.Peer{
			{Name: "10.77.0.1", State: "established", Received: 7, Refused: 1, Sent: 2},
			{Name: "fe80::1%eth1", State: "active"},
		}},
		Pools:      []api.PoolUsage{{CIDR: netip.MustParsePrefix("10.9.0.0/16"), Blocks: 1, Held: 3, Resting: 1, Free: 58, Usage: 0.0625}},
		Routes:     map[string]int{"container": 3, "block": 1, "learned": 7},
		Store:      &api.Store{Reachable: true, Nodes: 3, Alive: 2, Networks: 1, Blocks: 2, Addresses: 4, Unsettled: []string{"block 10.9.0.0/26"}},
		Kernel:     api.Kernel{Pending: []string{"route 10.9.2.0/26: no such device"}},
		Neighbours: []api.NeighbourTable{{Family: "ipv4", Entries: 12, Limit: 1024}},
		Conditions: []api.Condition{
			{Code: "peer-down", Severity: api.SeverityError},
			{Code: "peer-down", Severity: api.SeverityError},
			{Code: "pool-nearly-full", Severity: api.SeverityWarning},
		},
	}}
	m := api.NewMetrics("v1.2.3")
	m.ObserveRequest("NetworkDriver.Join", 3*time.Millisecond, nil)
	m.ObserveRequest("NetworkDriver.Join", 20*time.Millisecond, errors.New("no"))
	m.ObservePass(800 * time.Microsecond)
	m.ObserveClaim("block", 4*time.Millisecond, nil)
	m.ObserveClaim("address", 2*time.Second, errors.New("no"))
	m.Mended("routes", 2)
	m.Mended("links", 0)
	m.Mended("rules", -1) // nothing was mended: no panic, no count

	socket := filepath.Join(t.TempDir(), api.SocketName)
	s := api.NewServer(api.ServerConfig{Backend: b, Metrics: m, Socket: socket, Log: slog.New(slog.DiscardHandler)})
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	_, text := ask(t, socket, "GET", "/metrics", "")
	var ours []string
	process := false
	for line := range strings.Lines(text) {
		process = process || strings.HasPrefix(line, "process_resident_memory_bytes ")
		if strings.Contains(line, "fairway_") && !strings.Contains(line, "fairway_build_info{") {
			ours = append(ours, line)
		}
	}
	if !process || !strings.Contains(text, `version="v1.2.3"`) {
		t.Errorf("no process_resident_memory_bytes or version in:\n%s", text)
	}
	golden(t, "metrics.txt", strings.Join(ours, ""))

	b.mu.Lock()
	b.err = errors.New("stuck")
	b.mu.Unlock()
	_, text = ask(t, socket, "GET", "/metrics", "")
	if !strings.Contains(text, "\nfairway_up 0\n") || !strings.Contains(text, "fairway_mended_total{kind=\"routes\"} 2") {
		t.Errorf("a backend that fails: want fairway_up 0 and the counters, got:\n%s", text)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
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
