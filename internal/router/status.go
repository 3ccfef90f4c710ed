package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"fairway/internal/fabric"
	"fairway/internal/kernel"
)

// SocketName is the name of the status socket in the run directory.
const SocketName = "router.sock"

// Status is what `fairway router status` shows.
type Status struct {
	Version    string            `json:"version"`
	Instance   string            `json:"instance,omitempty"`
	Container  string            `json:"container"`
	RouterID   netip.Addr        `json:"router_id"`
	ASN        uint32            `json:"asn"`
	At         time.Time         `json:"at"` // of the last pass
	Networks   []NetworkStatus   `json:"networks"`
	Containers []ContainerStatus `json:"containers"` // steered ones
	Routes     []RouteStatus     `json:"routes"`     // of the router itself
	Host       []RouteStatus     `json:"host"`       // over the host link
	Peers      []PeerStatus      `json:"peers"`
	Problems   []string          `json:"problems"`
}

// NetworkStatus is a network that is joined, or should be.
type NetworkStatus struct {
	Name      string         `json:"name"`
	Driver    string         `json:"driver"`
	Subnets   []netip.Prefix `json:"subnets"`
	Addresses []netip.Addr   `json:"addresses"` // the router's
	Link      string         `json:"link,omitempty"`
	State     string         `json:"state"` // joined, joining, "no local containers", "left by hand", "routed by the node"
	Transit   bool           `json:"transit,omitempty"`
}

// ContainerStatus is a container whose routes lead here.
type ContainerStatus struct {
	Name   string     `json:"name"`
	ID     string     `json:"id"`
	Via    netip.Addr `json:"via"`
	Routes int        `json:"routes"`
}

// RouteStatus is one route.
type RouteStatus struct {
	Prefix netip.Prefix `json:"prefix"`
	Via    []netip.Addr `json:"via"`
}

// PeerStatus is another router.
type PeerStatus struct {
	Address  netip.Addr `json:"address"`
	RouterID netip.Addr `json:"router_id,omitzero"`
	ASN      uint32     `json:"asn"`
	State    string     `json:"state"`
	Since    time.Time  `json:"since"`
	Received int        `json:"received"`
	Sent     int        `json:"sent"`
	BFD      string     `json:"bfd,omitempty"`
}

func (r *Router) note(change func(*Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.status)
}

// remember keeps what a pass found for the status.
func (r *Router) remember(v View, w Wanted, problems []string) {
	s := Status{
		Version: r.cfg.Version, Instance: r.opt.Instance, Container: r.self.ID, RouterID: r.bgp.BGP.RouterID, ASN: r.bgp.BGP.ASN, At: time.Now(),
		Routes: routesOf(w.Self), Host: routesOf(w.Host), Problems: problems, Networks: []NetworkStatus{}, Containers: []ContainerStatus{}, Peers: []PeerStatus{},
	}
	on := connected(v)
	for _, n := range v.Networks {
		if n.Marked || n.Transit {
			s.Networks = append(s.Networks, networkStatus(n, on, r.opt))
		}
	}
	for _, c := range v.Containers {
		routes := w.Steered[c.ID]
		if len(routes) == 0 {
			continue
		}
		cs := ContainerStatus{Name: c.Name, ID: c.ID, Routes: len(routes)}
		for _, route := range routes {
			if via := route.NextHops[0].Via; !cs.Via.IsValid() || via.Less(cs.Via) {
				cs.Via = via
			}
		}
		s.Containers = append(s.Containers, cs)
	}
	slices.SortFunc(s.Networks, func(a, b NetworkStatus) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Containers, func(a, b ContainerStatus) int { return strings.Compare(a.Name, b.Name) })
	if s.Problems == nil {
		s.Problems = []string{}
	}
	r.note(func(have *Status) { *have = s })
}

func networkStatus(n Network, on []attached, o Options) NetworkStatus {
	s := NetworkStatus{Name: n.Name, Driver: n.Driver, Transit: n.Transit, State: "joining", Addresses: []netip.Addr{}, Subnets: []netip.Prefix{}}
	for _, sub := range n.Subnets {
		s.Subnets = append(s.Subnets, sub.Prefix)
	}
	switch {
	case n.ours(o) && !n.Transit:
		s.State = "routed by the node"
	case n.Left:
		s.State = "left by hand"
	case !o.Aggressive && n.Local == 0 && !n.Joined && !n.Transit:
		s.State = "no local containers"
	}
	for _, a := range on {
		if a.ID != n.ID {
			continue
		}
		s.State, s.Link = "joined", a.link
		for _, addr := range a.addrs {
			s.Addresses = append(s.Addresses, addr)
		}
		slices.SortFunc(s.Addresses, netip.Addr.Compare)
	}
	return s
}

func routesOf(m map[kernel.RouteKey]kernel.Route) []RouteStatus {
	out := make([]RouteStatus, 0, len(m))
	for k, r := range m {
		s := RouteStatus{Prefix: k.Dst}
		for _, h := range r.NextHops {
			if h.Via.IsValid() {
				s.Via = append(s.Via, h.Via)
			}
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b RouteStatus) int { return a.Prefix.Compare(b.Prefix) })
	return out
}

func peersOf(st fabric.Status) []PeerStatus {
	out := make([]PeerStatus, 0, len(st.Peers))
	for _, p := range st.Peers {
		out = append(out, PeerStatus{
			Address: p.Address, RouterID: p.RouterID, ASN: p.ASN, State: p.State, Since: p.Since,
			Received: p.Received, Sent: p.Sent, BFD: p.BFD,
		})
	}
	return out
}

// serveStatus answers on the status socket.
func (r *Router) serveStatus(ctx context.Context) error {
	if err := os.MkdirAll(r.cfg.Run, 0o755); err != nil {
		return fmt.Errorf("make run directory: %w", err)
	}
	path := filepath.Join(r.cfg.Run, SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old status socket: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("listen for status: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		r.mu.Lock()
		s := r.status
		r.mu.Unlock()
		s.Peers = peersOf(r.fab.Status())
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(s); err != nil {
			r.log.Debug("answer status", slog.Any("err", err))
		}
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve status: %w", err)
	}
	return nil
}

// Ask reads the status of a router that runs in this container.
func Ask(ctx context.Context, run string) (Status, error) {
	path := filepath.Join(run, SocketName)
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}, Timeout: 5 * time.Second}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://router/status", http.NoBody)
	if err != nil {
		return Status{}, fmt.Errorf("ask router: %w", err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return Status{}, fmt.Errorf("no router answers at %s: %w; ask inside its container: `docker exec fairway-router fairway router status`", path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	var s Status
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return Status{}, fmt.Errorf("read the router's answer: %w", err)
	}
	return s, nil
}
