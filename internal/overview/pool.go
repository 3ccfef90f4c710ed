package overview

import (
	"math"
	"slices"

	"fairway/internal/api"
	"fairway/internal/cluster"
)

// originStore is why a block is a node's that was claimed.
const originStore = "store"

// Pools adds to this node's pools the blocks that the others have, and the pools of which it has none.
func (c Cluster) Pools(own []api.Pool) []api.Pool {
	for cidr, e := range c.View.Pools {
		i := slices.IndexFunc(own, func(p api.Pool) bool { return p.CIDR == cidr })
		if i < 0 {
			i = len(own)
			own = append(own, api.Pool{PoolUsage: api.PoolUsage{CIDR: cidr, BlockSize: e.Value.BlockSize}, Network: e.Value.Network, List: []api.Block{}})
		}
		c.pool(&own[i], e.Value)
	}
	// A pool of the config says nothing more once there is one of the cluster in it.
	own = slices.DeleteFunc(own, func(p api.Pool) bool {
		return p.Network == "" && len(p.List) == 0 && slices.ContainsFunc(own, func(o api.Pool) bool {
			return o.CIDR != p.CIDR && o.Most > 0 && p.CIDR.Overlaps(o.CIDR)
		})
	})
	slices.SortFunc(own, func(x, y api.Pool) int { return x.CIDR.Compare(y.CIDR) })
	return own
}

// pool takes in what the store says of a pool.
func (c Cluster) pool(p *api.Pool, rec cluster.Pool) {
	claimed, most := c.blockCount(rec)
	p.Claimed, p.Most = claimed, int(min(most, math.MaxInt32))
	away := 0
	for k, b := range c.View.Blocks {
		if k.Pool == rec.CIDR && b.Value.NodeID != c.ID && !slices.ContainsFunc(p.List, func(own api.Block) bool { return own.CIDR == k.CIDR }) {
			p.List = append(p.List, api.Block{CIDR: k.CIDR, Node: b.Value.Node, Origin: originStore, Away: true, Since: b.Value.Claimed})
			away++
		}
	}
	slices.SortFunc(p.List, func(x, y api.Block) int { return x.CIDR.Compare(y.CIDR) })
	// What others have this node may not give out. Of a pool without a static range it has one part and no more.
	if left := most - float64(away); left > 0 && rec.Static.IsValid() {
		size := math.Exp2(float64(rec.CIDR.Addr().BitLen() - rec.BlockSize))
		p.Usage = min(1, float64(p.Held+p.Resting)/(left*size))
	}
}

// blockCount is how many blocks of a pool are claimed, and how many there are.
func (c Cluster) blockCount(p cluster.Pool) (claimed int, most float64) {
	for k := range c.View.Blocks {
		if k.Pool == p.CIDR {
			claimed++
		}
	}
	most = math.Exp2(float64(p.BlockSize - p.CIDR.Bits()))
	if p.Static.IsValid() {
		most -= math.Ceil(math.Exp2(float64(p.BlockSize - p.Static.Bits())))
	}
	return claimed, max(0, most)
}

// Holdings are the explicit addresses that other nodes hold, by address.
func (c Cluster) Holdings() []api.Holding {
	var out []api.Holding
	for k, e := range c.View.Addresses {
		if e.Value.NodeID == c.ID {
			continue
		}
		out = append(out, api.Holding{
			Address: k.Addr, Kind: "container", State: "held", Network: c.View.Pools[k.Pool].Value.Network, Endpoint: e.Value.Endpoint,
			Node: e.Value.Node, Away: true, Since: e.Value.Claimed,
		})
	}
	slices.SortFunc(out, func(x, y api.Holding) int { return x.Address.Compare(y.Address) })
	return out
}
