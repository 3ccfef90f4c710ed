package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"fairway/internal/config"
	"fairway/internal/kernel"
	"fairway/internal/kernel/nft"
	"fairway/internal/kernel/rtnl"
	"fairway/internal/reconcile"
	"fairway/internal/store"
)

// CleanupOptions say what Cleanup works on.
type CleanupOptions struct {
	Config *config.Config
	DryRun bool // only say what would go
	Log    *slog.Logger
}

// Cleanup removes everything of ours from the kernel, and nothing else, and says what it was. It refuses while an agent
// runs. The state file stays: an agent that is started again makes everything anew. Forwarding stays on, since
// others (Docker, hypervisors) may rely on it by now.
func Cleanup(ctx context.Context, opt CleanupOptions) (gone []string, err error) {
	local, err := store.Open(filepath.Join(opt.Config.State, stateFile))
	if err != nil {
		return nil, fmt.Errorf("an agent that runs would make everything anew: %w", err)
	}
	defer func() { err = errors.Join(err, local.Close()) }()
	rt, err := rtnl.Open(rtnl.Config{Log: opt.Log})
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer rt.Close()
	routes, err := empty(ctx, "route", rt.Routes(), opt.DryRun, kernel.RouteText)
	gone = append(gone, routes...)
	// Addresses and neighbours of our links go with them.
	links, lerr := empty(ctx, "link", rt.Links(), opt.DryRun, func(k string, l kernel.Link) string { return k + " " + l.Alias })
	gone = append(gone, links...)
	fw, ferr := nft.Open(nft.Config{Log: opt.Log})
	if ferr != nil {
		return gone, errors.Join(err, lerr, fmt.Errorf("open nftables: %w", ferr))
	}
	defer fw.Close()
	st, serr := fw.Status()
	if st.Table {
		gone = append(gone, "nftables table inet "+kernel.TableName)
	}
	if st.Bridge {
		gone = append(gone, "nftables table bridge "+kernel.TableName)
	}
	for _, f := range []struct {
		name  string
		jumps []string
	}{{"iptables", st.IPv4.Jumps}, {"ip6tables", st.IPv6.Jumps}} {
		for _, chain := range f.jumps {
			gone = append(gone, fmt.Sprintf("%s jump to FAIRWAY in %s", f.name, chain))
		}
	}
	if !opt.DryRun {
		ferr = fw.Remove(ctx)
	}
	return gone, errors.Join(err, lerr, serr, ferr)
}

// empty deletes all of a table, and says what it had.
func empty[K comparable, V any](ctx context.Context, what string, t reconcile.Table[K, V], dry bool, text func(K, V) string) ([]string, error) {
	have, err := t.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list %ss: %w", what, err)
	}
	var gone []string
	var errs []error
	for k, v := range have {
		if !dry {
			if err := t.Delete(ctx, k); err != nil {
				errs = append(errs, fmt.Errorf("delete %s %s: %w", what, text(k, v), err))
				continue
			}
		}
		gone = append(gone, what+" "+text(k, v))
	}
	slices.Sort(gone)
	return gone, errors.Join(errs...)
}
