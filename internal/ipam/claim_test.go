package ipam_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"fairway/internal/ipam"
)

func together() ipam.Plan { return ipam.Plan{Shared: true} }

// lacks wants an error that says what has to be claimed.
func lacks(t *testing.T, err error, want ipam.Lack) {
	t.Helper()
	var got *ipam.Lack
	if !errors.As(err, &got) || *got != want {
		t.Fatalf("error %v, want the lack of %+v", err, want)
	}
}

func TestSharedPoolAsksForWhatItLacks(t *testing.T) {
	c := newClock()
	a := newAllocator(c, together())
	p := network(t, a, "n1", "10.9.0.0/16", "")
	if !p.Shared || p.BlockSize != 26 || p.Static != pfx("10.9.192.0/18") {
		t.Fatalf("pool %+v", p)
	}
	another, static := ipam.Lack{Pool: p.ID, CIDR: p.CIDR}, ipam.Lack{Pool: p.ID, CIDR: p.CIDR, Addr: ip("10.9.200.1"), Static: true}
	_, _, err := a.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
	lacks(t, err, another)
	_, err = ask(a, p.ID, "10.9.7.9")
	lacks(t, err, ipam.Lack{Pool: p.ID, CIDR: p.CIDR, Addr: ip("10.9.7.9")})
	_, err = ask(a, p.ID, "10.9.200.1")
	lacks(t, err, static)
	_, err = a.HoldExtra("n1", "e1", []netip.Addr{ip("10.9.200.1")}, nil)
	lacks(t, err, static)

	for range 2 { // a claim may be told twice
		_, err = a.Adopt(p.ID, pfx("10.9.7.0/26"))
		must(t, err)
	}
	if h, err := ask(a, p.ID, "10.9.7.9"); err != nil || h.Outside || h.Claimed {
		t.Errorf("in the block: %+v, %v", h, err)
	}
	if got := next(t, a, p.ID); got != ip("10.9.7.0") {
		t.Errorf("next is %v", got)
	}
	h, _, err := a.RequestAddress(ipam.AddressRequest{Pool: p.ID, Addr: ip("10.9.200.1"), Granted: true}, hears("10.9.200.1/32", "node9"))
	if err != nil || !h.Outside || !h.Claimed {
		t.Errorf("given by the store: %+v, %v; the route still heard of it is its last holder's", h, err)
	}
	d, err := a.ReleaseAddress(p.ID, ip("10.9.200.1"))
	must(t, err)
	if gone := d.Gone(); len(gone) != 1 || gone[0].Holding == nil || !gone[0].Holding.Claimed {
		t.Errorf("the release tells of %+v", gone)
	}
	if _, err := ask(a, p.ID, "10.9.200.1"); err == nil {
		t.Error("an address given back to the store is given out without asking it")
	}
}

func TestAgreedShape(t *testing.T) {
	a := newAllocator(newClock(), ipam.Plan{Shared: true, Pools: []ipam.PoolPlan{{CIDR: pfx("10.0.0.0/8"), BlockSize: 27}}})
	p, _, err := a.RequestPool(ipam.PoolRequest{Space: space, Pool: pfx("10.9.0.0/16"), Shape: &ipam.Shape{BlockSize: 24, Static: pfx("10.9.8.0/22")}})
	if err != nil || p.BlockSize != 24 || p.Static != pfx("10.9.8.0/22") || !p.StaticSet {
		t.Errorf("%+v, %v", p, err)
	}
	for _, s := range []ipam.Shape{{BlockSize: 15}, {BlockSize: 24, Static: pfx("10.8.0.0/22")}, {BlockSize: 24, Static: netip.MustParsePrefix("10.8.1.1/16")}} {
		if _, _, err := a.RequestPool(ipam.PoolRequest{Space: "other", Pool: pfx("10.8.0.0/16"), Shape: &s}); (err == nil) != (s.Static == pfx("10.8.0.0/22")) {
			t.Errorf("shape %+v: %v", s, err)
		}
		a.DropPool("v1/other/10.8.0.0/16")
	}
	own, _, err := a.RequestPool(ipam.PoolRequest{Space: space, Pool: pfx("10.7.0.0/16"), Range: pfx("10.7.1.0/24"), Shape: &ipam.Shape{BlockSize: 20}})
	if err != nil || own.Shared || len(own.Own) != 1 {
		t.Errorf("an own part beside a store: %+v, %v", own, err)
	}
}

func TestFencedBlockGivesNothing(t *testing.T) {
	c := newClock()
	a := newAllocator(c, together())
	p := network(t, a, "n1", "10.9.0.0/24", "")
	first, second := pfx("10.9.0.64/26"), pfx("10.9.0.128/26")
	_, err := a.Adopt(p.ID, first)
	must(t, err)
	stays, goes := run(t, a, p, "e1"), run(t, a, p, "e2")
	release(t, a, p.ID, goes)
	c.advance(time.Hour)
	if a.Fence(p.ID, first, "node2 has it", false).Empty() || !a.Fence(p.ID, first, "node2 has it", false).Empty() {
		t.Error("the first fence changes something, the second does not")
	}
	_, err = ask(a, p.ID, goes.String())
	refused(t, err, ipam.ErrFenced, "10.9.0.64/26", "node2 has it")
	_, _, err = a.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
	lacks(t, err, ipam.Lack{Pool: p.ID, CIDR: p.CIDR})
	if u := a.Usage()[0]; u.Total != (ipam.Usage{Size: 1, Held: 1}) {
		t.Errorf("usage %+v", u.Total)
	}
	_, err = a.DropBlock(p.ID, first)
	refused(t, err, ipam.ErrInUse, stays.String())
	if again := ipam.New(ipam.Options{Now: c.Now, HoldDown: holdDown, Plan: together()}); again.Load(saved(t, a.Records())) != nil || again.Blocks()[0].Fenced == "" {
		t.Error("the fence is not kept over a restart")
	}
	_, err = a.Adopt(p.ID, second)
	must(t, err)
	if got := next(t, a, p.ID); !second.Contains(got) {
		t.Errorf("gave %v", got)
	}
	release(t, a, p.ID, stays)
	_, err = a.DropBlock(p.ID, first)
	must(t, err)
	if b := a.Blocks(); len(b) != 1 || b[0].CIDR != second {
		t.Errorf("blocks %v", b)
	}
}

func TestUnfencedBlockRemembersWhatRested(t *testing.T) {
	c := newClock()
	a := newAllocator(c, together())
	p := network(t, a, "n1", "10.9.0.0/29", "")
	_, err := a.Adopt(p.ID, pfx("10.9.0.2/31"))
	must(t, err)
	x, y := run(t, a, p, "e1"), run(t, a, p, "e2")
	a.Fence(p.ID, pfx("10.9.0.2/31"), "node2 has it", false)
	release(t, a, p.ID, x)
	release(t, a, p.ID, y)
	_, err = a.Adopt(p.ID, pfx("10.9.0.2/31"))
	must(t, err)
	_, _, err = a.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
	lacks(t, err, ipam.Lack{Pool: p.ID, CIDR: p.CIDR})
	c.advance(holdDown)
	if got := next(t, a, p.ID); got != x {
		t.Errorf("gave %v, want the one that rested longest, %v", got, x)
	}
}

func TestLow(t *testing.T) {
	a := newAllocator(newClock(), together())
	p := network(t, a, "n1", "10.9.0.0/24", "")
	if a.Low(p.ID) {
		t.Error("low without a block: the first one is claimed when it is needed")
	}
	_, err := a.Adopt(p.ID, pfx("10.9.0.64/26"))
	must(t, err)
	for range 48 {
		if a.Low(p.ID) {
			t.Fatal("low too early")
		}
		next(t, a, p.ID)
	}
	next(t, a, p.ID)
	if !a.Low(p.ID) {
		t.Error("not low with 15 of 64 free")
	}
}

func TestStoreTakenOutOfTheConfig(t *testing.T) {
	a := newAllocator(newClock(), together())
	p := network(t, a, "n1", "10.9.0.0/24", "")
	a.SetOptions(ipam.Options{Plan: lonely()})
	_, _, err := a.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
	refused(t, err, ipam.ErrPoolFull, "store.etcd")
	_, err = ask(a, p.ID, "10.9.0.70")
	refused(t, err, nil, "store.etcd")
}

// A node that was alone and gets a store goes on with what it has, and asks for more.
func TestStorePutIntoTheConfig(t *testing.T) {
	a := newAllocator(newClock(), lonely())
	p := network(t, a, "n1", "10.9.0.0/29", "")
	had := next(t, a, p.ID)
	a.SetOptions(ipam.Options{Plan: together()})
	b := a.Blocks()[0]
	d, err := a.Adopt(p.ID, b.CIDR)
	must(t, err)
	if p, _ := a.Pool(p.ID); !p.Shared || len(d.Put) != 1 {
		t.Errorf("%+v after %+v", p, d)
	}
	if got := a.Holdings(); len(got) != 2 || got[1].Addr != had {
		t.Errorf("holdings %v", got)
	}
}

func TestAdoptRefuses(t *testing.T) {
	a := newAllocator(newClock(), together())
	p := network(t, a, "n1", "10.9.0.0/24", "")
	own := network(t, a, "n2", "10.8.0.0/24", "10.8.0.0/26")
	for _, c := range []struct{ pool, cidr, want string }{
		{p.ID, "10.9.0.192/26", "static range"},
		{p.ID, "10.9.0.0/27", "/26"},
		{p.ID, "10.7.0.0/26", "10.9.0.0/24"},
		{own.ID, "10.8.0.64/26", "own part"},
		{"v1/x/10.1.0.0/16", "10.1.0.0/26", "not found"},
	} {
		_, err := a.Adopt(c.pool, pfx(c.cidr))
		refused(t, err, nil, c.cidr, c.want)
	}
	if got := a.Blocks(); len(got) != 1 {
		t.Errorf("blocks %v", got)
	}
}
