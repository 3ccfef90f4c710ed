package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"fairway/internal/api"
	"fairway/internal/cnm"
	"fairway/internal/engine"
	"fairway/internal/plan"
	"fairway/internal/store"
)

// labelAnnounce is the label by which a bridge network of Docker's own asks to be announced.
const labelAnnounce = "fairway.announce=true"

// dockerNetworks are the networks with that label, as the engine said last. They are kept on disk: an agent that is
// started again announces them before the engine has answered, so that nobody loses the way.
type dockerNetworks struct {
	mu    sync.Mutex
	saver cnm.Saver
	now   []plan.DockerNetwork
}

const keyDockerNetworks = "docker/networks"

// load reads what an earlier run knew.
func (d *dockerNetworks) load(ctx context.Context, s cnm.Saver) error {
	listing, err := s.List(ctx, keyDockerNetworks)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.saver = s
	for _, r := range listing.Records {
		if err := json.Unmarshal(r.Value, &d.now); err != nil {
			return fmt.Errorf("read record %s: %w", r.Key, err)
		}
	}
	return nil
}

func (d *dockerNetworks) list() []plan.DockerNetwork {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.now)
}

// set takes in what the engine says, and tells whether that is something else than before.
func (d *dockerNetworks) set(ctx context.Context, next []plan.DockerNetwork) (changed bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if slices.EqualFunc(d.now, next, plan.DockerNetwork.Equal) {
		return false, nil
	}
	d.now = next
	val, err := json.Marshal(next)
	if err == nil {
		_, err = d.saver.Commit(ctx, store.Txn{Put: map[string][]byte{keyDockerNetworks: val}})
	}
	return true, err
}

// takeDockerNetworks takes in the labelled networks.
func (a *Agent) takeDockerNetworks(ctx context.Context, all []engine.Network) {
	next := make([]plan.DockerNetwork, 0, len(all))
	for _, n := range all {
		next = append(next, dockerNetwork(n))
	}
	changed, err := a.docker.set(ctx, next)
	if err != nil {
		a.log.Warn("Docker's announced networks are not saved; they are announced all the same", slog.Any("err", err))
	}
	if changed {
		a.loop.mark()
	}
}

// dockerNetwork is what the plan needs of a network. An internal one is not announced: its containers answer nobody
// outside.
func dockerNetwork(n engine.Network) plan.DockerNetwork {
	out := plan.DockerNetwork{Name: n.Name, Link: n.Options["com.docker.network.bridge.name"], Internal: n.Internal}
	if out.Link == "" {
		out.Link = "br-" + short(n.ID)
	}
	for _, s := range n.Subnets {
		if p, err := netip.ParsePrefix(string(s.Subnet)); err == nil {
			out.Subnets = append(out.Subnets, p.Masked())
		}
	}
	slices.SortFunc(out.Subnets, netip.Prefix.Compare)
	return out
}

// dockerConditions finds announced networks whose containers the engine shields from direct access: Docker 28 and later
// drop it before routing, unless the network's gateway mode or a setting of the engine says otherwise.
func (a *Agent) dockerConditions(ctx context.Context, f *findings, res result) {
	networks := a.docker.list()
	if len(networks) == 0 || a.kern == nil {
		return
	}
	for _, n := range networks {
		if n.Internal {
			f.add("docker-network-internal", api.SeverityWarning, "leave --internal out, or take the label "+labelAnnounce+" off",
				"network %s of Docker's is internal, and so not announced", n.Name)
		}
	}
	shielded, err := a.kern.fw.Shielded(ctx)
	if err != nil {
		f.add("firewall-unknown", api.SeverityWarning, "", "read the engine's rules: %v", err)
		return
	}
	for _, n := range networks {
		var hit []string
		for _, addr := range shielded {
			if slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool {
				return s.Contains(addr) && res.Announced[s].Kind == plan.KindDocker
			}) {
				hit = append(hit, addr.String())
			}
		}
		if len(hit) > 0 {
			f.add("docker-direct-access", api.SeverityError,
				`create the network with -o com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected (or routed; the same for ipv6), or give the engine "allow-direct-routing": true and restart it`,
				"network %s of Docker's is announced, and the engine drops what comes from elsewhere for %s", n.Name, strings.Join(hit, ", "))
		}
	}
}
