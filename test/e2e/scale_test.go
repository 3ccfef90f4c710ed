package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Many containers started at once on one host: all start, none has another one's address, all are reached from another
// host.
func TestManyAtOnce(t *testing.T) {
	s := newSite(t)
	s.network("net")
	n := 40
	if full() {
		n = 200
	}
	h, far := s.hosts[2], s.hosts[0].run("far", "--network", "net")
	before := h.agentMemory()
	start := time.Now()
	list := make([]*container, n)
	failed := atOnce(n, 20, func(i int) (err error) {
		list[i], err = h.tryRun(fmt.Sprintf("many%d", i), "--network", "net")
		return err
	})
	t.Logf("measured: %s: %d containers started 20 at a time in %v: %d failed", h, n, time.Since(start).Round(100*time.Millisecond), len(failed))
	for i, err := range failed {
		t.Fatalf("container %d: %v", i, err)
	}
	unique := map[netip.Addr]string{}
	var targets []string
	for _, c := range list {
		for _, a := range c.addrs() {
			if other, twice := unique[a]; twice {
				t.Errorf("%s is given to %s and to %s", a, other, c)
			}
			unique[a] = c.name
			targets = append(targets, a.String())
		}
	}
	if len(unique) != 2*n {
		t.Errorf("%d containers have %d addresses, want an IPv4 and an IPv6 one each", n, len(unique))
	}
	// One shell pings them all: a command for each would take longer than the packets.
	script := "for a in " + strings.Join(targets, " ") + "; do ping -n -c 1 -W 2 $a >/dev/null || echo $a; done"
	if lost := far.mustNet("sh", "-c", script); lost != "" {
		t.Errorf("not reached from %s: %s", far, lost)
	}
	t.Logf("measured: %s: the agent's resident memory: %d kB idle, %d kB with %d containers", h, before, h.agentMemory(), n)
	if st := h.status(); st.Containers != n || st.Bad() {
		t.Errorf("status has %d containers, want %d; conditions %+v", st.Containers, n, st.Conditions)
	}
	start = time.Now()
	failed = atOnce(n, 20, func(i int) error {
		_, err := h.try("docker", "rm", "-f", fmt.Sprintf("many%d", i))
		return err
	})
	t.Logf("measured: %s: %d containers removed 20 at a time in %v: %d failed", h, n, time.Since(start).Round(100*time.Millisecond), len(failed))
	eventually(t, leakLimit, h.noLeaks)
}

var resident = regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB`)

// agentMemory is the resident memory of the host's agent, in kB.
func (h *host) agentMemory() int {
	h.t.Helper()
	pid, err := h.AgentPID(h.ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	status, err := os.ReadFile(filepath.Join(h.Path("/proc"), strconv.Itoa(pid), "status"))
	if err != nil {
		h.t.Fatal(err)
	}
	m := resident.FindSubmatch(status)
	if m == nil {
		h.t.Fatalf("%s: no memory in %s", h, status)
	}
	kB, err := strconv.Atoi(string(m[1]))
	if err != nil {
		h.t.Fatal(err)
	}
	return kB
}

// A thousand endpoints on one network of one node, by the engine's requests but without containers: their sandboxes are
// network namespaces that nobody runs in. The engine is stopped, or the agent would take them for leaks.
func TestThousandEndpoints(t *testing.T) {
	s := newSite(t)
	h := s.hosts[1]
	n := 150
	if full() {
		n = 1000
	}
	if err := h.StopEngine(h.ctx); err != nil {
		t.Fatal(err)
	}
	d := newBareNetwork(t, h, "10.44.0.0/16", "10.44.0.0/20", n)
	addrs, took := make([]netip.Prefix, n), make([]time.Duration, n)
	start := time.Now()
	failed := atOnce(n, 4, func(i int) (err error) {
		begin := time.Now()
		addrs[i], err = d.join(i)
		took[i] = time.Since(begin)
		if err != nil {
			return err
		}
		return d.plug(i, addrs[i])
	})
	for i, err := range failed {
		t.Fatalf("endpoint %d: %v", i, err)
	}
	all := time.Since(start)
	slices.Sort(took)
	t.Logf("measured: %s: %d endpoints 4 at a time in %v; RequestAddress, CreateEndpoint and Join together: median %v, slowest %v; agent's memory %d kB",
		h, n, all.Round(time.Millisecond), took[n/2].Round(10*time.Microsecond), took[n-1].Round(10*time.Microsecond), h.agentMemory())
	unique := slices.Clone(addrs)
	slices.SortFunc(unique, netip.Prefix.Compare)
	if len(slices.Compact(unique)) != n {
		t.Errorf("addresses are given out twice")
	}
	if lost := d.unreached(addrs); lost != "" {
		t.Errorf("not reached: %s", lost)
	}
	d.counts(n)
	restart := time.Now()
	if err := h.restartAgent(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	t.Logf("measured: %s: agent with %d endpoints restarted and ready in %v", h, n, time.Since(restart).Round(time.Millisecond))
	if lost := d.unreached(addrs); lost != "" {
		t.Errorf("not reached after the restart: %s", lost)
	}
	for i, err := range atOnce(n, 4, func(i int) error { return d.leave(i, addrs[i]) }) {
		t.Fatalf("endpoint %d: %v", i, err)
	}
	d.remove()
	if err := h.StartEngine(h.ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, leakLimit, h.noLeaks)
}

// bareNetwork is a network that the driver has and no engine.
type bareNetwork struct {
	h        *host
	id, pool string
	sandbox  string // directory of the sandboxes
}

func newBareNetwork(t *testing.T, h *host, subnet, part string, sandboxes int) *bareNetwork {
	t.Helper()
	d := &bareNetwork{h: h, id: strings.Repeat("e2", 32), sandbox: "/run/netns-e2e"}
	var pool struct{ PoolID string }
	d.must("IpamDriver.RequestPool", map[string]any{"AddressSpace": "fairway", "Pool": subnet, "SubPool": part}, &pool)
	d.pool = pool.PoolID
	var gateway struct{ Address string }
	d.must("IpamDriver.RequestAddress", map[string]any{
		"PoolID": d.pool, "Options": map[string]string{"RequestAddressType": "com.docker.network.gateway"},
	}, &gateway)
	d.must("NetworkDriver.CreateNetwork", map[string]any{
		"NetworkID": d.id, "Options": map[string]any{"com.docker.network.enable_ipv6": false},
		"IPv4Data": []map[string]any{{"AddressSpace": "fairway", "Gateway": gateway.Address, "Pool": subnet}}, "IPv6Data": []any{},
	}, nil)
	h.must("sh", "-c", fmt.Sprintf("mkdir -p %s && cd %s && for i in $(seq 0 %d); do touch $i; unshare --net=$i true || exit 1; done",
		d.sandbox, d.sandbox, sandboxes-1))
	t.Cleanup(func() {
		h.ctx = context.Background() // the test's has ended
		h.must("sh", "-c", "umount "+d.sandbox+"/*; rm -r "+d.sandbox)
	})
	return d
}

func (d *bareNetwork) must(method string, request, reply any) {
	d.h.t.Helper()
	if err := d.h.driverCall(d.h.ctx, method, request, reply); err != nil {
		d.h.t.Fatal(err)
	}
}

// endpoint is an endpoint's ID; its first 12 digits tell endpoints apart.
func endpoint(i int) string { return fmt.Sprintf("%012x%052x", 0xe2e00000+i, i) }

// join does what an engine does at a container's start.
func (d *bareNetwork) join(i int) (netip.Prefix, error) {
	var given struct{ Address string }
	if err := d.h.driverCall(d.h.ctx, "IpamDriver.RequestAddress", map[string]any{"PoolID": d.pool}, &given); err != nil {
		return netip.Prefix{}, err
	}
	ids := map[string]any{"NetworkID": d.id, "EndpointID": endpoint(i)}
	create := map[string]any{"Interface": map[string]string{"Address": given.Address}, "Options": map[string]any{}}
	maps.Copy(create, ids)
	if err := d.h.driverCall(d.h.ctx, "NetworkDriver.CreateEndpoint", create, nil); err != nil {
		return netip.Prefix{}, err
	}
	join := map[string]any{"SandboxKey": fmt.Sprintf("%s/%d", d.sandbox, i), "Options": map[string]any{}}
	maps.Copy(join, ids)
	if err := d.h.driverCall(d.h.ctx, "NetworkDriver.Join", join, nil); err != nil {
		return netip.Prefix{}, err
	}
	return netip.ParsePrefix(given.Address)
}

// plug moves the interface into the sandbox and configures it, as the engine does after Join.
func (d *bareNetwork) plug(i int, addr netip.Prefix) error {
	sandbox := fmt.Sprintf("%s/%d", d.sandbox, i)
	_, err := d.h.try("sh", "-ec", fmt.Sprintf("ip link set fv%s netns %s name eth0; exec nsenter --net=%s ip -batch -", endpoint(i)[:12], sandbox, sandbox)+
		fmt.Sprintf(" <<END\nlink set eth0 up\naddress add %s dev eth0\nroute add 10.44.0.1 dev eth0\nroute add default via 10.44.0.1\nEND", addr))
	return err
}

// unreached are the addresses that do not answer the node.
func (d *bareNetwork) unreached(addrs []netip.Prefix) string {
	d.h.t.Helper()
	var b strings.Builder
	for _, a := range addrs {
		fmt.Fprintf(&b, "ping -n -c 1 -W 2 %s >/dev/null || echo %s\n", a.Addr(), a.Addr())
	}
	ctx, cancel := context.WithTimeout(d.h.ctx, commandLimit)
	defer cancel()
	cmd := d.h.Command(ctx, "sh")
	cmd.Stdin = strings.NewReader(b.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.h.t.Fatalf("%s: ping all: %v", d.h, err)
	}
	return string(out)
}

// counts looks at how much is in the kernel.
func (d *bareNetwork) counts(n int) {
	d.h.t.Helper()
	for _, c := range []struct{ what, command string }{
		{"links", "ip -o link show | grep -c ': fw[0-9a-f]'"},
		{"routes", "ip route show proto 200 scope link | wc -l"},
		{"permanent neighbours", "ip neighbour show nud permanent | wc -l"},
	} {
		if got := d.h.must("sh", "-c", c.command); got != strconv.Itoa(n) {
			d.h.t.Errorf("%s: %s %s, want %d", d.h, got, c.what, n)
		}
	}
}

// leave does what an engine does at a container's end; the sandbox, which the interface would come back from, is kept.
func (d *bareNetwork) leave(i int, addr netip.Prefix) error {
	ids := map[string]any{"NetworkID": d.id, "EndpointID": endpoint(i)}
	for _, method := range []string{"NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint"} {
		if err := d.h.driverCall(d.h.ctx, method, ids, nil); err != nil {
			return err
		}
	}
	return d.h.driverCall(d.h.ctx, "IpamDriver.ReleaseAddress", map[string]any{"PoolID": d.pool, "Address": addr.Addr().String()}, nil)
}

func (d *bareNetwork) remove() {
	d.h.t.Helper()
	d.must("IpamDriver.ReleaseAddress", map[string]any{"PoolID": d.pool, "Address": "10.44.0.1"}, nil)
	d.must("IpamDriver.ReleasePool", map[string]any{"PoolID": d.pool}, nil)
	d.must("NetworkDriver.DeleteNetwork", map[string]any{"NetworkID": d.id}, nil)
}
