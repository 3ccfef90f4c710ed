// Package api is the agent's local HTTP interface: the types it speaks, the server on the unix socket, the client that
// every command uses, and the metrics.
//
// It knows nothing of how the agent works: it asks a Backend, and everything it shows is a plain value with stable
// JSON names. The unix socket can change things and is for root only; the optional TCP listener reads metrics and
// health, nothing else.
package api
