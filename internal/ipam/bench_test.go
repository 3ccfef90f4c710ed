package ipam_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"fairway/internal/ipam"
)

// crowd is an allocator with so many addresses held in blocks of 64.
func crowd(b *testing.B, n int) (*ipam.Allocator, string, *clock) {
	b.Helper()
	c := newClock()
	a := newAllocator(c, lonely())
	p, _, err := a.RequestPool(ipam.PoolRequest{Space: space, Pool: pfx("10.0.0.0/8")})
	must(b, err)
	_, err = a.BindNetwork("n1", []netip.Prefix{p.CIDR}, ipam.BindSettings{})
	must(b, err)
	for i := range n {
		h, _, err := a.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
		must(b, err)
		_, err = a.BindEndpoint(h.Addr, "n1", fmt.Sprint("e", i), "")
		must(b, err)
	}
	return a, p.ID, c
}

// One container comes and goes while so many others stay.
func BenchmarkContainer(b *testing.B) {
	for _, n := range []int{0, 100, 10_000, 100_000} {
		b.Run(fmt.Sprint("held=", n), func(b *testing.B) {
			a, pool, c := crowd(b, n)
			for b.Loop() {
				h, _, err := a.RequestAddress(ipam.AddressRequest{Pool: pool}, nil)
				must(b, err)
				_, err = a.BindEndpoint(h.Addr, "n1", "e", "")
				must(b, err)
				_, err = a.ReleaseAddress(pool, h.Addr)
				must(b, err)
				c.advance(time.Second)
			}
		})
	}
}

// Each iteration fills a pool: the cost of an address as blocks fill up and new ones are claimed.
func BenchmarkFill(b *testing.B) {
	for b.Loop() {
		crowd(b, 10_000)
	}
}

func BenchmarkLoad(b *testing.B) {
	a, _, c := crowd(b, 10_000)
	records := a.Records()
	for b.Loop() {
		must(b, newAllocator(c, lonely()).Load(records))
	}
}

func BenchmarkUsage(b *testing.B) {
	a, _, _ := crowd(b, 10_000)
	for b.Loop() {
		a.Usage()
	}
}
