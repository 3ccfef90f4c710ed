package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"fairway/internal/kernel"

	"golang.org/x/sys/unix"
)

// Status is what is in place.
type Status struct {
	// Table says that table "inet fairway" is there, and ReversePath that it has the reverse path rule, which keeps
	// IPv4 and IPv6 from spoofing.
	Table, ReversePath bool
	// Bridge says that table "bridge fairway" is there, which keeps containers on bridges from spoofing.
	Bridge     bool
	IPv4, IPv6 FilterStatus
	// Dropped counts what each rule of ours dropped since the table was last written, in the order of the rules.
	Dropped []Dropped
	// Conditions are what is not as it should be, with what to do.
	Conditions []Condition
}

// FilterStatus is what is in place in the table "filter" of iptables or ip6tables.
type FilterStatus struct {
	Backend    Backend
	DockerUser bool // chain DOCKER-USER is there
	PolicyDrop bool // FORWARD drops what no rule accepts
	// Jumps are the chains in which our accept rule stands. None are needed when neither of the above is true.
	Jumps []string
}

// Dropped is the counter of one rule.
type Dropped struct {
	Rule           string // its comment
	Packets, Bytes uint64
}

// Condition is a finding for the operator.
type Condition struct {
	Code string // stable: "no-reverse-path", "no-bridge-filter", "foreign-drop", "no-iptables", "other-backend"
	Text string // what is, and what to do about it
}

// Status reads what is in place now. It may run each iptables program of the host once.
func (h *Handle) Status() (Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), runTime)
	defer cancel()
	h.mu.Lock()
	defer h.mu.Unlock()
	var s Status
	if h.closed {
		return s, errClosed
	}
	err := errors.Join(h.tableStatus(ctx, &s), h.bridgeStatus(ctx, &s))
	for i, f := range h.families {
		into := &s.IPv4
		if i == 1 {
			into = &s.IPv6
		}
		err = errors.Join(err, h.filterStatus(ctx, f, into, &s))
	}
	chains, e := h.nl.chains(ctx)
	for _, c := range chains {
		if foreignDrop(c) {
			s.Conditions = append(s.Conditions, Condition{"foreign-drop", fmt.Sprintf(
				"chain %s of nftables table %s %s drops forwarded packets by its policy, whatever other chains accept: accept the links of fairway (fw*) there",
				c.name, familyName(c.family), c.table)})
		}
	}
	return s, errors.Join(err, e)
}

func (h *Handle) tableStatus(ctx context.Context, s *Status) error {
	_, _, ok, err := h.nl.table(ctx, unix.NFPROTO_INET)
	if err != nil || !ok {
		return err
	}
	s.Table = true
	rules, err := h.nl.rules(ctx, unix.NFPROTO_INET, kernel.TableName, "")
	if err != nil {
		return err
	}
	antiSpoof := false
	for _, r := range rules {
		antiSpoof = antiSpoof || r.chain == chainSource
		s.ReversePath = s.ReversePath || slices.ContainsFunc(r.exprs, func(e string) bool { return strings.HasPrefix(e, "fib ") })
		if r.counted {
			s.Dropped = append(s.Dropped, Dropped{r.comment, r.packets, r.bytes})
		}
	}
	if antiSpoof && !s.ReversePath {
		s.Conditions = append(s.Conditions, Condition{
			"no-reverse-path",
			"the kernel has no reverse path lookup in nftables (nft_fib_inet): containers are kept from sending with others' addresses only for IPv4, by rp_filter: use a kernel with CONFIG_NFT_FIB_INET",
		})
	}
	return nil
}

func (h *Handle) filterStatus(ctx context.Context, f *family, into *FilterStatus, s *Status) error {
	programs := h.programs(ctx, f)
	if !slices.ContainsFunc(programs, func(p program) bool { return p.backend != Legacy }) {
		// What iptables-nft has left is seen without it.
		programs = append(programs, program{path: f.name + "-nft", backend: NoIPTables})
	}
	var errs error
	for i, p := range programs {
		have, _, err := h.pending(ctx, f, p, kernel.Firewall{})
		errs = errors.Join(errs, err)
		if i > 0 {
			if have.forwardDrop {
				s.Conditions = append(s.Conditions, Condition{"other-backend", fmt.Sprintf(
					"chain FORWARD of %s drops by its policy, while %s is of the other backend (%s), whose rules cannot help: set the policy with %s -P FORWARD ACCEPT",
					p.path, f.name, into.Backend, p.path)})
			}
			continue
		}
		into.Backend, into.PolicyDrop, into.DockerUser = p.backend, have.forwardDrop, have.has(chainDockerUser)
		for _, chain := range []string{chainDockerUser, chainForward} {
			if slices.ContainsFunc(have.chains[chain], func(r ruleSpec) bool { return slices.Equal(r, jump()) }) {
				into.Jumps = append(into.Jumps, chain)
			}
		}
		if p.backend == NoIPTables && have.forwardDrop {
			s.Conditions = append(s.Conditions, Condition{"no-iptables", fmt.Sprintf(
				"chain FORWARD drops by its policy, and there is no program %s to accept fairway's traffic with: install it", f.name)})
		}
	}
	return errs
}

// foreignDrop says that a chain drops what is forwarded by its policy and is not iptables-nft's, where our accept rule
// can stand. Docker's own tables for nftables accept by policy.
func foreignDrop(c chainInfo) bool {
	if !c.base || !c.drop || c.hook != unix.NF_INET_FORWARD {
		return false
	}
	switch c.family {
	case unix.NFPROTO_IPV4, unix.NFPROTO_IPV6:
		return c.table != tableFilter || c.name != chainForward
	default:
		return c.family == unix.NFPROTO_INET
	}
}

func familyName(nf uint8) string {
	switch nf {
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_IPV6:
		return "ip6"
	default:
		return "inet"
	}
}
