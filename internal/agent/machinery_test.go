package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"fairway/internal/cnm"
	"fairway/internal/fabric"
	"fairway/internal/kernel"
	"fairway/internal/kernel/nft"
	"fairway/internal/kernel/rtnl"
	"fairway/internal/nettest"
	"fairway/internal/plan"
)

// host is a node in a namespace: the tables, fed by the kernel's own events.
type host struct {
	*machinery
	ns    *nettest.Namespace
	dirty chan struct{}
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{ns: nettest.New(t), dirty: make(chan struct{}, 1)}
	log := slog.New(slog.DiscardHandler)
	rt, err := rtnl.Open(rtnl.Config{Log: log, Namespace: h.ns.FD(), ProcSys: procSys(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rt.Close)
	fw, err := nft.Open(nft.Config{Log: log, Namespace: h.ns.FD()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fw.Close)
	h.machinery = newMachinery(log, rt, fw)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	subscribed := make(chan struct{}, 1)
	go func() {
		defer close(done)
		_ = rt.Watch(ctx, func(e rtnl.Event) {
			if e.Lost {
				select {
				case subscribed <- struct{}{}:
				default:
				}
			}
			if h.observe(e) {
				select {
				case h.dirty <- struct{}{}:
				default:
				}
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	<-subscribed
	return h
}

// procSys stands in for the namespace's /proc/sys, which only a process inside it can see: writing the real one would
// change the machine's own namespace. internal/kernel/rtnl tests the real files.
func procSys(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/fwaabbccddeeff/disable_ipv6"} {
		path := filepath.Join(dir, key)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("0\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// pass applies and returns what was set or deleted, by table.
func (h *host) pass(t *testing.T, s kernel.State) map[string]int {
	t.Helper()
	reports, failed, links := h.apply(t.Context(), s, true)
	for _, r := range reports {
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
	}
	if len(failed)+len(links) > 0 {
		t.Fatalf("failed %v %v", failed, links)
	}
	did := map[string]int{}
	for _, r := range reports {
		if n := r.Set + r.Deleted; n > 0 {
			did[r.Name] = n
		}
	}
	return did
}

func container() (plan.Input, cnm.Endpoint) {
	e := cnm.Endpoint{
		ID: "aabbccddeeff0011", Network: "net1", State: cnm.Joined, MAC: kernel.MAC{2, 0, 0, 0, 0, 9},
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.9.0.2/32"), netip.MustParsePrefix("fd09::2/128")},
		Extra: []netip.Addr{netip.MustParseAddr("192.0.2.7")},
	}
	n := cnm.Network{ID: "net1", Mode: cnm.Routed, Subnets: []cnm.Subnet{
		{Prefix: netip.MustParsePrefix("10.9.0.0/16"), Gateway: netip.MustParseAddr("10.9.0.1")},
		{Prefix: netip.MustParsePrefix("fd09::/64"), Gateway: netip.MustParseAddr("fd09::1")},
	}}
	return plan.Input{
		Node: plan.Node{Docker: true, MTU: 1400}, Networks: []cnm.Network{n},
		Blocks: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/26")},
	}, e
}

func TestNodeInANamespace(t *testing.T) {
	h := newHost(t)
	box := nettest.New(t)
	key := filepath.Join(t.TempDir(), "sandbox")
	box.Bind(key)
	in, e := container()
	e.Sandbox = key
	in.Endpoints = []cnm.Endpoint{e}
	want := plan.Compute(in).State
	h.ns.IP("route add 10.50.0.0/16 dev lo proto static")

	h.pass(t, want)
	plug(t, h.ns, box, e)
	nettest.Eventually(t, func() string {
		h.pass(t, want)
		if got := box.IP("neigh show"); !strings.Contains(got, "10.9.0.1 dev eth0 lladdr 02:fa:18:fa:18:01 PERMANENT") {
			return "neighbours of the container: " + got
		}
		if got := box.IP("addr show dev eth0"); !strings.Contains(got, "192.0.2.7/32") {
			return "addresses of the container: " + got
		}
		return ""
	})
	reaches(t, box, "10.9.0.1")
	reaches(t, box, "fd09::1")
	reaches(t, h.ns, "192.0.2.7")

	t.Run("a second pass does nothing", func(t *testing.T) {
		// The kernel's last word about the container's end may come after the first pass.
		nettest.Eventually(t, func() string {
			if did := h.pass(t, want); len(did) > 0 {
				return fmt.Sprintf("did %v", did)
			}
			return ""
		})
		h.invalidate()
		if did := h.pass(t, want); len(did) > 1 || did["sandboxes"] != len(did) {
			t.Errorf("after a full resync did %v; only sandboxes, which are set without being listed, may be set again", did)
		}
	})
	for _, gone := range []string{
		"route del 10.9.0.2/32 dev " + e.LinkName(), "-6 route del fd09::2/128 dev " + e.LinkName(),
		"addr del 10.9.0.1/32 dev " + e.LinkName(), "neigh del 10.9.0.2 dev " + e.LinkName(),
		"link set " + e.LinkName() + " mtu 1300", "link set " + e.LinkName() + " down", "route del blackhole 10.9.0.0/26",
	} {
		t.Run("ip "+gone, func(t *testing.T) {
			drain(h.dirty)
			h.ns.IP(gone)
			<-h.dirty
			nettest.Eventually(t, func() string {
				h.pass(t, want)
				return missing(t, h, want)
			})
			reaches(t, h.ns, "10.9.0.2")
		})
	}
	t.Run("a deleted veth is plugged in again", func(t *testing.T) {
		h.ns.IP("link del " + e.LinkName())
		nettest.Eventually(t, func() string {
			h.pass(t, want)
			return missing(t, h, want)
		})
		reaches(t, box, "10.9.0.1")
		reaches(t, box, "fd09::1")
	})
	t.Run("nothing wanted", func(t *testing.T) {
		h.pass(t, kernel.NewState())
		if got := h.ns.IP("-o link show") + h.ns.IP("route show table all proto 200"); strings.Contains(got, "fw") || strings.Contains(got, "10.9") {
			t.Errorf("left over: %s", got)
		}
		if got := h.ns.IP("route show proto static"); !strings.Contains(got, "10.50.0.0/16") {
			t.Errorf("a stranger's route is gone: %q", got)
		}
	})
}

func TestLearnedRoutesStayUntilAllHaveReported(t *testing.T) {
	h := newHost(t)
	out := nettest.New(t)
	nettest.Veth(t, h.ns, "eth0", out, "eth0")
	h.ns.IP("addr add 10.77.0.11/24 dev eth0")
	h.ns.IP("route add 10.9.2.0/24 via 10.77.0.12 proto 200 metric 200")
	h.ns.IP("route add blackhole 10.9.1.0/24 proto 200 metric 200")
	h.apply(t.Context(), kernel.NewState(), false)
	if got := h.ns.IP("route show proto 200"); !strings.Contains(got, "10.9.2.0/24") || strings.Contains(got, "10.9.1.0/24") {
		t.Errorf("before all have reported: %q; want the learned route kept, and our own block, which nobody wants, gone", got)
	}
	h.apply(t.Context(), kernel.NewState(), true)
	if got := h.ns.IP("route show proto 200"); got != "" {
		t.Errorf("afterwards: %q", got)
	}
}

// plug does what the engine does after Join.
func plug(t *testing.T, node, box *nettest.Namespace, e cnm.Endpoint) {
	t.Helper()
	node.IP("link set " + e.PeerName() + " netns " + box.Path() + " name eth0")
	box.IP("addr add 10.9.0.2/32 dev eth0")
	box.IP("addr add fd09::2/128 dev eth0 nodad")
	box.IP("link set eth0 up")
	box.IP("route add 10.9.0.1 dev eth0")
	box.IP("route add default via 10.9.0.1")
	box.IP("-6 route add fd09::1 dev eth0")
	box.IP("-6 route add default via fd09::1")
}

// missing compares the kernel, freshly listed, with what is wanted.
func missing(t *testing.T, h *host, want kernel.State) string {
	t.Helper()
	links, err := h.rt.Links().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, l := range want.Links {
		if have, ok := links[name]; !ok || !kernel.LinkEqual(l, have) {
			return "link " + name
		}
	}
	routes, err := h.rt.Routes().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for k, r := range want.Routes {
		if have, ok := routes[k]; !ok || !kernel.RouteEqual(r, have) {
			return "route " + kernel.RouteText(k, r)
		}
	}
	addrs, err := h.rt.Addrs().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	neighs, err := h.rt.Neighs().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for k := range want.Addrs {
		if _, ok := addrs[k]; !ok {
			return "address " + k.Prefix.String()
		}
	}
	for k, mac := range want.Neighs {
		if neighs[k] != mac {
			return "neighbour " + k.IP.String()
		}
	}
	return ""
}

func reaches(t *testing.T, from *nettest.Namespace, to string) {
	t.Helper()
	nettest.Eventually(t, func() string {
		if out, err := from.Command("ping", "-c", "1", "-W", "1", to); err != nil {
			return "ping " + to + ": " + out + err.Error()
		}
		return ""
	})
}

func drain(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}

// late is a fabric whose last source reports while the snapshot of a pass is taken.
type late struct {
	*fabric.Silent
	converged atomic.Bool
}

func (l *late) Status() fabric.Status {
	st := l.Silent.Status()
	st.Converged = l.converged.Load()
	return st
}

func TestWhatIsReportedDuringASnapshotIsNotMissed(t *testing.T) {
	h := newHost(t)
	out := nettest.New(t)
	nettest.Veth(t, h.ns, "eth0", out, "eth0")
	h.ns.IP("addr add 10.77.0.11/24 dev eth0")
	h.ns.IP("route add 10.9.2.0/24 via 10.77.0.12 proto 200 metric 200")
	f := &late{Silent: fabric.NewSilent("late")}
	l := newLoop(slog.New(slog.DiscardHandler))
	l.kern, l.fab = h.machinery, func() fabric.Fabric { return f }
	l.input = func(ctx context.Context) (plan.Input, error) {
		facts, err := h.readFacts(ctx)
		f.converged.Store(true)
		return plan.Input{Facts: facts}, err
	}
	l.pass(t.Context())
	if got := h.ns.IP("route show proto 200"); !strings.Contains(got, "10.9.2.0/24") {
		t.Errorf("the route of an earlier run is gone: %q; its peer had told it by now", got)
	}
	l.pass(t.Context())
	if got := h.ns.IP("route show proto 200"); got != "" {
		t.Errorf("after a whole pass nobody wants %q", got)
	}
}
