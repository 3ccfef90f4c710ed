// Package router is the distributed router: it runs as a container on every host, joins Docker networks of any driver,
// and leads containers' packets between them.
//
// It works as the agent does: events of the engine only mark dirty; one pure function (Decide) says which networks are
// to be joined and which routes belong where; each namespace is compared with that and made to agree. In a container's
// namespace nothing of Docker's is changed: the router's routes have our protocol and are in a table of their own, which
// rules put before Docker's default route. What is to be undone is therefore known from the kernel alone, also after a
// kill.
package router
