package nft

import (
	"fmt"
	"testing"
)

// rules that a busy host has beside ours: a port published on each of so many containers.
const benchPorts = 200

func benchRig(b *testing.B, backend string) rig {
	b.Helper()
	r := newRig(b, backend)
	for _, p := range r.families {
		r.run(b, engine("28", p)...)
		in := "*filter\n"
		for i := range benchPorts {
			in += fmt.Sprintf("-A DOCKER -p tcp --dport %d ! -i docker0 -o docker0 -j ACCEPT\n", 1000+i)
		}
		r.run(b, p+"-restore --noflush <<E\n"+in+"COMMIT\nE")
	}
	apply(b, r.h, wall())
	return r
}

// BenchmarkCheck is what the agent does twice a second: on a ruleset that did not change, on one that did, and with
// the backend that has to be asked by running a program for each family.
func BenchmarkCheck(b *testing.B) {
	for _, c := range []struct {
		name, backend string
		forget        bool
	}{
		{"nft-unchanged", "nft", false},
		{"nft-changed", "nft", true},
		{"legacy", "legacy", false},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := benchRig(b, c.backend)
			for b.Loop() {
				r.h.isSound = r.h.isSound && !c.forget
				if ok, missing, err := r.h.Check(b.Context(), wall()); !ok {
					b.Fatal(missing, err)
				}
			}
		})
	}
}

// BenchmarkApply is a full pass that finds everything in place.
func BenchmarkApply(b *testing.B) {
	r := benchRig(b, "nft")
	for b.Loop() {
		if changed, err := r.h.Apply(b.Context(), wall()); err != nil || len(changed) > 0 {
			b.Fatal(changed, err)
		}
	}
}
