package bgp_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"fairway/internal/config"
)

const birdConf = `
log stderr all;
router id 10.77.0.2;
protocol device { scan time 1; }
protocol kernel { ipv4 { export all; }; }
protocol kernel { ipv6 { export all; }; }
protocol static s4 { ipv4; route 10.9.2.0/26 blackhole; route 172.30.0.0/16 blackhole; }
protocol static s6 { ipv6; route fd00:9:0:2::/64 blackhole; }
protocol bfd { interface "vb" { interval 300 ms; multiplier 3; }; }
protocol bgp fairway {
  local %s as 65002;
  neighbor %s as 64512;
  hold time 9;
  connect retry time 2;
  connect delay time 1;
  error wait time 1, 2;
  graceful restart on;
  bfd graceful;
  password "s3cret";
  ttl security on;
  ipv4 { import all; export where source = RTS_STATIC; next hop self; extended next hop on; };
  ipv6 { import all; export where source = RTS_STATIC; next hop self; };
}
`

// startBird runs BIRD with a config.
func (s *space) startBird(conf string) func(command string) string {
	s.t.Helper()
	dir := s.t.TempDir()
	path := write(s.t, dir, "bird.conf", conf)
	cmd := s.command("bird", "-f", "-c", path, "-s", dir+"/bird.ctl")
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return func(command string) string {
		return sh(s.t, "birdc -s %s/bird.ctl %s || true", dir, command)
	}
}

func TestBIRD(t *testing.T) {
	if requireTool(t, "bird"); !isolated(t) {
		return
	}
	for _, tt := range []struct{ name, here, there, hop string }{
		{"IPv4", "10.77.0.1", "10.77.0.2", "10.77.0.2"},
		{"IPv6", "fd77::1", "fd77::2", "fd77::2"},
	} {
		other := pair(t)
		birdc := other.startBird(fmt.Sprintf(birdConf, tt.there, tt.here))
		set := us(config.Peer{Address: adr(tt.there), ASN: 65002, TTLSecurity: true, BFD: true})
		set.Passwords = map[string]string{tt.there: "s3cret"}
		n := startNode(t, set, "10.9.1.0/26", "fd00:9:0:1::/122")
		eventually(t, tt.name+": IPv4 heard", n.has("10.9.2.0/26", tt.hop))
		eventually(t, tt.name+": IPv6 heard", n.has("fd00:9:0:2::/64", "fd77::2"))
		eventually(t, tt.name+": BFD, numbers", func() error {
			if p := n.peer(tt.there); p.BFD != "up" || p.Received != 2 || p.Refused != 1 || p.Sent != 2 {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
		shows := func(prefix, via string) func() error {
			return func() error {
				if out := birdc("show route for " + prefix + " all"); !strings.Contains(out, "via "+via) || !strings.Contains(out, "(64512, 200, 172818433)") {
					return fmt.Errorf("%s", out)
				}
				return nil
			}
		}
		eventually(t, tt.name+": IPv4 told", shows("10.9.1.0/26", tt.here))
		eventually(t, tt.name+": IPv6 told", shows("fd00:9:0:1::/122", "fd77::1"))
		n.stop()
		holds(t, time.Second, tt.name+": kept while we restart", shows("10.9.1.0/26", tt.here))
		set.Restarting = true
		n = startNode(t, set, "10.9.1.0/26", "fd00:9:0:1::/122")
		eventually(t, tt.name+": we are back", func() error {
			if err := shows("10.9.1.0/26", tt.here)(); err != nil {
				t.Fatalf("lost during our restart: %v", err)
			}
			return n.has("10.9.2.0/26", tt.hop)()
		})
		n.stop()
		sh(t, "ip link del va")
	}
}
