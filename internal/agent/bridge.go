package agent

import (
	"context"
	"errors"
	"fmt"

	"fairway/internal/config"
	"fairway/internal/kernel"
)

// ofBridge lays what is wrong with a bridge to its ports too: no container behind it works.
func ofBridge(errs map[string]error, links map[string]kernel.Link) {
	bridges := map[string]error{}
	for name, l := range links {
		if err := errs[name]; err != nil && l.Kind == kernel.Bridge {
			bridges[name] = err
		}
	}
	if len(bridges) == 0 {
		return
	}
	for name, l := range links {
		if err := bridges[l.Master]; err != nil {
			errs[name] = errors.Join(errs[name], err)
		}
	}
}

// foreignLink says whether the node has a link of this name that is not ours, and of what kind.
func (a *Agent) foreignLink(name string) (kind string, foreign bool) {
	facts, err := a.kern.readFacts(context.Background())
	if err != nil {
		return "", false
	}
	l, ok := facts.Links[name]
	return l.Kind, ok
}

// givenBlockSizes are the pools, by their place in the config, whose blockSize somebody chose: the default is one for
// routed networks, and too small for a subnet with a bridge.
func givenBlockSizes(cfg *config.Config) map[int]bool {
	origins := map[string]string{}
	for _, s := range cfg.Settings() {
		origins[s.Key] = s.Origin
	}
	out := map[int]bool{}
	for i := range cfg.Pools {
		origin, known := origins[fmt.Sprintf("pools[%d].blockSize", i)]
		out[i] = known && origin != "default"
	}
	return out
}
