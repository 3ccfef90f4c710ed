package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"fairway/internal/engine"
	"fairway/internal/kernel/rtnl"
)

// findSelf finds the router's own container: the engine mounts files from a directory with its ID, and names the machine
// by it unless told otherwise.
func findSelf(ctx context.Context, eng *engine.Client) (engine.Process, error) {
	var candidates []string
	for _, file := range []string{"/proc/self/mountinfo", "/proc/self/cgroup"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, word := range strings.FieldsFunc(string(b), func(r rune) bool { return strings.ContainsRune("/ \n:.-", r) }) {
			if len(word) == 64 && strings.Trim(word, "0123456789abcdef") == "" && !slices.Contains(candidates, word) {
				candidates = append(candidates, word)
			}
		}
	}
	if name, err := os.Hostname(); err == nil {
		candidates = append(candidates, name)
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return engine.Process{}, fmt.Errorf("find own network namespace: %w", err)
	}
	for _, id := range candidates {
		p, err := eng.Process(ctx, id)
		if engine.IsNotFound(err) {
			continue
		}
		if err != nil {
			return engine.Process{}, err
		}
		if ns, err := os.Readlink(namespaceOf(p.PID)); p.PID > 0 && err == nil && ns == own {
			return p, nil
		}
	}
	return engine.Process{}, errors.New("this is no container of the engine, or it cannot see the processes of the host: " +
		"run `docker run -d --pid=host --privileged -v /var/run/docker.sock:/var/run/docker.sock fairway router`")
}

// namespaceOf is the path of a process's network namespace.
func namespaceOf(pid int) string { return filepath.Join("/proc", strconv.Itoa(pid), "ns/net") }

// isRouter says that a container is a router itself, of whatever instance.
func isRouter(p engine.Process) bool {
	return len(p.Command) > 1 && filepath.Base(p.Command[0]) == "fairway" && p.Command[1] == "router"
}

// view asks the engine and the kernel what there is.
func (r *Router) view(ctx context.Context) (View, error) {
	v := View{Self: r.self.ID}
	v.Agent, v.ByHost = r.agent.state()
	nets, err := r.eng.Networks(ctx, "")
	if err != nil {
		return View{}, err
	}
	self, err := r.eng.Process(ctx, r.self.ID)
	if err != nil {
		return View{}, fmt.Errorf("look at this container: %w", err)
	}
	on := r.places(self)
	for _, n := range nets {
		v.Networks = append(v.Networks, r.network(n, on[n.ID]))
	}
	if v.Containers, err = r.containers(ctx, v.Networks); err != nil {
		return View{}, err
	}
	if v.Links, err = ownLinks(ctx, r.own); err != nil {
		return View{}, err
	}
	if v.Host, err = r.host.addresses(ctx); err != nil {
		return View{}, err
	}
	v.Learned = map[netip.Prefix][]netip.Addr{}
	for p, route := range r.rib.Snapshot() {
		for _, path := range route.Paths {
			v.Learned[p] = append(v.Learned[p], path.NextHop)
		}
	}
	return v, nil
}

// places are the networks that the router is on. One that it was on, and did not leave itself, somebody took it off: it is
// not joined again until that is undone by hand, or the router starts anew. Events are no help: the kernel tells of the
// link's end before the engine does.
func (r *Router) places(self engine.Process) map[string]bool {
	on := map[string]bool{}
	for _, e := range self.Endpoints {
		on[e.NetworkID] = true
		delete(r.left, e.NetworkID)
	}
	for id := range r.on {
		if on[id] {
			continue
		}
		if !r.leaving[id] {
			r.left[id] = true
		}
		delete(r.leaving, id)
	}
	r.on = on
	return on
}

func (r *Router) network(n engine.Network, joined bool) Network {
	out := Network{
		ID: n.ID, Name: n.Name, Driver: n.Driver, Joined: joined,
		Marked: Marked(n.Options, n.Labels, r.opt.Instance), Left: r.left[n.ID],
		Others: Others(n.Options, n.Labels, r.opt.Instance),
	}
	out.Transit = r.opt.TransitNet != "" && (n.Name == r.opt.TransitNet || n.ID == r.opt.TransitNet)
	if n.Driver == "bridge" {
		out.Bridge = cmp.Or(n.Options["com.docker.network.bridge.name"], "br-"+n.ID[:min(12, len(n.ID))])
	}
	for _, s := range n.Subnets {
		p, err := netip.ParsePrefix(string(s.Subnet))
		if err != nil {
			continue // the engine's word; a network without subnets is never routed
		}
		gw, _ := s.Gateway.Addr()
		out.Subnets = append(out.Subnets, Subnet{Prefix: p.Masked(), Gateway: gw})
	}
	for _, e := range n.Endpoints {
		if e.ContainerID != "" && e.ContainerID != r.self.ID && !r.routers[e.ContainerID] {
			out.Local++
		}
	}
	return out
}

// containers are the running ones that are on networks of this router, or that were steered.
func (r *Router) containers(ctx context.Context, nets []Network) ([]Container, error) {
	list, err := r.eng.Containers(ctx)
	if err != nil {
		return nil, err
	}
	concerned := map[string]bool{}
	for _, n := range nets {
		if n.Marked || n.Transit {
			concerned[n.ID] = true
		}
	}
	seen := map[string]bool{}
	var out []Container
	for _, ct := range list {
		here := slices.ContainsFunc(ct.Endpoints, func(e engine.Endpoint) bool { return concerned[e.NetworkID] })
		if ct.State != "running" || ct.ID == r.self.ID || !here && !r.steered[ct.ID] && !r.anew {
			continue
		}
		seen[ct.ID] = true
		if c, ok, err := r.container(ctx, ct); err != nil {
			return nil, err
		} else if ok {
			out = append(out, c)
		}
	}
	for id := range r.processes {
		if !seen[id] {
			delete(r.processes, id)
		}
	}
	slices.SortFunc(out, func(a, b Container) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// container looks at one; false for one whose namespace is not its own, or that is a router.
func (r *Router) container(ctx context.Context, ct engine.Container) (Container, bool, error) {
	p, known := r.processes[ct.ID]
	if !known {
		var err error
		if p, err = r.eng.Process(ctx, ct.ID); engine.IsNotFound(err) {
			return Container{}, false, nil
		} else if err != nil {
			return Container{}, false, err
		}
		if p.PID > 0 {
			r.processes[ct.ID] = p
		}
	}
	if isRouter(p) {
		r.routers[ct.ID] = true
		return Container{}, false, nil
	}
	if p.PID == 0 || p.NetworkMode == "host" || strings.HasPrefix(p.NetworkMode, "container:") {
		return Container{}, false, nil
	}
	c := Container{ID: ct.ID, Name: p.Name, Namespace: namespaceOf(p.PID), Nets: map[string]netip.Addr{}}
	for _, e := range ct.Endpoints {
		for _, a := range e.Addrs() {
			if _, has := c.Nets[e.NetworkID]; !has {
				c.Nets[e.NetworkID] = a
			}
			c.V6 = c.V6 || a.Is6()
		}
	}
	c.Gateway = r.gatewayOf(ctx, c)
	return c, true, nil
}

// gatewayOf reads a container's own default route from its namespace.
func (r *Router) gatewayOf(ctx context.Context, c Container) netip.Addr {
	h, err := rtnl.OpenAt(c.Namespace, rtnl.Config{})
	if err != nil {
		return netip.Addr{} // it has ended
	}
	defer h.Close()
	f, err := h.Facts(ctx)
	if err != nil {
		return netip.Addr{}
	}
	return f.Default4.Via
}

func ownLinks(ctx context.Context, h *rtnl.Handle) ([]Link, error) {
	f, err := h.Facts(ctx)
	if err != nil {
		return nil, fmt.Errorf("read own links: %w", err)
	}
	var out []Link
	for _, l := range f.Links {
		if l.Up && l.Name != "lo" {
			out = append(out, Link{Name: l.Name, Addrs: l.Addrs})
		}
	}
	slices.SortFunc(out, func(a, b Link) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}
