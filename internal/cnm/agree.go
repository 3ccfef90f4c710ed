package cnm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"fairway/internal/cluster"
	"fairway/internal/ipam"
)

// agrees compares a network that is to be that of a record of the cluster with the record. The engine does not tell a
// plugin a network's name: option network does.
func (b *Book) agrees(ctx context.Context, n Network) error {
	name, ok := n.Options[OptNetwork]
	if !ok {
		return nil
	}
	b.mu.Lock()
	_, known := b.networks[n.ID]
	b.mu.Unlock()
	if known {
		return nil // the same request again, which agreed; or another, which CreateNetwork refuses
	}
	if b.node.Network == nil {
		return fmt.Errorf("option %s=%s: this node has no store, and so no networks of a cluster: name etcd's endpoints in store.etcd.endpoints of fairway.yaml", OptNetwork, name)
	}
	want, err := b.node.Network(ctx, name)
	if err != nil {
		return fmt.Errorf("option %s=%s: %w", OptNetwork, name, err)
	}
	if diff := differs(want, n); diff != "" {
		return fmt.Errorf("option %s=%s: this is not as the cluster's network: %s", OptNetwork, name, diff)
	}
	return nil
}

// differs says what of a network is not as in the record; "" when nothing is.
func differs(want cluster.Network, n Network) string {
	if !want.Removing.IsZero() {
		return "that one is being removed"
	}
	options := make(map[string]string, len(n.Options))
	for k, v := range n.Options {
		if k != OptNetwork {
			options[k] = v
		}
	}
	if diff := OptionsDiffer(want.Options, options); diff != "" {
		return diff
	}
	if n.Internal != want.Internal {
		return fmt.Sprintf("internal is %v, the cluster's is %v", n.Internal, want.Internal)
	}
	for _, s := range n.Subnets {
		i := slices.IndexFunc(want.Subnets, func(w cluster.Subnet) bool { return w.Prefix == s.Prefix })
		if i < 0 {
			return fmt.Sprintf("it has the subnet %s, the cluster's has %s", s.Prefix, subnetsText(want))
		}
		gw, err := ipam.Gateway(s.Prefix, want.Subnets[i].Gateway)
		if err != nil {
			return "in the cluster's " + err.Error()
		}
		if s.Gateway.IsValid() && s.Gateway != gw {
			return fmt.Sprintf("the gateway of %s is %s, the cluster's is %s", s.Prefix, s.Gateway, gw)
		}
	}
	if len(n.Subnets) != len(want.Subnets) {
		return fmt.Sprintf("it has %d subnets, the cluster's has %s", len(n.Subnets), subnetsText(want))
	}
	return ""
}

func subnetsText(n cluster.Network) string {
	var out []string
	for _, s := range n.Subnets {
		out = append(out, s.Prefix.String())
	}
	return strings.Join(out, " and ")
}

// OptionsDiffer says which option of a network is not as in the cluster's record, option network aside; "" when all are.
func OptionsDiffer(want, have map[string]string) string {
	for _, key := range sortedKeys(have) {
		switch w, ok := want[key]; {
		case !ok:
			return fmt.Sprintf("it has the option %s=%s, the cluster's does not", key, have[key])
		case w != have[key]:
			return fmt.Sprintf("its option %s is %s, the cluster's is %s", key, have[key], w)
		}
	}
	for _, key := range sortedKeys(want) {
		if _, ok := have[key]; !ok {
			return fmt.Sprintf("it lacks the option %s=%s, which the cluster's has", key, want[key])
		}
	}
	return ""
}
