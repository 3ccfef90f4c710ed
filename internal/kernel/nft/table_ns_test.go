package nft

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fairway/internal/kernel"

	"github.com/google/nftables/expr"
)

// The table as nft shows it, which is what an operator sees.
const shown = `table inet fairway {
	chain prerouting {
		type filter hook prerouting priority raw; policy accept;
		iifname "fw*" jump source comment "from fw*"
		iifname "lan0" jump source comment "from lan0"
	}

	chain source {
		meta l4proto ipv6-icmp jump neighbour comment "neighbour discovery"
		ip6 saddr :: counter drop comment "no source address"
		fib saddr . iif oif 0 counter drop comment "source address not of this link"
	}

	chain neighbour {
		icmpv6 type nd-router-advert counter drop comment "router advertisement"
		icmpv6 type nd-redirect counter drop comment "redirect"
		ip6 saddr :: icmpv6 type nd-neighbor-solicit accept comment "duplicate address detection"
		ip6 saddr fe80::/10 icmpv6 type nd-neighbor-solicit accept comment "neighbour solicitation"
		ip6 saddr fe80::/10 icmpv6 type nd-neighbor-advert accept comment "neighbour advertisement"
	}

	chain input {
		type filter hook input priority filter; policy accept;
		iifname "fw*" jump closed comment "from fw*"
		iifname "lan0" jump closed comment "from lan0"
	}

	chain closed {
		tcp dport 179 counter drop comment "closed tcp port 179"
		udp dport 3784 counter drop comment "closed udp port 3784"
	}
}
`

func TestTable(t *testing.T) {
	r := newRig(t, "nft")
	fw := wall()
	fw.Links = []string{"fw*", "lan0"}
	apply(t, r.h, fw)
	if out := r.run(t, "nft -s list ruleset"); out != shown {
		t.Fatalf("nft shows:\n%s\nwant:\n%s", out, shown)
	}
	fw.AntiSpoof = false
	changed := apply(t, r.h, fw)
	if len(changed) != 1 || !strings.HasPrefix(changed[0], "nftables: restored table inet fairway: ") {
		t.Fatalf("changed %q", changed)
	}
	fw.ClosedTCP, fw.ClosedUDP = nil, nil
	if changed := apply(t, r.h, fw); !slices.Equal(changed, []string{"nftables: removed table inet fairway"}) {
		t.Fatalf("changed %q", changed)
	}
	if out := r.run(t, "nft list ruleset"); out != "" {
		t.Fatalf("left over:\n%s", out)
	}
}

func TestTableMendsEdits(t *testing.T) {
	r := newRig(t, "nft")
	apply(t, r.h, wall())
	before := r.run(t, "nft -s list ruleset")
	for name, lines := range map[string][]string{
		"deleted":      {"nft delete table inet fairway"},
		"flushed":      {"nft flush table inet fairway"},
		"dormant":      {"nft add table inet fairway '{ flags dormant; }'"},
		"rule added":   {"nft add rule inet fairway closed accept"},
		"rule first":   {"nft insert rule inet fairway source accept"},
		"rule deleted": {"nft delete rule inet fairway source handle $(nft -a list chain inet fairway source | sed -n 's/.*fib.*handle //p')"},
		"rule changed": {"nft replace rule inet fairway closed handle $(nft -a list chain inet fairway closed | sed -n 's/.*tcp.*handle //p')" +
			" tcp dport 178 counter drop comment '\"closed tcp port 179\"'"},
		"condition added": {"nft replace rule inet fairway closed handle $(nft -a list chain inet fairway closed | sed -n 's/.*tcp.*handle //p')" +
			" meta l4proto tcp th dport 179 limit rate 1/second counter drop comment '\"closed tcp port 179\"'"},
		"verdict changed": {"nft replace rule inet fairway closed handle $(nft -a list chain inet fairway closed | sed -n 's/.*tcp.*handle //p')" +
			" tcp dport 179 counter accept comment '\"closed tcp port 179\"'"},
		"comparison turned": {"nft replace rule inet fairway closed handle $(nft -a list chain inet fairway closed | sed -n 's/.*tcp.*handle //p')" +
			" tcp dport != 179 counter drop comment '\"closed tcp port 179\"'"},
		"comment changed": {"nft replace rule inet fairway closed handle $(nft -a list chain inet fairway closed | sed -n 's/.*tcp.*handle //p')" +
			" tcp dport 179 counter drop"},
		"chain added":    {"nft add chain inet fairway more"},
		"set added":      {"nft add set inet fairway more '{ type ipv4_addr; }'"},
		"chain deleted":  {"nft flush chain inet fairway input", "nft flush chain inet fairway closed", "nft delete chain inet fairway closed"},
		"policy changed": {"nft add chain inet fairway input '{ policy drop; }'"},
		"priority changed": {
			"nft flush chain inet fairway input", "nft delete chain inet fairway input",
			"nft add chain inet fairway input '{ type filter hook input priority 10; }'",
			"nft add rule inet fairway input iifname 'fw*' jump closed comment '\"from fw*\"'",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r.run(t, lines...)
			ok, missing, err := r.h.Check(t.Context(), wall())
			if ok || err != nil || len(missing) == 0 {
				t.Fatalf("check: %v %q %v", ok, missing, err)
			}
			if changed := apply(t, r.h, wall()); len(changed) != 1 {
				t.Fatalf("changed %q", changed)
			}
			if after := r.run(t, "nft -s list ruleset"); after != before {
				t.Fatalf("nft shows:\n%s\nwant:\n%s", after, before)
			}
		})
	}
}

// Traffic counts, and a counter is no edit.
func TestCountersAreNoEdit(t *testing.T) {
	r := newRig(t, "nft")
	fw := kernel.Firewall{Links: []string{"lo"}, ClosedUDP: []uint16{3784}}
	apply(t, r.h, fw)
	r.run(t, "echo x > /dev/udp/127.0.0.1/3784 || bash -c 'echo x > /dev/udp/127.0.0.1/3784'")
	s, err := r.h.Status()
	if err != nil || len(s.Dropped) != 1 || s.Dropped[0].Packets != 1 {
		t.Fatalf("dropped %v, error %v", s.Dropped, err)
	}
	r.h.isSound = false
	sound(t, r.h, fw)
	// An agent that starts afterwards finds everything in place.
	if changed := apply(t, r.open(t, "nft"), fw); len(changed) > 0 {
		t.Fatalf("changed %q", changed)
	}
}

// A kernel without the reverse path lookup refuses the rule, as it refuses here one with an impossible result.
func TestKernelWithoutReversePath(t *testing.T) {
	r := newRig(t, "nft")
	r.h.reversePath = func() []expr.Any {
		return []expr.Any{&expr.Fib{Register: 1, FlagSADDR: true, FlagDADDR: true, ResultOIF: true}}
	}
	apply(t, r.h, wall())
	s, err := r.h.Status()
	if err != nil || !s.Table || s.ReversePath {
		t.Fatalf("status %+v, error %v", s, err)
	}
	if !slices.ContainsFunc(s.Conditions, func(c Condition) bool { return c.Code == "no-reverse-path" }) {
		t.Fatalf("conditions %v", s.Conditions)
	}
	if out := r.run(t, "nft list table inet fairway"); !strings.Contains(out, "nd-router-advert") || strings.Contains(out, "fib") {
		t.Fatalf("table:\n%s", out)
	}
	// Another kernel: the rule is put in.
	r.h.reversePath = reversePath
	r.run(t, "nft delete table inet fairway")
	apply(t, r.h, wall())
	if s, err = r.h.Status(); err != nil || !s.ReversePath || len(s.Conditions) > 0 {
		t.Fatalf("status %+v, error %v", s, err)
	}
}

func TestRefusesWhatNoRuleCanSay(t *testing.T) {
	r := newRig(t, "nft")
	for _, fw := range []kernel.Firewall{
		{Links: []string{"*"}},
		{Links: []string{""}},
		{Links: []string{"fw*x"}},
		{Links: []string{"fw +"}},
		{Links: []string{"sixteen-byteslong"}},
		{Links: []string{"fw*"}, ClosedTCP: []uint16{0}},
	} {
		if changed, err := r.h.Apply(t.Context(), fw); err == nil || len(changed) > 0 {
			t.Errorf("%+v: changed %q", fw, changed)
		}
		if ok, _, err := r.h.Check(t.Context(), fw); err == nil || ok {
			t.Errorf("%+v: check is content", fw)
		}
	}
}

func TestStatus(t *testing.T) {
	r := newRig(t, "nft")
	if s, err := r.h.Status(); err != nil || s.Table || s.IPv4.Backend != NFTables || s.IPv4.DockerUser || s.IPv4.PolicyDrop || len(s.Conditions) > 0 {
		t.Fatalf("status of an empty host %+v, error %v", s, err)
	}
	r.run(t, engine("28", r.v4)...)
	r.run(t, r.v6+" -P FORWARD DROP")
	apply(t, r.h, wall())
	s, err := r.h.Status()
	if err != nil {
		t.Fatal(err)
	}
	if !s.Table || !s.ReversePath || !s.IPv4.DockerUser || !s.IPv4.PolicyDrop || !slices.Equal(s.IPv4.Jumps, []string{"DOCKER-USER"}) ||
		s.IPv6.DockerUser || !s.IPv6.PolicyDrop || !slices.Equal(s.IPv6.Jumps, []string{"FORWARD"}) || len(s.Conditions) > 0 {
		t.Fatalf("status %+v", s)
	}
	r.run(t, "nft add table inet fire", "nft add chain inet fire walls '{ type filter hook forward priority 10; policy drop; }'",
		"iptables-legacy -P FORWARD DROP")
	if s, err = r.h.Status(); err != nil {
		t.Fatal(err)
	}
	codes := []string{}
	for _, c := range s.Conditions {
		codes = append(codes, c.Code)
	}
	if !slices.Equal(codes, []string{"other-backend", "foreign-drop"}) {
		t.Fatalf("conditions %v", s.Conditions)
	}
}

// Without a program nothing can be accepted; the error says what to do.
func TestNoProgram(t *testing.T) {
	r := newRig(t, "nft")
	h, err := Open(Config{Namespace: r.space.h.ns, IPTables: "/nonexistent/iptables", IP6Tables: "/nonexistent/ip6tables"})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	apply(t, h, wall()) // nothing drops: none is needed
	r.run(t, r.v4+" -P FORWARD DROP")
	if _, err := h.Apply(t.Context(), wall()); err == nil || !strings.Contains(err.Error(), "install it") {
		t.Fatalf("error %v", err)
	}
	if ok, missing, err := h.Check(t.Context(), wall()); ok || err != nil || len(missing) == 0 {
		t.Fatalf("check: %v %q %v", ok, missing, err)
	}
	s, err := h.Status()
	if err != nil || !slices.ContainsFunc(s.Conditions, func(c Condition) bool { return c.Code == "no-iptables" }) {
		t.Fatalf("status %+v, error %v", s, err)
	}
}

func TestWatch(t *testing.T) {
	r := newRig(t, "nft")
	calls := make(chan struct{}, 1000)
	stop := watch(t, r.h, func() { calls <- struct{}{} })
	called := func(what string) {
		t.Helper()
		select {
		case <-calls:
		case <-time.After(10 * time.Second):
			t.Fatalf("not called after %s", what)
		}
	}
	called("the start")
	for _, line := range []string{
		"nft add table inet other", "iptables-nft -N DOCKER-USER", "iptables-nft -I DOCKER-USER -j RETURN",
		"iptables-nft -F DOCKER-USER", "nft flush ruleset",
	} {
		r.run(t, line)
		called(line)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// What is lost because nobody read in time is made good by one more call.
func TestWatchAfterOverflow(t *testing.T) {
	r := newRig(t, "nft")
	entered, leave := make(chan struct{}, 1000), make(chan struct{})
	stop := watch(t, r.h, func() {
		entered <- struct{}{}
		<-leave
	})
	<-entered // the watcher is held up in its first call
	r.run(t, "nft add table inet other", "nft add chain inet other c")
	var many strings.Builder
	for range 20000 {
		many.WriteString("add rule inet other c tcp dport 1 counter drop\n")
	}
	script := filepath.Join(t.TempDir(), "many.nft")
	if err := os.WriteFile(script, []byte(many.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	r.run(t, "nft -f "+script)
	close(leave)
	<-entered
	// And it still listens.
	eventually(t, "the watcher is quiet", func() bool {
		select {
		case <-entered:
			return false
		case <-time.After(200 * time.Millisecond):
			return true
		}
	})
	r.run(t, "nft delete table inet other")
	<-entered
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// watch runs Watch until stop is called, which returns what Watch returned.
func watch(t *testing.T, h *Handle, changed func()) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Watch(ctx, changed) }()
	return func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(10 * time.Second):
			t.Fatal("watch does not end")
			return nil
		}
	}
}

// The generation is only trusted for the firewall and the ruleset that it was checked for.
func TestCheckTrustsOnlyItsGeneration(t *testing.T) {
	r := newRig(t, "nft")
	apply(t, r.h, wall())
	sound(t, r.h, wall())
	if !r.h.isSound {
		t.Fatal("a sound check is not remembered")
	}
	other := wall()
	other.ClosedTCP = []uint16{180}
	if ok, _, err := r.h.Check(t.Context(), other); ok || err != nil {
		t.Fatalf("another firewall is sound: %v, %v", ok, err)
	}
	sound(t, r.h, wall())
	r.run(t, "nft add table ip other")
	sound(t, r.h, wall())
	r.run(t, "nft delete table inet fairway")
	if ok, _, err := r.h.Check(t.Context(), wall()); ok || err != nil {
		t.Fatalf("a deleted table is sound: %v, %v", ok, err)
	}
}

func TestClosedHandle(t *testing.T) {
	r := newRig(t, "nft")
	h, err := Open(Config{Namespace: r.space.h.ns})
	if err != nil {
		t.Fatal(err)
	}
	h.Close()
	h.Close()
	ok, _, checked := h.Check(t.Context(), wall())
	_, applied := h.Apply(t.Context(), wall())
	_, asked := h.Status()
	removed, watched := h.Remove(t.Context()), h.Watch(t.Context(), func() {})
	for _, err := range []error{checked, applied, asked, removed, watched} {
		if ok || !errors.Is(err, errClosed) {
			t.Fatalf("a closed handle works: %v, %v", ok, err)
		}
	}
	if _, err := Open(Config{Namespace: 1 << 20}); err == nil {
		t.Fatal("a descriptor that is none is taken")
	}
}
