package nft

import "strings"

// engine is what Docker installs in the table "filter", as read from running engines.
func engine(generation, iptables string) []string {
	var lines string
	switch generation {
	case "20.10":
		lines = `
-P FORWARD DROP
-N DOCKER
-N DOCKER-ISOLATION-STAGE-1
-N DOCKER-ISOLATION-STAGE-2
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN`
	case "28":
		lines = `
-P FORWARD DROP
-N DOCKER
-N DOCKER-BRIDGE
-N DOCKER-CT
-N DOCKER-FORWARD
-N DOCKER-ISOLATION-STAGE-1
-N DOCKER-ISOLATION-STAGE-2
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP`
	}
	return prefixed(iptables+" ", strings.Split(strings.TrimSpace(lines), "\n"))
}

// restart is what a starting engine does to chains that are there: it takes its jumps out and puts them at the head of
// FORWARD again, and lets DOCKER-USER be, but for 20.10, which sees to it that there is a RETURN in it.
func restart(generation, iptables string) []string {
	lines := []string{"-D FORWARD -j DOCKER-USER", "-I FORWARD -j DOCKER-USER"}
	switch generation {
	case "20.10":
		lines = append(lines, "-C DOCKER-USER -j RETURN 2>/dev/null || "+iptables+" -A DOCKER-USER -j RETURN")
	case "28":
		lines = append([]string{"-D FORWARD -j DOCKER-FORWARD", "-I FORWARD -j DOCKER-FORWARD"}, lines...)
	}
	return prefixed(iptables+" ", lines)
}

func prefixed(prefix string, lines []string) []string {
	out := make([]string, 0, len(lines))
	for _, l := range lines {
		out = append(out, prefix+l)
	}
	return out
}
