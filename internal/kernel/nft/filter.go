package nft

import (
	"slices"
	"strings"

	"fairway/internal/kernel"
)

// Names in iptables' table "filter".
const (
	tableFilter     = "filter"
	chainForward    = "FORWARD"
	chainDockerUser = "DOCKER-USER"
	chainOwn        = "FAIRWAY"
)

// filter is what concerns us in the table "filter" of iptables or ip6tables. Its zero value is a host without one.
type filter struct {
	present     bool                  // the table is there
	forwardDrop bool                  // FORWARD's policy is DROP
	chains      map[string][]ruleSpec // FORWARD, DOCKER-USER and FAIRWAY, those that are there; rules in order
	strays      []string              // other chains with rules that lead to FAIRWAY; only iptables -S tells them
}

// ruleSpec is a rule as iptables -S writes it after "-A CHAIN", word by word. A rule read over netlink that is none of
// those that concern us is the single word "?".
type ruleSpec []string

func (r ruleSpec) target() string {
	if i := slices.Index(r, "-j"); i >= 0 && i+1 < len(r) {
		return r[i+1]
	}
	return ""
}

// always says that the rule has no condition.
func (r ruleSpec) always() bool {
	if len(r) > 3 && r[0] == "-m" && r[1] == "comment" && r[2] == "--comment" {
		r = r[4:]
	}
	return len(r) == 2 && r[0] == "-j"
}

func (f filter) has(chain string) bool {
	_, ok := f.chains[chain]
	return ok
}

// callsDockerUser says that forwarded packets come through DOCKER-USER.
func (f filter) callsDockerUser() bool {
	return slices.ContainsFunc(f.chains[chainForward], func(r ruleSpec) bool {
		return r.always() && r.target() == chainDockerUser
	})
}

// jump is our rule in chains of others.
func jump() ruleSpec {
	return ruleSpec{"-m", "comment", "--comment", kernel.RuleComment, "-j", chainOwn}
}

// ownRules are the rules of chain FAIRWAY: none when nothing is to be accepted.
func ownRules(fw kernel.Firewall) []ruleSpec {
	var out []ruleSpec
	for _, l := range fw.Links {
		out = append(out, ruleSpec{"-i", asIPTables(l), "-j", "ACCEPT"}, ruleSpec{"-o", asIPTables(l), "-j", "ACCEPT"})
	}
	return append(out, bridgeRules(fw.Bridges)...)
}

// dockersBridges are patterns of the names that the engine gives to its bridges.
func dockersBridges() []string { return []string{"docker0", "br-+"} }

// bridgeRules accept what is forwarded from and to some of Docker's bridges. Docker keeps its bridges apart from each
// other, behind DOCKER-USER: that stays so between one of ours and one that is not, and ends between two of ours, whose
// containers reach each other over any other host.
func bridgeRules(bridges []string) []ruleSpec {
	var out []ruleSpec
	for _, b := range bridges {
		for _, to := range bridges {
			if to != b {
				out = append(out, ruleSpec{"-i", b, "-o", to, "-j", "ACCEPT"})
			}
		}
	}
	for _, b := range bridges {
		for _, other := range dockersBridges() {
			if !slices.Contains(bridges, other) {
				out = append(out, ruleSpec{"-i", b, "-o", other, "-j", "RETURN"}, ruleSpec{"-i", other, "-o", b, "-j", "RETURN"})
			}
		}
		out = append(out, ruleSpec{"-i", b, "-j", "ACCEPT"}, ruleSpec{"-o", b, "-j", "ACCEPT"})
	}
	return out
}

// op is the kind of a step.
type op int

const (
	opNewChain op = iota
	opInsert
	opDelete
	opDeleteAt
	opDeleteChain
)

// step is one change by one run of iptables.
type step struct {
	op    op
	chain string
	at    int // opInsert, opDeleteAt: position, the first is 1
	spec  ruleSpec
	lacks string // what is wrong, in words
	done  string // what was done about it, in words; "%s" stands where "back " may be
}

// plan is what has to be done to f so that the wanted rules are in force. It is nothing on a host that drops nothing:
// where there is neither DOCKER-USER nor a FORWARD with policy DROP.
//
// The jump stands in DOCKER-USER where that is there, and as well in a FORWARD that drops and does not lead to
// DOCKER-USER (before the engine has started, with --iptables=false, after iptables -F). It is put at the head, and need
// not stay there: what somebody puts before it is meant to come before it. Only behind a RETURN without condition it
// would never be reached.
//
// Chains are filled before they are led to, and new rules stand before old ones go, so that no accepted packet is lost.
func plan(f filter, want []ruleSpec) []step {
	if !f.present {
		return nil
	}
	needed := len(want) > 0 && (f.has(chainDockerUser) || f.forwardDrop)
	var steps []step
	if needed {
		steps = ownSteps(f, want)
	}
	steps = append(steps, jumpSteps(f, chainDockerUser, needed)...)
	steps = append(steps, jumpSteps(f, chainForward, needed && f.forwardDrop && !f.callsDockerUser())...)
	if !needed && f.has(chainOwn) && len(f.strays) == 0 {
		steps = append(steps, step{
			op: opDeleteChain, chain: chainOwn,
			lacks: "chain FAIRWAY is there but not needed", done: "removed chain FAIRWAY",
		})
	}
	return steps
}

func ownSteps(f filter, want []ruleSpec) []step {
	have, ok := f.chains[chainOwn]
	if ok && slices.EqualFunc(have, want, slices.Equal[ruleSpec]) {
		return nil
	}
	what := step{op: opInsert, chain: chainOwn, lacks: "chain FAIRWAY has other rules", done: "restored the rules of chain FAIRWAY"}
	var steps []step
	if !ok {
		what.lacks, what.done = "chain FAIRWAY is missing", "made chain FAIRWAY"
		first := what
		first.op = opNewChain
		steps = append(steps, first)
	}
	for i, r := range want {
		what.at, what.spec = i+1, r
		steps = append(steps, what)
	}
	what.op, what.at, what.spec = opDeleteAt, len(want)+1, nil
	for range have {
		steps = append(steps, what)
	}
	return steps
}

// jumpSteps makes our jump stand in a chain once if wanted, and never otherwise.
func jumpSteps(f filter, chain string, wanted bool) []step {
	rules, ok := f.chains[chain]
	if !ok {
		return nil
	}
	var steps []step
	found, unreachable := false, false
	for _, r := range rules {
		switch {
		case r.target() == chainOwn:
			if wanted && !found && !unreachable && slices.Equal(r, jump()) {
				found = true
				continue
			}
			steps = append(steps, step{
				op: opDelete, chain: chain, spec: r,
				lacks: "a jump to FAIRWAY too much in " + chain, done: "removed a jump to FAIRWAY from " + chain,
			})
		case r.always() && r.target() == "RETURN":
			unreachable = true
		}
	}
	if wanted && !found {
		steps = append(steps, step{
			op: opInsert, chain: chain, at: 1, spec: jump(),
			lacks: "the accept rule is missing in " + chain, done: "put the accept rule %sinto " + chain,
		})
	}
	return steps
}

// parseSave reads the output of iptables -S.
func parseSave(out string) filter {
	f := filter{present: true, chains: map[string][]ruleSpec{}}
	for line := range strings.Lines(out) {
		if !slices.ContainsFunc(strings.Fields(line), concerns) {
			continue // most of a busy host's rules
		}
		if w := words(line); len(w) >= 2 {
			f.add(w[0], w[1], w[2:])
		}
	}
	return f
}

// concerns says that a chain is one of those that are read.
func concerns(chain string) bool {
	return chain == chainForward || chain == chainDockerUser || chain == chainOwn
}

// add takes in one line: its command, the chain, and what follows.
func (f *filter) add(command, chain string, rest ruleSpec) {
	switch {
	case command == "-A" && concerns(chain):
		f.chains[chain] = append(f.chains[chain], rest)
	case command == "-A" && rest.target() == chainOwn && !slices.Contains(f.strays, chain):
		f.strays = append(f.strays, chain)
	case command == "-N" && concerns(chain):
		f.chains[chain] = nil
	case command == "-P" && chain == chainForward:
		f.chains[chain] = nil
		f.forwardDrop = slices.Equal(rest[:min(1, len(rest))], ruleSpec{"DROP"})
	}
}

// words splits a line as iptables writes it: words with blanks in them are in double quotes, in which a backslash
// stands before a quote or a backslash.
func words(line string) []string {
	var out []string
	var b strings.Builder
	inWord, quoted, escaped := false, false, false
	for _, c := range strings.TrimSpace(line) {
		switch {
		case escaped:
			b.WriteRune(c)
			escaped = false
		case c == '\\' && quoted:
			escaped = true
		case c == '"':
			quoted, inWord = !quoted, true
		case c == ' ' && !quoted:
			if inWord {
				out = append(out, b.String())
				b.Reset()
			}
			inWord = false
		default:
			b.WriteRune(c)
			inWord = true
		}
	}
	if inWord {
		out = append(out, b.String())
	}
	return out
}
