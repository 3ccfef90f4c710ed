// Package plugin is the Docker engine's way in: NetworkDriver and IpamDriver on one unix socket. It decodes a request,
// checks it, has the book (internal/cnm) take it in, waits until the kernel agrees (Applier), and answers.
//
// It never calls Docker: the engine holds locks while it waits for us, and does not serve its API while it starts. It
// decides nothing about the kernel. Every call is answered within Config.Deadline, also when what is below hangs, and
// the handshake at once, also while the agent is still starting, since an engine that starts waits for it.
//
// What the engine does, and what its tolerated answers are, engine by engine, was measured; the comments say it where it
// shaped the code.
package plugin
