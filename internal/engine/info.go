package engine

import (
	"context"
	"slices"
)

// Version is what the engine is.
type Version struct {
	Engine string // as "28.5.2"
	API    string // the newest it serves, as "1.51"
}

// Version asks for the engine's versions.
func (c *Client) Version(ctx context.Context) (Version, error) {
	var v struct{ Version, APIVersion string }
	if err := c.ask(ctx, "/version", nil, &v); err != nil {
		return Version{}, err
	}
	return Version{Engine: v.Version, API: v.APIVersion}, nil
}

// Info is what of the engine's settings concerns a network driver.
type Info struct {
	LiveRestore bool   // containers go on while the engine is down
	Firewall    string // "iptables", "iptables+firewalld", "nftables"; "" from engines that do not say (before 28)
	Rootless    bool   // its containers are in network namespaces that a plugin of the machine cannot serve
	UserNS      bool   // container's root is another user of the machine's
}

// Info asks for the engine's settings.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var v struct {
		LiveRestoreEnabled bool
		FirewallBackend    *struct{ Driver string }
		SecurityOptions    []string
	}
	if err := c.ask(ctx, "/info", nil, &v); err != nil {
		return Info{}, err
	}
	i := Info{
		LiveRestore: v.LiveRestoreEnabled,
		Rootless:    slices.Contains(v.SecurityOptions, "name=rootless"),
		UserNS:      slices.Contains(v.SecurityOptions, "name=userns"),
	}
	if v.FirewallBackend != nil {
		i.Firewall = v.FirewallBackend.Driver
	}
	return i, nil
}
