package lab

import (
	"context"
	"net/http"
	"time"

	"fairway/internal/lab/rootfs"
)

// Status is a lab as it is now.
type Status struct {
	Dir      string       `json:"dir"`
	Topology Topology     `json:"topology"`
	Since    time.Time    `json:"since"`
	Agents   bool         `json:"agents"` // whether the hosts are meant to run agents
	Image    string       `json:"image"`
	OK       bool         `json:"ok"` // whether everything runs that should
	Hosts    []HostStatus `json:"hosts"`
	Store    *StoreStatus `json:"store,omitempty"` // nil: the lab has none
	// Trouble says what is wrong with the store, if anything is.
	Trouble []string `json:"trouble,omitempty"`
}

// HostStatus is one host as it is now.
type HostStatus struct {
	HostInfo
	Running bool `json:"running"`
	PID     int  `json:"pid"`
	// Engine is the version of an engine that answers, else "".
	Engine     string `json:"engine,omitempty"`
	Containers int    `json:"containers"` // that run
	// Agent is AgentReady, AgentNotReady, AgentStopped or AgentNone.
	Agent        string            `json:"agent"`
	Links        map[string]string `json:"links"` // network card to LinkUp, LinkDown, LinkSilent
	DockerSocket string            `json:"docker_socket,omitempty"`
	AgentSocket  string            `json:"agent_socket"`
	Logs         map[string]string `json:"logs"`
	// Trouble says what is wrong, if anything is.
	Trouble []string `json:"trouble,omitempty"`
}

// The states of an agent.
const (
	AgentReady    = "ready"
	AgentNotReady = "not ready"
	AgentStopped  = "stopped" // it ran once
	AgentNone     = "none"    // it was never started
)

// Status looks at every part of the lab. What does not answer is told as trouble, not as an error.
func (l *Lab) Status(ctx context.Context) Status {
	s := Status{
		Dir: l.dir, Topology: l.state.Topology, Since: l.state.Created, Agents: l.state.Agents,
		Image: rootfs.ImageName, OK: true,
	}
	links, linkErr := l.links(ctx)
	nodes := l.nodes()
	s.Hosts = make([]HostStatus, len(nodes))
	jobs := newJobs(ctx)
	for i, h := range nodes {
		jobs.add(func(ctx context.Context) error {
			s.Hosts[i] = h.status(ctx, links)
			return nil
		})
	}
	if err := jobs.wait(); err != nil {
		linkErr = err
	}
	if l.store != nil {
		store, err := l.store.Status(ctx)
		s.Store = &store
		switch {
		case err != nil:
			s.Trouble = append(s.Trouble, err.Error())
		case store.State != StoreRunning:
			s.Trouble = append(s.Trouble, "etcd is "+store.State+"; see "+store.Log)
		}
		s.OK = len(s.Trouble) == 0
	}
	for i := range s.Hosts {
		if linkErr != nil {
			s.Hosts[i].Trouble = append(s.Hosts[i].Trouble, linkErr.Error())
		}
		s.OK = s.OK && len(s.Hosts[i].Trouble) == 0
	}
	return s
}

func (h *Host) status(ctx context.Context, links map[string]string) HostStatus {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s := HostStatus{
		HostInfo: h.HostInfo, PID: h.PID(), Running: h.machine.Alive(), Agent: AgentNone,
		AgentSocket: h.AgentSocket(), Links: map[string]string{},
		Logs: map[string]string{"agent": h.Log("agent")},
	}
	if !s.Running {
		s.Trouble = []string{"the host is dead; start over with: fairway lab down"}
		return s
	}
	for _, nic := range h.NICs {
		s.Links[nic.Name] = links[nic.Port]
	}
	if !h.Router() {
		s.DockerSocket = h.DockerSocket()
		s.Logs["dockerd"], s.Logs["containerd"] = h.Log("dockerd"), h.Log("containerd")
		var err error
		if s.Engine, err = h.EngineVersion(ctx); err == nil {
			s.Containers, err = h.containers(ctx)
		}
		if err != nil {
			s.Trouble = append(s.Trouble, "the engine does not answer; see "+h.Log("dockerd"))
		}
	}
	h.agentStatus(ctx, &s)
	return s
}

func (h *Host) agentStatus(ctx context.Context, s *HostStatus) {
	services, err := h.machine.Services(ctx)
	if err != nil {
		s.Trouble = append(s.Trouble, err.Error())
		return
	}
	agent, started := services["agent"]
	switch {
	case !started:
	case !agent.Running:
		s.Agent = AgentStopped
	default:
		s.Agent = AgentReady
		if _, err := ask(ctx, h.AgentSocket(), http.MethodGet, "/readyz", nil); err != nil {
			s.Agent = AgentNotReady
		}
	}
	if h.lab.state.Agents && s.Agent != AgentReady {
		s.Trouble = append(s.Trouble, "the agent is "+s.Agent+"; see "+h.Log("agent"))
	}
}
