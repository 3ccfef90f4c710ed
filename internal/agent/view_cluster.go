package agent

import (
	"context"
	"errors"

	"fairway/internal/api"
)

// errNoStore is what every question about the cluster gets on a node that is told of none.
func errNoStore() error {
	return api.Unavailable(errors.New("this node has no store: name etcd's endpoints in store.etcd.endpoints of fairway.yaml, the same on every node, and restart the agent"))
}

// Nodes implements api.Members.
func (a *Agent) Nodes(context.Context) ([]api.Member, error) { return nil, errNoStore() }

// Drain implements api.Members.
func (a *Agent) Drain(context.Context, api.DrainRequest) error { return errNoStore() }

// RemoveNode implements api.Members.
func (a *Agent) RemoveNode(context.Context, string, bool) (api.Removal, error) {
	return api.Removal{}, errNoStore()
}

// Join implements api.Members.
func (a *Agent) Join(context.Context) (api.Joined, error) { return api.Joined{}, errNoStore() }

// CreateNetwork implements api.NetworkMaker.
func (a *Agent) CreateNetwork(context.Context, api.NetworkRequest) error { return errNoStore() }

// RemoveNetwork implements api.NetworkMaker.
func (a *Agent) RemoveNetwork(context.Context, string) error { return errNoStore() }
