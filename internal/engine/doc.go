// Package engine reads what the Docker engine has: networks, containers, events; and asks it to change networks. It is a
// small client of its own, with texts where Docker's own types are strict, for the reasons in
// docs/decisions/0003-own-engine-client.md.
//
// Reading is for names in listings and for finding what the engine has forgotten; changes are for networks of the cluster
// and for the distributed router. No call of a driver ever waits for it, since the engine may be waiting for the driver
// and does not serve its API while it starts. What it returns is the engine's word, not checked.
package engine
