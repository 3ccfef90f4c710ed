package cnm

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"fairway/internal/cluster"
	"fairway/internal/ipam"
	"fairway/internal/store"
)

// Claimer claims in the store what this node's blocks do not have; cluster.Cluster is one. It calls the book's methods of
// a cluster.Ledger.
type Claimer interface {
	// Shape says how the nodes cut a pool, or who has something of this node's own part. It is called with the book
	// locked, so it must neither wait nor call the book.
	Shape(cidr, own netip.Prefix) (spec cluster.PoolSpec, agreed bool, err error)
	// ClaimBlock claims a block, the one with an address in it if that is valid, and has the book adopt it.
	ClaimBlock(ctx context.Context, spec cluster.PoolSpec, covering netip.Addr) (cluster.Block, error)
	// ClaimAddress claims an address of the static range.
	ClaimAddress(ctx context.Context, spec cluster.PoolSpec, addr netip.Addr, endpoint string) (cluster.Address, error)
	// Release gives back what the book's claims say is being released, as far as it gets before the context ends, and does
	// the rest in the background.
	Release(ctx context.Context) error
}

// What a request may wait for the store, and how long giving something back may hold up its caller.
const (
	claimTime   = 3 * time.Second
	releaseTime = time.Second
	// aheadPause is the time between two tries to claim a block before it is needed.
	aheadPause = 30 * time.Second
	// emptyTime is how long a block has been empty, on two looks, when it is given back.
	emptyTime = 5 * time.Minute
)

// maxClaims is above what any request needs: one for each of its addresses, and some that others take away meanwhile.
const maxClaims = 200

// shared is what the book knows of the store in which blocks are claimed. The book's lock guards it.
type shared struct {
	claimer   Claimer
	releasing map[string]releasing     // by key in the store
	pending   map[string]pending       // addresses that are being claimed, by key in the store
	turns     map[string]chan struct{} // by pool ID; full while a block is claimed for the pool
	ahead     map[string]time.Time     // by pool ID; when a block was last claimed before it was needed
	empty     map[string]time.Time     // by key in the store; since when a block was seen to be empty
}

func newShared() shared {
	return shared{
		releasing: map[string]releasing{}, pending: map[string]pending{}, turns: map[string]chan struct{}{},
		ahead: map[string]time.Time{}, empty: map[string]time.Time{},
	}
}

// pending is an address that is being claimed, by so many requests.
type pending struct {
	claim cluster.Claim
	users int
}

// Use has the book claim blocks and addresses through the claimer from now on.
func (b *Book) Use(c Claimer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shared.claimer = c
}

// claiming runs an edit, claims in the store what it turns out to lack, and runs it again. The work is told which
// addresses were granted to it.
func (b *Book) claiming(ctx context.Context, work func(c *change, granted []netip.Addr) error) error {
	var granted []netip.Addr
	var held []string
	defer func() { b.unpend(ctx, held) }()
	brief, cancel := context.WithTimeout(ctx, claimTime)
	defer cancel()
	for try := 0; ; try++ {
		err := b.edit(ctx, func(c *change) error { return work(c, granted) })
		var lack *ipam.Lack
		if !errors.As(err, &lack) || try == maxClaims {
			return err
		}
		key, why := b.supply(brief, lack)
		if key != "" {
			held = append(held, key)
		}
		switch {
		case why != nil && lack.Addr.IsValid():
			return why // it names the address
		case why != nil:
			return fmt.Errorf("%w: %w", err, why)
		}
		if lack.Static {
			granted = append(granted, lack.Addr)
		}
	}
}

// supply claims what is lacking. The key is that of an address which is pending from now on.
func (b *Book) supply(ctx context.Context, lack *ipam.Lack) (key string, err error) {
	spec, claimer, err := b.spec(lack.Pool)
	if err != nil {
		return "", err
	}
	if lack.Static {
		k := cluster.Claim{Pool: spec, Addr: lack.Addr, Pending: true}
		if b.pend(k) {
			return k.Key(), nil // this node still has it
		}
		_, err := claimer.ClaimAddress(ctx, spec, lack.Addr, "")
		return k.Key(), err
	}
	waited, done, err := b.takeTurn(ctx, lack.Pool)
	if err != nil || waited {
		return "", err // whoever came first may have claimed enough
	}
	defer done()
	if b.hasPart(lack.Pool) {
		return "", nil // somebody's turn ended before this one began
	}
	if recalled, err := b.recall(ctx, spec, lack); recalled || err != nil {
		return "", err
	}
	_, err = claimer.ClaimBlock(ctx, spec, lack.Addr)
	if errors.Is(err, cluster.ErrNotUsed) && b.hasPart(lack.Pool) {
		err = nil // one of an earlier run turned up meanwhile, and this one goes back
	}
	return "", err
}

// hasPart says whether the node has its subnet of a pool of which each node has one.
func (b *Book) hasPart(pool string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, _, ok := b.alloc.NodeSubnet(pool)
	return ok
}

// spec is how a pool is cut here, for claims in it.
func (b *Book) spec(pool string) (cluster.PoolSpec, Claimer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.alloc.Pool(pool)
	switch {
	case !ok:
		return cluster.PoolSpec{}, nil, fmt.Errorf("pool %q is gone", pool)
	case b.shared.claimer == nil:
		return cluster.PoolSpec{}, nil, errors.New("this node is not part of the cluster yet; try again")
	}
	return b.specOf(p), b.shared.claimer, nil
}

func (b *Book) specOf(p ipam.Pool) cluster.PoolSpec {
	return cluster.PoolSpec{
		CIDR: p.CIDR, BlockSize: p.BlockSize, Static: p.Static, Network: b.networks[p.Network].Options[OptNetwork],
	}
}

// takeTurn lets one at a time claim a block for a pool: containers that start at once need few. Waited says that another
// one had the turn before; then there is nothing to be done with it.
func (b *Book) takeTurn(ctx context.Context, pool string) (waited bool, done func(), err error) {
	b.mu.Lock()
	turn := b.shared.turns[pool]
	if turn == nil {
		turn = make(chan struct{}, 1)
		b.shared.turns[pool] = turn
	}
	b.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return false, func() { <-turn }, nil
	default:
	}
	select {
	case turn <- struct{}{}:
		<-turn
		return true, nil, nil
	case <-ctx.Done():
		return true, nil, fmt.Errorf("the store did not answer an earlier claim in this pool within %v: %w", claimTime, store.ErrUnreachable)
	}
}

// pend notes that an address is being claimed, so that it is left alone until the book holds it. Kept says that it was
// being released, the store has not been asked yet, and so it is still this node's.
func (b *Book) pend(k cluster.Claim) (kept bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.shared.pending[k.Key()]
	p.claim, p.users = k, p.users+1
	b.shared.pending[k.Key()] = p
	r, ok := b.shared.releasing[k.Key()]
	return ok && !r.asked
}

// unpend ends the claims of one request. What it did not come to hold goes back.
func (b *Book) unpend(ctx context.Context, keys []string) {
	if len(keys) == 0 {
		return
	}
	b.mu.Lock()
	for _, key := range keys {
		p := b.shared.pending[key]
		if p.users--; p.users <= 0 {
			delete(b.shared.pending, key)
			continue
		}
		b.shared.pending[key] = p
	}
	claimer := b.shared.claimer
	b.mu.Unlock()
	inBackground(ctx, claimer)
}

// inBackground has the claimer look at what is to be given back, or has changed, when it has the time.
func inBackground(ctx context.Context, c Claimer) {
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_ = c.Release(ended) // says that the context has ended
}

// recall takes a block back that is being released, while the store was not asked for that yet.
func (b *Book) recall(ctx context.Context, spec cluster.PoolSpec, lack *ipam.Lack) (recalled bool, err error) {
	err = b.edit(ctx, func(c *change) error {
		for _, r := range b.shared.releasing {
			if r.asked || r.Pool != spec.CIDR || !r.Block.IsValid() || (lack.Addr.IsValid() && !r.Block.Contains(lack.Addr)) {
				continue
			}
			d, err := b.alloc.Adopt(lack.Pool, r.Block)
			if err != nil {
				continue // cut in another way, by then
			}
			b.addresses(c, d)
			recalled = true
			return nil
		}
		return nil
	})
	return recalled && err == nil, err
}

// claimAhead claims another block in the background, so that the next container need not wait for the store.
func (b *Book) claimAhead(ctx context.Context, pool string) {
	b.mu.Lock()
	now := b.now()
	p, ok := b.alloc.Pool(pool)
	late := ok && !p.PerNode && now.Sub(b.shared.ahead[pool]) >= aheadPause // of a pool with a subnet per node there is one
	if late {
		b.shared.ahead[pool] = now
	}
	b.mu.Unlock()
	if !late {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), claimTime)
		defer cancel()
		// A failure is told to whoever comes to need the block.
		_, _ = b.supply(ctx, &ipam.Lack{Pool: pool})
	}()
}

// refused says why a container cannot have an address here at all. What a network reserves for itself is not asked for.
func (b *Book) refused(req AddressRequest) error {
	p, ok := b.alloc.Pool(req.Pool)
	if b.node.Refuse == nil || req.Gateway || !ok || p.Network == "" {
		return nil
	}
	return b.node.Refuse()
}

// shape is what the nodes agreed on for a subnet that is asked for; nil: nothing, or it may not be had.
func (b *Book) shape(cidr netip.Prefix) (*ipam.Shape, error) {
	if b.shared.claimer == nil || !cidr.IsValid() {
		return nil, nil
	}
	spec, agreed, err := b.shared.claimer.Shape(cidr.Masked(), netip.Prefix{})
	if err != nil || !agreed {
		return nil, err
	}
	return &ipam.Shape{BlockSize: spec.BlockSize, Static: spec.Static}, nil
}

// takenInCluster says what of the cluster is in the way of a pool: of one that was chosen, any pool of other nodes; of one
// that was named, what Shape found odd about it.
func (b *Book) takenInCluster(p ipam.Pool, named bool, odd error) (what string, taken bool, err error) {
	if b.shared.claimer == nil {
		return "", false, nil
	}
	for _, own := range p.Own {
		if _, _, err := b.shared.claimer.Shape(p.CIDR, own); err != nil {
			return "", false, err
		}
	}
	if len(p.Own) > 0 || !p.Shared {
		return "", false, nil
	}
	for _, o := range b.alloc.Pools() {
		if o.ID != p.ID && len(o.Own) == 0 && o.CIDR.Overlaps(p.CIDR) {
			return "", false, fmt.Errorf("subnet %v overlaps pool %v of another address space of this node, and blocks of both would be claimed in one store: choose another",
				p.CIDR, o.CIDR)
		}
	}
	if named {
		return "", false, odd
	}
	_, others, inTheWay := b.shared.claimer.Shape(p.CIDR, netip.Prefix{})
	return "a pool of other nodes", others || inTheWay != nil, nil
}

// checkAgreed refuses a network whose pools are not cut as the nodes agreed.
func (b *Book) checkAgreed(n Network, cidrs []netip.Prefix) error {
	if b.shared.claimer == nil {
		return nil
	}
	for _, p := range b.alloc.Pools() {
		if p.Network != n.ID || len(p.Own) > 0 || !slices.Contains(cidrs, p.CIDR) {
			continue
		}
		spec, agreed, err := b.shared.claimer.Shape(p.CIDR, netip.Prefix{})
		if err != nil || !agreed {
			continue // RequestPool was told; or nobody has claimed anything in it yet
		}
		if err := disagrees(n, p, spec); err != nil {
			return err
		}
		if have := n.Options[OptNetwork]; spec.Network != "" && spec.Network != have {
			return fmt.Errorf("subnet %v is that of network %s of the cluster: give -o %s=%s, or choose another subnet", p.CIDR, spec.Network, OptNetwork, spec.Network)
		}
	}
	return nil
}

// disagrees says what a network wants otherwise than the nodes that have its subnet.
func disagrees(n Network, p ipam.Pool, spec cluster.PoolSpec) error {
	shape := ipam.Shape{BlockSize: spec.BlockSize, Static: spec.Static}
	switch {
	case n.Mode != PerNode && shape.PerNode(p.CIDR):
		return fmt.Errorf("option %s=%s: each of the nodes that have subnet %v has a /%d of it behind a bridge: give -o %s=%s, or choose another subnet",
			OptMode, n.Mode, p.CIDR, spec.BlockSize, OptMode, PerNode)
	case n.Mode == PerNode && spec.Static.IsValid():
		return fmt.Errorf("option %s=%s: the nodes that have subnet %v agreed on blocks of /%d and the static range %v, which is %s=%s: leave the option out, or choose another subnet",
			OptMode, n.Mode, p.CIDR, spec.BlockSize, spec.Static, OptMode, Routed)
	case spec.Static != p.Static:
		return fmt.Errorf("option %s=%s: the nodes that have subnet %v agreed on the static range %v: leave the option out, or give that one",
			OptStatic, p.Static, p.CIDR, spec.Static)
	case spec.BlockSize != p.BlockSize:
		return fmt.Errorf("subnet %v: the nodes that have it agreed on parts of /%d, and this one has parts of /%d of it: choose another subnet", p.CIDR, spec.BlockSize, p.BlockSize)
	}
	return nil
}

// checkExtra refuses further addresses outside all pools of this node that are in a pool of the cluster.
func (b *Book) checkExtra(e Endpoint) error {
	if b.shared.claimer == nil {
		return nil
	}
	for _, a := range e.Extra {
		if slices.ContainsFunc(b.alloc.Pools(), func(p ipam.Pool) bool { return p.CIDR.Contains(a) }) {
			continue
		}
		if _, _, err := b.shared.claimer.Shape(netip.PrefixFrom(a, a.BitLen()), netip.Prefix{}); err != nil {
			return fmt.Errorf("address %v: %w", a, err)
		}
	}
	return nil
}
