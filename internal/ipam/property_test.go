package ipam_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/ipam"
)

// world drives an allocator with operations read from bytes and knows what must be true of it,
// from nothing but the answers.
type world struct {
	t     *testing.T
	in    []byte
	clock *clock
	opts  ipam.Options
	a     *ipam.Allocator
	disk  map[string]string // what was saved

	released   map[place]time.Time // addresses that an endpoint had and gave back
	generation map[place]uint64
	networks   int
	endpoints  int
}

// place is an address of a pool.
type place struct {
	pool string
	addr netip.Addr
}

func newWorld(t *testing.T, in []byte) *world {
	t.Helper()
	w := &world{
		t: t, in: in, clock: newClock(), disk: map[string]string{},
		released: map[place]time.Time{}, generation: map[place]uint64{},
	}
	w.opts = ipam.Options{Now: w.clock.Now, HoldDown: holdDown, Plan: ipam.Plan{
		Pools: []ipam.PoolPlan{
			{CIDR: pfx("10.9.0.0/25"), BlockSize: 28, Size: 27},
			{CIDR: pfx("fd09::/120"), BlockSize: 126, Size: 122, Block: pfx("fd09::40/124")},
		},
	}}
	w.situate(w.byte())
	w.a = ipam.New(w.opts)
	return w
}

// situate makes the node alone, one of a cluster with a store, or one of several without.
func (w *world) situate(n int) {
	w.opts.Plan.Alone, w.opts.Plan.Shared = n%3 == 0, n%3 == 2
}

func (w *world) byte() int {
	if len(w.in) == 0 {
		return 0
	}
	b := w.in[0]
	w.in = w.in[1:]
	return int(b)
}

func pick[T any](w *world, from []T) T { return from[w.byte()%len(from)] }

func (w *world) pool() (ipam.Pool, bool) {
	pools := w.a.Pools()
	if len(pools) == 0 {
		return ipam.Pool{}, false
	}
	return pick(w, pools), true
}

// addr is some address of, or just outside, a small subnet.
func (w *world) addr(p netip.Prefix) netip.Addr {
	addr := p.Addr()
	for range w.byte() % 130 {
		addr = addr.Next()
	}
	return addr
}

// holds tells that something of the kind is held in the block.
func (w *world) holds(kind ipam.Kind, b ipam.Block) bool {
	return slices.ContainsFunc(w.a.Holdings(), func(h ipam.Holding) bool {
		return h.Kind == kind && h.State == ipam.StateHeld && h.Pool == b.Pool && b.CIDR.Contains(h.Addr)
	})
}

// held is some held address of a kind.
func (w *world) held(kind ipam.Kind) (ipam.Holding, bool) {
	var out []ipam.Holding
	for _, h := range w.a.Holdings() {
		if h.Kind == kind && h.State == ipam.StateHeld {
			out = append(out, h)
		}
	}
	if len(out) == 0 {
		return ipam.Holding{}, false
	}
	return pick(w, out), true
}

// oracle hears a few addresses from elsewhere.
func (w *world) oracle() ipam.Oracle {
	n := w.byte()
	return func(addr netip.Addr) (string, bool) {
		b := addr.As16()
		return "host2", n%3 == 0 && b[15]%4 == 1
	}
}

// run does operations until the bytes end.
func (w *world) run() {
	for len(w.in) > 0 {
		before := dump(w.t, w.a)
		op := w.byte()
		d, err := w.step(op % 16)
		switch {
		case err != nil:
			if diff := cmp.Diff(before, dump(w.t, w.a)); diff != "" || !d.Empty() {
				w.t.Fatalf("operation %d left something after %v: %v\n%s", op%16, err, d, diff)
			}
		case op >= 240: // it could not be saved
			w.a.Undo(d)
			if diff := cmp.Diff(before, dump(w.t, w.a)); diff != "" {
				w.t.Fatalf("operation %d was not undone\n%s", op%16, diff)
			}
		default:
			w.save(d)
		}
		if lack := (*ipam.Lack)(nil); errors.As(err, &lack) && op%64 < 48 {
			w.supply(lack)
		}
		w.check()
		if op%32 == 31 {
			w.restart()
		}
	}
}

// save does what a store does, and notes what was released.
func (w *world) save(d ipam.Delta) {
	touched := map[string]bool{}
	for _, r := range d.Put {
		if touched[r.Key()] {
			w.t.Fatalf("%q is to be saved twice", r.Key())
		}
		touched[r.Key()] = true
		w.disk[r.Key()] = text(w.t, r)
		if h := r.Holding; h != nil {
			w.note(*h)
		}
	}
	gone := map[string]string{}
	for _, r := range d.Gone() {
		gone[r.Key()] = text(w.t, r)
	}
	for _, key := range d.Delete {
		if gone[key] != w.disk[key] {
			w.t.Fatalf("deleted %q was %s, and is told to have been %s", key, w.disk[key], gone[key])
		}
		if _, had := w.disk[key]; !had || touched[key] {
			w.t.Fatalf("deleted %q, which was never saved, or is to be saved now", key)
		}
		delete(w.disk, key)
	}
	for at := range w.released { // a pool that goes forgets everything
		if _, has := w.a.Pool(at.pool); !has && at.pool != "" {
			delete(w.released, at)
		}
	}
}

func (w *world) note(h ipam.Holding) {
	at := place{h.Pool, h.Addr}
	if h.Generation < w.generation[at] {
		w.t.Fatalf("%v has generation %d after %d", h.Addr, h.Generation, w.generation[at])
	}
	w.generation[at] = h.Generation
	if h.State == ipam.StateResting {
		w.released[at] = h.Released
	}
}

func (w *world) step(op int) (ipam.Delta, error) {
	switch op {
	case 0, 1:
		return w.requestPool()
	case 2:
		return w.bindNetwork()
	case 3, 4, 5, 6:
		return w.requestNext()
	case 7, 8:
		return w.requestAddr()
	case 9, 10, 11:
		return w.bindEndpoint()
	case 12, 13:
		return w.release()
	case 14:
		return w.extra()
	}
	return w.end()
}

func (w *world) requestPool() (ipam.Delta, error) {
	req := ipam.PoolRequest{Space: pick(w, []string{space, space, "global"}), V6: w.byte()%2 == 0}
	if w.byte()%3 > 0 {
		req.Pool = opt(pick(w, []string{
			"10.8.0.0/24", "10.8.0.0/26", "10.8.0.128/26", "10.9.0.0/26", "10.9.0.64/30", "10.9.1.0/31", "10.9.1.2/32", "fd08::/64", "fd08::/127", "fd09::/120",
		}))
		req.Range = opt(pick(w, []string{"", "", "", "10.8.0.0/28", "10.8.0.0/30", "10.8.0.48/28", "fd08::10/124", "10.9.0.0/29"}))
	}
	p, d, err := w.a.RequestPool(req)
	if err == nil && w.byte()%4 > 0 {
		h, more, err := w.a.RequestAddress(ipam.AddressRequest{Pool: p.ID, Gateway: true}, nil)
		if err != nil {
			w.t.Fatalf("gateway of %s: %v", p.ID, err)
		}
		if p.Network == "" && h.Kind != ipam.KindGateway {
			w.t.Fatalf("gateway of %s: %+v", p.ID, h)
		}
		d = d.Then(more)
	}
	return d, err
}

func (w *world) bindNetwork() (ipam.Delta, error) {
	p, ok := w.pool()
	if !ok {
		return ipam.Delta{}, nil
	}
	w.networks++
	s := ipam.BindSettings{Space: p.Space, PerNode: w.byte()%5 == 0}
	if w.byte()%3 == 0 {
		s.Static = []netip.Prefix{netip.PrefixFrom(w.addr(p.CIDR), p.CIDR.Addr().BitLen()-w.byte()%4).Masked()}
	}
	return w.a.BindNetwork(fmt.Sprint("n", w.networks), []netip.Prefix{p.CIDR}, s)
}

// requestNext wants an address that is free, has rested, is this node's and can be a container's.
func (w *world) requestNext() (ipam.Delta, error) {
	p, ok := w.pool()
	if !ok {
		return ipam.Delta{}, nil
	}
	was := map[netip.Addr]bool{}
	for _, h := range w.a.Holdings() {
		was[h.Addr] = was[h.Addr] || h.Pool == p.ID
	}
	free := w.free(p.ID)
	h, d, err := w.a.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
	if err != nil {
		if free > 0 {
			w.t.Fatalf("%v, but %d addresses are free", err, free)
		}
		return d, err
	}
	at := place{p.ID, h.Addr}
	if since, rests := w.released[at]; rests && w.clock.now.Sub(since) < holdDown {
		w.t.Fatalf("%v was released %v ago", h.Addr, w.clock.now.Sub(since))
	}
	for _, b := range w.a.Blocks() {
		if b.Pool == p.ID && b.CIDR.Contains(h.Addr) && b.Fenced != "" {
			w.t.Fatalf("chose %v of a block that is fenced: %s", h.Addr, b.Fenced)
		}
	}
	if was[h.Addr] || h.Generation <= w.generation[at] || h.Outside || h.Explicit {
		w.t.Fatalf("chose %+v, which was held, rests, or has an old generation", h)
	}
	return d, nil
}

func (w *world) free(pool string) uint64 {
	for _, u := range w.a.Usage() {
		if u.Pool == pool {
			return u.Total.Free
		}
	}
	return 0
}

func (w *world) requestAddr() (ipam.Delta, error) {
	p, ok := w.pool()
	if !ok {
		return ipam.Delta{}, nil
	}
	addr, gateway := w.addr(p.CIDR), w.byte()%8 == 0
	h, d, err := w.a.RequestAddress(ipam.AddressRequest{Pool: p.ID, Addr: addr, Gateway: gateway}, w.oracle())
	if err == nil && (h.Addr != addr || !h.Explicit && !gateway) {
		w.t.Fatalf("asked for %v, got %+v", addr, h)
	}
	return d, err
}

func (w *world) bindEndpoint() (ipam.Delta, error) {
	h, ok := w.held(ipam.KindEndpoint)
	if !ok {
		return ipam.Delta{}, nil
	}
	p, _ := w.a.Pool(h.Pool)
	if w.byte()%2 == 0 {
		w.endpoints++
	}
	return w.a.BindEndpoint(h.Addr, p.Network, fmt.Sprint("e", w.endpoints), "")
}

func (w *world) release() (ipam.Delta, error) {
	h, ok := w.held(pick(w, []ipam.Kind{ipam.KindEndpoint, ipam.KindEndpoint, ipam.KindEndpoint, ipam.KindGateway, ipam.KindAux}))
	if !ok {
		return ipam.Delta{}, nil
	}
	if w.byte()%4 == 0 && h.Endpoint != "" {
		return w.a.ReleaseEndpoint(h.Endpoint), nil
	}
	return w.a.ReleaseAddress(h.Pool, h.Addr)
}

func (w *world) extra() (ipam.Delta, error) {
	if w.byte()%3 == 0 {
		if h, ok := w.held(ipam.KindExtra); ok {
			return w.a.ReleaseExtra(h.Endpoint), nil
		}
	}
	p, ok := w.pool()
	if !ok || p.Network == "" {
		return ipam.Delta{}, nil
	}
	loose := netip.AddrFrom4([4]byte{192, 0, 2, byte(w.byte())})
	return w.a.HoldExtra(p.Network, fmt.Sprint("e", w.endpoints), []netip.Addr{w.addr(p.CIDR), loose}, w.oracle())
}

// end ends a pool or a network, lets time pass, or changes the config.
func (w *world) end() (ipam.Delta, error) {
	p, ok := w.pool()
	switch n := w.byte() % 16; {
	case n < 8:
		w.clock.advance(time.Duration(w.byte()%50) * time.Second)
	case n == 8:
		w.situate(w.byte())
		w.a.SetOptions(w.opts)
	case n == 9 && ok:
		return w.a.UnbindNetwork(p.Network), nil
	case n == 10 && ok:
		return w.a.ReleasePool(p.ID)
	case n > 10:
		return w.block()
	}
	return ipam.Delta{}, nil
}

// block does with one of the blocks what the store may say.
func (w *world) block() (ipam.Delta, error) {
	blocks := w.a.Blocks()
	if len(blocks) == 0 {
		return ipam.Delta{}, nil
	}
	b := pick(w, blocks)
	p, _ := w.a.Pool(b.Pool)
	switch n := w.byte() % 4; {
	case n < 2:
		d := w.a.Fence(b.Pool, b.CIDR, "another node has it", w.byte()%2 == 0)
		if b.Fenced == "" && d.Empty() != (len(p.Own) > 0) {
			w.t.Fatalf("fenced %+v of %+v: %+v", b, p, d)
		}
		return d, nil
	case n == 2 && len(p.Own) == 0:
		d, err := w.a.Adopt(b.Pool, b.CIDR)
		if err != nil {
			w.t.Fatalf("adopt %v, which it has: %v", b.CIDR, err)
		}
		if other := behind(b.CIDR); p.PerNode && p.CIDR.Overlaps(other) {
			if _, err := w.a.Adopt(b.Pool, other); !errors.Is(err, ipam.ErrOneBlock) {
				w.t.Fatalf("adopt %v besides %v: %v", other, b.CIDR, err)
			}
		}
		return d, err
	}
	d, err := w.a.DropBlock(b.Pool, b.CIDR)
	if inUse := w.holds(ipam.KindEndpoint, b) || w.holds(ipam.KindExtra, b); (err != nil) != (inUse && len(p.Own) == 0) {
		w.t.Fatalf("drop block %v, in use: %v: %v", b.CIDR, inUse, err)
	}
	if err == nil && len(p.Own) == 0 { // it may come back, and nothing of it is known then
		for at := range w.released {
			if at.pool == b.Pool && b.CIDR.Contains(at.addr) {
				delete(w.released, at)
			}
		}
	}
	return d, err
}

// behind is the block after another.
func behind(b netip.Prefix) netip.Prefix {
	end := b.Addr().AsSlice()
	for i := b.Bits(); i < len(end)*8; i++ {
		end[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(end)
	return netip.PrefixFrom(last.Next(), b.Bits())
}

// supply does what the caller does about a lack, or does not.
func (w *world) supply(lack *ipam.Lack) {
	p, _ := w.a.Pool(lack.Pool)
	if !w.opts.Plan.Shared || len(p.Own) > 0 || p.CIDR != lack.CIDR {
		w.t.Fatalf("%v, of pool %+v", lack, p)
	}
	if _, _, has := w.a.NodeSubnet(p.ID); has {
		w.t.Fatalf("%v, and the node has its one block of %+v", lack, p)
	}
	addr := lack.Addr
	switch {
	case !addr.IsValid():
		addr = w.addr(p.CIDR)
	case lack.Static != p.Static.Contains(addr):
		w.t.Fatalf("lacks %+v, and the static range is %v", lack, p.Static)
	case lack.Static:
		h, d, err := w.a.RequestAddress(ipam.AddressRequest{Pool: p.ID, Addr: addr, Granted: true}, nil)
		if err != nil || !h.Outside || !h.Claimed {
			w.t.Fatalf("granted %v: %+v, %v", addr, h, err)
		}
		w.save(d)
		return
	}
	c := netip.PrefixFrom(addr, p.BlockSize).Masked()
	d, err := w.a.Adopt(p.ID, c)
	if (err != nil) != (p.Static.Overlaps(c) || !p.CIDR.Contains(addr)) {
		w.t.Fatalf("adopt %v of %+v: %v", c, p, err)
	}
	w.save(d)
	if got := w.a.Blocks(); err == nil && !slices.ContainsFunc(got, func(b ipam.Block) bool { return b.Pool == p.ID && b.CIDR == c && b.Fenced == "" }) {
		w.t.Fatalf("adopted %v, and has %v", c, got)
	}
}

// restart loads what was saved, and wants the next answer to be what it would have been.
func (w *world) restart() {
	w.clock.advance(time.Millisecond) // no restart is faster
	loaded := ipam.New(w.opts)
	must(w.t, loaded.Load(saved(w.t, w.a.Records())))
	for _, p := range w.a.Pools() {
		x, dx, errx := w.a.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
		y, dy, erry := loaded.RequestAddress(ipam.AddressRequest{Pool: p.ID}, nil)
		if x.Addr != y.Addr || (errx == nil) != (erry == nil) {
			w.t.Fatalf("pool %s: %v, %v, and when loaded %v, %v", p.ID, x.Addr, errx, y.Addr, erry)
		}
		w.a.Undo(dx)
		loaded.Undo(dy)
	}
	w.a = loaded
	w.check()
}

// check wants what is true at all times.
func (w *world) check() {
	w.t.Helper()
	if diff := cmp.Diff(w.disk, dump(w.t, w.a)); diff != "" {
		w.t.Fatalf("memory is not what was saved\n%s", diff)
	}
	pools := w.a.Pools()
	for i, p := range pools {
		for _, q := range pools[:i] {
			if p.Space == q.Space && p.CIDR.Overlaps(q.CIDR) {
				w.t.Fatalf("pools %s and %s overlap", p.ID, q.ID)
			}
		}
	}
	w.checkBlocks()
	w.checkHoldings()
	w.checkUsage()
}

func (w *world) checkBlocks() {
	blocks := w.a.Blocks()
	for i, b := range blocks {
		p, ok := w.a.Pool(b.Pool)
		if !ok || !p.CIDR.Overlaps(b.CIDR) || b.CIDR.Bits() < p.CIDR.Bits() {
			w.t.Fatalf("block %v is not in its pool %+v", b.CIDR, p)
		}
		if len(p.Own) == 0 && (p.Static.Overlaps(b.CIDR) || b.CIDR.Bits() != p.BlockSize) {
			w.t.Fatalf("block %v is in the static range, or no /%d: %+v", b.CIDR, p.BlockSize, p)
		}
		for _, o := range blocks[:i] {
			if o.Pool == b.Pool && p.PerNode {
				w.t.Fatalf("blocks %v and %v of a pool with a subnet per node", b.CIDR, o.CIDR)
			}
			if o.Pool == b.Pool && o.CIDR.Overlaps(b.CIDR) {
				w.t.Fatalf("blocks %v and %v overlap", b.CIDR, o.CIDR)
			}
		}
	}
}

func (w *world) checkHoldings() {
	type key struct {
		space string
		addr  netip.Addr
	}
	seen := map[key]ipam.Holding{}
	for _, h := range w.a.Holdings() {
		p, _ := w.a.Pool(h.Pool)
		at := key{p.Space, h.Addr}
		if o, twice := seen[at]; twice {
			w.t.Fatalf("%+v is held twice, also %+v", h, o)
		}
		seen[at] = h
		if h.Pool == "" {
			for _, p := range w.a.Pools() {
				if p.CIDR.Contains(h.Addr) {
					w.t.Fatalf("%v is outside all pools and in %s", h.Addr, p.ID)
				}
			}
			continue
		}
		if h.Claimed && (!h.Outside || !h.Explicit || h.State != ipam.StateHeld || len(p.Own) > 0) {
			w.t.Fatalf("the store gave %+v of %+v", h, p)
		}
		ends := p.CIDR.Addr() == h.Addr
		if p.CIDR.Addr().Is4() {
			ends = ends || !p.CIDR.Contains(h.Addr.Next())
		}
		whole := p.CIDR.Addr().BitLen()-p.CIDR.Bits() < 2
		if !p.CIDR.Contains(h.Addr) || (ends && !whole) || (h.Addr == p.Gateway) != (h.Kind == ipam.KindGateway) {
			w.t.Fatalf("nobody can have %+v of %+v", h, p)
		}
	}
}

// atTheEdge says that a reserved address is one that nobody could have: the first or last of a node's own subnet.
func (w *world) atTheEdge(h ipam.Holding) bool {
	part, _, ok := w.a.NodeSubnet(h.Pool)
	if !ok || h.Kind != ipam.KindAux || !part.Contains(h.Addr) || part.Addr().BitLen()-part.Bits() < 2 {
		return false
	}
	return h.Addr == part.Addr() || h.Addr.Is4() && !part.Contains(h.Addr.Next())
}

func (w *world) checkUsage() {
	held := map[string]uint64{}
	resting := map[string]uint64{}
	for _, h := range w.a.Holdings() {
		switch {
		case h.Kind == ipam.KindGateway || h.Pool == "" || w.atTheEdge(h):
		case h.State == ipam.StateHeld:
			held[h.Pool]++
		default:
			resting[h.Pool]++
		}
	}
	for _, u := range w.a.Usage() {
		var sum ipam.Usage
		for _, b := range u.Blocks {
			if b.Held+b.Resting+b.Free != b.Size {
				w.t.Fatalf("block %v: %+v does not add up", b.CIDR, b.Usage)
			}
			sum.Size, sum.Held, sum.Resting, sum.Free = sum.Size+b.Size, sum.Held+b.Held, sum.Resting+b.Resting, sum.Free+b.Free
		}
		if sum != u.Total || sum.Held+u.Outside != held[u.Pool] || sum.Resting != resting[u.Pool] {
			w.t.Fatalf("pool %s: %+v does not add up: %+v, held %d, resting %d", u.Pool, u, sum, held[u.Pool], resting[u.Pool])
		}
	}
}

func TestOperations(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			in := make([]byte, 1200)
			r := rand.New(rand.NewPCG(seed, 1))
			for i := range in {
				in[i] = byte(r.Uint32())
			}
			newWorld(t, in).run()
		})
	}
}

func FuzzOperations(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01\x01\x00\x00\x02\x00\x01\x03\x00\x03\x00\x09\x00\x01\x0c\x00\x00\x01\x1f\x00\x00\x20"))
	f.Add([]byte("\x01\x00\x02\x01\x01\x08\x03\x01\x12\x00\x01\x17\x00\x18\x00\x11\x01\xf3\x00\x0f\x09\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 2000 {
			return
		}
		newWorld(t, in).run()
	})
}
