package bgp_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fairway/internal/config"
)

// example reads a file of the examples; for the second reflector, with the two addresses exchanged.
func example(t *testing.T, dir, file string, second bool) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../../examples", dir, file))
	if err != nil {
		t.Fatal(err)
	}
	if !second {
		return string(text)
	}
	return strings.NewReplacer("10.77.0.2", "10.77.0.3", "10.77.0.3", "10.77.0.2").Replace(string(text))
}

// behindReflectors runs two nodes with the example's config behind two reflectors: all is heard over the node that has it,
// and goes on when one of the reflectors dies.
func behindReflectors(t *testing.T, dir string, reflector func(s *space, second bool) (kill func())) {
	t.Helper()
	sh(t, "ip link add br0 type bridge; ip link set br0 up; ip addr add 10.77.0.11/24 dev br0; ip addr add fd77::11/64 dev br0 nodad")
	var others []*space
	for i, address := range []string{"10.77.0.2/24", "10.77.0.3/24", "10.77.0.12/24"} {
		s := newSpace(t)
		link := string(rune('a'+i)) + "0"
		s.wire(link, "vb", nil, []string{address, strings.NewReplacer("10.77.0.", "fd77::", "/24", "/64").Replace(address)})
		sh(t, "ip link set %s master br0", link)
		others = append(others, s)
	}
	kill := reflector(others[0], false)
	reflector(others[1], true)
	cfg, err := config.Load(filepath.Join("../../../examples", dir, "fairway.yaml"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	set := func(n string) settings {
		s := settings{ASN: cfg.BGP.ASN, Node: adr("10.77.0." + n), Node6: adr("fd77::" + n), BGP: cfg.BGP}
		for _, p := range cfg.Pools {
			s.Pools = append(s.Pools, p.CIDR)
		}
		return s
	}
	r := others[2].start(set("12"), "10.9.2.0/26", "10.9.200.7/32", "fd00:9:0:2::/122")
	n := startNode(t, set("11"), "10.9.1.0/26", "fd00:9:0:1::/122")
	eventually(t, "IPv4", n.has("10.9.2.0/26", "10.77.0.12"))
	eventually(t, "IPv6", n.has("fd00:9:0:2::/122", "fd77::12"))
	eventually(t, "the other way", r.has("10.9.1.0/26", "10.77.0.11"))
	n.up("10.77.0.2")
	n.up("10.77.0.3")
	start := time.Now()
	r.announce("10.9.2.0/26", "fd00:9:0:2::/122")
	eventually(t, "withdrawn", n.has("10.9.200.7/32"))
	t.Logf("withdrawn behind reflectors after %v", time.Since(start))
	eventually(t, "told by both", func() error {
		for _, reflector := range []string{"10.77.0.2", "10.77.0.3"} {
			if p := n.peer(reflector); p.Received != 2 {
				return fmt.Errorf("%s has told %d prefixes, want 2", reflector, p.Received)
			}
		}
		return nil
	})
	kill()
	holds(t, 11*time.Second, "one reflector is dead", n.has("10.9.2.0/26", "10.77.0.12"))
}

func TestFRRReflectorExample(t *testing.T) {
	if requireFRR(t); !isolated(t) {
		return
	}
	behindReflectors(t, "frr-route-reflector", func(s *space, second bool) func() {
		f := s.startFRR(example(t, "frr-route-reflector", "frr.conf", second), "bgpd")
		return func() { f.kill("bgpd") }
	})
}

func TestBIRDReflectorExample(t *testing.T) {
	if requireTool(t, "bird"); !isolated(t) {
		return
	}
	behindReflectors(t, "bird-route-reflector", func(s *space, second bool) func() {
		s.startBird(example(t, "bird-route-reflector", "bird.conf", second))
		return func() { s.sh("ip link set vb down") }
	})
}
