// Package cnm has the nouns of Docker's Container Network Model, networks, endpoints and pools, and the book in which
// this node keeps them: what Docker asked for, checked, typed, and on disk before it is answered. The engine never
// repeats what it said (a network is created once, an endpoint left once), so this book is the only memory of it.
//
// It decides what a request means, and nothing about the kernel: internal/plan does that from a snapshot of the book.
package cnm
