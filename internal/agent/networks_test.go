package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fairway/internal/cluster"
	"fairway/internal/cnm"
	"fairway/internal/config"
	"fairway/internal/engine"
	"fairway/internal/ipam"
	"fairway/internal/store"
)

// dockerd answers as an engine does, as far as networks go. It asks no driver.
type dockerd struct {
	mu       sync.Mutex
	serial   int
	networks map[string]map[string]any // by ID
	onNet    map[string]string         // container to network ID
	broken   string                    // why nothing can be made or removed; "": it can
	created  int
}

func newDockerd(t *testing.T) (*dockerd, *engine.Client) {
	t.Helper()
	d := &dockerd{networks: map[string]map[string]any{}, onNet: map[string]string{}}
	socket := filepath.Join(t.TempDir(), "docker.sock")
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(d)
	_ = s.Listener.Close()
	s.Listener = ln
	s.Start()
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections)
	return d, engine.New(socket)
}

func (d *dockerd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/v1.45")
	id := strings.TrimPrefix(path, "/networks/")
	switch {
	case path == "/_ping":
		w.Header().Set("Api-Version", "1.45")
	case path == "/networks":
		list := []any{}
		for _, n := range d.networks {
			if n["Driver"] == "fairway" {
				list = append(list, n)
			}
		}
		answer(w, http.StatusOK, list)
	case path == "/containers/json":
		list := []any{}
		for name, id := range d.onNet {
			list = append(list, map[string]any{
				"Id": name, "Names": []string{"/" + name}, "State": "running",
				"NetworkSettings": map[string]any{"Networks": map[string]any{"n": map[string]any{"NetworkID": id, "EndpointID": "e"}}},
			})
		}
		answer(w, http.StatusOK, list)
	case d.broken != "" && r.Method != http.MethodGet:
		answer(w, http.StatusInternalServerError, map[string]string{"message": d.broken})
	case path == "/networks/create":
		d.create(w, r)
	case r.Method == http.MethodDelete:
		delete(d.networks, id)
		w.WriteHeader(http.StatusNoContent)
	case d.networks[id] != nil:
		answer(w, http.StatusOK, d.networks[id])
	default:
		answer(w, http.StatusNotFound, map[string]string{"message": "page not found"})
	}
}

func answer(w http.ResponseWriter, code int, v any) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

func (d *dockerd) create(w http.ResponseWriter, r *http.Request) {
	var n map[string]any
	if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"message": err.Error()})
		return
	}
	for _, o := range d.networks {
		if o["Name"] == n["Name"] {
			answer(w, http.StatusConflict, map[string]string{"message": fmt.Sprintf("network with name %v already exists", n["Name"])})
			return
		}
	}
	d.created++
	answer(w, http.StatusCreated, map[string]string{"Id": d.add(n)})
}

func (d *dockerd) add(n map[string]any) string {
	d.serial++
	id := fmt.Sprintf("%064d", d.serial)
	n["Id"] = id
	d.networks[id] = n
	return id
}

// made are the networks by name.
func (d *dockerd) made() map[string]map[string]any {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string]map[string]any{}
	for _, n := range d.networks {
		out[n["Name"].(string)] = n
	}
	return out
}

func (d *dockerd) do(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// member is an agent with a cluster of one node, whose store is a file.
type member struct {
	t *testing.T
	*Agent
	c      *cluster.Cluster
	shared *store.Local
	dock   *dockerd
	lost   atomic.Value // the ID of a network that the book has lost
}

func newMember(t *testing.T) *member {
	t.Helper()
	open := func(name string) *store.Local {
		l, err := store.Open(filepath.Join(t.TempDir(), name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	cfg := config.Default()
	m := &member{t: t, shared: open("shared.db")}
	local := open("fairway.db")
	m.Agent = New(Options{Config: cfg, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Version: "test"})
	book, err := cnm.Load(t.Context(), local, ipam.Options{Now: time.Now}, cnm.Node{})
	if err != nil {
		t.Fatal(err)
	}
	m.book = book
	m.networks.inBook = func(id string) bool { return id != m.lost.Load() } // the engine here asks no driver
	m.c = cluster.New(cluster.Config{
		Store: m.shared, Where: "a file", Local: local, Log: m.log, Changed: m.clusterChanged,
		Self: cluster.Node{Name: "a", Addr4: netip.MustParseAddr("192.0.2.1"), Docker: true},
	})
	if err := m.c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.cluster = m.c
	var client *engine.Client
	m.dock, client = newDockerd(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.c.Run(ctx) })
	wg.Go(func() { _ = m.networks.run(ctx, client) })
	t.Cleanup(wg.Wait)
	t.Cleanup(cancel)
	m.until("registered", func() bool { return m.c.Health().Registered })
	return m
}

func (m *member) until(what string, cond func() bool) {
	m.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !cond(); <-tick.C {
		if time.Now().After(end) {
			m.t.Fatalf("not yet: %s; networks %v, problems %v", what, m.dock.made(), m.networks.problems())
		}
	}
}

func (m *member) create(name, subnet string) {
	m.t.Helper()
	p := netip.MustParsePrefix(subnet)
	n := cluster.Network{Name: name, Subnets: []cluster.Subnet{{Prefix: p}}, Options: map[string]string{"mtu": "1400"}}
	if err := m.c.CreateNetwork(m.t.Context(), n, []cluster.Pool{{CIDR: p, BlockSize: 26}}); err != nil {
		m.t.Fatal(err)
	}
}

func (m *member) state(name string) cluster.NetworkState {
	return m.c.View().States[cluster.StateKey{Network: name, Node: "a"}].Value
}

func TestNetworksOfTheCluster(t *testing.T) {
	m := newMember(t)
	m.create("lan", "10.9.0.0/16")
	m.until("lan", func() bool { return m.state("lan").State == cluster.StateReady })
	lan := m.dock.made()["lan"]
	if opts := lan["Options"].(map[string]any); opts["network"] != "lan" || opts["mtu"] != "1400" || lan["Driver"] != "fairway" || m.state("lan").Docker != lan["Id"] {
		t.Errorf("made %v", lan)
	}

	// Removed by hand: it is there again, without anybody telling of it more than that something happened.
	m.dock.do(func() { delete(m.dock.networks, lan["Id"].(string)) })
	m.networks.wake()
	m.until("lan again", func() bool { return m.dock.made()["lan"] != nil })

	// Containers are on it: it stays, and says so; and goes when they have gone.
	id := m.dock.made()["lan"]["Id"].(string)
	m.dock.do(func() { m.dock.onNet["web"] = id })
	if err := m.c.RemoveNetwork(t.Context(), "lan"); err != nil {
		t.Fatal(err)
	}
	m.until("in use", func() bool {
		s := m.state("lan")
		return s.State == cluster.StateInUse && strings.Contains(s.Problem, "web") && len(m.networks.problems()) == 1
	})
	m.dock.do(func() { delete(m.dock.onNet, "web") })
	m.networks.wake()
	m.until("no lan anywhere", func() bool {
		return len(m.dock.made()) == 0 && len(m.c.View().Networks) == 0 && len(m.c.View().Pools) == 0
	})
	m.until("no problem", func() bool { return len(m.networks.problems()) == 0 })
}

func TestNetworkInTheWay(t *testing.T) {
	m := newMember(t)
	var other string
	m.dock.do(func() { other = m.dock.add(map[string]any{"Name": "lan", "Driver": "bridge"}) })
	m.dock.do(func() {
		m.dock.add(map[string]any{
			"Name": "mine", "Driver": "fairway", "Options": map[string]string{"network": "wan", "mtu": "1280"},
			"IPAM": map[string]any{"Driver": "fairway", "Config": []any{map[string]string{"Subnet": "10.10.0.0/16"}}},
		})
		m.dock.add(map[string]any{
			"Name": "ok", "Driver": "fairway", "Options": map[string]string{"network": "man", "mtu": "1400"},
			"IPAM": map[string]any{"Driver": "fairway", "Config": []any{map[string]string{"Subnet": "10.11.0.0/16"}}},
		})
	})
	m.create("lan", "10.9.0.0/16")
	m.create("wan", "10.10.0.0/16")
	m.create("man", "10.11.0.0/16")
	m.until("lan is in conflict", func() bool {
		return m.state("lan").State == cluster.StateConflict && strings.Contains(m.state("lan").Problem, "another Docker network")
	})
	m.until("wan is in conflict", func() bool {
		return m.state("wan").State == cluster.StateConflict && strings.Contains(m.state("wan").Problem, "mtu is 1280, the cluster's is 1400")
	})
	m.until("man is taken as it is", func() bool { return m.state("man").State == cluster.StateReady && m.state("man").Problem == "" })
	m.dock.do(func() { delete(m.dock.networks, other) })
	m.networks.wake()
	m.until("lan is made", func() bool { return m.state("lan").State == cluster.StateReady })
	m.dock.do(func() { m.dock.broken = "out of order" })
	m.create("last", "10.12.0.0/16")
	m.until("last has failed", func() bool {
		s := m.state("last")
		return s.State == cluster.StateFailed && s.Problem == "out of order"
	})
	m.dock.do(func() { m.dock.broken = "" })
	m.until("last is made without anybody's doing", func() bool { return m.state("last").State == cluster.StateReady && m.state("last").Problem == "" })
}

// A Docker network that is there while the node's state file was lost is made again, once nothing uses it.
func TestNetworkOutlivesItsRecord(t *testing.T) {
	m := newMember(t)
	m.create("lan", "10.9.0.0/16")
	m.until("lan", func() bool { return m.state("lan").State == cluster.StateReady })
	was := m.state("lan").Docker
	m.dock.do(func() { m.dock.onNet["web"] = was })
	m.lost.Store(was)
	m.networks.wake()
	m.until("it is said who is in the way", func() bool {
		s := m.state("lan")
		return s.State == cluster.StateFailed && strings.Contains(s.Problem, "state file was lost") && strings.Contains(s.Problem, "web")
	})
	m.dock.do(func() { delete(m.dock.onNet, "web") })
	m.networks.wake()
	m.until("it is made again", func() bool {
		s := m.state("lan")
		return s.State == cluster.StateReady && s.Docker != was && m.dock.made()["lan"]["Id"] == s.Docker
	})
}

// Records that the store has lost are written again; networks that were removed while the node was away go.
func TestNetworksLostAndLeft(t *testing.T) {
	m := newMember(t)
	m.create("lan", "10.9.0.0/16")
	m.until("lan", func() bool { return m.state("lan").State == cluster.StateReady })
	m.until("it is known on disk", func() bool { k, err := m.c.KnownNetworks(t.Context()); return err == nil && len(k) == 1 })
	lose := store.Txn{Delete: []string{cluster.NetworkKey("lan"), cluster.PoolKey(netip.MustParsePrefix("10.9.0.0/16")), cluster.StateKey{Network: "lan", Node: "a"}.String()}}
	before := m.c.View().Networks["lan"].Created
	if _, err := m.shared.Commit(t.Context(), lose); err != nil {
		t.Fatal(err)
	}
	m.until("lan is recorded again", func() bool { return m.c.View().Networks["lan"].Created > before && len(m.c.View().Pools) == 1 })
	m.until("and ready", func() bool { return m.state("lan").State == cluster.StateReady })
	if m.dock.created != 1 {
		t.Errorf("the Docker network was made %d times", m.dock.created)
	}
	m.dock.do(func() {
		m.dock.add(map[string]any{"Name": "gone", "Driver": "fairway", "Options": map[string]string{"network": "gone"}})
		m.dock.add(map[string]any{"Name": "by-hand", "Driver": "fairway", "Options": map[string]string{"mtu": "1400"}})
	})
	m.networks.wake()
	m.until("what is left of a removed network goes", func() bool { return m.dock.made()["gone"] == nil })
	if all := m.dock.made(); all["lan"] == nil || all["by-hand"] == nil {
		t.Errorf("too much went: %v left", all)
	}
}
