package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"fairway/internal/api"
)

// What the screen has room for; the rest is counted, and is in the listings.
const (
	statusPools      = 4
	statusPeers      = 4
	statusConditions = 5
)

// statusScreen is a status as people see it.
type statusScreen struct {
	api.Status
	now     time.Time
	painter painter
}

func (s statusScreen) write(w io.Writer) error {
	var b bytes.Buffer
	s.head(&b)
	if err := s.pools(&b); err != nil {
		return err
	}
	if err := s.sessions(&b); err != nil {
		return err
	}
	s.conditions(&b)
	_, err := w.Write(b.Bytes())
	return err
}

func (s statusScreen) head(b *bytes.Buffer) {
	colour, text := s.verdict()
	b.WriteString(s.painter.paint(colour, cut(cut(clean(s.Node.Name), longName)+": "+clean(text), screen)) + "\n")
	field := func(name, text string) { b.WriteString(wrap(fmt.Sprintf("  %-9s ", name), cut(clean(text), longText))) }
	agent := fmt.Sprintf("fairway %s, up %s", s.Node.Version, age(s.now, s.Node.Started))
	if s.Node.RouterID.IsValid() {
		agent += ", router ID " + s.Node.RouterID.String()
	}
	field("Agent", agent)
	field("Underlay", s.underlay())
	if s.Underlay.Why != "" {
		field("", s.Underlay.Why)
	}
	field("Engine", s.engine())
	if s.Engine.Enabled {
		plugin := fmt.Sprintf("driver %s on %s", or(s.Plugin.Driver), or(s.Plugin.Socket))
		if !s.Plugin.Ready {
			plugin += ", not ready"
		}
		field("Plugin", plugin)
		field("Serving", fmt.Sprintf("%s on %s", count(s.Containers, "container"), count(s.Networks, "network")))
	}
	field("Fabric", s.fabric())
	if s.Store != nil {
		field("Store", s.store())
	}
	if s.Drain != nil {
		field("Drain", s.Drain.State+": "+drainText(*s.Drain, s.now))
	}
	field("Kernel", s.kernel())
}

// store is the cluster in one line.
func (s statusScreen) store() string {
	st := s.Store
	if st.Fenced != "" {
		return "this node is fenced in " + st.Where
	}
	if !st.Reachable {
		return fmt.Sprintf("unreachable for %s: %s", age(s.now, st.Since), st.Where)
	}
	return fmt.Sprintf("reachable for %s, %d of %s alive, %s, %s of ours: %s", age(s.now, st.Since), st.Alive,
		count(st.Nodes, "node"), count(st.Networks, "network"), count(st.Blocks, "block"), st.Where)
}

// verdict is the screen in one line.
func (s statusScreen) verdict() (colour, string) {
	count := map[api.Severity]int{}
	for _, c := range s.Conditions {
		count[c.Severity]++
	}
	errs, warnings := count[api.SeverityError], count[api.SeverityWarning]
	switch {
	case !s.Ready:
		return red, "not ready: " + s.Reason
	case errs > 0:
		return red, fmt.Sprintf("ready, but %d %s below", errs, plural(errs, "error stands", "errors stand"))
	case warnings > 0:
		return yellow, fmt.Sprintf("ready, with %d %s below", warnings, plural(warnings, "warning", "warnings"))
	}
	return green, "ready"
}

func (s statusScreen) underlay() string {
	u := s.Underlay
	if u.Interface == "" && !u.Address.IsValid() && !u.Address6.IsValid() {
		return "none"
	}
	parts := []string{or(u.Interface)}
	if u.Address.IsValid() {
		parts = append(parts, u.Address.String())
	}
	if u.Address6.IsValid() {
		parts = append(parts, u.Address6.String())
	}
	return strings.Join(append(parts, fmt.Sprintf("MTU %d", u.MTU)), ", ")
}

func (s statusScreen) engine() string {
	e := s.Engine
	switch {
	case !e.Enabled:
		return "none (docker.enabled is false): a plain router"
	case !e.Reachable:
		return "no answer on " + e.Socket
	case e.LiveRestore:
		return fmt.Sprintf("Docker %s (API %s), live restore on", or(e.Version), or(e.APIVersion))
	}
	return fmt.Sprintf("Docker %s (API %s), live restore off", or(e.Version), or(e.APIVersion))
}

func (s statusScreen) fabric() string {
	f := s.Fabric
	if f.Name == "none" || f.Name == "" {
		return "none: this node alone"
	}
	text := f.Name + ", converged"
	if !f.Converged {
		text = f.Name + ", not converged yet"
	}
	if f.PeersConfigured > 0 || f.PeersEstablished > 0 {
		text += fmt.Sprintf(", %d of %d sessions up", f.PeersEstablished, f.PeersConfigured)
	}
	return text + fmt.Sprintf(", %s learned, %d announced", fmt.Sprintf("%d %s", f.Learned, plural(f.Learned, "prefix", "prefixes")), f.Announced)
}

func (s statusScreen) kernel() string {
	k := s.Kernel
	routes := 0
	for _, n := range s.Routes {
		routes += n
	}
	text := fmt.Sprintf("%s of ours; last pass %s", count(routes, "route"), millis(time.Duration(k.LastPass)))
	var mended []string
	for _, kind := range slices.Sorted(maps.Keys(k.Mended)) {
		if n := k.Mended[kind]; n > 0 {
			mended = append(mended, fmt.Sprintf("%s %d", kind, n))
		}
	}
	if len(mended) > 0 {
		text += "; put back: " + strings.Join(mended, ", ")
	}
	if n := len(k.Pending); n > 0 {
		text += fmt.Sprintf("; %s pending", count(n, "error"))
	}
	return text
}

func (s statusScreen) pools(b *bytes.Buffer) error {
	if len(s.Pools) == 0 {
		return nil
	}
	pools := slices.Clone(s.Pools)
	if len(pools) > statusPools { // the fullest are what matters
		slices.SortStableFunc(pools, func(x, y api.PoolUsage) int { return cmp.Compare(y.Usage, x.Usage) })
	}
	t := table{columns: []column{
		{title: "POOL"},
		{title: "BLOCKS", right: true},
		{title: "HELD", right: true},
		{title: "RESTING", right: true},
		{title: "FREE", right: true},
		{title: "USED", right: true},
	}, indent: 2}
	for _, p := range pools[:min(len(pools), statusPools)] {
		t.add(append([]string{p.CIDR.String(), fmt.Sprint(p.Blocks)}, usage(p)...)...)
	}
	return s.section(b, &t, len(pools)-statusPools, "pool", "fairway ipam show")
}

// usage is what every table of pools says of one: held, resting, free, used.
func usage(p api.PoolUsage) []string {
	return []string{fmt.Sprint(p.Held), fmt.Sprint(p.Resting), many(p.Free), percent(p.Usage)}
}

// percent rounds, but never to nothing and never to all.
func percent(share float64) string {
	switch {
	case share > 0 && share < 0.01:
		return "<1%"
	case share > 0.99 && share < 1:
		return ">99%"
	}
	return fmt.Sprintf("%.0f%%", 100*share)
}

func (s statusScreen) sessions(b *bytes.Buffer) error {
	if len(s.Fabric.Peers) == 0 {
		return nil
	}
	peers := slices.Clone(s.Fabric.Peers)
	slices.SortStableFunc(peers, func(x, y api.Peer) int { // those that are down first
		return cmp.Compare(flagOf(x.Established()), flagOf(y.Established()))
	})
	t := peerTable(peers[:min(len(peers), statusPeers)], s.now)
	t.indent = 2
	return s.section(b, t, len(peers)-statusPeers, "session", "fairway peer ls")
}

func flagOf(b bool) int {
	if b {
		return 1
	}
	return 0
}

// section writes a table after an empty line, and where the rest is when it has not all.
func (s statusScreen) section(b *bytes.Buffer, t *table, more int, what, where string) error {
	b.WriteByte('\n')
	if err := t.write(b, s.painter); err != nil {
		return err
	}
	if more > 0 {
		fmt.Fprintf(b, "  and %s more: %s\n", count(more, what), where)
	}
	return nil
}

func (s statusScreen) conditions(b *bytes.Buffer) {
	if len(s.Conditions) == 0 {
		b.WriteString("\nNothing is wrong.\n")
		return
	}
	all := slices.Clone(s.Conditions)
	slices.SortStableFunc(all, func(x, y api.Condition) int {
		return cmp.Or(cmp.Compare(rank(x.Severity), rank(y.Severity)), x.Since.Compare(y.Since))
	})
	b.WriteByte('\n')
	for _, c := range all[:min(len(all), statusConditions)] {
		name := fmt.Sprintf("%-8s", c.Severity)
		text := wrap(name, fmt.Sprintf("%s (%s, for %s)", cut(clean(c.Text), longText), c.Code, age(s.now, c.Since)))
		b.WriteString(s.painter.paint(severityColour(c.Severity), name) + strings.TrimPrefix(text, name))
		if c.Hint != "" {
			b.WriteString(wrap("        > ", cut(clean(c.Hint), longText)))
		}
	}
	if more := len(all) - statusConditions; more > 0 {
		fmt.Fprintf(b, "and %s more: fairway status -o json\n", count(more, "condition"))
	}
}

func rank(s api.Severity) int {
	return slices.Index([]api.Severity{api.SeverityError, api.SeverityWarning, api.SeverityInfo}, s)
}

func severityColour(s api.Severity) colour {
	switch s {
	case api.SeverityError:
		return red
	case api.SeverityWarning:
		return yellow
	case api.SeverityInfo:
	}
	return plain
}
