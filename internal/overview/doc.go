// Package overview turns what the nodes of a cluster agreed on into what an operator sees of it: nodes, networks, blocks,
// addresses, what is wrong. It is pure: plain values in, values of the API out.
package overview
