package config

import (
	"net/netip"
)

// defaultSizes are the default prefix lengths of a block and of the subnet of a network that names none.
func defaultSizes(cidr netip.Prefix) (block, size int) {
	if cidr.Addr().Is4() {
		return 26, 20
	}
	return 122, 64
}

// derive fills what depends on other keys and was not given.
func (l *loader) derive() {
	for i := range l.config.Pools {
		derivePool(&l.config.Pools[i])
	}
	l.deriveDockerBridge()
	for i := range l.config.BGP.Peers {
		if p := &l.config.BGP.Peers[i]; p.HoldTime == inherit {
			p.HoldTime = l.config.BGP.HoldTime
		}
	}
}

// derivePool takes the default sizes as far as the pool, and the node's block, have room for them.
func derivePool(p *Pool) {
	if !p.CIDR.IsValid() {
		return
	}
	block, size := defaultSizes(p.CIDR)
	own := p.Block.IsValid() && within(p.Block, p.CIDR)
	if p.BlockSize == 0 {
		p.BlockSize = max(block, p.CIDR.Bits())
		if own {
			p.BlockSize = max(p.BlockSize, p.Block.Bits())
		}
	}
	if p.Size == 0 {
		p.Size = max(min(size, p.BlockSize), p.CIDR.Bits())
		if own {
			p.Size = p.CIDR.Bits()
		}
	}
}
