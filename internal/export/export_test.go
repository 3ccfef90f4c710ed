package export_test

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/export"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func ip(s string) netip.Addr    { return netip.MustParseAddr(s) }
func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func node(name, addr4, addr6 string, prefixes ...string) export.Node {
	n := export.Node{Name: name}
	if addr4 != "" {
		n.Address = ip(addr4)
	}
	if addr6 != "" {
		n.Address6 = ip(addr6)
	}
	for _, p := range prefixes {
		n.Prefixes = append(n.Prefixes, pfx(p))
	}
	return n
}

// cluster has both families, several prefixes of a node, an address that two nodes have, and names that a comment must
// not take as they are.
func cluster() []export.Node {
	return []export.Node{
		node("host2", "10.77.1.12", "fd77:0:0:1::12", "10.9.2.0/24", "fd09:0:0:2::/64", "10.9.200.7/32"),
		node("host1", "10.77.1.11", "fd77:0:0:1::11", "10.9.1.0/24", "10.9.5.0/26", "fd09:0:0:1::/64", "10.9.200.7/32"),
		node("odd #\n; name \\", "10.77.1.13", "", "10.9.3.0/24"),
		node("\" ' %s é", "", "fd77:0:0:1::14", "fd09:0:0:4::/64"),
		node("router", "10.77.1.1", "fd77:0:0:1::1", "10.9.99.0/24"),
	}
}

func router(links ...string) export.Router {
	var r export.Router
	for _, text := range links {
		name, prefix, named := strings.Cut(text, "=")
		if !named {
			name, prefix = "", text
		}
		r.Links = append(r.Links, export.Link{Name: name, Prefix: pfx(prefix)})
	}
	return r
}

func attached() export.Router { return router("eth0=10.77.1.1/24", "eth0=fd77:0:0:1::1/64") }

func TestFormats(t *testing.T) {
	routes, left := export.Routes(cluster(), attached())
	if len(left) != 0 {
		t.Errorf("left out %v", left)
	}
	for _, f := range export.Formats() {
		for name, list := range map[string][]export.Route{"": routes, "-empty": nil} {
			got, err := export.Text(f, list)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", string(f)+name+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("%s (rewrite with -update): -want +got\n%s", path, d)
			}
		}
	}
	if _, err := export.Text("ifupdown", routes); err == nil {
		t.Error("there is a format ifupdown")
	}
}

func TestRoutes(t *testing.T) {
	nodes := []export.Node{
		node("a", "10.77.1.11", "", "10.9.1.0/24", "fd09:0:0:1::/64"),
		node("b", "10.77.2.12", "fe80::1", "10.9.2.0/24", "fd09:0:0:2::/64"),
		node("c", "10.77.2.13", "", "10.9.3.0/24"),
	}
	list := func(routes []export.Route) string {
		var all []string
		for _, r := range routes {
			text := r.Prefix.String()
			for _, h := range r.Hops {
				text += " " + h.Via.String() + " " + h.Link.String()
			}
			all = append(all, text)
		}
		return strings.Join(all, "\n")
	}
	for _, tt := range []struct {
		name   string
		router export.Router
		want   string
		left   []string
	}{
		{
			"two links", router("eth0=10.77.1.1/24", "10.77.2.1/24"),
			"10.9.1.0/24 10.77.1.11 eth0\n10.9.2.0/24 10.77.2.12 10.77.2.0/24\n10.9.3.0/24 10.77.2.13 10.77.2.0/24",
			[]string{"fd09:0:0:1::/64 of a: no next hop of its family is known", "fd09:0:0:2::/64 of b: the next hop fe80::1 means something on one link only"},
		},
		{
			"one link", router("10.77.1.1/24"), "10.9.1.0/24 10.77.1.11 10.77.1.0/24",
			[]string{
				"10.9.2.0/24 of b: the next hop 10.77.2.12 is on none of the router's links",
				"10.9.3.0/24 of c: the next hop 10.77.2.13 is on none of the router's links",
				"fd09:0:0:1::/64 of a: no next hop of its family is known", "fd09:0:0:2::/64 of b: the next hop fe80::1 means something on one link only",
			},
		},
		{
			"a node, by its name",
			export.Router{Name: "b"},
			"10.9.1.0/24 10.77.1.11 a link that is not known\n10.9.3.0/24 10.77.2.13 a link that is not known",
			[]string{"fd09:0:0:1::/64 of a: no next hop of its family is known"},
		},
		{
			"a node, by its address", router("10.77.1.11/32"),
			"10.9.2.0/24 10.77.2.12 a link that is not known\n10.9.3.0/24 10.77.2.13 a link that is not known",
			[]string{"fd09:0:0:2::/64 of b: the next hop fe80::1 means something on one link only"},
		},
	} {
		routes, left := export.Routes(nodes, tt.router)
		if d := cmp.Diff(tt.want, list(routes)); d != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, d)
		}
		if d := cmp.Diff(tt.left, left); d != "" {
			t.Errorf("%s: left out: -want +got\n%s", tt.name, d)
		}
	}
}

func TestLinks(t *testing.T) {
	routes, _ := export.Routes(cluster(), router("10.77.1.1/24", "fd77:0:0:1::1/64"))
	if text, err := export.Text(export.Netplan, routes); !errors.Is(err, export.ErrLink) {
		t.Errorf("netplan without a link's name: %v\n%s", err, text)
	}
	if text, err := export.Text(export.Networkd, routes); !errors.Is(err, export.ErrLink) {
		t.Errorf("networkd with two subnets that may be two links: %v\n%s", err, text)
	}
	for _, f := range []export.Format{export.IPRoute2, export.FRR, export.BIRD} {
		if _, err := export.Text(f, routes); err != nil {
			t.Error(err)
		}
	}
}
