// Package bgp is the fabric that speaks BGP-4 (RFC 4271) with GoBGP inside the agent: IPv4 and IPv6 on every session, IPv4
// over IPv6 next hops (RFC 8950), unnumbered sessions, MD5, GTSM, BFD, multipath, route reflection and graceful restart.
//
// It wraps what GoBGP does not do:
//
//   - It watches links. A link that goes down takes its sessions and what was heard over them with it at once.
//   - It sends and hears router advertisements, which is how the two ends of an unnumbered session find each other.
//   - It decides what a session's end means: routes stay only when a peer restarts (RFC 4724), not when it fell silent.
//   - It enables a peer again that told too many prefixes.
//
// A session that must go is taken out of GoBGP, and one that may come is put in: there is no other switch. That also clears
// what a GoBGP session carries over into its next life (a queued NOTIFICATION, the idle time of five seconds).
//
// What is heard is filtered by GoBGP's import policy, so a refused route is neither used nor told to anybody else, also when
// this node reflects routes or passes them on between autonomous systems. Nothing else in fairway knows the library.
//
// GoBGP keeps some settings in package variables: one running Fabric in a process.
package bgp
