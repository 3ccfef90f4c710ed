//go:build deps

// Package fairway pins the module's dependencies while rooms are being built.
package fairway

import (
	_ "github.com/coreos/go-iptables/iptables"
	_ "github.com/goccy/go-yaml"
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/google/nftables"
	_ "github.com/osrg/gobgp/v4/pkg/server"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/spf13/cobra"
	_ "github.com/vishvananda/netlink"
	_ "go.etcd.io/bbolt"
	_ "golang.org/x/net/icmp"
	_ "golang.org/x/sync/errgroup"
)
