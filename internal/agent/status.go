package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"fairway/internal/api"
	"fairway/internal/cnm"
	"fairway/internal/config"
	"fairway/internal/kernel"
)

// Status implements api.Viewer: the node on one screen.
func (a *Agent) Status(ctx context.Context) (api.Status, error) {
	cfg, res, eng := a.config(), a.loop.last(), a.engine().state()
	a.mu.Lock()
	u, book := a.under, a.book
	a.mu.Unlock()
	ready, reason := a.Ready()
	s := api.Status{
		Node:  api.Node{Name: a.nodeName(), Version: a.opt.Version, Started: a.started, RouterID: cfg.BGP.RouterID},
		Ready: ready, Reason: reason,
		Underlay: api.Underlay{Interface: u.Link, Address: u.Addr4, Address6: u.Addr6, MTU: u.MTU, Why: u.Why},
		Engine:   api.Engine{Enabled: cfg.Docker.Enabled},
		Pools:    []api.PoolUsage{}, Routes: map[string]int{}, Neighbours: neighbourTables(), Conditions: []api.Condition{},
		Kernel: api.Kernel{Passes: res.Passes, LastPass: api.Seconds(res.Took), Mended: res.Mended, Pending: []string{}},
	}
	if !s.Node.RouterID.IsValid() {
		s.Node.RouterID = u.Addr4
	}
	if cfg.Docker.Enabled {
		s.Engine = api.Engine{
			Enabled: true, Socket: cfg.Docker.Socket, Reachable: eng.Reachable, Version: eng.Version.Engine,
			APIVersion: eng.Version.API, LiveRestore: eng.LiveRestore,
		}
		s.Plugin = api.Plugin{Socket: filepath.Join(cfg.Docker.Plugins, cfg.Docker.Name+".sock"), Driver: cfg.Docker.Name, Ready: ready}
	}
	a.fabricStatus(ctx, &s, res)
	for _, r := range res.Reports {
		for _, k := range sortedKeys(r.Failed) {
			s.Kernel.Pending = append(s.Kernel.Pending, fmt.Sprintf("%s %s: %v", r.Name, k, r.Failed[k]))
		}
	}
	for key, r := range res.Output.State.Routes {
		s.Routes[routeKind(key, r)]++
	}
	if book != nil {
		a.bookStatus(ctx, &s, book.Snapshot())
	}
	s.Drain = a.drainView()
	if o, ok := a.overview(); ok {
		s.Store = o.Store()
	}
	s.Conditions = a.stamp(a.conditionsNow(cfg, s, res, eng))
	return s, nil
}

func routeKind(key kernel.RouteKey, r kernel.Route) string {
	switch {
	case r.Type == kernel.Blackhole:
		return "block"
	case learned(r):
		return "learned"
	case !key.Dst.IsSingleIP():
		return "block"
	}
	return "container"
}

func (a *Agent) bookStatus(ctx context.Context, s *api.Status, snap cnm.Snapshot) {
	s.Networks = len(snap.Networks)
	for _, e := range snap.Endpoints {
		if e.State == cnm.Joined {
			s.Containers++
		}
	}
	if view, err := a.IPAM(ctx); err == nil {
		for _, p := range view.Pools {
			s.Pools = append(s.Pools, p.PoolUsage)
		}
	}
}

func (a *Agent) fabricStatus(ctx context.Context, s *api.Status, res result) {
	st := a.fabric().Status()
	configured := 0
	for _, p := range a.config().BGP.Peers {
		if !p.Range.IsValid() {
			configured++
		}
	}
	s.Fabric = api.Fabric{
		Name: st.Name, Converged: st.Converged,
		Learned: a.rib.Len(), Announced: len(res.Announced), Peers: []api.Peer{}, Prefixes: []api.Announced{},
	}
	for _, p := range slices.SortedFunc(maps.Keys(res.Announced), netip.Prefix.Compare) {
		s.Fabric.Prefixes = append(s.Fabric.Prefixes, api.Announced{Prefix: p, Kind: res.Announced[p].Kind})
	}
	peers, err := a.Peers(ctx)
	if err != nil {
		return
	}
	s.Fabric.Peers = peers
	for _, p := range peers {
		if p.Established() {
			s.Fabric.PeersEstablished++
		}
		if !p.Away {
			s.Fabric.PeersConfigured++
		}
	}
}

// findings collects conditions.
type findings []api.Condition

func (f *findings) add(code string, sev api.Severity, hint, format string, args ...any) {
	*f = append(*f, api.Condition{Code: code, Severity: sev, Text: fmt.Sprintf(format, args...), Hint: hint})
}

// conditionsNow are all faults that stand, without the time since when.
func (a *Agent) conditionsNow(cfg *config.Config, s api.Status, res result, eng engineState) []api.Condition {
	var f findings
	if !s.Ready {
		f.add("starting", api.SeverityWarning, "", "not ready: %s", s.Reason)
	}
	f.kernel(s, res)
	if s.Store == nil || s.Store.Fenced == "" { // nobody talks to a node that was removed
		f.peers(s.Fabric.Peers)
	}
	f = append(f, a.clusterConditions(s)...)
	names := a.names()
	for _, c := range a.rib.Conflicts() {
		var who []string
		for _, p := range c.Paths {
			who = append(who, cmp.Or(holder(names, p), p.Peer))
		}
		f.add("duplicate-address", api.SeverityError, "stop one of the two containers, or give one of them another address",
			"address %s is announced by more than one node: %s", c.Prefix.Addr(), strings.Join(who, ", "))
	}
	if cfg.Docker.Enabled && s.Ready && !eng.Reachable && time.Since(a.started) > engineGrace {
		f.add("engine-unreachable", api.SeverityWarning, "running containers do not notice; start the engine, or set docker.socket",
			"the Docker engine does not answer at %s%s", cfg.Docker.Socket, because(errText(eng.Err)))
	}
	f.tables(s)
	a.dockerConditions(context.Background(), &f, res)
	a.bridgeConditions(context.Background(), &f, res)
	return append(f, a.firewallConditions()...)
}

// kernel finds what could not be planned or applied.
func (f *findings) kernel(s api.Status, res result) {
	const hint = "it is tried again; the log of the agent has the details"
	for _, p := range s.Kernel.Pending {
		f.add("not-applied", api.SeverityError, hint, "%s", p)
	}
	if res.Err != nil && len(s.Kernel.Pending) == 0 {
		f.add("not-applied", api.SeverityError, hint, "%v", res.Err)
	}
	for _, p := range res.Output.Problems {
		f.add(strings.ReplaceAll(p.Code, "_", "-"), api.SeverityError, p.Hint, "%s", p.Text)
	}
}

// peers finds sessions that are down or in trouble.
func (f *findings) peers(peers []api.Peer) {
	for _, p := range peers {
		switch {
		case p.Problem != "":
			f.add("peer-problem", api.SeverityError, "", "peer %s: %s", p.Name, p.Problem)
		case !p.Established() && !p.Away: // of a node that is not alive there is a condition of its own
			f.add("peer-down", api.SeverityError, "check that it runs, that its AS number and password agree, and that TCP port 179 is open between the two",
				"peer %s is %s%s", p.Name, p.State, because(p.LastError))
		}
	}
}

// tables finds what is nearly full.
func (f *findings) tables(s api.Status) {
	for _, p := range s.Pools {
		if p.Usage > poolNearlyFull && p.Held > 0 {
			f.add("pool-nearly-full", api.SeverityWarning, "`fairway ipam check --fix` ends leaks; else give the network a larger subnet or --ip-range",
				"pool %s: %.0f %% of what this node can give out is used", p.CIDR, 100*p.Usage)
		}
	}
	for _, n := range s.Neighbours {
		if n.Limit > 0 && n.Entries*5 > n.Limit*4 {
			f.add("neighbour-table-nearly-full", api.SeverityWarning, "raise net."+n.Family+".neigh.default.gc_thresh3",
				"%s neighbour table: %d of %d entries", n.Family, n.Entries, n.Limit)
		}
	}
}

const (
	engineGrace    = 10 * time.Second // an engine is started after us
	poolNearlyFull = 0.9
)

func because(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// stamp adds since when each condition stands, and logs the ones that come and go.
func (a *Agent) stamp(now []api.Condition) []api.Condition {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := make(map[string]api.Condition, len(now))
	for i := range now {
		key := now[i].Code + "\x00" + now[i].Text
		switch was, ok := a.conditions[key]; {
		case !now[i].Since.IsZero(): // who found it knows
		case ok:
			now[i].Since = was.Since
		default:
			now[i].Since = time.Now()
		}
		next[key] = now[i]
	}
	a.conditions = next
	slices.SortStableFunc(now, func(x, y api.Condition) int { return severity(y.Severity) - severity(x.Severity) })
	return now
}

func severity(s api.Severity) int {
	switch s {
	case api.SeverityError:
		return 2
	case api.SeverityWarning:
		return 1
	case api.SeverityInfo:
	}
	return 0
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// firewallConditions are what the firewall cannot do or is in the way of.
func (a *Agent) firewallConditions() []api.Condition {
	if a.kern == nil || !a.config().Docker.Enabled {
		return nil
	}
	st, err := a.kern.fw.Status()
	if err != nil {
		return []api.Condition{{Code: "firewall-unknown", Severity: api.SeverityWarning, Text: "read the firewall: " + err.Error()}}
	}
	var out []api.Condition
	for _, c := range st.Conditions {
		out = append(out, api.Condition{Code: c.Code, Severity: api.SeverityError, Text: c.Text})
	}
	return out
}
