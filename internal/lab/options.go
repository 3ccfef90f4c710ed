package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"fairway/internal/lab/rootfs"
)

// DefaultDir is where a lab is unless FAIRWAY_LAB_DIR names another directory.
const DefaultDir = "/run/fairway-lab"

// MaxHosts is the most hosts a lab can have: the address plan has room for so many.
const MaxHosts = 99

// Topology says how the hosts are joined.
type Topology string

// The topologies.
const (
	// Flat is one segment with all hosts on it.
	Flat Topology = "flat"
	// TwoSegments is two segments, each with half of the hosts, and a router between them.
	TwoSegments Topology = "two-segments"
)

// Options say what lab to make. Every field has a default.
type Options struct {
	// Dir is the lab's directory; absolute and short, because sockets are in it. Default: DefaultDir.
	Dir string
	// Cache keeps root file systems. Default: rootfs.DefaultCache.
	Cache string
	// Mirror is the archive to build root file systems from. Default: the machine's own.
	Mirror string
	// Hosts is how many hosts to make, 1..MaxHosts. Default: 3.
	Hosts int
	// Topology joins them. Default: Flat.
	Topology Topology
	// Store is what the hosts agree in: StoreEtcd, or "" for none.
	Store string
	// Fabric is what carries routes between the hosts: "bgp", or "store" with a store and the flat topology. Default: bgp.
	Fabric string
	// Rootfs are suites (a name) or trees (a path), given to the hosts in turn. Default: the machine's own files
	// when it has a Docker engine, else its own suite.
	Rootfs []string
	// Binary is the fairway program: PID 1 of every host, and the agent. Default: the running program, which then
	// must offer machine.InitCommand.
	Binary string
	// Agent is the program to run as agent, when it is another one.
	Agent string
	// NoAgent makes hosts without agents; StartAgent may start them later.
	NoAgent bool
	// AgentConfig, when not nil, returns the agent's config in place of the standard one that it is given.
	AgentConfig func(h HostInfo, standard string) string
	// DaemonJSON is laid over each engine's daemon.json, key by key.
	DaemonJSON map[string]any
	// IPForward turns IPv4 forwarding on before the engines start. An engine that finds it off turns it on and
	// sets the policy of the FORWARD chain to DROP, which is what most Docker hosts have and so the default.
	IPForward bool
	// Disk keeps the state of engines and agents in the lab's directory instead of in memory, so that hosts can be
	// rebooted.
	Disk bool
	// Progress, when not nil, is told what happens. It is called by several goroutines at once.
	Progress func(Event)
}

// Event is a step of the work. Done says that it is the last one for this Subject.
type Event struct {
	Subject string // a host, or what else is being made
	Step    string
	Done    bool
}

// Getenv is os.Getenv or what stands for it.
type Getenv func(key string) string

// Environment fills what the caller left open from the environment: FAIRWAY_LAB_DIR, FAIRWAY_LAB_CACHE and
// FAIRWAY_LAB_MIRROR.
func (o Options) Environment(getenv Getenv) Options {
	fill := func(field *string, key string) {
		if *field == "" {
			*field = getenv(key)
		}
	}
	fill(&o.Dir, "FAIRWAY_LAB_DIR")
	fill(&o.Cache, "FAIRWAY_LAB_CACHE")
	fill(&o.Mirror, "FAIRWAY_LAB_MIRROR")
	return o
}

// checked returns the options with every default filled in, or what is wrong with them.
func (o Options) checked() (Options, error) {
	if o.Dir == "" {
		o.Dir = DefaultDir
	}
	if o.Cache == "" {
		o.Cache = rootfs.DefaultCache
	}
	if o.Hosts == 0 {
		o.Hosts = 3
	}
	if o.Topology == "" {
		o.Topology = Flat
	}
	if o.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("find own program: %w", err)
		}
		o.Binary = self
	}
	if o.Fabric == "" {
		o.Fabric = "bgp"
	}
	if o.Agent == "" {
		o.Agent = o.Binary
	}
	if o.Progress == nil {
		o.Progress = func(Event) {}
	}
	return o, o.check()
}

func (o Options) check() error {
	var errs []error
	if o.Hosts < 1 || o.Hosts > MaxHosts {
		errs = append(errs, fmt.Errorf("hosts: %d is not between 1 and %d", o.Hosts, MaxHosts))
	}
	if o.Topology != Flat && o.Topology != TwoSegments {
		errs = append(errs, fmt.Errorf("topology: %q is neither %q nor %q", o.Topology, Flat, TwoSegments))
	}
	errs = append(errs, o.checkStore())
	for _, path := range []string{o.Dir, o.Cache, o.Binary, o.Agent} {
		if !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("%q is not an absolute path", path))
		}
	}
	// An AF_UNIX path has room for 107 characters: unix(7).
	const longest = "/host99/run/docker/plugins/0123456789abcdef.sock"
	if len(o.Dir)+len(longest) > 107 {
		errs = append(errs, fmt.Errorf("directory %q is too long for the sockets in it: use one of at most %d characters",
			o.Dir, 107-len(longest)))
	}
	if strings.ContainsAny(o.Dir, ":,\\ \t\n") {
		errs = append(errs, fmt.Errorf("directory %q must not hold white space, colons, commas or backslashes", o.Dir))
	}
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("a lab needs root: run it with sudo"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

func (o Options) checkStore() error {
	switch {
	case o.Store != "" && o.Store != StoreEtcd:
		return fmt.Errorf("store: %q is not %q; leave it out for none", o.Store, StoreEtcd)
	case o.Fabric != "bgp" && o.Fabric != "store":
		return fmt.Errorf("fabric: %q is neither %q nor %q", o.Fabric, "bgp", "store")
	case o.Fabric == "store" && o.Store == "":
		return errors.New("fabric: store needs a store; give --store etcd")
	case o.Fabric == "store" && o.Topology == TwoSegments:
		return fmt.Errorf("fabric: store is for nodes on one segment; use bgp with %s", TwoSegments)
	}
	return nil
}
