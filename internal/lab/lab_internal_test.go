package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/config"
	"fairway/internal/lab/machine"
)

// TestMain lets the test program be PID 1 of the hosts that it makes.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && strings.Join(os.Args[1:3], " ") == machine.InitCommand {
		fmt.Fprintln(os.Stderr, machine.Init(context.Background(), os.Args[3:]))
		os.Exit(1) //nolint:forbidigo // this is main, of PID 1
	}
	os.Exit(m.Run()) //nolint:forbidigo // this is main
}

func TestLayout(t *testing.T) {
	for _, c := range []struct {
		topology      Topology
		number, hosts int
		want          string
	}{
		{Flat, 1, 3, "host1 64512 host1 0 10.77.0.11/24 fd77::11/64 10.9.1.0/24 fd09:0:0:1::/64"},
		{Flat, 12, 12, "host12 64512 host12 0 10.77.0.22/24 fd77::22/64 10.9.12.0/24 fd09:0:0:12::/64"},
		{TwoSegments, 1, 3, "host1 64513 host1 1 10.77.1.11/24 fd77:0:0:1::11/64 10.9.1.0/24 fd09:0:0:1::/64"},
		{TwoSegments, 2, 3, "host2 64514 host2 1 10.77.1.12/24 fd77:0:0:1::12/64 10.9.2.0/24 fd09:0:0:2::/64"},
		{TwoSegments, 3, 3, "host3 64515 host3 2 10.77.2.13/24 fd77:0:0:2::13/64 10.9.3.0/24 fd09:0:0:3::/64"},
		{TwoSegments, 4, 3, "host4 64516 host4 2 10.77.2.14/24 fd77:0:0:2::14/64 10.9.4.0/24 fd09:0:0:4::/64"},
		{TwoSegments, 5, 3, "host5 64517 host5 1 10.77.1.15/24 fd77:0:0:1::15/64 10.9.5.0/24 fd09:0:0:5::/64"},
	} {
		h := newHost(c.topology, c.number, c.hosts)
		n := h.NICs[0]
		got := fmt.Sprint(h.Name, " ", h.ASN, " ", n.Port, " ", n.Segment, " ", n.Address4, " ", n.Address6, " ", h.Block4, " ", h.Block6)
		if got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// No two hosts of the largest lab share an address, a block or a MAC, and every name fits a link.
func TestLayoutIsFree(t *testing.T) {
	for _, topology := range []Topology{Flat, TwoSegments} {
		seen := map[any]string{}
		hosts := []HostInfo{newRouter()}
		for n := 1; n <= MaxHosts; n++ {
			hosts = append(hosts, newHost(topology, n, MaxHosts))
		}
		for _, h := range hosts {
			for _, nic := range h.NICs {
				for _, key := range []any{nic.Address4, nic.Address6, nic.MAC, nic.Port, h.Block4.Addr(), h.Block6.Addr()} {
					if other := seen[key]; other != "" && other != h.Name {
						t.Errorf("%s: %v is also %s's", h.Name, key, other)
					}
					if key != (netip.Addr{}) {
						seen[key] = h.Name
					}
				}
				if len(nic.Port) > 15 {
					t.Errorf("port %q is too long for a link", nic.Port)
				}
			}
		}
	}
}

func TestAgentConfig(t *testing.T) {
	hosts := []HostInfo{newHost(TwoSegments, 1, 3), newHost(TwoSegments, 2, 3), newHost(TwoSegments, 3, 3), newRouter()}
	want := `node:
  name: host3
  address: 10.77.2.13
  address6: fd77:0:0:2::13
pools:
  - cidr: 10.9.0.0/16
    block: 10.9.3.0/24
  - cidr: fd09::/48
    block: fd09:0:0:3::/64
bgp:
  asn: 64515
  holdTime: 9s
  peers:
    - address: 10.77.2.1
      asn: 64600
`
	if diff := cmp.Diff(want, agentConfig(hosts[2], surroundings{hosts: hosts, topology: TwoSegments, fabric: "bgp"})); diff != "" {
		t.Error(diff)
	}
	flat := []HostInfo{newHost(Flat, 1, 2), newHost(Flat, 2, 2)}
	for _, c := range []struct {
		host  HostInfo
		all   []HostInfo
		peers string
	}{
		{hosts[0], hosts, "10.77.1.1 64600"},
		{hosts[3], hosts, "10.77.1.0/24 0, 10.77.2.0/24 0"},
		{flat[0], flat, "10.77.0.12 64512"},
		{flat[0], flat[:1], ""},
	} {
		parsed, err := config.Parse(c.host.Name, []byte(agentConfig(c.host, surroundings{hosts: c.all, fabric: "bgp"})), nil, nil)
		if err != nil {
			t.Errorf("%s: %v", c.host.Name, err)
			continue
		}
		if c.host.Router() != (fmt.Sprint(parsed.BGP.Aggregate) == fmt.Sprintf("[%s %s]", Pool4, Pool6)) {
			t.Errorf("%s: aggregates %v", c.host.Name, parsed.BGP.Aggregate)
		}
		var peers []string
		for _, p := range parsed.BGP.Peers {
			peers = append(peers, fmt.Sprint(p.Name(), " ", p.ASN))
		}
		if got := strings.Join(peers, ", "); got != c.peers {
			t.Errorf("%s: peers %s, want %s", c.host.Name, got, c.peers)
		}
		if parsed.Docker.Enabled == c.host.Router() {
			t.Errorf("%s: docker.enabled is %v", c.host.Name, parsed.Docker.Enabled)
		}
	}
}

// With a store the blocks come from there, and the peers where all are on one segment.
func TestAgentConfigWithStore(t *testing.T) {
	flat := []HostInfo{newHost(Flat, 1, 2), newHost(Flat, 2, 2)}
	two := []HostInfo{newHost(TwoSegments, 1, 2), newHost(TwoSegments, 2, 2), newRouter()}
	for _, c := range []struct {
		name  string
		host  HostInfo
		in    surroundings
		peers int
		mesh  bool
		want  config.Fabric
	}{
		{"bgp", flat[0], surroundings{hosts: flat, topology: Flat, fabric: "bgp"}, 0, true, config.FabricBGP},
		{"store", flat[0], surroundings{hosts: flat, topology: Flat, fabric: "store"}, 0, true, config.FabricStore},
		{"two segments", two[1], surroundings{hosts: two, topology: TwoSegments, fabric: "bgp"}, 1, false, config.FabricBGP},
		{"router", two[2], surroundings{hosts: two, topology: TwoSegments, fabric: "bgp"}, 2, false, config.FabricBGP},
	} {
		l := &Lab{dir: "/lab", opts: Options{Topology: c.in.topology}}
		c.in.store = l.newStore(nil).Endpoint(c.host)
		parsed, err := config.Parse(c.name, []byte(agentConfig(c.host, c.in)), nil, nil)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		want := fmt.Sprintf("[10.77.%d.250:2379]", c.host.NICs[0].Segment)
		if got := fmt.Sprint(parsed.Store.Etcd.Endpoints); got != want {
			t.Errorf("%s: endpoints %s, want %s", c.name, got, want)
		}
		if len(parsed.BGP.Peers) != c.peers || parsed.BGP.Mesh != c.mesh || parsed.Fabric != c.want || parsed.Pools[0].Block.IsValid() {
			t.Errorf("%s: %+v", c.name, parsed)
		}
	}
}

func TestDaemonJSON(t *testing.T) {
	text, err := daemonJSON(newHost(Flat, 2, 2), map[string]any{"live-restore": false, "mtu": 1400})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if got["bip"] != "172.18.2.1/24" || got["live-restore"] != false || got["mtu"] != 1400.0 {
		t.Errorf("got %s", text)
	}
}

func TestOptions(t *testing.T) {
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"too many hosts":      {Options{Hosts: 100}, "hosts: 100 is not between 1 and 99"},
		"no such topology":    {Options{Topology: "ring"}, `topology: "ring" is neither "flat" nor "two-segments"`},
		"a relative path":     {Options{Dir: "lab"}, `"lab" is not an absolute path`},
		"no room for sockets": {Options{Dir: "/" + strings.Repeat("x", 90)}, "too long for the sockets"},
		"a path with a colon": {Options{Dir: "/run/a:b"}, "must not hold"},
	} {
		if _, err := c.o.checked(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want %q, got %v", name, c.want, err)
		}
	}
	env := map[string]string{"FAIRWAY_LAB_DIR": "/run/a", "FAIRWAY_LAB_CACHE": "/var/b"}
	o := Options{Dir: "/run/given"}.Environment(func(key string) string { return env[key] })
	if o.Dir != "/run/given" || o.Cache != "/var/b" {
		t.Errorf("got %q and %q", o.Dir, o.Cache)
	}
}

func TestClaim(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	if err := claim(dir, state{Planned: 2}); err != nil {
		t.Fatal(err)
	}
	if err := claim(dir, state{Planned: 3}); !errors.Is(err, ErrExists) {
		t.Errorf("second claim: %v", err)
	}
	if s, err := load(dir); err != nil || s.Planned != 2 {
		t.Errorf("got %+v, %v", s, err)
	}
	strange := t.TempDir()
	if err := os.WriteFile(filepath.Join(strange, "letter"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := claim(strange, state{}); err == nil || errors.Is(err, ErrExists) || !strings.Contains(err.Error(), `"letter"`) {
		t.Errorf("claim of somebody else's directory: %v", err)
	}
	if _, err := load(t.TempDir()); !errors.Is(err, ErrNoLab) {
		t.Errorf("load of nothing: %v", err)
	}
}

func TestGroupNames(t *testing.T) {
	a, b := groupName("/run/a"), groupName("/run/b")
	if a == b || groupName(DefaultDir) != "fairway-lab" || !strings.HasPrefix(a, "fairway-lab-") {
		t.Errorf("got %s, %s, %s", a, b, groupName(DefaultDir))
	}
}

func TestReadTools(t *testing.T) {
	out := `PING 10.9.2.1 (10.9.2.1): 56 data bytes

--- 10.9.2.1 ping statistics ---
5 packets transmitted, 5 packets received, 0% packet loss
round-trip min/avg/max = 0.079/0.182/0.285 ms
traceroute to 10.9.2.1 (10.9.2.1), 8 hops max, 46 byte packets
 1  10.9.0.1  0.004 ms
 2  *
 3  10.77.0.12  0.010 ms
 4  192.0.2.7  0.010 ms
 5  10.9.2.1  0.024 ms
`
	if got := averageRTTs(out); len(got) != 1 || got[0] != 182*time.Microsecond {
		t.Errorf("round trips: %v", got)
	}
	l := &Lab{state: state{Hosts: []HostInfo{newHost(Flat, 1, 2), newHost(Flat, 2, 2)}}}
	from := demoContainer{gateway: netip.MustParseAddr("10.9.0.1"), host: &Host{HostInfo: l.state.Hosts[0]}}
	to := demoContainer{addr4: netip.MustParseAddr("10.9.2.1")}
	if got := strings.Join(l.nodePath(hops(out), from, to), " > "); got != "host1 > ? > host2 > 192.0.2.7" {
		t.Errorf("path: %s", got)
	}
	for line, want := range map[string]string{
		"[::ffff:10.9.1.2]:43210: response:200": "10.9.1.2",
		"[fd09:0:0:1::2]:43210: response:200":   "fd09:0:0:1::2",
		"10.9.1.2:43210: response:404":          "10.9.1.2",
	} {
		if m := visitor.FindStringSubmatch(line); m == nil || m[1] != want {
			t.Errorf("%s: got %q", line, m)
		}
	}
}

func TestDemoText(t *testing.T) {
	x := crossing{
		from: "demo1", to: "demo3", rtt4: 81 * time.Microsecond, seenAs: netip.MustParseAddr("10.9.1.2"),
		path: []string{"host1", "router", "host3"},
	}
	a := demoContainer{name: "demo1", host: &Host{HostInfo: newHost(Flat, 1, 2)}, addr4: x.seenAs}
	b := demoContainer{name: "demo3", host: &Host{HostInfo: newHost(Flat, 3, 3)}, addr4: netip.MustParseAddr("10.9.3.254")}
	table := newCrossingTable([]demoContainer{a, b})
	want := "FROM   TO     SEEN AS     IPv4 RTT  IPv6 RTT  PATH\n" +
		"demo1  demo3  10.9.1.2    0.08 ms   -         host1 > router > host3"
	if diff := cmp.Diff(want, table.head()+"\n"+table.row(x)); diff != "" {
		t.Error(diff)
	}
	for line := range strings.Lines(table.row(x) + "\n" + whatNext("sudo bin/fairway", []demoContainer{a, b}, true)) {
		if len(line) > width {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
	if err := verdict([]crossing{x}, []demoContainer{a, b}); err != nil {
		t.Error(err)
	}
	x.seenAs = netip.MustParseAddr("10.77.0.11")
	if err := verdict([]crossing{x}, []demoContainer{a, b}); err == nil || !strings.Contains(err.Error(), "saw 10.77.0.11") {
		t.Errorf("a masqueraded packet passes: %v", err)
	}
}

func TestStatusText(t *testing.T) {
	s := Status{
		Dir: "/run/fairway-lab", Topology: TwoSegments, Since: time.Now(),
		Hosts: []HostStatus{
			{
				HostInfo: HostInfo{Name: "host99", Number: 99, Rootfs: "/srv/a/very/long/path/to/tree", NICs: newHost(TwoSegments, 99, 99).NICs},
				Engine:   "20.10.24", Agent: AgentNotReady, Links: map[string]string{"eth0": LinkSilent}, Containers: 1000,
				Trouble: []string{"the agent is not ready"},
			},
			{HostInfo: newRouter(), Agent: AgentReady, Links: map[string]string{"eth0": LinkUp, "eth1": LinkDown}},
		},
	}
	var b bytes.Buffer
	if err := s.Write(&b); err != nil {
		t.Fatal(err)
	}
	_, got, _ := strings.Cut(b.String(), "\n\n")
	want := `HOST    ADDRESS      LINK     ENGINE    ROOTFS          AGENT      CONTAINERS
host99  10.77.2.109  silent   20.10.24  ..path/to/tree  not ready  1000
router  10.77.1.1    up,down  -         -               ready      -

host99: the agent is not ready
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for line := range strings.Lines(b.String()) {
		if len(line) > width+1 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
}

func TestPrinter(t *testing.T) {
	var b bytes.Buffer
	p := NewPrinter(&b, false)
	p.Show(Event{Subject: "host1", Step: "starting engine"})
	p.Show(Event{Subject: "host1", Step: "ready", Done: true})
	p.Close()
	if got, want := b.String(), "host1: starting engine\nhost1: ready\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	b.Reset()
	p = NewPrinter(&b, true)
	p.Show(Event{Subject: "host1", Step: "starting engine"})
	p.Show(Event{Subject: "host1", Step: "ready", Done: true})
	p.Close()
	if got := b.String(); !strings.Contains(got, "\r\x1b[Khost1: ready\n") || strings.Contains(got, "engine\n") {
		t.Errorf("on a terminal: %q", got)
	}
}

func TestJobs(t *testing.T) {
	boom := errors.New("boom")
	j := newJobs(t.Context())
	j.add(func(ctx context.Context) error { <-ctx.Done(); return fmt.Errorf("cut short: %w", ctx.Err()) })
	j.add(func(context.Context) error { return boom })
	if err := j.wait(); !errors.Is(err, boom) || errors.Is(err, context.Canceled) {
		t.Errorf("want only the cause, got %v", err)
	}
}

func TestPoll(t *testing.T) {
	not := errors.New("not yet")
	n := 0
	if err := poll(t.Context(), time.Minute, func(context.Context) error {
		if n++; n < 3 {
			return not
		}
		return nil
	}); err != nil || n != 3 {
		t.Errorf("%d tries, %v", n, err)
	}
	err := poll(t.Context(), 30*time.Millisecond, func(context.Context) error { return not })
	if !errors.Is(err, not) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("want the last error and the time out, got %v", err)
	}
}
