package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"fairway/internal/cluster"
	"fairway/internal/cnm"
	"fairway/internal/engine"
	"fairway/internal/store"
)

// Times of the cluster's networks.
const (
	networksAgain = 2 * time.Second  // after something went wrong; doubles
	networksMost  = 30 * time.Second // between two tries, and between two looks when nothing happens
)

// networks makes this node's Docker networks what the cluster's records say. It is one goroutine, woken by changes of the
// records and of what the engine has; each time it compares everything. It is never waited for: the engine calls us back
// while it does as it is asked.
type networks struct {
	a      *Agent
	client *engine.Client // set by run
	marked chan struct{}
	inBook func(id string) bool // whether this node's own records have a Docker network

	mu      sync.Mutex
	trouble map[string]trouble // by the network's name
}

// trouble is what is wrong with one network on this node.
type trouble struct{ code, text, hint string }

func newNetworks(a *Agent) *networks {
	return &networks{a: a, marked: make(chan struct{}, 1), inBook: a.hasNetwork, trouble: map[string]trouble{}}
}

// wake asks for a look. It never waits.
func (n *networks) wake() {
	select {
	case n.marked <- struct{}{}:
	default:
	}
}

// problems are what is wrong, by network.
func (n *networks) problems() []trouble {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]trouble, 0, len(n.trouble))
	for _, name := range slices.Sorted(maps.Keys(n.trouble)) {
		out = append(out, n.trouble[name])
	}
	return out
}

// run works until the context ends.
func (n *networks) run(ctx context.Context, client *engine.Client) error {
	n.client = client
	timer := time.NewTimer(0)
	defer timer.Stop()
	delay := networksAgain
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.marked:
			delay = networksAgain // something has changed, so it may go better now
		case <-timer.C:
		}
		next := networksMost
		if n.look(ctx) {
			next, delay = delay, min(2*delay, networksMost)
		}
		timer.Reset(next)
	}
}

// look compares records and engine once, and does what differs. It returns true when it is to be tried again soon.
func (n *networks) look(ctx context.Context) (again bool) {
	c := n.a.clus()
	v := c.View()
	if h := c.Health(); !v.Complete || !h.Reachable || !h.Registered || h.Fenced != "" {
		return false // a change of any of these wakes us
	}
	known, err := c.KnownNetworks(ctx)
	if err != nil {
		n.a.log.Error("cannot read the networks that this node has", slog.Any("err", err))
		return true
	}
	if n.lostByStore(ctx, c, v, known) {
		return true
	}
	if len(v.Networks) == 0 && len(n.problems()) == 0 && !n.mayHaveLeftovers() {
		return false
	}
	have, err := n.client.Networks(ctx, n.a.config().Docker.Name)
	if err != nil {
		n.engineAway(ctx, c, v, err)
		return true
	}
	trouble := map[string]trouble{}
	for name, e := range v.Networks {
		s, t := n.settle(ctx, e.Value, have)
		if t != nil {
			trouble[name] = *t
		}
		if !n.recorded(ctx, c, e.Value, s, known[name]) {
			again = true
		}
	}
	n.leftovers(ctx, v, have, trouble)
	n.note(trouble)
	return again || len(trouble) > 0
}

// note takes over what is wrong, and logs what is news.
func (n *networks) note(now map[string]trouble) {
	n.mu.Lock()
	was := n.trouble
	n.trouble = now
	n.mu.Unlock()
	for name, t := range now {
		if was[name] != t {
			n.a.log.Warn("network of the cluster", slog.String("network", name), slog.String("problem", t.text))
		}
	}
	for name := range was {
		if _, still := now[name]; !still {
			n.a.log.Info("network of the cluster: no problem any more", slog.String("network", name))
		}
	}
}

// lostByStore has records written again that this node has and the store has lost. It returns true when it could not.
func (n *networks) lostByStore(ctx context.Context, c *cluster.Cluster, v *cluster.View, known map[string]cluster.Network) bool {
	lost := false
	for name := range known {
		lost = lost || !v.Has(cluster.NetworkKey(name))
	}
	if !lost {
		return false
	}
	written, err := c.RestoreNetworks(ctx)
	for _, name := range written {
		n.a.log.Warn("the store had lost the record of a network; it is there again", slog.String("network", name))
	}
	if err != nil {
		n.a.log.Error("cannot write records of networks again that the store has lost", slog.Any("err", err))
	}
	return err != nil
}

// engineAway says of networks that this node does not have yet why.
func (n *networks) engineAway(ctx context.Context, c *cluster.Cluster, v *cluster.View, err error) {
	for name, e := range v.Networks {
		if _, said := v.States[cluster.StateKey{Network: name, Node: c.Name()}]; said || !e.Value.Removing.IsZero() {
			continue
		}
		err := c.SetState(ctx, cluster.NetworkState{Network: name, State: cluster.StateFailed, Problem: err.Error()})
		if err != nil {
			n.a.log.Debug("cannot record the state of a network", slog.String("network", name), slog.Any("err", err))
		}
	}
}

// settle makes one network what its record says. The state is what to record; one without a State: the node does not
// have the network, as it should be.
func (n *networks) settle(ctx context.Context, want cluster.Network, have []engine.Network) (cluster.NetworkState, *trouble) {
	s := cluster.NetworkState{Network: want.Name}
	at := slices.IndexFunc(have, func(d engine.Network) bool { return d.Options[cnm.OptNetwork] == want.Name })
	switch {
	case !want.Removing.IsZero() && at < 0:
		return s, nil
	case !want.Removing.IsZero():
		return n.remove(ctx, s, have[at])
	case at >= 0:
		s.Docker = have[at].ID
		if diff := networkDiffers(want, have[at]); diff != "" {
			return failed(s, cluster.StateConflict, fmt.Sprintf("Docker network %s of this node is not as the cluster's %s: %s", have[at].Name, want.Name, diff),
				"remove the Docker network, it is made again as it should be: docker network rm "+have[at].Name)
		}
		if n.inBook(have[at].ID) {
			s.State = cluster.StateReady
			return s, nil
		}
		if s, t := n.outlived(ctx, s, have[at]); t != nil {
			return s, t
		}
	}
	id, err := n.client.NetworkCreate(ctx, n.spec(want))
	switch {
	case err == nil:
		n.a.log.Info("made a network of the cluster", slog.String("network", want.Name), slog.String("id", short(id)))
		s.State, s.Docker = cluster.StateReady, id
		return s, nil
	case engine.IsConflict(err):
		return failed(s, cluster.StateConflict, fmt.Sprintf("another Docker network of this node has the name %s", want.Name),
			"remove that one, and the cluster's is made: docker network rm "+want.Name)
	}
	text := err.Error()
	if message, ok := engine.Refused(err); ok {
		text = message
	}
	return failed(s, cluster.StateFailed, text, "it is tried again")
}

// hasNetwork says whether this node's book has a Docker network.
func (a *Agent) hasNetwork(id string) bool {
	book := a.bookNow()
	return book != nil && slices.ContainsFunc(book.Snapshot().Networks, func(d cnm.Network) bool { return d.ID == id })
}

// outlived removes a Docker network that is still there while this node's state file, and what it had of the network, is
// lost: no container could start on it. It is made again after that.
func (n *networks) outlived(ctx context.Context, s cluster.NetworkState, d engine.Network) (cluster.NetworkState, *trouble) {
	s, t := n.remove(ctx, s, d)
	if t == nil {
		n.a.log.Warn("that Docker network was not in this node's state file", slog.String("network", d.Name), slog.String("id", short(d.ID)))
		return s, nil
	}
	return failed(s, cluster.StateFailed, fmt.Sprintf("Docker network %s is of before this node's state file was lost, and has to be made again; %s", d.Name, s.Problem),
		"remove the containers that use it; it is made again then")
}

func failed(s cluster.NetworkState, state, text, hint string) (cluster.NetworkState, *trouble) {
	s.State, s.Problem = state, text
	return s, &trouble{code: "network-" + strings.ReplaceAll(state, " ", "-"), text: fmt.Sprintf("network %s: %s", s.Network, text), hint: hint}
}

func (n *networks) spec(want cluster.Network) engine.NetworkSpec {
	s := engine.NetworkSpec{Name: want.Name, Driver: n.a.config().Docker.Name, Internal: want.Internal, Options: maps.Clone(want.Options)}
	if s.Options == nil {
		s.Options = map[string]string{}
	}
	s.Options[cnm.OptNetwork] = want.Name
	for _, sub := range want.Subnets {
		s.Subnets = append(s.Subnets, engine.SubnetSpec{Prefix: sub.Prefix, Gateway: sub.Gateway})
	}
	return s
}

// remove takes a network away, unless containers use it.
func (n *networks) remove(ctx context.Context, s cluster.NetworkState, d engine.Network) (cluster.NetworkState, *trouble) {
	s.Docker = d.ID
	users, err := n.users(ctx, d)
	if err == nil && len(users) == 0 {
		err = n.client.NetworkRemove(ctx, d.ID)
		if err == nil {
			n.a.log.Info("removed a network", slog.String("network", d.Name), slog.String("id", short(d.ID)))
			return cluster.NetworkState{Network: s.Network}, nil
		}
	}
	if len(users) > 0 {
		return failed(s, cluster.StateInUse, "containers use it: "+strings.Join(users, ", "), "stop and remove them; the network goes then")
	}
	text := err.Error()
	if message, ok := engine.Refused(err); ok {
		text = message
	}
	return failed(s, cluster.StateFailed, text, "it is tried again")
}

// maxUsers bounds how many containers are named.
const maxUsers = 5

// users are the names of the containers that have the network, running or not.
func (n *networks) users(ctx context.Context, d engine.Network) ([]string, error) {
	all, err := n.client.Containers(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, ct := range all {
		for _, e := range ct.Endpoints {
			if e.NetworkID != d.ID && (e.NetworkID != "" || e.NetworkName != d.Name) {
				continue
			}
			name := cmp.Or(ct.Name, short(ct.ID))
			if ct.State != "running" {
				name += " (" + ct.State + ")"
			}
			names = append(names, name)
		}
	}
	for _, e := range d.Endpoints {
		if e.ContainerID == "" {
			names = append(names, "endpoint "+short(e.EndpointID))
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if more := len(names) - maxUsers; more > 0 {
		names = append(names[:maxUsers], fmt.Sprintf("and %d more", more))
	}
	return names, nil
}

// recorded writes how a network stands on this node, and keeps on disk that the node has it. It returns false when it is
// to be tried again.
func (n *networks) recorded(ctx context.Context, c *cluster.Cluster, want cluster.Network, s cluster.NetworkState, known cluster.Network) bool {
	var err error
	if s.State == "" {
		// In this order: a network that this node knows and the store does not is one that the store has lost.
		if err = c.ForgetNetwork(ctx, want.Name); err == nil {
			err = c.DeleteState(ctx, want.Name)
		}
	} else {
		err = c.SetState(ctx, s)
		if err == nil && s.State == cluster.StateReady && !known.Created.Equal(want.Created) {
			err = c.NoteNetwork(ctx, want.Name)
		}
	}
	switch {
	case err == nil, errors.Is(err, cluster.ErrNoNetwork), ctx.Err() != nil:
		return true // it went meanwhile, which wakes us
	case !errors.Is(err, store.ErrUnreachable):
		n.a.log.Warn("cannot record the state of a network", slog.String("network", want.Name), slog.Any("err", err))
	}
	return false
}

// mayHaveLeftovers says whether the book has a network that is, or was, the cluster's.
func (n *networks) mayHaveLeftovers() bool {
	book := n.a.bookNow()
	return book != nil && slices.ContainsFunc(book.Snapshot().Networks, func(d cnm.Network) bool { return d.Options[cnm.OptNetwork] != "" })
}

// leftovers are Docker networks of the cluster's that the cluster does not have any more: this node was away, or was
// removed and has joined again. They are removed unless containers use them.
func (n *networks) leftovers(ctx context.Context, v *cluster.View, have []engine.Network, trouble map[string]trouble) {
	for _, d := range have {
		name := d.Options[cnm.OptNetwork]
		if name == "" || v.Has(cluster.NetworkKey(name)) {
			continue
		}
		if _, err := n.a.clus().Network(ctx, name); !errors.Is(err, cluster.ErrNoNetwork) {
			continue // it was made just now, or nobody can tell
		}
		s, t := n.remove(ctx, cluster.NetworkState{Network: name}, d)
		if t == nil {
			continue
		}
		t.text = fmt.Sprintf("network %s is none of the cluster any more, and is still here: %s", name, s.Problem)
		trouble[name] = *t
	}
}

// networkDiffers says what of a Docker network is not as in the record; "" when nothing is.
func networkDiffers(want cluster.Network, have engine.Network) string {
	options := maps.Clone(have.Options)
	delete(options, cnm.OptNetwork)
	if diff := cnm.OptionsDiffer(want.Options, options); diff != "" {
		return diff
	}
	if want.Internal != have.Internal {
		return fmt.Sprintf("internal is %v, the cluster's is %v", have.Internal, want.Internal)
	}
	var wants, has []string
	for _, s := range want.Subnets {
		wants = append(wants, s.Prefix.String())
	}
	for _, s := range have.Subnets {
		p, err := netip.ParsePrefix(string(s.Subnet))
		if err != nil {
			return fmt.Sprintf("its subnet is %q", s.Subnet)
		}
		has = append(has, p.Masked().String())
	}
	slices.Sort(wants)
	slices.Sort(has)
	if !slices.Equal(wants, has) {
		return fmt.Sprintf("its subnets are %s, the cluster's are %s", strings.Join(has, ", "), strings.Join(wants, ", "))
	}
	return ""
}
