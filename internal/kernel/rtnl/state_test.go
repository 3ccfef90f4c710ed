package rtnl_test

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"fairway/internal/kernel"
	"fairway/internal/kernel/rtnl"
	"fairway/internal/nettest"
	"fairway/internal/reconcile"
)

// parseState reads what kernel.State.String writes; only what the tables here hold.
func parseState(text string) (kernel.State, error) {
	s := kernel.NewState()
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		var err error
		switch f[0] {
		case "link":
			err = parseLinkLine(s, f[1:])
		case "addr":
			var p netip.Prefix
			p, err = netip.ParsePrefix(f[1])
			s.Addrs[kernel.AddrKey{Link: f[3], Prefix: p}] = struct{}{}
		case "neigh":
			var ip netip.Addr
			var mac kernel.MAC
			if ip, err = netip.ParseAddr(f[1]); err == nil {
				mac, err = kernel.ParseMAC(f[3])
			}
			s.Neighs[kernel.NeighKey{Link: f[5], IP: ip}] = mac
		case "route":
			err = parseRouteLine(s, f[1:])
		case "sysctl":
			s.Sysctls[f[1]] = f[3]
		default:
			err = fmt.Errorf("unknown object")
		}
		if err != nil {
			return s, fmt.Errorf("%q: %w", line, err)
		}
	}
	return s, nil
}

func parseLinkLine(s kernel.State, f []string) error {
	var l kernel.Link
	var err error
	for i := 1; i < len(f) && err == nil; i++ {
		switch f[i] {
		case "type":
			l.Kind = kernel.LinkKind(f[i+1])
		case "mtu":
			l.MTU, err = strconv.Atoi(f[i+1])
		case "address":
			l.MAC, err = kernel.ParseMAC(f[i+1])
		case "alias":
			l.Alias = f[i+1]
		case "peer":
			l.Peer.Name = f[i+1]
			l.Peer.MAC, err = kernel.ParseMAC(f[i+2])
		case "master":
			l.Master = f[i+1]
		case "existing":
			l.Existing = true
		}
	}
	s.Links[f[0]] = l
	return err
}

func parseRouteLine(s kernel.State, f []string) error {
	r := kernel.Route{Type: kernel.Unicast}
	if f[0] == "blackhole" {
		r.Type, f = kernel.Blackhole, f[1:]
	}
	dst, err := netip.ParsePrefix(f[0])
	hop := kernel.NextHop{}
	for i := 1; i < len(f) && err == nil; i++ {
		switch f[i] {
		case "nexthop":
			if hop != (kernel.NextHop{}) {
				r.NextHops = append(r.NextHops, hop)
			}
			hop = kernel.NextHop{}
		case "via":
			hop.Via, err = netip.ParseAddr(f[i+1])
		case "dev":
			hop.Link = f[i+1]
		case "src":
			r.Src, err = netip.ParseAddr(f[i+1])
		}
	}
	if hop != (kernel.NextHop{}) {
		r.NextHops = append(r.NextHops, hop)
	}
	r.NextHops = kernel.SortNextHops(r.NextHops)
	s.Routes[kernel.RouteKey{Dst: dst}] = r
	return err
}

// mustState is parseState for Go tests.
func mustState(tb testing.TB, text string) kernel.State {
	tb.Helper()
	s, err := parseState(text)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// readState lists every table of the handle.
func readState(ctx context.Context, h *rtnl.Handle) (s kernel.State, err error) {
	s = kernel.NewState()
	if s.Links, err = h.Links().List(ctx); err != nil {
		return s, err
	}
	if s.Addrs, err = h.Addrs().List(ctx); err != nil {
		return s, err
	}
	if s.Neighs, err = h.Neighs().List(ctx); err != nil {
		return s, err
	}
	s.Routes, err = h.Routes().List(ctx)
	return s, err
}

// apply makes the kernel agree with the state, and returns how many objects it touched.
func apply(ctx context.Context, h *rtnl.Handle, s kernel.State) (touched int, err error) {
	stages := []reconcile.Stage{
		&reconcile.Sync[string, kernel.Link]{
			Name: "links", Table: h.Links(), Desired: s.Links, Equal: kernel.LinkEqual,
			Text: func(k string) string { return k },
		},
		&reconcile.Sync[kernel.AddrKey, struct{}]{
			Name: "addrs", Table: h.Addrs(), Desired: s.Addrs, Equal: func(struct{}, struct{}) bool { return true },
			Text: func(k kernel.AddrKey) string { return k.Prefix.String() },
		},
		&reconcile.Sync[kernel.NeighKey, kernel.MAC]{
			Name: "neighs", Table: h.Neighs(), Desired: s.Neighs, Equal: func(a, b kernel.MAC) bool { return a == b },
			Text: func(k kernel.NeighKey) string { return k.IP.String() },
		},
		&reconcile.Sync[kernel.RouteKey, kernel.Route]{
			Name: "routes", Table: h.Routes(), Desired: s.Routes, Equal: kernel.RouteEqual,
			Text: func(k kernel.RouteKey) string { return k.Dst.String() },
		},
	}
	var errs []error
	for _, r := range reconcile.Run(ctx, stages) {
		touched += r.Set + r.Deleted
		if err := r.Err(); err != nil {
			errs = append(errs, err)
		}
	}
	for k, v := range s.Sysctls {
		if err := h.Sysctls().Set(ctx, k, v); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return touched, fmt.Errorf("%w", errs[0])
	}
	return touched, nil
}

// open returns a handle on a new namespace.
func open(tb testing.TB) (*rtnl.Handle, *nettest.Namespace) {
	tb.Helper()
	ns := nettest.New(tb)
	return openAt(tb, ns), ns
}

func openAt(tb testing.TB, ns *nettest.Namespace) *rtnl.Handle {
	tb.Helper()
	h, err := rtnl.Open(rtnl.Config{Namespace: ns.FD()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(h.Close)
	return h
}

// mustApply applies, and checks that a second time does nothing.
func mustApply(tb testing.TB, h *rtnl.Handle, text string) {
	tb.Helper()
	s := mustState(tb, text)
	if _, err := apply(tb.Context(), h, s); err != nil {
		tb.Fatal(err)
	}
	if n, err := apply(tb.Context(), h, s); n != 0 || err != nil {
		tb.Fatalf("applied again: %d objects touched, error %v", n, err)
	}
}

// listed is the text of what the handle lists.
func listed(tb testing.TB, h *rtnl.Handle) string {
	tb.Helper()
	s, err := readState(tb.Context(), h)
	if err != nil {
		tb.Fatal(err)
	}
	return s.String()
}
