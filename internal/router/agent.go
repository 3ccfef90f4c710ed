package router

import (
	"context"
	"net/netip"
)

// byHost are the prefixes that the host's agent routes.
func (r *Router) byHost(context.Context) []netip.Prefix { return nil }
