// Package lab runs several Docker hosts on one machine, for `fairway lab` and for the end-to-end tests. Every host
// has its own namespaces, root file system, Docker engine and fairway agent; a switch joins them, or two switches
// with a plain Linux router between them.
//
// Addresses exist inside the namespaces only. No link leads to the machine's own network namespace and no host has
// a default route, so nothing that runs in a lab can reach anything outside of it. Of the machine the lab uses
// three things: its directory, cgroup directories named fairway-lab*, and processes; all of it is written down
// before it is made, so that Down finds it also when the program that made it was killed.
package lab
