package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"

	"fairway/internal/lab/etcd"
	"fairway/internal/lab/machine"
)

// StoreEtcd is the one store that a lab can have: this machine's etcd.
const StoreEtcd = "etcd"

const (
	storeName   = "store"
	storeNumber = 250 // of its addresses
)

// Store is the store of the lab's hosts, on the wire with a card in every segment. It is safe for concurrent use.
type Store struct {
	*etcd.Server
	lab  *Lab
	nics []NIC
}

// Store is the lab's store; nil when it has none.
func (l *Lab) Store() *Store { return l.store }

// newStore makes the store's place in the lab, around a machine that may not be there yet.
func (l *Lab) newStore(m *machine.Machine) *Store {
	s := &Store{lab: l, Server: &etcd.Server{Machine: m, Dir: l.path(storeName)}}
	for i, segment := range l.opts.Topology.segments() {
		nic := newNIC(fmt.Sprintf("eth%d", i), fmt.Sprintf("%s-eth%d", storeName, i), segment, storeNumber)
		s.nics = append(s.nics, nic)
		s.Addresses = append(s.Addresses, nic.Address4.Addr().String())
	}
	return s
}

// raiseStore makes the store's machine and starts it.
func (l *Lab) raiseStore(ctx context.Context) error {
	tell := func(step string, done bool) { l.opts.Progress(Event{Subject: storeName, Step: step, Done: done}) }
	tell("starting etcd", false)
	spec, err := l.newSpec(storeName)
	if err != nil {
		return err
	}
	// With the filter, a packet from an address to which no route leads is dropped: see Cut.
	spec.Sysctls = append(hostSysctls(false, false),
		machine.Sysctl{Path: "net/ipv4/conf/all/rp_filter", Value: "1"},
		machine.Sysctl{Path: "net/ipv4/conf/default/rp_filter", Value: "1"})
	m, err := machine.Start(ctx, l.opts.Binary, spec)
	if err != nil {
		return err
	}
	l.store = l.newStore(m)
	if err := l.plug(ctx, HostInfo{Name: storeName, NICs: l.store.nics}, m); err != nil {
		return err
	}
	if err := l.store.Start(ctx); err != nil {
		return err
	}
	tell("ready: etcd at "+l.store.endpoint(l.store.nics[0]), true)
	return nil
}

func (s *Store) endpoint(nic NIC) string {
	return fmt.Sprintf("%s:%d", nic.Address4.Addr(), etcd.Port)
}

// Endpoint is where a host finds the store: on its own segment.
func (s *Store) Endpoint(h HostInfo) string {
	for _, nic := range s.nics {
		if nic.Segment == h.NICs[0].Segment {
			return s.endpoint(nic)
		}
	}
	return s.endpoint(s.nics[0])
}

// Cut makes the store and one host lose every packet between them, without a word; all else goes on.
func (s *Store) Cut(ctx context.Context, h *Host) error {
	return s.route(ctx, "replace", h)
}

// Heal ends Cut.
func (s *Store) Heal(ctx context.Context, h *Host) error {
	cut, err := s.cut(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(cut, h.Name) {
		return fmt.Errorf("heal %s: it is not cut off from the store", h.Name)
	}
	return s.route(ctx, "del", h)
}

func (s *Store) route(ctx context.Context, verb string, h *Host) error {
	var lines []string
	for _, nic := range h.NICs {
		lines = append(lines, fmt.Sprintf("route %s blackhole %s", verb, nic.Address4.Addr()))
	}
	return ipBatch(ctx, s.Machine, lines)
}

// cut lists the hosts that are cut off, in order.
func (s *Store) cut(ctx context.Context) ([]string, error) {
	cmd := exec.CommandContext(ctx, "nsenter", "-t", strconv.Itoa(s.Machine.PID), "-n", "--", "ip", "-json", "route", "show", "type", "blackhole")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("read routes of the store: %w", err)
	}
	var routes []struct {
		Dst string `json:"dst"`
	}
	if out = bytes.TrimSpace(out); len(out) != 0 {
		if err := json.Unmarshal(out, &routes); err != nil {
			return nil, fmt.Errorf("read routes of the store: %w", err)
		}
	}
	var names []string
	for _, h := range s.lab.nodes() {
		for _, r := range routes {
			if r.Dst == h.Address().String() {
				names = append(names, h.Name)
			}
		}
	}
	return names, nil
}

// StoreStatus is the store as it is now.
type StoreStatus struct {
	Kind      string   `json:"kind"`
	Endpoints []string `json:"endpoints"`
	State     string   `json:"state"` // StoreRunning, StoreStopped or StoreSilent
	PID       int      `json:"pid"`   // of its first process: its namespaces are in /proc/PID/ns
	Data      string   `json:"data"`
	Log       string   `json:"log"`
	Cut       []string `json:"cut,omitempty"` // hosts that are cut off from it
}

// The states of a store.
const (
	StoreRunning = "running"
	StoreStopped = "stopped"
	StoreSilent  = "silent" // it runs and does not answer: frozen, or not well
)

// Status looks at the store.
func (s *Store) Status(ctx context.Context) (StoreStatus, error) {
	st := StoreStatus{Kind: StoreEtcd, State: StoreStopped, PID: s.Machine.PID, Data: s.Dir, Log: s.Log()}
	for _, nic := range s.nics {
		st.Endpoints = append(st.Endpoints, s.endpoint(nic))
	}
	if !s.Machine.Alive() {
		return st, errors.New("the machine of the store is dead; start over with: fairway lab down")
	}
	running, err := s.Running(ctx)
	if err != nil {
		return st, err
	}
	if running {
		st.State = StoreRunning
		if s.Answers(ctx) != nil {
			st.State = StoreSilent
		}
	}
	st.Cut, err = s.cut(ctx)
	return st, err
}
