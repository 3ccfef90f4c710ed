package cluster_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"fairway/internal/cluster"
	"fairway/internal/store"
	"fairway/internal/store/etcd"
	"fairway/internal/store/etcdtest"
)

// ttl is after how long a node that was killed is no longer alive.
const ttl = 3 * time.Second

// patience is how long a test waits for what is to happen soon.
const patience = 30 * time.Second

// machine is what stays of a node when its agent is gone: its disk, its name and its address.
type machine struct {
	dir  string
	name string
	addr string
	etcd string
	wrap func(store.Store) store.Store // nil: the store as it is

	drained func() (cluster.Drain, bool) // that its disk knows of
}

func newMachine(t *testing.T, srv *etcdtest.Server, name, addr string) machine {
	t.Helper()
	return machine{dir: t.TempDir(), name: name, addr: addr, etcd: srv.Endpoint()}
}

// agent is one run of a node's agent, as far as the cluster sees it.
type agent struct {
	*cluster.Cluster
	t      *testing.T
	store  store.Store // that the agent uses
	local  *store.Local
	remote *etcd.Store
	cancel context.CancelFunc
	ended  chan error
}

// boot starts an agent; its error is that of Start.
func boot(t *testing.T, m machine) (*agent, error) {
	t.Helper()
	local, err := store.Open(filepath.Join(m.dir, "fairway.db"))
	if err != nil {
		t.Fatal(err)
	}
	remote, err := etcd.Open(etcd.Config{Endpoints: []string{m.etcd}, Prefix: "/fairway", TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	a := &agent{t: t, store: remote, local: local, remote: remote, cancel: cancel, ended: make(chan error, 1)}
	if m.wrap != nil {
		a.store = m.wrap(remote)
	}
	a.Cluster = cluster.New(cluster.Config{
		Store: a.store, Where: remote.Where(), Local: local, Drained: m.drained, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Self: cluster.Node{Name: m.name, Addr4: netip.MustParseAddr(m.addr), Fabric: "bgp", ASN: 64512, Docker: true, Version: "test"},
	})
	if err := a.Start(ctx); err != nil {
		cancel()
		a.ended <- nil
		a.kill()
		return nil, err
	}
	go func() { a.ended <- a.Run(ctx) }()
	t.Cleanup(a.kill)
	return a, nil
}

func mustBoot(t *testing.T, m machine) *agent {
	t.Helper()
	a, err := boot(t, m)
	if err != nil {
		t.Fatalf("start %s: %v", m.name, err)
	}
	return a
}

// kill ends the agent without a word to the store: what it wrote as alive stays until its time is over.
func (a *agent) kill() {
	if a.cancel == nil {
		return
	}
	a.cancel()
	if err := <-a.ended; err != nil && !errors.As(err, new(*cluster.NameTakenError)) {
		a.t.Errorf("the run ended with %v", err)
	}
	a.cancel = nil
	if err := errors.Join(a.remote.Close(), a.local.Close()); err != nil {
		a.t.Error(err)
	}
}

// await polls until the condition holds.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		<-tick.C
	}
}

// sees waits until the agent's cache has what the condition asks for.
func (a *agent) sees(what string, cond func(v *cluster.View) bool) {
	a.t.Helper()
	await(a.t, what, func() bool { return cond(a.View()) })
}

func (a *agent) registered() {
	a.t.Helper()
	await(a.t, a.Name()+" is registered", func() bool { return a.Health().Registered })
}

// write puts a record as somebody else would.
func (a *agent) write(key string, v any) {
	a.t.Helper()
	text, err := cluster.Encode(v)
	if err != nil {
		a.t.Fatal(err)
	}
	a.writeText(key, string(text))
}

func (a *agent) writeText(key, text string) {
	a.t.Helper()
	if _, err := a.remote.Commit(a.t.Context(), store.Txn{Put: map[string][]byte{key: []byte(text)}}); err != nil {
		a.t.Fatal(err)
	}
}

// hold gives a node a block of 10.9.0.0/16, as if it had claimed it.
func (a *agent) hold(n cluster.Node, cidr string) cluster.Block {
	a.t.Helper()
	b := cluster.Block{CIDR: netip.MustParsePrefix(cidr), Pool: netip.MustParsePrefix("10.9.0.0/16"), Node: n.Name, NodeID: n.ID, Claimed: time.Unix(1, 0).UTC()}
	a.write(b.Key(), b)
	return b
}

func network(name string, subnets ...string) (cluster.Network, []cluster.Pool) {
	n := cluster.Network{Name: name}
	var pools []cluster.Pool
	for _, s := range subnets {
		p := netip.MustParsePrefix(s)
		n.Subnets = append(n.Subnets, cluster.Subnet{Prefix: p})
		pools = append(pools, cluster.Pool{CIDR: p, BlockSize: 26})
	}
	return n, pools
}

func copyState(t *testing.T, from, to machine) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(from.dir, "fairway.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to.dir, "fairway.db"), text, 0o600); err != nil {
		t.Fatal(err)
	}
}
