package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"fairway/internal/lab/machine"
)

// AddHost makes one more host in a lab that is up, with the number after the last one's, and tells the other nodes'
// agents about it. It takes its root file system from the hosts before it, in turn. When it fails, the lab is as it
// was.
func (l *Lab) AddHost(ctx context.Context) (*Host, error) {
	l.growing.Lock()
	defer l.growing.Unlock()
	hosts := l.Hosts()
	number := hosts[len(hosts)-1].Number + 1
	if number > MaxHosts {
		return nil, fmt.Errorf("add host: the lab has %d already, and there is room for no more", len(hosts))
	}
	info := newHost(l.state.Topology, number, l.state.Planned)
	like := hosts[(number-1)%len(hosts)]
	info.Rootfs, info.Tree = like.Rootfs, like.Tree
	if err := l.setHosts(append(l.infos(), info)); err != nil {
		return nil, err
	}
	h, err := l.raiseHost(ctx, info)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("add %s: %w", info.Name, err), l.drop(context.WithoutCancel(ctx), info))
	}
	l.keep(h)
	for _, other := range l.nodes() {
		if other.Number == number {
			continue
		}
		if err := other.meet(ctx); err != nil {
			return nil, fmt.Errorf("tell %s about %s: %w", other.Name, info.Name, err)
		}
	}
	return h, nil
}

// drop removes what there is of a host that did not come up.
func (l *Lab) drop(ctx context.Context, info HostInfo) error {
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	if m, err := machine.Open(l.path(info.Name)); err == nil {
		if err := m.Kill(ctx); err != nil {
			return err
		}
	}
	if err := machine.RemoveCgroups(ctx, filepath.Join(l.state.Group, info.Name)); err != nil {
		return err
	}
	if err := os.RemoveAll(l.path(info.Name)); err != nil {
		return fmt.Errorf("remove %s: %w", info.Name, err)
	}
	return l.setHosts(slices.DeleteFunc(l.infos(), func(h HostInfo) bool { return h.Number == info.Number }))
}

// infos is a copy of the places of all nodes.
func (l *Lab) infos() []HostInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.state.Hosts)
}

func (l *Lab) setHosts(infos []HostInfo) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.Hosts = infos
	return l.state.save(l.dir)
}
