package bgp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"fairway/internal/config"
	"fairway/internal/fabric"
	"fairway/internal/fabric/bgp"
	"fairway/internal/rib"
)

// settings of a node under test; passwords are beside the config, which hides them.
type settings struct {
	ASN        uint32
	Node       netip.Addr
	Node6      netip.Addr
	BGP        config.BGP
	Passwords  map[string]string // by the peer's name
	Pools      []netip.Prefix
	Mesh       []fabric.MeshPeer
	Restarting bool
}

func (s settings) config() *config.Config {
	c := config.Default()
	c.BGP.ASN = s.ASN
	c.BGP.Peers = nil
	if s.BGP.HoldTime != 0 {
		c.BGP.HoldTime = s.BGP.HoldTime
	}
	c.BGP.RouteReflector = s.BGP.RouteReflector
	c.BGP.Aggregate = s.BGP.Aggregate
	c.BGP.BFD = config.BFD{Interval: 300 * time.Millisecond, Multiplier: 3}
	if s.BGP.BFD.Interval > 0 {
		c.BGP.BFD = s.BGP.BFD
	}
	c.BGP.Import.Prefixes = s.BGP.Import.Prefixes
	if s.BGP.Import.MaxPrefixes != 0 {
		c.BGP.Import.MaxPrefixes = s.BGP.Import.MaxPrefixes
	}
	if s.BGP.GracefulRestart.RestartTime != 0 {
		c.BGP.GracefulRestart = s.BGP.GracefulRestart
	}
	for _, p := range s.BGP.Peers {
		if p.HoldTime == 0 {
			p.HoldTime = c.BGP.HoldTime
		}
		if p.Port == 0 {
			p.Port = 179
		}
		p.Password = config.Secret(s.Passwords[p.Name()])
		c.BGP.Peers = append(c.BGP.Peers, p)
	}
	c.Pools = nil
	for _, p := range s.Pools {
		c.Pools = append(c.Pools, config.Pool{CIDR: p, BlockSize: p.Bits(), Size: p.Bits()})
	}
	return c
}

// mesh is the peers of the mesh with the defaults of a config.
func (s settings) mesh() []fabric.MeshPeer {
	all := slices.Clone(s.Mesh)
	for i := range all {
		p := &all[i].Peer
		if p.HoldTime == 0 {
			p.HoldTime = s.config().BGP.HoldTime
		}
		if p.Port == 0 {
			p.Port = 179
		}
		if p.ASN == 0 {
			p.ASN = s.ASN
		}
	}
	return all
}

// node is a Fabric in this process.
type node struct {
	t       testing.TB
	set     settings
	rib     *rib.Table
	fabric  *bgp.Fabric
	cancel  context.CancelFunc
	ended   chan error
	stopped sync.Once
}

func logger() *slog.Logger {
	level := slog.LevelInfo
	if os.Getenv("FAIRWAY_TEST_DEBUG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

func startNode(tb testing.TB, set settings, announce ...string) *node {
	tb.Helper()
	n := &node{t: tb, set: set, rib: rib.New(nil), ended: make(chan error, 1)}
	f, err := bgp.New(bgp.Config{
		Node: set.Node, Node6: set.Node6, Cfg: set.config(), RIB: n.rib, Log: logger(), Restarting: set.Restarting, Facts: hereFacts(tb),
	})
	if err != nil {
		tb.Fatal(err)
	}
	n.fabric = f
	if err := f.SetMesh(set.mesh()); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() { n.ended <- f.Run(ctx) }()
	n.announce(announce...)
	tb.Cleanup(n.stop)
	return n
}

func (n *node) stop() {
	n.stopped.Do(func() {
		n.cancel()
		if err := <-n.ended; err != nil {
			n.t.Errorf("Run: %v", err)
		}
	})
}

func announcements(prefixes []string) map[netip.Prefix]fabric.Announcement {
	want := map[netip.Prefix]fabric.Announcement{}
	for _, p := range prefixes {
		want[netip.MustParsePrefix(p)] = fabric.Announcement{Kind: "block"}
	}
	return want
}

// parting are announcements of a node that is being drained.
func parting(prefixes []string) map[netip.Prefix]fabric.Announcement {
	want := announcements(prefixes)
	for p, a := range want {
		a.GracefulShutdown = true
		want[p] = a
	}
	return want
}

func (n *node) announce(prefixes ...string) {
	n.t.Helper()
	if err := n.fabric.Announce(context.Background(), announcements(prefixes)); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) update() {
	n.t.Helper()
	if err := n.fabric.SetMesh(n.set.mesh()); err != nil {
		n.t.Fatal(err)
	}
	if err := n.fabric.Update(context.Background(), n.set.config(), hereFacts(n.t)); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) peer(name string) fabric.Peer {
	return peerIn(n.fabric.Status(), name)
}

func peerIn(st fabric.Status, name string) fabric.Peer {
	for _, p := range st.Peers {
		if p.Name == name || p.Link == name {
			return p
		}
	}
	return fabric.Peer{}
}

// up waits for a session.
func (n *node) up(name string) fabric.Peer {
	n.t.Helper()
	var p fabric.Peer
	eventually(n.t, "session with "+name, func() error {
		if p = n.peer(name); p.State != "established" {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	return p
}

// has is a condition: the rib has a route over these next hops, none for an empty list.
func (n *node) has(prefix string, hops ...string) func() error {
	return func() error {
		return hasIn(n.rib.Snapshot(), prefix, hops...)
	}
}

func hasIn(routes map[netip.Prefix]rib.Route, prefix string, hops ...string) error {
	paths := routes[netip.MustParsePrefix(prefix)].Paths
	seen := map[string]bool{}
	for _, p := range paths {
		seen[p.NextHop.String()] = true
	}
	for _, h := range hops {
		if !seen[h] {
			return fmt.Errorf("%s: paths %+v, want next hops %v", prefix, paths, hops)
		}
	}
	if len(seen) != len(hops) {
		return fmt.Errorf("%s: paths %+v, want next hops %v", prefix, paths, hops)
	}
	return nil
}

// remote is a Fabric in a process in another namespace, spoken to by lines of JSON.
type remote struct {
	t   testing.TB
	in  io.WriteCloser
	out *bufio.Reader
	cmd *exec.Cmd
}

type request struct {
	Do       string // announce, update, status, rib, stop
	Prefixes []string
	Set      *settings
}

type reply struct {
	Err    string
	Status *fabric.Status
	Peers  []fabric.Peer
	Rib    []rib.Route
}

func (s *space) start(set settings, announce ...string) *remote {
	s.t.Helper()
	cmd := s.command(os.Args[0])
	cmd.Env = append(os.Environ(), envNode+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	r := &remote{t: s.t, in: in, out: bufio.NewReader(out), cmd: cmd}
	s.t.Cleanup(r.kill)
	r.ask(request{Do: "start", Set: &set, Prefixes: announce})
	return r
}

func (r *remote) ask(q request) reply {
	r.t.Helper()
	if err := json.NewEncoder(r.in).Encode(q); err != nil {
		r.t.Fatal(err)
	}
	line, err := r.out.ReadBytes('\n')
	if err != nil {
		r.t.Fatalf("%s: %v", q.Do, err)
	}
	var a reply
	if err := json.Unmarshal(line, &a); err != nil {
		r.t.Fatalf("%s: %v: %s", q.Do, err, line)
	}
	if a.Err != "" {
		r.t.Fatalf("%s: %s", q.Do, a.Err)
	}
	return a
}

func (r *remote) announce(prefixes ...string) {
	r.t.Helper()
	r.ask(request{Do: "announce", Prefixes: prefixes})
}

func (r *remote) peers() []fabric.Peer {
	r.t.Helper()
	return r.ask(request{Do: "status"}).Peers
}

func (r *remote) routes() map[netip.Prefix]rib.Route {
	r.t.Helper()
	m := map[netip.Prefix]rib.Route{}
	for _, route := range r.ask(request{Do: "rib"}).Rib {
		m[route.Prefix] = route
	}
	return m
}

func (r *remote) has(prefix string, hops ...string) func() error {
	return func() error {
		r.t.Helper()
		return hasIn(r.routes(), prefix, hops...)
	}
}

// stop ends the Fabric the graceful way.
func (r *remote) stop() {
	r.t.Helper()
	r.ask(request{Do: "stop"})
	r.kill()
}

// kill ends the process; the kernel closes its connections.
func (r *remote) kill() {
	r.cmd.Process.Kill()
	r.cmd.Wait()
}

// nodeMain is the other process: a Fabric that obeys lines on standard input.
func nodeMain() {
	in := json.NewDecoder(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	n := &nodeProcess{rib: rib.New(nil)}
	for {
		var q request
		if err := in.Decode(&q); err != nil {
			return
		}
		a, err := n.do(q)
		if err != nil {
			a.Err = err.Error()
		}
		out.Encode(a)
	}
}

type nodeProcess struct {
	rib    *rib.Table
	fabric *bgp.Fabric
	cancel context.CancelFunc
	ended  chan error

	mu  sync.Mutex
	set settings
}

// follow tells the Fabric of changes of the links, as the agent does.
func (n *nodeProcess) follow(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	last := readFacts(ipHere)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		facts := readFacts(ipHere)
		if reflect.DeepEqual(facts, last) {
			continue
		}
		last = facts
		n.mu.Lock()
		set := n.set
		n.mu.Unlock()
		if err := n.fabric.Update(ctx, set.config(), facts); err != nil {
			logger().Warn("update", slog.Any("err", err))
		}
	}
}

func ipHere(format string, args ...any) string {
	out, err := exec.CommandContext(context.Background(), "sh", "-c", fmt.Sprintf(format, args...)).Output()
	if err != nil {
		panic(err)
	}
	return string(out)
}

func (n *nodeProcess) do(q request) (reply, error) {
	ctx := context.Background()
	switch q.Do {
	case "start":
		f, err := bgp.New(bgp.Config{
			Node: q.Set.Node, Node6: q.Set.Node6, Cfg: q.Set.config(), RIB: n.rib, Log: logger(),
			Restarting: q.Set.Restarting, Facts: readFacts(ipHere),
		})
		if err != nil {
			return reply{}, err
		}
		if err := f.SetMesh(q.Set.mesh()); err != nil {
			return reply{}, err
		}
		n.fabric, n.ended = f, make(chan error, 1)
		run, cancel := context.WithCancel(ctx)
		n.cancel, n.set = cancel, *q.Set
		go func() { n.ended <- f.Run(run) }()
		go n.follow(run)
		return reply{}, f.Announce(ctx, announcements(q.Prefixes))
	case "announce":
		return reply{}, n.fabric.Announce(ctx, announcements(q.Prefixes))
	case "part":
		return reply{}, n.fabric.Announce(ctx, parting(q.Prefixes))
	case "update":
		n.mu.Lock()
		n.set = *q.Set
		n.mu.Unlock()
		if err := n.fabric.SetMesh(q.Set.mesh()); err != nil {
			return reply{}, err
		}
		return reply{}, n.fabric.Update(ctx, q.Set.config(), readFacts(ipHere))
	case "status":
		return reply{Peers: n.fabric.Status().Peers}, nil
	case "rib":
		var a reply
		for _, r := range n.rib.Snapshot() {
			a.Rib = append(a.Rib, r)
		}
		return a, nil
	case "stop":
		n.cancel()
		return reply{}, <-n.ended
	}
	return reply{}, fmt.Errorf("unknown request %q", q.Do)
}

// heap is what the process holds after a collection, in MiB.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}
