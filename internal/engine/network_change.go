package engine

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
)

// NetworkSpec is a network to be made.
type NetworkSpec struct {
	Name     string
	Driver   string // of the network and of its addresses
	Internal bool
	Subnets  []SubnetSpec // at least one
	Options  map[string]string
	Labels   map[string]string
}

// SubnetSpec is one subnet of a NetworkSpec.
type SubnetSpec struct {
	Prefix  netip.Prefix
	Gateway netip.Addr // zero: the driver's to choose
}

// NetworkCreate makes a network and returns its ID. The engine asks the driver before it answers. IsConflict tells that
// there is a network of the name, of whatever driver.
func (c *Client) NetworkCreate(ctx context.Context, s NetworkSpec) (string, error) {
	type pool struct {
		Subnet  string
		Gateway string `json:",omitempty"`
	}
	type ipam struct {
		Driver string
		Config []pool
	}
	body := struct {
		Name, Driver   string
		CheckDuplicate bool // 1.43 and before make a second network of the name without it
		Internal       bool
		EnableIPv4     bool // from 1.48; before, IPv4 is always there
		EnableIPv6     bool
		IPAM           ipam
		Options        map[string]string
		Labels         map[string]string
	}{
		Name: s.Name, Driver: s.Driver, CheckDuplicate: true, Internal: s.Internal, IPAM: ipam{Driver: s.Driver}, Options: s.Options, Labels: s.Labels,
	}
	for _, n := range s.Subnets {
		if n.Prefix.Addr().Is4() {
			body.EnableIPv4 = true
		} else {
			body.EnableIPv6 = true
		}
		body.IPAM.Config = append(body.IPAM.Config, pool{Subnet: n.Prefix.String(), Gateway: text(n.Gateway)})
	}
	var made struct {
		ID string `json:"Id"`
	}
	err := c.send(ctx, http.MethodPost, "/networks/create", body, &made)
	return made.ID, err
}

// NetworkRemove removes a network, by ID. One that is not there is no error. The engine refuses while a running
// container is on it.
func (c *Client) NetworkRemove(ctx context.Context, id string) error {
	err := c.send(ctx, http.MethodDelete, "/networks/"+id, nil, nil)
	if isNotFound(err) {
		return nil
	}
	return err
}

// IsConflict says that what was to be made is there already.
func IsConflict(err error) bool {
	s, ok := errors.AsType[*statusError](err)
	return ok && s.code == http.StatusConflict
}
