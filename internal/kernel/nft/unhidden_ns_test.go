package nft

import (
	"strings"
	"testing"
	"time"

	"fairway/internal/kernel"
)

// Somebody else masquerades everything a container sends; what goes to the cluster keeps its source all the same, and
// the rest does not.
func TestPacketsUnhidden(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			n := newNode(t, backend)
			n.run(t, n.v4+" -t nat -A POSTROUTING -s 10.1.0.0/24 -j MASQUERADE", n.v6+" -t nat -A POSTROUTING -s fd00:1::/64 -j MASQUERADE")
			n.outside.run(t, "ip addr add 10.66.0.6/32 dev eth0", "ip addr add fd00:66::6/128 dev eth0 nodad")
			n.run(t, "ip route add 10.66.0.6/32 via "+outside4, "ip route add fd00:66::6/128 via "+outside6)
			fw := wall()
			fw.Unhidden = kernel.Unhidden{From: prefixes("10.1.0.0/24", "fd00:1::/64"), To: prefixes("10.9.0.0/24", "fd00:9::/64")}
			apply(t, n.h, fw)
			if changed := apply(t, n.open(t, backend), fw); len(changed) > 0 {
				t.Fatalf("another run changes %q", changed)
			}
			n.a.reaches(t, n.outside.listen(t, outside4), containerA4, outside4)
			n.a.reaches(t, n.outside.listen(t, outside6), containerA6, outside6)
			for to, from := range map[string]string{nobody4: containerA4, nobody6: containerA6} {
				conn := n.outside.listen(t, to)
				buf := make([]byte, 100)
				eventually(t, "a packet comes to "+to, func() bool {
					n.a.send(t, from, to, "hidden")
					_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
					_, source, err := conn.ReadFromUDPAddrPort(buf)
					if err == nil && source.Addr().String() == from {
						t.Fatalf("%s sees %s, which is to be masqueraded", to, from)
					}
					return err == nil
				})
			}
			n.run(t, "nft flush set inet fairway known4")
			if ok, missing, err := n.h.Check(t.Context(), fw); ok || err != nil || !strings.Contains(strings.Join(missing, " "), "known4") {
				t.Fatalf("check: %v %q %v", ok, missing, err)
			}
			apply(t, n.h, fw)
		})
	}
}

// The engine's shields are found, and nothing else is taken for one.
func TestShielded(t *testing.T) {
	r := newRig(t, "nft")
	r.run(t, r.v4+" -t raw -A PREROUTING -d 10.5.0.2/32 ! -i br-0123456789ab -j DROP", r.v6+" -t raw -A PREROUTING -d fd00:5::2/128 ! -i br-0123456789ab -j DROP",
		r.v4+" -t raw -A PREROUTING -d 10.5.0.3/32 -j ACCEPT", r.v4+" -t raw -A PREROUTING -i eth0 -j DROP")
	got, err := r.h.Shielded(t.Context())
	if err != nil || len(got) != 2 || got[0].String() != "10.5.0.2" || got[1].String() != "fd00:5::2" {
		t.Fatalf("shielded %v, error %v", got, err)
	}
}
