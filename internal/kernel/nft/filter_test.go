package nft

import (
	"fmt"
	"strings"
	"testing"

	"fairway/internal/kernel"

	"github.com/google/go-cmp/cmp"
)

func (s step) String() string {
	return strings.TrimSpace(strings.Join([]string{
		map[op]string{opNewChain: "-N", opInsert: "-I", opDelete: "-D", opDeleteAt: "-D", opDeleteChain: "-F -X"}[s.op],
		s.chain, strings.TrimPrefix(fmt.Sprint(s.at), "0"), strings.Join(s.spec, " "),
	}, " "))
}

func TestPlan(t *testing.T) {
	const full = `
-N FAIRWAY
-A FAIRWAY -i fw+ -j ACCEPT
-A FAIRWAY -o fw+ -j ACCEPT`
	for _, c := range []struct {
		name, have string
		links      []string
		want       []string
	}{
		{"nothing drops", "-P FORWARD ACCEPT", []string{"fw*"}, nil},
		{"policy", "-P FORWARD DROP", []string{"fw*", "lan0"}, []string{
			"-N FAIRWAY", "-I FAIRWAY 1 -i fw+ -j ACCEPT", "-I FAIRWAY 2 -o fw+ -j ACCEPT", "-I FAIRWAY 3 -i lan0 -j ACCEPT",
			"-I FAIRWAY 4 -o lan0 -j ACCEPT", "-I FORWARD 1 -m comment --comment fairway -j FAIRWAY",
		}},
		{"policy, no links", "-P FORWARD DROP", nil, nil},
		{"docker accepts", "-P FORWARD ACCEPT\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN" + full, []string{"fw*"}, []string{
			"-I DOCKER-USER 1 -m comment --comment fairway -j FAIRWAY",
		}},
		{
			"as it should be, in quotes",
			"-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -m comment --comment \"fairway\" -j FAIRWAY" + full,
			[]string{"fw*"},
			nil,
		},
		{
			"twice, and in FORWARD",
			"-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n-A FORWARD -m comment --comment fairway -j FAIRWAY\n" +
				"-A DOCKER-USER -m comment --comment fairway -j FAIRWAY\n-A DOCKER-USER -m comment --comment fairway -j FAIRWAY" + full,
			[]string{"fw*"},
			[]string{
				"-D DOCKER-USER  -m comment --comment fairway -j FAIRWAY", "-D FORWARD  -m comment --comment fairway -j FAIRWAY",
			},
		},
		{
			"led to under a condition only",
			"-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -i eth0 -j DOCKER-USER\n-A DOCKER-USER -m comment --comment fairway -j FAIRWAY" + full,
			[]string{"fw*"},
			[]string{"-I FORWARD 1 -m comment --comment fairway -j FAIRWAY"},
		},
		{
			"new before old",
			"-P FORWARD DROP\n-N FAIRWAY\n-A FORWARD -m comment --comment fairway -j FAIRWAY\n-A FAIRWAY -i fw+ -j ACCEPT",
			[]string{"fw*"},
			[]string{"-I FAIRWAY 1 -i fw+ -j ACCEPT", "-I FAIRWAY 2 -o fw+ -j ACCEPT", "-D FAIRWAY 3"},
		},
		{
			"not needed any more",
			"-P FORWARD ACCEPT\n-A FORWARD -m comment --comment fairway -j FAIRWAY" + full,
			[]string{"fw*"},
			[]string{"-D FORWARD  -m comment --comment fairway -j FAIRWAY", "-F -X FAIRWAY"},
		},
		{
			"a stranger leads to us",
			"-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-A INPUT -m comment --comment \"a \\\"word\\\"\" -j FAIRWAY" + full,
			[]string{"fw*"},
			nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, s := range plan(parseSave(c.have), ownRules(kernel.Firewall{Links: c.links})) {
				got = append(got, s.String())
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
	if steps := plan(filter{}, ownRules(kernel.Firewall{Links: []string{"fw*"}})); len(steps) > 0 {
		t.Errorf("a host without the table gets %v", steps)
	}
}

func TestWords(t *testing.T) {
	for line, want := range map[string][]string{
		"-A X -j Y\n": {"-A", "X", "-j", "Y"},
		`-A X -m comment --comment "two words" -j Y`: {"-A", "X", "-m", "comment", "--comment", "two words", "-j", "Y"},
		`-A X --comment "a \"quote\" and a \\" -j Y`: {"-A", "X", "--comment", `a "quote" and a \`, "-j", "Y"},
		`-A X --comment "" -j Y`:                     {"-A", "X", "--comment", "", "-j", "Y"},
		`# Warning: iptables-legacy tables present`:  {"#", "Warning:", "iptables-legacy", "tables", "present"},
		`-A X --comment "-j FAIRWAY`:                 {"-A", "X", "--comment", "-j FAIRWAY"},
		"":                                           nil,
	} {
		if d := cmp.Diff(want, words(line)); d != "" {
			t.Errorf("%s: %s", line, d)
		}
	}
}

// Messages that are cut off anywhere are read up to there.
func TestCutMessages(t *testing.T) {
	m := encode(1, 2, 0, 7, [][]byte{text(1, "abc"), text(2, "de")})
	for n := range m {
		for _, body := range messages(m[:n]) {
			t.Fatalf("%d of %d bytes give a message of %d bytes", n, len(m), len(body))
		}
	}
	for h, body := range messages(m) {
		if h.Seq != 7 {
			t.Fatalf("sequence %d", h.Seq)
		}
		for n := sizeofGenmsg; n <= len(body); n++ {
			var got []string
			for k, v := range attributes(body[sizeofGenmsg:n]) {
				got = append(got, fmt.Sprintf("%d %s", k, cString(v)))
			}
			want := []string{"1 abc", "2 de"}[:len(got)]
			if d := cmp.Diff(want, append([]string{}, got...)); d != "" {
				t.Error(d)
			}
			if n == len(body) && len(got) != 2 {
				t.Errorf("got %q", got)
			}
		}
	}
}
