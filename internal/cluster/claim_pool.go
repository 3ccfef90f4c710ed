package cluster

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"iter"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"fairway/internal/store"
)

// addPools makes a transaction write pools that nobody has yet. The compare with the index keeps two that overlap from
// being made at once. It is for pools of which none is there: one that overlaps them is an error that names it.
func addPools(t *store.Txn, v *View, pools []Pool) error {
	for i, p := range pools {
		for _, o := range pools[:i] {
			if o.CIDR.Overlaps(p.CIDR) {
				return fmt.Errorf("subnets %v and %v overlap", o.CIDR, p.CIDR)
			}
		}
		if err := v.poolInTheWay(p.CIDR); err != nil {
			return err
		}
		text, err := Encode(p)
		if err != nil {
			return err
		}
		t.If = append(t.If, store.Compare{Key: PoolKey(p.CIDR)})
		t.Put[PoolKey(p.CIDR)] = text
	}
	indexed(t, v)
	return nil
}

// indexed guards a transaction that makes or ends pools.
func indexed(t *store.Txn, v *View) {
	t.If = append(t.If, store.Compare{Key: PoolIndexKey, Revision: v.PoolIndex})
	t.Put[PoolIndexKey] = []byte("{}")
}

// poolInTheWay says which pool overlaps the prefix.
func (v *View) poolInTheWay(cidr netip.Prefix) error {
	for _, p := range v.Pools {
		if p.Value.CIDR.Overlaps(cidr) {
			return fmt.Errorf("subnet %v overlaps the pool %s of the cluster; choose another", cidr, p.Value.text())
		}
	}
	for key := range v.Unread {
		if rest, ok := strings.CutPrefix(key, poolPrefix); ok {
			if p, ok := parsePrefix(rest); ok && p.Overlaps(cidr) {
				return fmt.Errorf("subnet %v overlaps the pool %v of the cluster, whose record cannot be read: %w", cidr, p, v.Unread[key])
			}
		}
	}
	return nil
}

// text names a pool in errors.
func (p Pool) text() string {
	if p.Network != "" {
		return fmt.Sprintf("%v of network %s", p.CIDR, p.Network)
	}
	return fmt.Sprintf("%v, made on node %s", p.CIDR, p.By)
}

// addPool makes a transaction depend on the pool's record, and write it if nobody has. The error says how the record
// differs from what this node has.
func (c *Cluster) addPool(t *store.Txn, v *View, spec PoolSpec) error {
	e, ok := v.Pools[spec.CIDR]
	if !ok {
		return addPools(t, v, []Pool{{
			CIDR: spec.CIDR, BlockSize: spec.BlockSize, Static: spec.Static, Network: spec.Network, Created: c.cfg.Now().UTC(), By: c.Name(),
		}})
	}
	if p := e.Value; p.BlockSize != spec.BlockSize || p.Static != spec.Static {
		return fmt.Errorf("the cluster's pool %s has blocks of /%d and the static range %s, and the network on this node has /%d and %s: make the network again, it will take those of the cluster",
			p.text(), p.BlockSize, orNone(p.Static), spec.BlockSize, orNone(spec.Static))
	}
	t.If = append(t.If, store.Compare{Key: PoolKey(spec.CIDR), Created: e.Created})
	return nil
}

func orNone(p netip.Prefix) string {
	if p.IsValid() {
		return p.String()
	}
	return "none"
}

// Shape says how the nodes cut the pool; false: none of them has it yet. With own, the part of the pool that this node was
// given by hand, it only says whose claim is in that.
func (c *Cluster) Shape(cidr, own netip.Prefix) (PoolSpec, bool, error) {
	v := c.View()
	if own.IsValid() {
		return PoolSpec{}, false, v.ownInTheWay(own)
	}
	if !v.Complete {
		if err := c.unreachable(); err != nil {
			return PoolSpec{}, false, fmt.Errorf("subnet %v: whether other nodes have it is not known: %w", cidr, err)
		}
		return PoolSpec{}, false, fmt.Errorf("subnet %v: whether other nodes have it is not known: the store (%s) was not read yet", cidr, c.cfg.Where)
	}
	if e, ok := v.Pools[cidr]; ok {
		return PoolSpec{CIDR: cidr, BlockSize: e.Value.BlockSize, Static: e.Value.Static, Network: e.Value.Network}, true, nil
	}
	return PoolSpec{}, false, v.poolInTheWay(cidr)
}

// ownInTheWay says who claimed something of a part that was given to this node by hand.
func (v *View) ownInTheWay(own netip.Prefix) error {
	for key, e := range v.Blocks {
		if key.CIDR.Overlaps(own) {
			return fmt.Errorf("this node's own part %v (--ip-range or pools[].block) overlaps block %v, which node %s claimed in the store at %s: choose another part, or leave it out",
				own, key.CIDR, e.Value.Node, e.Value.Claimed.Format(timeText))
		}
	}
	for key, e := range v.Addresses {
		if own.Contains(key.Addr) {
			return fmt.Errorf("this node's own part %v (--ip-range or pools[].block) holds address %v, which node %s claimed in the store at %s: choose another part, or leave it out",
				own, key.Addr, e.Value.Node, e.Value.Claimed.Format(timeText))
		}
	}
	return nil
}

const timeText = "2006-01-02 15:04:05"

// A node may claim leastShare blocks of a pool, or as many as have manyAddresses: more than any host runs containers.
const (
	leastShare    = 20
	manyAddresses = 2048
)

// share is how many blocks of a pool a node may have.
func share(spec PoolSpec) int {
	host := spec.CIDR.Addr().BitLen() - spec.BlockSize
	if host >= 11 {
		return leastShare
	}
	return max(leastShare, manyAddresses>>host)
}

func (c *Cluster) underLimit(v *View, spec PoolSpec) error {
	n := 0
	for key, e := range v.Blocks {
		if key.Pool == spec.CIDR && c.mine(e.Value.NodeID) {
			n++
		}
	}
	if most := share(spec); n >= most {
		return fmt.Errorf("%w: this node has %d blocks of /%d, and %d is the most that one node may have; larger blocks (pools[].blockSize) have more addresses",
			ErrNoBlock, n, spec.BlockSize, most)
	}
	return nil
}

// blocksOf is how many blocks a pool has, at most 2^62.
func blocksOf(spec PoolSpec) uint64 {
	return 1 << min(spec.BlockSize-spec.CIDR.Bits(), 62)
}

// firstChoice is where a node looks first: different nodes in different places.
func (c *Cluster) firstChoice(spec PoolSpec) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(c.Name() + " " + spec.CIDR.String())) // never fails
	return h.Sum64() % blocksOf(spec)
}

// manyBlocks is among how many blocks one is chosen at random.
const manyBlocks = 4096

// freeBlock is a block that nobody has: the first from the i-th on, or, after a conflict, any of those that follow.
func (c *Cluster) freeBlock(v *View, spec PoolSpec, i uint64, anyone bool) (netip.Prefix, error) {
	if anyone {
		if cidr, ok := anyFree(v, spec); ok && c.notOurs(v, BlockKey{spec.CIDR, cidr}.String(), cidr, spec) == nil {
			return cidr, nil
		}
	}
	for cidr := range free(v, spec, i) {
		if c.notOurs(v, BlockKey{spec.CIDR, cidr}.String(), cidr, spec) == nil {
			return cidr, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("%w: all blocks outside the static range are claimed (%s): remove nodes that are gone for good with `fairway node rm`, or use a larger subnet",
		ErrNoBlock, v.holders(spec.CIDR))
}

// anyFree chooses among some thousand blocks, so that nodes that were in each other's way once are not so again.
func anyFree(v *View, spec PoolSpec) (cidr netip.Prefix, ok bool) {
	n := 0
	for candidate := range free(v, spec, rand.Uint64N(blocksOf(spec))) {
		if n++; rand.IntN(n) == 0 {
			cidr = candidate
		}
		if n == manyBlocks {
			break
		}
	}
	return cidr, n > 0
}

// free are the blocks that are in nobody's name, from the i-th on.
func free(v *View, spec PoolSpec, i uint64) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		n := blocksOf(spec)
		// A pool may have more blocks than can be looked at, but then most of them are free.
		for range min(n, uint64(len(v.Blocks))+1<<17) {
			cidr := nth(spec, i)
			if spec.Static.IsValid() && spec.Static.Overlaps(cidr) {
				skip := uint64(1)
				if spec.Static.Bits() < spec.BlockSize {
					skip = 1 << min(spec.BlockSize-spec.Static.Bits(), 62)
					i -= i % skip // its first block
				}
				i = (i + skip) % n
				continue
			}
			i = (i + 1) % n
			if _, taken := v.Blocks[BlockKey{spec.CIDR, cidr}]; !taken && !useless(spec, cidr) && !yield(cidr) {
				return
			}
		}
	}
}

// nth is the block with the number.
func nth(spec PoolSpec, i uint64) netip.Prefix {
	b := spec.CIDR.Addr().AsSlice()
	shift := len(b)*8 - spec.BlockSize
	for at := len(b) - 1 - shift/8; at >= 0 && i > 0; at-- {
		part := i << (shift % 8)
		b[at] |= byte(part)
		i >>= 8 - shift%8
		shift -= shift % 8
	}
	a, _ := netip.AddrFromSlice(b) // of 4 or 16 bytes, as AsSlice made them
	return netip.PrefixFrom(a, spec.BlockSize)
}

// useless says that no container can have an address of the block: it is the network's, the broadcast or the gateway.
func useless(spec PoolSpec, cidr netip.Prefix) bool {
	host := cidr.Addr().BitLen() - cidr.Bits()
	first := cidr.Addr() == spec.CIDR.Addr()
	switch {
	case host > 1 || spec.CIDR.Addr().BitLen()-spec.CIDR.Bits() < 2:
		return false
	case host == 1:
		return first
	}
	next := cidr.Addr().Next()
	return first || cidr.Addr() == spec.CIDR.Addr().Next() || (cidr.Addr().Is4() && !spec.CIDR.Contains(next))
}

// notOurs says why a block that is in nobody's name is not to be claimed all the same; nil: it is free.
func (c *Cluster) notOurs(v *View, key string, cidr netip.Prefix, spec PoolSpec) error {
	if v.Has(key) {
		return fmt.Errorf("block %v is taken", cidr)
	}
	if err := c.ghosted(v, key); err != nil {
		return err
	}
	if c.cfg.Heard != nil {
		if holder, heard := c.cfg.Heard(spec.CIDR, cidr); heard {
			return fmt.Errorf("block %v is in nobody's name, but a route for it is heard from %s", cidr, holder)
		}
	}
	return nil
}

// holders says who has how many blocks of a pool: the most first, a few of them.
func (v *View) holders(pool netip.Prefix) string {
	count := map[string]int{}
	for key, e := range v.Blocks {
		if key.Pool == pool {
			count[e.Value.Node]++
		}
	}
	names := slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return cmp.Or(count[b]-count[a], strings.Compare(a, b))
	})
	const few = 5
	var out []string
	for i, name := range names {
		if i == few {
			out = append(out, fmt.Sprintf("and %d more nodes", len(names)-few))
			break
		}
		alive := ""
		if !v.Live(name) {
			alive = ", not alive"
		}
		out = append(out, fmt.Sprintf("node %s %d%s", name, count[name], alive))
	}
	return strings.Join(out, "; ")
}
