package router

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"fairway/internal/kernel"
	"fairway/internal/kernel/nft"
	"fairway/internal/kernel/rtnl"
)

// hostRoot is the host's file system as a process of the host's PID namespace sees it.
const hostRoot = "/proc/1/root"

// hostSide is what the router has in the host's network namespace: its end of the host link, routes over it, and the
// rules that let packets of it through. The link and the routes go with the router's namespace, whatever ends it.
type hostSide struct {
	log  *slog.Logger
	name string // of the link on the host
	rt   *rtnl.Handle
	fw   *nft.Handle
}

// hostLinkOnHost names the host's end: one for each instance.
func hostLinkOnHost(instance string) string {
	if instance == "" {
		return "frouter"
	}
	return fmt.Sprintf("frouter-%x", metricOf(instance))
}

// openHost enters the host's network namespace. It needs --pid=host and --privileged.
func openHost(log *slog.Logger, instance string, metric uint32) (*hostSide, error) {
	const path = "/proc/1/ns/net"
	same, err := rtnl.SameNamespace(path, "/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("find the host's network namespace: %w; run the router with --pid=host --privileged", err)
	}
	if same {
		return nil, fmt.Errorf("the router is in the network namespace of process 1: run it with --pid=host, and without --net=host")
	}
	rt, err := rtnl.OpenAt(path, rtnl.Config{Log: log, Metric: metric})
	if err != nil {
		return nil, fmt.Errorf("enter the host's network namespace: %w; run the router with --pid=host --privileged", err)
	}
	fw, err := nft.Open(nft.Config{Log: log, Namespace: rt.Namespace()})
	if err != nil {
		rt.Close()
		return nil, fmt.Errorf("open the host's nftables: %w", err)
	}
	return &hostSide{log: log, name: hostLinkOnHost(instance), rt: rt, fw: fw}, nil
}

func (h *hostSide) close() {
	h.fw.Close()
	h.rt.Close()
}

// link makes the host link: one end here, with our alias, the other on the host.
func (h *hostSide) link(ctx context.Context, own *rtnl.Handle, o Options) error {
	const peer = "fairway-peer"
	want := kernel.Link{Kind: kernel.Veth, Alias: kernel.AliasPrefix + "router/host", Peer: kernel.Peer{Name: peer}}
	have, err := own.Links().List(ctx)
	if err != nil {
		return err
	}
	if _, ok := have[hostLinkName]; !ok {
		if err := own.Links().Set(ctx, hostLinkName, want); err != nil {
			return err
		}
	}
	g := rtnl.Given{Name: h.name, Alias: "fairway-router", Addrs: []netip.Prefix{hostEnd(o.P2PNet)}}
	ours := []netip.Prefix{routerEnd(o.P2PNet)}
	if o.P2PNet6.IsValid() {
		g.Addrs = append(g.Addrs, hostEnd(o.P2PNet6))
		ours = append(ours, routerEnd(o.P2PNet6))
	}
	if err := own.GivePeer(ctx, peer, h.rt, g); err != nil {
		return err
	}
	addrs, err := own.Addrs().List(ctx)
	if err != nil {
		return err
	}
	for _, p := range ours {
		key := kernel.AddrKey{Link: hostLinkName, Prefix: p}
		if _, ok := addrs[key]; ok {
			continue
		}
		if p.Addr().Is6() { // Docker turns IPv6 off in sandboxes without an IPv6 network
			if err := own.Sysctls().Set(ctx, "net/ipv6/conf/"+hostLinkName+"/disable_ipv6", "0"); err != nil {
				return err
			}
		}
		if err := own.Addrs().Set(ctx, key, struct{}{}); err != nil {
			return err
		}
	}
	return nil
}

// rules are what the host's filters are to do for the router.
func (h *hostSide) rules(o Options) nft.Link {
	l := nft.Link{Owner: h.name, Root: hostRoot}
	if o.HostLink {
		l.Name = h.name
	}
	return l
}

// apply makes routes and rules on the host agree.
func (h *hostSide) apply(ctx context.Context, o Options, w Wanted) error {
	routes := w.Host
	did, err := syncRoutes(ctx, h.rt, routes)
	if did.set+did.deleted > 0 {
		h.log.Info("changed routes of the host", slog.Int("set", did.set), slog.Int("deleted", did.deleted), slog.Int("routes", len(routes)))
	}
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	rules := h.rules(o)
	rules.Masquerade, rules.Bridges, rules.Answered, rules.Reached = w.Masquerade, w.Bridges, w.Answered, w.Reached
	rules.Keep, rules.KeepAll = w.Keep, o.HostGateway && !o.Masquerade
	changed, err := h.fw.ApplyLink(ctx, rules)
	for _, c := range changed {
		h.log.Info("changed the host's rules", slog.String("what", c))
	}
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	return nil
}

// undo removes routes, rules and the link from the host.
func (h *hostSide) undo(ctx context.Context, own *rtnl.Handle, o Options) error {
	if _, err := syncRoutes(ctx, h.rt, nil); err != nil {
		return fmt.Errorf("host: %w", err)
	}
	if err := h.fw.RemoveLink(ctx, h.rules(o)); err != nil {
		return fmt.Errorf("host: %w", err)
	}
	if !o.HostLink {
		return nil
	}
	have, err := own.Links().List(ctx)
	if _, ok := have[hostLinkName]; err != nil || !ok {
		return err
	}
	return own.Links().Delete(ctx, hostLinkName)
}

// addresses are those by which other machines know the host: of the link of its default route, or of its first link that
// is none of Docker's; one of a family at most.
func (h *hostSide) addresses(ctx context.Context) ([]netip.Addr, error) {
	f, err := h.rt.Facts(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the host's links: %w", err)
	}
	links := make([]kernel.FactLink, 0, len(f.Links))
	for _, l := range f.Links {
		if l.Up && l.Name != h.name && !dockers(l.Name) {
			links = append(links, l)
		}
	}
	first := func(name string) int {
		if name == f.Default4.Link || name == f.Default6.Link {
			return 0
		}
		return 1
	}
	slices.SortFunc(links, func(a, b kernel.FactLink) int { return cmp.Or(first(a.Name)-first(b.Name), a.Index-b.Index) })
	var out []netip.Addr
	for _, l := range links {
		for _, p := range l.Addrs {
			has := slices.ContainsFunc(out, func(a netip.Addr) bool { return a.Is4() == p.Addr().Is4() })
			if !has && p.Addr().IsGlobalUnicast() {
				out = append(out, p.Addr())
			}
		}
	}
	return out, nil
}

// dockers says whether a link is the loopback or one of the engine's.
func dockers(name string) bool {
	return name == "lo" || strings.HasPrefix(name, "docker") || strings.HasPrefix(name, "br-") || strings.HasPrefix(name, "veth")
}
