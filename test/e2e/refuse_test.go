package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A network that cannot be is refused with an error that names the key, the value and what is allowed, and nothing is
// half made.
func TestRefusedNetworks(t *testing.T) {
	s := newSite(t)
	for _, h := range s.hosts {
		t.Run(h.Name, func(t *testing.T) {
			h := h.in(t)
			if err := h.createNetwork("there", "--ipv6", "--subnet", "10.50.0.0/16", "--ip-range", "10.50.1.0/24",
				"--subnet", "fd50::/48", "--ip-range", "fd50:0:0:1::/64"); err != nil {
				t.Fatal(err)
			}
			before := h.everything()
			for _, c := range []struct {
				name string
				args []string
				want []string // in the error
			}{
				{"unknown option", []string{"--subnet", pool4, "-o", "colour=red"}, []string{"colour", "red", "mtu"}},
				{"option of a bridge", []string{"--subnet", pool4, "-o", "com.docker.network.bridge.name=br7"}, []string{"com.docker.network.bridge.name", "br7"}},
				{"unknown mode", []string{"--subnet", pool4, "-o", "mode=teleport"}, []string{"mode", "teleport", "routed"}},
				{"MTU that is no number", []string{"--subnet", pool4, "-o", "mtu=large"}, []string{"mtu", "large", "68", "65535"}},
				{"MTU too small for IPv6", []string{"--ipv6", "--subnet", pool4, "--subnet", pool6, "-o", "mtu=1000"}, []string{"mtu", "1000", "1280"}},
				{"two MTUs", []string{"--subnet", pool4, "-o", "mtu=1400", "-o", "com.docker.network.driver.mtu=1300"}, []string{"mtu", "1400", "1300"}},
				{"unknown egress", []string{"--subnet", pool4, "-o", "egress=tunnel"}, []string{"egress", "tunnel", "route"}},
				{"static range outside", []string{"--subnet", pool4, "-o", "staticRange=10.60.0.0/24"}, []string{"staticRange", "10.60.0.0/24", pool4}},
				{"subnet of another network", []string{"--subnet", "10.50.8.0/24", "--ip-range", "10.50.8.0/26"}, []string{"10.50.8.0/24", "10.50.0.0/16"}},
				{"subnet that holds another network's", []string{"--subnet", "10.48.0.0/12", "--ip-range", "10.48.1.0/24"}, []string{"10.48.0.0/12", "10.50.0.0/16"}},
				{"subnet of the underlay", []string{"--subnet", "10.77.0.0/16", "--ip-range", "10.77.9.0/24"}, []string{"10.77.0.0/16", "10.77.0.0/24"}},
				{"no part for this node", []string{"--subnet", "10.70.0.0/16"}, []string{"10.70.0.0/16", "--ip-range"}},
			} {
				t.Run(c.name, func(t *testing.T) {
					args := append([]string{"docker", "network", "create", "-d", "fairway", "--ipam-driver", "fairway"}, c.args...)
					says := h.refused(append(args, "refused")...)
					for _, word := range c.want {
						if !strings.Contains(says, word) {
							t.Errorf("the error does not name %q: %s", word, says)
						}
					}
					h.unchanged(t, before)
				})
			}
			h.docker("network", "rm", "there")
		})
	}
}

// So is a container.
func TestRefusedContainers(t *testing.T) {
	s := newSite(t)
	s.network("net")
	h, other := s.hosts[1], s.hosts[0]
	h.run("holder", "--network", "net", "--ip", "10.9.200.9")
	far := other.run("far", "--network", "net", "--ip", "10.9.200.10")
	eventually(t, hearsay, h.hasRoute(far.v4.String()+"/32", true))
	before := h.everything()
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"published port", []string{"--network", "net", "-p", "8080:80"}, []string{"8080", "80"}},
		{"the gateway", []string{"--network", "net", "--ip", "10.9.0.1"}, []string{"10.9.0.1", "gateway"}},
		{"in use here", []string{"--network", "net", "--ip", "10.9.200.9"}, []string{"10.9.200.9"}},
		{"in use elsewhere", []string{"--network", "net", "--ip", "10.9.200.10"}, []string{"10.9.200.10", "10.77.0.11"}},
		{"outside", []string{"--network", "net", "--ip", "10.99.0.9"}, []string{"10.99.0.9"}},
		{"another node's block", []string{"--network", "net", "--ip", "10.9.1.77"}, []string{"10.9.1.77", "10.77.0.11", static4}},
		{"another node's IPv6 block", []string{"--network", "net", "--ip6", "fd09:0:0:1::77"}, []string{"fd09:0:0:1::77", "10.77.0.11", static6}},
		{"unknown endpoint option", []string{"--network", "name=net,driver-opt=fairway.colour=red"}, []string{"fairway.colour", "red", "fairway.addresses"}},
		{"further address that is none", []string{"--network", "name=net,driver-opt=fairway.addresses=ten"}, []string{"fairway.addresses", "ten"}},
		{"further address in use", []string{"--network", "name=net,driver-opt=fairway.addresses=10.9.200.9"}, []string{"10.9.200.9"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"docker", "run", "-d", "--name", "refused"}, c.args...)
			says := h.refused(append(args, idle...)...)
			for _, word := range c.want {
				if !strings.Contains(says, word) {
					t.Errorf("the error does not name %q: %s", word, says)
				}
			}
			h.docker("rm", "-f", "refused")
			h.releaseForgotten()
			h.unchanged(t, before)
		})
	}
}

// releaseForgotten gives back the address that an engine asked for and forgot: to 26.1 that happens when the container's
// other address is refused. Without this the agent would do it after a minute and a half.
func (h *host) releaseForgotten() {
	h.t.Helper()
	book, err := h.api().IPAM(h.ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, a := range book.Holdings {
		if a.State == "held" && a.Kind == "container" && a.Endpoint == "" {
			h.t.Logf("%s forgot %s", h, a.Address)
			h.fairway("ipam", "release", a.Address.String())
		}
	}
}

// everything is what an attempt might have left: in the kernel, in the book, among the engine's networks.
type everything struct{ kernel, rest string }

func (h *host) everything() everything { return everything{h.settledKernel(), h.bookAndNetworks()} }

func (h *host) bookAndNetworks() string {
	h.t.Helper()
	book, err := h.api().IPAM(h.ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	var list []string
	for _, a := range book.Holdings {
		if a.State == "held" {
			list = append(list, a.Kind+" "+a.Address.String()+" "+a.Endpoint) // names come to be known later
		}
	}
	for _, p := range book.Pools {
		list = append(list, p.CIDR.String())
		for _, b := range p.List {
			list = append(list, fmt.Sprint(b.CIDR, b.Origin, b.Held))
		}
	}
	return strings.Join(append(list, h.docker("network", "ls")), "\n")
}

// unchanged fails the test when something is not as before.
func (h *host) unchanged(t *testing.T, before everything) {
	t.Helper()
	if err := patiently(hearsay, func() error { return h.sameKernel(before.kernel) }); err != nil {
		t.Error(err)
	}
	if now := h.bookAndNetworks(); now != before.rest {
		t.Errorf("addresses or networks have changed (-before +now):\n%s", cmp.Diff(before.rest, now))
	}
}
