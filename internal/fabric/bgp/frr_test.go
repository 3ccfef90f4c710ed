package bgp_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"fairway/internal/config"
)

const frrDir = "/usr/lib/frr/"

// frr is FRR's daemons in a namespace.
type frr struct {
	s       *space
	dir     string
	daemons map[string]*exec.Cmd
}

// startFRR runs zebra and further daemons with a config. FRR drops its privileges, so its directory must be its own.
func (s *space) startFRR(conf string, daemons ...string) *frr {
	s.t.Helper()
	dir, err := os.MkdirTemp("/tmp", "frr")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { os.RemoveAll(dir) })
	write(s.t, dir, "empty.conf", "")
	write(s.t, dir, "frr.conf", conf)
	write(s.t, dir, "vtysh.conf", "")
	sh(s.t, "chown -R frr:frr %s; chmod 755 %[1]s", dir)
	f := &frr{s: s, dir: dir, daemons: map[string]*exec.Cmd{}}
	for _, d := range append([]string{"zebra"}, daemons...) {
		f.run(d)
	}
	f.configure()
	return f
}

func (f *frr) run(daemon string) {
	f.s.t.Helper()
	cmd := f.s.command(frrDir+daemon, "-f", f.dir+"/empty.conf", "-i", f.dir+"/"+daemon+".pid", "-z", f.dir+"/zserv.api", "--vty_socket", f.dir)
	if err := cmd.Start(); err != nil {
		f.s.t.Fatal(err)
	}
	f.daemons[daemon] = cmd
	f.s.t.Cleanup(func() { f.kill(daemon) })
	eventually(f.s.t, daemon, func() error {
		_, err := os.Stat(f.dir + "/" + daemon + ".vty")
		return err
	})
}

func (f *frr) configure() {
	f.s.t.Helper()
	sh(f.s.t, "vtysh --config_dir %s --vty_socket %[1]s -f %[1]s/frr.conf", f.dir)
}

func (f *frr) kill(daemon string) {
	if cmd := f.daemons[daemon]; cmd != nil {
		cmd.Process.Kill()
		cmd.Wait()
		os.Remove(f.dir + "/" + daemon + ".vty")
		delete(f.daemons, daemon)
	}
}

func (f *frr) vtysh(command string) string {
	f.s.t.Helper()
	return sh(f.s.t, "vtysh --config_dir %s --vty_socket %[1]s -c '%s'", f.dir, command)
}

// has is a condition: FRR has a route of a family ("ip", "ipv6") from BGP over a next hop; "" means no route.
func (f *frr) has(family, prefix, hop string) func() error {
	return func() error {
		f.s.t.Helper()
		var routes map[string][]struct {
			Protocol string
			Nexthops []struct{ IP, InterfaceName string }
		}
		out := f.vtysh("show " + family + " route bgp json")
		if err := json.Unmarshal([]byte(out), &routes); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		got := routes[prefix]
		if hop == "" && len(got) == 0 || len(got) == 1 && len(got[0].Nexthops) == 1 && got[0].Nexthops[0].IP == hop {
			return nil
		}
		return fmt.Errorf("%s: %+v, want %q", prefix, got, hop)
	}
}

func requireFRR(t *testing.T) {
	t.Helper()
	requireTool(t, frrDir+"bgpd")
	requireTool(t, "vtysh")
}

const frrNumbered = `
bfd
 profile f
  transmit-interval 300
  receive-interval 300
  detect-multiplier 3
 exit
exit
router bgp 65002
 bgp router-id 10.77.0.2
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp graceful-restart
 bgp graceful-restart preserve-fw-state
 timers bgp 3 9
 neighbor 10.77.0.1 remote-as 64512
 neighbor 10.77.0.1 timers connect 2
 neighbor 10.77.0.1 password s3cret
 neighbor 10.77.0.1 bfd
 neighbor 10.77.0.1 bfd profile f
 address-family ipv4 unicast
  network 10.9.2.0/26
  network 172.30.0.0/16
 exit-address-family
 address-family ipv6 unicast
  network fd00:9:0:2::/64
  neighbor 10.77.0.1 activate
 exit-address-family
exit
`

// FRR with everything at once: MD5, BFD, both families on one IPv4 session, graceful restart of both.
func TestFRR(t *testing.T) {
	withoutRaceDetector(t)
	if requireFRR(t); !isolated(t) {
		return
	}
	other := pair(t)
	r := other.startFRR(frrNumbered, "bgpd", "bfdd")
	set := us(config.Peer{Address: adr("10.77.0.2"), ASN: 65002, BFD: true})
	set.Passwords = map[string]string{"10.77.0.2": "s3cret"}
	n := startNode(t, set, "10.9.1.0/26", "10.9.1.77/32", "fd00:9:0:1::/122")
	eventually(t, "IPv4 heard", n.has("10.9.2.0/26", "10.77.0.2"))
	eventually(t, "IPv6 heard", n.has("fd00:9:0:2::/64", "fd77::2"))
	eventually(t, "IPv4 told", r.has("ip", "10.9.1.0/26", "10.77.0.1"))
	eventually(t, "IPv6 told", r.has("ipv6", "fd00:9:0:1::/122", "fd77::1"))
	eventually(t, "BFD, numbers", func() error {
		if p := n.peer("10.77.0.2"); p.BFD != "up" || p.Received != 2 || p.Refused != 4 || p.Sent != 3 || p.ASN != 65002 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	if out := r.vtysh("show bgp ipv4 unicast 10.9.1.0/26"); !strings.Contains(out, fmt.Sprintf("64512:200:%d", 10<<24|77<<16|1)) {
		t.Errorf("the large community does not arrive: %s", out)
	}
	start := time.Now()
	n.announce("10.9.1.0/26", "fd00:9:0:1::/122")
	eventually(t, "withdrawn", r.has("ip", "10.9.1.77/32", ""))
	t.Logf("FRR has withdrawn after %v, with the time to ask it", time.Since(start))

	t.Log("we restart")
	n.stop()
	kept := r.has("ip", "10.9.1.0/26", "10.77.0.1")
	holds(t, time.Second, "kept while we are away", kept)
	set.Restarting = true
	n = startNode(t, set, "10.9.1.0/26", "fd00:9:0:1::/122")
	eventually(t, "we are back", func() error {
		if err := kept(); err != nil {
			t.Fatalf("lost during our restart: %v", err)
		}
		return n.has("10.9.2.0/26", "10.77.0.2")()
	})
	holds(t, 2*time.Second, "kept after our restart", kept)
	n.up("10.77.0.2")

	t.Log("bgpd restarts")
	eventually(t, "BFD is up again", func() error {
		if p := n.peer("10.77.0.2"); p.BFD != "up" {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	ours := n.has("10.9.2.0/26", "10.77.0.2")
	r.kill("bgpd")
	holds(t, time.Second, "kept while bgpd is away", ours)
	r.run("bgpd")
	r.configure()
	eventually(t, "bgpd is back", func() error {
		if err := ours(); err != nil {
			t.Fatalf("lost during bgpd's restart: %v", err)
		}
		paths := n.rib.Snapshot()[pfx("10.9.2.0/26")].Paths
		if p := n.peer("10.77.0.2"); p.State != "established" || len(paths) == 0 || paths[0].Stale {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	holds(t, 3*time.Second, "the new session stays", func() error {
		if p := n.peer("10.77.0.2"); p.State != "established" {
			return fmt.Errorf("%+v", p)
		}
		return ours()
	})
}

// The host of FRR falls silent while both do graceful restart: BFD takes the routes at once.
func TestFRRSilence(t *testing.T) {
	if requireFRR(t); !isolated(t) {
		return
	}
	other := newSpace(t)
	// A bridge between the two, so that our link keeps its carrier.
	sh(t, "ip link add br0 type bridge; ip link set br0 up; ip addr add 10.77.0.1/24 dev br0; ip addr add fd77::1/64 dev br0 nodad")
	other.wire("va", "vb", nil, []string{"10.77.0.2/24", "fd77::2/64"})
	sh(t, "ip link set va master br0")
	other.startFRR(frrNumbered, "bgpd", "bfdd")
	set := us(config.Peer{Address: adr("10.77.0.2"), ASN: 65002, BFD: true})
	set.Passwords = map[string]string{"10.77.0.2": "s3cret"}
	n := startNode(t, set, "10.9.1.0/26")
	eventually(t, "heard, BFD up", func() error {
		if p := n.peer("10.77.0.2"); p.BFD != "up" {
			return fmt.Errorf("%+v", p)
		}
		return n.has("10.9.2.0/26", "10.77.0.2")()
	})
	sh(t, "ip link set va nomaster")
	took := within(t, 1100*time.Millisecond, "BFD", n.has("10.9.2.0/26"))
	t.Logf("withdrawn %v after the wire was cut", took)
	sh(t, "ip link set va master br0")
	took = eventually(t, "back", n.has("10.9.2.0/26", "10.77.0.2"))
	t.Logf("heard again after %v", took)
}

// GTSM, without BFD: FRR 8.4 takes a neighbour with ttl-security for a distant one and speaks multihop BFD with it.
func TestFRRTTLSecurity(t *testing.T) {
	if requireFRR(t); !isolated(t) {
		return
	}
	other := pair(t)
	secure := strings.NewReplacer(" neighbor 10.77.0.1 bfd profile f\n", "", " neighbor 10.77.0.1 bfd\n", " neighbor 10.77.0.1 ttl-security hops 1\n")
	r := other.startFRR(secure.Replace(frrNumbered), "bgpd")
	set := us(config.Peer{Address: adr("10.77.0.2"), ASN: 65002, TTLSecurity: true})
	set.Passwords = map[string]string{"10.77.0.2": "s3cret"}
	n := startNode(t, set, "10.9.1.0/26")
	eventually(t, "heard", n.has("10.9.2.0/26", "10.77.0.2"))
	eventually(t, "told", r.has("ip", "10.9.1.0/26", "10.77.0.1"))
	n.set.BGP.Peers[0].TTLSecurity = false // then our packets come with TTL 1
	n.update()
	holds(t, 4*time.Second, "no session without it", n.has("10.9.2.0/26"))
}

const frrUnnumbered = `
interface vb
 ipv6 nd ra-interval 1
 no ipv6 nd suppress-ra
exit
router bgp 65002
 bgp router-id 10.77.0.2
 no bgp ebgp-requires-policy
 no bgp network import-check
 timers bgp 3 9
 neighbor vb interface remote-as external
 address-family ipv4 unicast
  network 10.9.2.0/26
 exit-address-family
 address-family ipv6 unicast
  network fd00:9:0:2::/64
  neighbor vb activate
 exit-address-family
exit
`

func TestFRRUnnumbered(t *testing.T) {
	if requireFRR(t); !isolated(t) {
		return
	}
	other := newSpace(t)
	other.wire("va", "vb", nil, nil)
	r := other.startFRR(frrUnnumbered, "bgpd")
	start := time.Now()
	n := startNode(t, us(on("va", 0)), "10.9.1.0/26", "fd00:9:0:1::/122")
	p := n.up("va")
	t.Logf("up %v after our start", time.Since(start))
	hop := p.Address.WithZone("").String()
	eventually(t, "IPv4 heard", n.has("10.9.2.0/26", hop))
	eventually(t, "IPv6 heard", n.has("fd00:9:0:2::/64", hop))
	if got := n.rib.Snapshot()[pfx("fd00:9:0:2::/64")].Paths[0]; got.Link != "va" {
		t.Errorf("path %+v", got)
	}
	var here string
	for _, a := range hereFacts(t).Links["va"].Addrs {
		here = a.Addr().String()
	}
	eventually(t, "IPv4 told", r.has("ip", "10.9.1.0/26", here))
	eventually(t, "IPv6 told", r.has("ipv6", "fd00:9:0:1::/122", here))
}
