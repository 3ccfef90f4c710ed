package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"

	"fairway/internal/kernel"
	"fairway/internal/kernel/rtnl"
	"fairway/internal/reconcile"
)

// The sysctls that make a node a router.
const (
	sysctlForward4 = "net/ipv4/ip_forward"
	sysctlForward6 = "net/ipv6/conf/all/forwarding"
)

// sysctlStage sets sysctls; none is ever taken back.
type sysctlStage struct {
	m            *machinery
	want, before map[string]string
	sync         reconcile.Sync[string, string]
}

// Compare implements reconcile.Stage. What was seen as wanted is not read again until the kernel hints at a change.
func (s *sysctlStage) Compare(ctx context.Context) error {
	s.m.mu.Lock()
	known := maps.Clone(s.m.sysctls)
	s.m.mu.Unlock()
	todo := map[string]string{}
	for k, v := range s.want {
		if known[k] != v {
			todo[k] = v
		}
	}
	s.sync = reconcile.Sync[string, string]{
		Name: "sysctls", Table: reconcile.Facade(s.m.rt.Sysctls(), todo), Desired: todo, Before: s.before,
		Equal: func(a, b string) bool { return a == b }, Text: func(k string) string { return k },
	}
	return s.sync.Compare(ctx)
}

// Set implements reconcile.Stage.
func (s *sysctlStage) Set(ctx context.Context) {
	if v, turn := s.sync.Desired[sysctlForward6]; turn && v == "1" {
		s.m.keepRouterAdvertisements(ctx)
	}
	s.sync.Set(ctx)
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.sysctls = maps.Clone(s.want)
	for k := range s.sync.Errors() {
		delete(s.m.sysctls, k)
	}
}

// Delete implements reconcile.Stage: nothing to do.
func (s *sysctlStage) Delete(context.Context) {}

// Report implements reconcile.Stage.
func (s *sysctlStage) Report() reconcile.Report {
	s.sync.Name = "sysctls"
	if s.sync.Text == nil {
		s.sync.Text = func(k string) string { return k }
	}
	return s.sync.Report()
}

// keepRouterAdvertisements lets the node's own links go on taking router advertisements when it becomes a router:
// accept_ra=1 means "unless forwarding", and the node's default route would be gone (Documentation/networking/
// ip-sysctl.rst, accept_ra).
func (m *machinery) keepRouterAdvertisements(ctx context.Context) {
	facts, err := m.readFacts(ctx)
	if err != nil {
		return
	}
	var keys []string
	for name := range facts.Links {
		keys = append(keys, "net/ipv6/conf/"+name+"/accept_ra")
	}
	have, err := m.rt.Sysctls().Read(ctx, keys)
	if err != nil {
		return
	}
	for k, v := range have {
		if v != "1" {
			continue
		}
		if err := m.rt.Sysctls().Set(ctx, k, "2"); err != nil {
			m.log.Warn("a link may lose its IPv6 default route, as the node forwards now", slog.String("sysctl", k), slog.Any("err", err))
		}
	}
}

// firewallStage makes the firewall agree as a whole.
type firewallStage struct {
	m            *machinery
	want, before kernel.Firewall
	changed      []string
	err          error
	known        bool
}

// Compare implements reconcile.Stage.
func (s *firewallStage) Compare(context.Context) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.known = s.m.firewall && s.want.Equal(s.before)
	return nil
}

// Set implements reconcile.Stage.
func (s *firewallStage) Set(ctx context.Context) {
	if s.known {
		return
	}
	old := s.m.flowsBefore(ctx)
	s.changed, s.err = s.m.fw.Apply(ctx, s.want)
	if s.err == nil {
		s.err = s.m.flowsAfter(ctx, old, s.want.Masquerade, s.changed)
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.firewall = s.err == nil
}

// Delete implements reconcile.Stage: Apply did it.
func (s *firewallStage) Delete(context.Context) {}

// Report implements reconcile.Stage.
func (s *firewallStage) Report() reconcile.Report {
	r := reconcile.Report{Name: "rules", Set: len(s.changed)}
	same := s.want.Equal(s.before) // else the table was written anew because we want another one
	for _, what := range s.changed {
		// An engine that starts makes its chains, and our rule goes into them: that mends nothing.
		if same && (strings.Contains(what, "restored") || strings.Contains(what, "back into")) {
			r.Mended++
		}
	}
	if s.err != nil {
		r.Failed = map[string]error{"firewall": s.err}
	}
	return r
}

// sandboxStage adds what Docker does not put into a sandbox. A sandbox that is not there yet is no failure: the engine
// makes it, or moves the interface into it, after it was told of it.
type sandboxStage struct {
	m      *machinery
	want   map[kernel.SandboxKey]kernel.Sandbox
	links  map[string]kernel.Link
	todo   map[kernel.SandboxKey]kernel.Sandbox
	report reconcile.Report
}

// Compare implements reconcile.Stage.
func (s *sandboxStage) Compare(context.Context) error {
	s.todo = map[kernel.SandboxKey]kernel.Sandbox{}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	for k, v := range s.want {
		if have, ok := s.m.sandboxes[k]; !ok || !kernel.SandboxEqual(v, have) {
			s.todo[k] = v
		}
	}
	return nil
}

// Set implements reconcile.Stage.
func (s *sandboxStage) Set(ctx context.Context) {
	s.report = reconcile.Report{Failed: map[string]error{}}
	done := map[kernel.SandboxKey]kernel.Sandbox{}
	for k, v := range s.todo {
		err := s.m.rt.Sandboxes().Set(ctx, k, v)
		switch {
		case err == nil:
			done[k] = v
			s.report.Set++
		case errors.Is(err, rtnl.ErrNotReady):
			s.report.Pending++
		default:
			s.report.Failed[fmt.Sprintf("%s %s", k.Path, k.MAC)] = err
		}
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	kept := make(map[kernel.SandboxKey]kernel.Sandbox, len(s.want))
	for k := range s.want {
		if v, ok := done[k]; ok {
			kept[k] = v
		} else if v, ok := s.m.sandboxes[k]; ok {
			kept[k] = v
		}
	}
	s.m.sandboxes = kept
}

// Delete implements reconcile.Stage: a sandbox takes what was added with it.
func (s *sandboxStage) Delete(context.Context) {}

// Report implements reconcile.Stage.
func (s *sandboxStage) Report() reconcile.Report {
	s.report.Name = "sandboxes"
	return s.report
}
