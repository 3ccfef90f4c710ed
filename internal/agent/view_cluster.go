package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"fairway/internal/api"
	"fairway/internal/cluster"
	"fairway/internal/overview"
	"fairway/internal/store"
)

// clusterTime bounds a request that needs the store.
const clusterTime = 3 * time.Second

// errNoStore is what every question about the cluster gets on a node that is told of none.
func errNoStore() error {
	return api.Unavailable(errors.New("this node has no store: name etcd's endpoints in store.etcd.endpoints of fairway.yaml, the same on every node, and restart the agent"))
}

// overview is the cluster as this node sees it; false without a store.
func (a *Agent) overview() (overview.Cluster, bool) {
	c := a.clus()
	if c == nil {
		return overview.Cluster{}, false
	}
	cfg := a.config()
	a.mu.Lock()
	u := a.under
	a.mu.Unlock()
	o := overview.Cluster{
		View: c.View(), Health: c.Health(), ID: c.ID(), Self: a.selfNode(cfg, u), Drain: a.drainView(), Now: time.Now(), Up: time.Since(a.started),
		Bridge: cfg.DockerBridge.Subnets(),
		Where:  "etcd at " + strings.Join(cfg.Store.Etcd.Endpoints, ", "),
	}
	if book := a.bookNow(); book != nil {
		o.Claims = book.Claims()
	}
	return o, true
}

// members is the cluster for a request that needs to know of it, or why nothing is known.
func (a *Agent) members() (*cluster.Cluster, overview.Cluster, error) {
	o, ok := a.overview()
	switch {
	case !ok:
		return nil, o, errNoStore()
	case o.View.Complete:
		return a.clus(), o, nil
	case !o.Health.Reachable && !o.Health.Since.IsZero():
		return nil, o, api.Unavailable(fmt.Errorf("%w, and was not read since the agent started", o.Unreachable()))
	case o.Health.LastError != "":
		return nil, o, api.Unavailable(fmt.Errorf("the store (%s) refuses: %s", o.Where, o.Health.LastError))
	}
	return nil, o, api.Unavailable(fmt.Errorf("the store (%s) is being read for the first time; try again", o.Where))
}

// clusterError gives an error of the cluster the status that goes with it.
func clusterError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrUnreachable), errors.Is(err, context.DeadlineExceeded):
		return api.Unavailable(err)
	case errors.Is(err, cluster.ErrNoNode), errors.Is(err, cluster.ErrNoNetwork):
		return api.NotFound(err)
	case errors.Is(err, cluster.ErrAlive), errors.Is(err, cluster.ErrExists), errors.Is(err, cluster.ErrFenced), errors.Is(err, store.ErrConflict):
		return api.Conflict(err)
	}
	return err
}

// Nodes implements api.Members.
func (a *Agent) Nodes(context.Context) ([]api.Member, error) {
	_, o, err := a.members()
	if err != nil {
		return nil, err
	}
	return o.Nodes(), nil
}

// drainView is this node's own drain; nil when it does not drain.
func (a *Agent) drainView() *api.Drain {
	state, since, refuse := a.drainState()
	if state == "" {
		return nil
	}
	d := &api.Drain{State: state, Since: since, Refuse: refuse}
	if c := a.clus(); c != nil {
		d.By = c.View().Drains[a.nodeName()].Value.By
	}
	return d
}

// Drain implements api.Members.
func (a *Agent) Drain(ctx context.Context, req api.DrainRequest) error {
	ctx, cancel := context.WithTimeout(ctx, clusterTime)
	defer cancel()
	if req.Node == "" || req.Node == a.nodeName() {
		if req.Drain {
			return clusterError(a.drainSelf(ctx, req.Refuse))
		}
		return clusterError(a.undrainSelf(ctx))
	}
	c, _, err := a.members()
	switch {
	case err != nil:
		return err
	case req.Drain:
		return clusterError(c.Drain(ctx, req.Node, req.Refuse))
	}
	return clusterError(c.Undrain(ctx, req.Node))
}

// RemoveNode implements api.Members.
func (a *Agent) RemoveNode(ctx context.Context, name string, dry bool) (api.Removal, error) {
	c, o, err := a.members()
	if err != nil {
		return api.Removal{}, err
	}
	if name == a.nodeName() {
		return api.Removal{}, api.Conflict(fmt.Errorf("node %s is this one, and its agent runs: stop it, and remove the node from another one", name))
	}
	if !o.Health.Reachable { // nobody knows who is alive
		return api.Removal{}, api.Unavailable(fmt.Errorf("remove node %s: %w", name, o.Unreachable()))
	}
	ctx, cancel := context.WithTimeout(ctx, clusterTime)
	defer cancel()
	r, err := c.RemoveNode(ctx, name, dry)
	if err != nil {
		return api.Removal{}, clusterError(err)
	}
	return o.Removal(r, !dry), nil
}

const joinPoll = 100 * time.Millisecond

// Join implements api.Members.
func (a *Agent) Join(ctx context.Context) (api.Joined, error) {
	c, _, err := a.members()
	if err != nil {
		return api.Joined{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, clusterTime)
	defer cancel()
	if err := c.Join(ctx); err != nil {
		return api.Joined{}, clusterError(err)
	}
	// What this node still uses is claimed again by the same reconciliation that settles everything else.
	tick := time.NewTicker(joinPoll)
	defer tick.Stop()
	for {
		o, _ := a.overview()
		j := o.Joined(a.usedAddresses())
		a.nameContainers(j.Back)
		a.nameContainers(j.Lost)
		a.nameContainers(j.Open)
		if len(j.Open) == 0 {
			return j, nil
		}
		select {
		case <-ctx.Done():
			return j, nil
		case <-tick.C:
		}
	}
}

// usedAddresses are the addresses that containers here have.
func (a *Agent) usedAddresses() []api.Claim {
	var out []api.Claim
	for _, h := range a.bookNow().Holdings() {
		if h.Endpoint != "" {
			out = append(out, api.Claim{Prefix: netip.PrefixFrom(h.Addr, h.Addr.BitLen()), Endpoint: h.Endpoint})
		}
	}
	return out
}

// nameContainers names the containers of endpoints here, as far as the engine has told.
func (a *Agent) nameContainers(all []api.Claim) {
	endpoints := a.engine().state().Endpoints
	for i := range all {
		c := endpoints[all[i].Endpoint]
		all[i].Container = cmp.Or(c.Name, c.ID)
	}
}

// CreateNetwork implements api.NetworkMaker.
func (a *Agent) CreateNetwork(ctx context.Context, req api.NetworkRequest) error {
	c, o, err := a.members()
	if err != nil {
		return err
	}
	n, pools, err := a.designNetwork(o.View, req)
	if err != nil {
		return api.Invalid(fmt.Errorf("create network %s: %w", req.Name, err))
	}
	ctx, cancel := context.WithTimeout(ctx, clusterTime)
	defer cancel()
	return clusterError(c.CreateNetwork(ctx, n, pools))
}

// RemoveNetwork implements api.NetworkMaker.
func (a *Agent) RemoveNetwork(ctx context.Context, name string) error {
	c, o, err := a.members()
	if err != nil {
		return err
	}
	if _, ok := o.View.Networks[name]; !ok && a.ownNetwork(name) {
		return api.Conflict(fmt.Errorf("network %s is this node's alone: docker network rm %s", name, name))
	}
	ctx, cancel := context.WithTimeout(ctx, clusterTime)
	defer cancel()
	return clusterError(c.RemoveNetwork(ctx, name))
}

// ownNetwork says whether this node has a Docker network of the name.
func (a *Agent) ownNetwork(name string) bool {
	for _, n := range a.engine().state().Networks {
		if n.Name == name {
			return true
		}
	}
	return false
}

// clusterConditions are the faults of the cluster that this node sees, and its own drain.
func (a *Agent) clusterConditions(s api.Status) []api.Condition {
	var f findings
	if d := s.Drain; d != nil {
		more := ""
		if d.Refuse {
			more = "; new containers are refused"
		}
		f.add("drained", api.SeverityWarning, "`fairway node undrain` ends it", "this node is %s, asked for at %s%s", d.State, d.Since.Format(time.RFC3339), more)
		f[len(f)-1].Since = d.Since
	}
	f = append(f, a.meshProblems()...)
	o, ok := a.overview()
	if !ok {
		return f
	}
	f = append(f, o.Conditions()...)
	for _, p := range a.networks.problems() {
		f.add(p.code, api.SeverityError, p.hint, "%s", p.text)
	}
	return f
}

// names are the nodes by the addresses that routes and sessions know them by.
func (a *Agent) names() map[netip.Addr]string {
	out := map[netip.Addr]string{}
	if o, ok := a.overview(); ok {
		out = o.Names()
	}
	for _, n := range a.config().Nodes {
		out[n.Address], out[n.Address6] = n.Name, n.Name
	}
	delete(out, netip.Addr{})
	return out
}
