package ipam

import (
	"fmt"
	"net/netip"
	"strings"
)

const idVersion = "v1"

// poolID names a pool by what it is, so that a node that lost its state can make it again.
func poolID(space string, cidr, sub netip.Prefix) string {
	id := idVersion + "/" + space + "/" + cidr.String()
	if sub.IsValid() {
		id += "/" + sub.String()
	}
	return id
}

// ParsePoolID reads a pool's ID, "v1/<space>/<cidr>" with "/<ip-range>" after it if there is one,
// and returns the request that makes the pool again.
func ParsePoolID(id string) (PoolRequest, error) {
	parts := strings.Split(id, "/")
	if (len(parts) != 4 && len(parts) != 6) || parts[0] != idVersion {
		return PoolRequest{}, fmt.Errorf("parse pool ID %q: want v1/<space>/<cidr>[/<ip-range>]", id)
	}
	req := PoolRequest{Space: parts[1]}
	var err error
	if req.Pool, err = netip.ParsePrefix(parts[2] + "/" + parts[3]); err != nil {
		return PoolRequest{}, fmt.Errorf("parse pool ID %q: %w", id, err)
	}
	req.V6 = req.Pool.Addr().Is6()
	if len(parts) == 6 {
		if req.Range, err = netip.ParsePrefix(parts[4] + "/" + parts[5]); err != nil {
			return PoolRequest{}, fmt.Errorf("parse pool ID %q: %w", id, err)
		}
	}
	if err := checkRequest(req); err != nil {
		return PoolRequest{}, fmt.Errorf("parse pool ID %q: %w", id, err)
	}
	// A prefix has several spellings; a pool has one ID.
	if poolID(req.Space, req.Pool, req.Range) != id {
		return PoolRequest{}, fmt.Errorf("parse pool ID %q: it is spelled %q", id, poolID(req.Space, req.Pool, req.Range))
	}
	return req, nil
}

// checkRequest says what is wrong with the words and prefixes of a request that names a pool.
func checkRequest(req PoolRequest) error {
	if err := checkSpace(req.Space); err != nil {
		return err
	}
	if err := checkSubnet(req.Pool); err != nil {
		return err
	}
	if !req.Range.IsValid() {
		return nil
	}
	if req.Range != req.Range.Masked() {
		return fmt.Errorf("ip-range %v has host bits set: write %v", req.Range, req.Range.Masked())
	}
	if !covers(req.Pool, req.Range) {
		return fmt.Errorf("ip-range %v is not inside the subnet %v", req.Range, req.Pool)
	}
	return nil
}

func checkSpace(space string) error {
	if space == "" {
		return fmt.Errorf("address space %q is empty: want one word", space)
	}
	for _, c := range space {
		if c <= ' ' || c == '/' || c == 0x7f {
			return fmt.Errorf("address space %q holds %q: want one word without slash", space, c)
		}
	}
	return nil
}
