package nft

import (
	"slices"
	"strings"
	"testing"

	"fairway/internal/kernel"
)

const (
	jumpLine = "-m comment --comment fairway -j FAIRWAY"
	acceptIn = "-A FAIRWAY -i fw+ -j ACCEPT"
	acceptTo = "-A FAIRWAY -o fw+ -j ACCEPT"
)

// rig is a namespace with an engine's rules and a handle on it.
type rig struct {
	space
	h        *Handle
	backend  string
	v4, v6   string // the programs
	families []string
}

func newRig(tb testing.TB, backend string) rig {
	tb.Helper()
	s := newSpace(tb)
	r := rig{space: s, backend: backend, h: s.open(tb, backend), v4: "iptables-" + backend, v6: "ip6tables-" + backend}
	r.families = []string{r.v4, r.v6}
	return r
}

// host is a kind of host: with a backend of iptables, and the rules of a generation of engines.
type host struct{ backend, generation string }

func hosts() []host {
	return []host{{"nft", "20.10"}, {"nft", "28"}, {"legacy", "20.10"}, {"legacy", "28"}}
}

func (c host) rig(tb testing.TB) rig {
	tb.Helper()
	r := newRig(tb, c.backend)
	for _, p := range r.families {
		r.run(tb, engine(c.generation, p)...)
	}
	return r
}

// lines are the rules of both families that lead to FAIRWAY or are in it, in order.
func (r rig) lines(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, p := range r.families {
		for l := range strings.Lines(r.run(t, p+" -S 2>/dev/null")) {
			if strings.Contains(l, "FAIRWAY") {
				out = append(out, strings.TrimPrefix(p, "ip")[:1]+" "+strings.TrimSpace(l))
			}
		}
	}
	return out
}

func (r rig) want(t *testing.T, chains ...string) {
	t.Helper()
	var want []string
	for _, f := range []string{"t", "6"} {
		if len(chains) == 0 {
			continue
		}
		want = append(want, f+" -N FAIRWAY")
		for _, c := range chains {
			want = append(want, f+" -A "+c+" "+jumpLine)
		}
		want = append(want, f+" "+acceptIn, f+" "+acceptTo)
	}
	have := r.lines(t)
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Fatalf("rules:\n%s\nwant:\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}

func (r rig) first(t *testing.T, chain string) {
	t.Helper()
	for _, p := range r.families {
		if got := strings.TrimSpace(r.run(t, p+" -S "+chain+" 1 2>/dev/null")); got != "-A "+chain+" "+jumpLine {
			t.Fatalf("%s: first rule of %s is %q", p, chain, got)
		}
	}
}

func TestAcceptInDockerUser(t *testing.T) {
	for _, on := range hosts() {
		t.Run(on.backend+"/"+on.generation, func(t *testing.T) {
			r := on.rig(t)
			changed := apply(t, r.h, wall())
			want := []string{
				"nftables: made table inet fairway",
				"iptables: made chain FAIRWAY", "iptables: put the accept rule into DOCKER-USER",
				"ip6tables: made chain FAIRWAY", "ip6tables: put the accept rule into DOCKER-USER",
			}
			if !slices.Equal(changed, want) {
				t.Fatalf("changed %q, want %q", changed, want)
			}
			r.want(t, "DOCKER-USER")
			r.first(t, "DOCKER-USER")
		})
	}
}

func TestAcceptSurvives(t *testing.T) {
	for _, on := range hosts() {
		t.Run(on.backend+"/"+on.generation, func(t *testing.T) {
			r := on.rig(t)
			apply(t, r.h, wall())
			both := func(lines ...string) {
				t.Helper()
				for _, p := range r.families {
					r.run(t, prefixed(p+" ", lines)...)
				}
			}
			back := []string{"iptables: put the accept rule back into DOCKER-USER", "ip6tables: put the accept rule back into DOCKER-USER"}

			both("-F DOCKER-USER")
			mended(t, r.h, wall(), back...)
			r.want(t, "DOCKER-USER")

			for _, p := range r.families {
				r.run(t, restart(on.generation, p)...)
			}
			sound(t, r.h, wall())
			r.want(t, "DOCKER-USER")

			// Nothing leads to DOCKER-USER any more, and FORWARD still drops.
			both("-F")
			mended(t, r.h, wall(), "iptables: restored the rules of chain FAIRWAY", "iptables: put the accept rule back into DOCKER-USER",
				"iptables: put the accept rule back into FORWARD", "ip6tables: restored the rules of chain FAIRWAY",
				"ip6tables: put the accept rule back into DOCKER-USER", "ip6tables: put the accept rule back into FORWARD")
			r.want(t, "DOCKER-USER", "FORWARD")

			// The engine comes back.
			both("-I FORWARD -j DOCKER-USER")
			mended(t, r.h, wall(), "iptables: removed a jump to FAIRWAY from FORWARD", "ip6tables: removed a jump to FAIRWAY from FORWARD")
			r.want(t, "DOCKER-USER")
			r.first(t, "DOCKER-USER")
		})
	}
}

func TestAcceptMendsEdits(t *testing.T) {
	for _, on := range hosts() {
		t.Run(on.backend+"/"+on.generation, func(t *testing.T) {
			r := on.rig(t)
			apply(t, r.h, wall())
			for _, c := range []struct {
				name  string
				lines []string
				want  string
			}{
				{"twice", []string{"-A DOCKER-USER " + jumpLine}, ""},
				{"rules gone", []string{"-F FAIRWAY"}, "iptables: restored the rules of chain FAIRWAY"},
				{"rule added", []string{"-I FAIRWAY -i fw1 -j DROP"}, "iptables: restored the rules of chain FAIRWAY"},
				{"rule changed", []string{"-R FAIRWAY 1 -i fw+ -j DROP"}, "iptables: restored the rules of chain FAIRWAY"},
				{"conditional", []string{"-R DOCKER-USER 1 -i fw1 " + jumpLine}, ""},
				{"without comment", []string{"-R DOCKER-USER 1 -j FAIRWAY"}, ""},
				{"behind a return", []string{"-I DOCKER-USER -j RETURN"}, ""},
			} {
				t.Run(c.name, func(t *testing.T) {
					r.run(t, prefixed(r.v4+" ", c.lines)...)
					if ok, missing, err := r.h.Check(t.Context(), wall()); err != nil || ok && c.name != "twice" {
						t.Fatalf("check: %v %q %v", ok, missing, err)
					}
					changed := apply(t, r.h, wall())
					if c.want != "" && !slices.Equal(changed, []string{c.want}) || len(changed) == 0 {
						t.Fatalf("changed %q, want %q", changed, c.want)
					}
					r.want(t, "DOCKER-USER")
					r.try(t, r.v4+" -D DOCKER-USER -j RETURN")
				})
			}
		})
	}
}

// What a user puts before our jump is meant to come before it.
func TestAcceptStaysBehindUsersRules(t *testing.T) {
	for _, on := range hosts() {
		t.Run(on.backend+"/"+on.generation, func(t *testing.T) {
			r := on.rig(t)
			apply(t, r.h, wall())
			r.run(t, r.v4+" -I DOCKER-USER -i eth0 -s 192.0.2.0/24 -m comment --comment \"not \\\"these\\\" -j FAIRWAY\" -j DROP",
				r.v4+" -I DOCKER-USER -s 198.51.100.0/24 -j RETURN")
			sound(t, r.h, wall())
			if changed := apply(t, r.h, wall()); len(changed) > 0 {
				t.Fatalf("changed %q", changed)
			}
		})
	}
}

func TestEngineComesAndGoes(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			r := newRig(t, backend)
			if changed := apply(t, r.h, wall()); !slices.Equal(changed, []string{"nftables: made table inet fairway"}) {
				t.Fatalf("changed %q", changed)
			}
			if out := r.run(t, "nft list tables; cat /proc/thread-self/net/ip_tables_names /proc/thread-self/net/ip6_tables_names 2>/dev/null || true"); strings.TrimSpace(out) != "table inet fairway" {
				t.Fatalf("a host without iptables tables got some:\n%s", out)
			}
			// An engine without DOCKER-USER, or an administrator, drops.
			for _, p := range r.families {
				r.run(t, p+" -P FORWARD DROP")
			}
			mended(t, r.h, wall(), "iptables: made chain FAIRWAY", "iptables: put the accept rule into FORWARD",
				"ip6tables: made chain FAIRWAY", "ip6tables: put the accept rule into FORWARD")
			r.want(t, "FORWARD")
			for _, p := range r.families {
				r.run(t, engine("28", p)...)
			}
			mended(t, r.h, wall(), "iptables: put the accept rule back into DOCKER-USER", "iptables: removed a jump to FAIRWAY from FORWARD",
				"ip6tables: put the accept rule back into DOCKER-USER", "ip6tables: removed a jump to FAIRWAY from FORWARD")
			r.want(t, "DOCKER-USER")
			// The engine is taken off the host, and nothing drops any more.
			for _, p := range r.families {
				r.run(t, p+" -P FORWARD ACCEPT", p+" -D FORWARD -j DOCKER-USER", p+" -F DOCKER-USER", p+" -X DOCKER-USER")
			}
			mended(t, r.h, wall(), "iptables: removed chain FAIRWAY", "ip6tables: removed chain FAIRWAY")
			r.want(t)
		})
	}
}

// Only one family has an engine's chains: Docker 20.10 leaves IPv6 alone.
func TestOneFamilyOnly(t *testing.T) {
	r := newRig(t, "nft")
	r.run(t, engine("20.10", r.v4)...)
	apply(t, r.h, wall())
	for _, l := range r.lines(t) {
		if strings.HasPrefix(l, "6") {
			t.Fatalf("ip6tables got %q", l)
		}
	}
	if out := r.run(t, "nft list tables"); strings.Contains(out, "ip6") {
		t.Fatalf("tables of IPv6 were made:\n%s", out)
	}
}

func TestFlushRuleset(t *testing.T) {
	r := newRig(t, "nft")
	for _, p := range r.families {
		r.run(t, engine("28", p)...)
	}
	apply(t, r.h, wall())
	r.run(t, "nft flush ruleset")
	// Chains and policy are gone with Docker's rules: only our table is missed.
	mended(t, r.h, wall(), "nftables: restored table inet fairway: missing")
	for _, p := range r.families {
		r.run(t, engine("28", p)...)
	}
	mended(t, r.h, wall(), "iptables: made chain FAIRWAY", "iptables: put the accept rule back into DOCKER-USER",
		"ip6tables: made chain FAIRWAY", "ip6tables: put the accept rule back into DOCKER-USER")
	r.want(t, "DOCKER-USER")
}

func TestRemoveLeavesOthers(t *testing.T) {
	for _, on := range hosts() {
		t.Run(on.backend+"/"+on.generation, func(t *testing.T) {
			r := on.rig(t)
			r.run(t, "nft add table inet other", "nft add chain inet other c '{ type filter hook input priority 0; }'", "nft add rule inet other c tcp dport 1 drop",
				r.v4+" -I DOCKER-USER -s 192.0.2.1 -m comment --comment fairway -j DROP")
			all := "nft -s list ruleset 2>/dev/null; iptables-legacy -S; ip6tables-legacy -S"
			before := r.run(t, all)
			apply(t, r.h, wall())
			if r.run(t, all) == before {
				t.Fatal("apply changed nothing")
			}
			for range 2 {
				if err := r.h.Remove(t.Context()); err != nil {
					t.Fatal(err)
				}
				if after := r.run(t, all); after != before {
					t.Fatalf("before:\n%s\nafter:\n%s", before, after)
				}
			}
			apply(t, r.h, wall())
			apply(t, r.h, kernel.Firewall{})
			if after := r.run(t, all); after != before {
				t.Fatalf("before:\n%s\nafter a firewall that wants nothing:\n%s", before, after)
			}
		})
	}
}

// A rule of a stranger that leads to our chain is not ours to delete, so the chain has to stay.
func TestRemoveLeavesStrays(t *testing.T) {
	r := newRig(t, "nft")
	r.run(t, engine("28", r.v4)...)
	apply(t, r.h, wall())
	r.run(t, r.v4+" -A INPUT -i lo -j FAIRWAY")
	err := r.h.Remove(t.Context())
	if err == nil || !strings.Contains(err.Error(), "INPUT") {
		t.Fatalf("error %v, want one that names INPUT", err)
	}
	r.run(t, r.v4+" -D INPUT -i lo -j FAIRWAY")
	if err := r.h.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.want(t)
}

// After another backend was chosen, what stands in the first one goes too.
func TestRemoveBothBackends(t *testing.T) {
	r := newRig(t, "legacy")
	r.run(t, engine("28", "iptables-legacy")...)
	r.run(t, engine("28", "iptables-nft")...)
	apply(t, r.h, wall())
	apply(t, r.open(t, "nft"), wall())
	if err := r.h.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := r.run(t, "iptables-nft -S 2>/dev/null; iptables-legacy -S"); strings.Contains(out, "FAIRWAY") {
		t.Fatalf("left over:\n%s", out)
	}
}

// An engine that starts again and again meanwhile never makes a rule stand twice, and in the end it stands once.
func TestEngineRestartsMeanwhile(t *testing.T) {
	for _, on := range hosts() {
		t.Run(on.backend+"/"+on.generation, func(t *testing.T) {
			r := on.rig(t)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range 15 {
					for _, line := range append(prefixed(r.v4+" ", []string{"-w -F DOCKER-USER"}), restart(on.generation, r.v4+" -w")...) {
						r.run(t, line)
					}
				}
			}()
			for running := true; running; {
				select {
				case <-done:
					running = false
				default:
				}
				if _, err := r.h.Apply(t.Context(), wall()); err != nil && !strings.Contains(err.Error(), "not as written") {
					t.Fatal(err)
				}
				if n := strings.Count(r.run(t, r.v4+" -w -S DOCKER-USER 2>/dev/null"), jumpLine); n > 1 {
					t.Fatalf("the jump stands %d times", n)
				}
			}
			apply(t, r.h, wall())
			r.want(t, "DOCKER-USER")
		})
	}
}
