// Package export prints the routes that a router needs which does not run fairway, in the form of the program that keeps the
// router's routes. It is pure: who the nodes are and what they have comes from the caller, from a config, from an agent or
// from a store.
package export
