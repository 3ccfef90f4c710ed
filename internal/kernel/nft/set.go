package nft

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"fairway/internal/kernel"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// set is a named set of addresses as it should be.
type set struct {
	name   string
	bits   int // of an address
	ranges []addrRange
}

// element is one end of a range: the kernel's interval sets hold the first address of a range, and the first one behind
// it with a flag.
type element struct {
	key []byte
	end bool
}

func (e element) compare(o element) int {
	return cmp.Or(bytes.Compare(e.key, o.key), cmp.Compare(b2i(e.end), b2i(o.end)))
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s set) elements() []element {
	var out []element
	for _, r := range s.ranges {
		out = append(out, element{key: r.start.AsSlice()})
		if r.end.IsValid() {
			out = append(out, element{key: r.end.AsSlice(), end: true})
		}
	}
	return out
}

// elementsAtOnce bounds a message: the attribute that holds a list of elements has 16 bits for its length, and one of
// IPv6 with its flags takes 40 bytes.
const elementsAtOnce = 1000

// addSets adds the sets with what is in them to a transaction.
func addSets(conn *nftables.Conn, table *nftables.Table, sets []set) error {
	for _, s := range sets {
		n := s.nftables(table)
		if err := conn.AddSet(n, nil); err != nil {
			return fmt.Errorf("encode nftables set %s: %w", s.name, err)
		}
		if err := addElements(conn, n, s); err != nil {
			return err
		}
	}
	return nil
}

func addElements(conn *nftables.Conn, n *nftables.Set, s set) error {
	var all []nftables.SetElement
	for _, e := range s.elements() {
		all = append(all, nftables.SetElement{Key: e.key, IntervalEnd: e.end})
	}
	for part := range slices.Chunk(all, elementsAtOnce) {
		if err := conn.SetAddElements(n, part); err != nil {
			return fmt.Errorf("encode elements of nftables set %s: %w", s.name, err)
		}
	}
	return nil
}

func (s set) nftables(table *nftables.Table) *nftables.Set {
	n := &nftables.Set{Table: table, Name: s.name, KeyType: nftables.TypeIPAddr, Interval: true}
	if s.bits == 128 {
		n.KeyType = nftables.TypeIP6Addr
	}
	return n
}

// writeSets replaces what is in the sets in one transaction, and leaves the rest of the table, with its counters, alone.
func (h *Handle) writeSets(fw kernel.Firewall) error {
	conn, err := nftables.New(nftables.WithNetNSFd(h.ns))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: kernel.TableName}
	for _, s := range addressSets(fw) {
		n := s.nftables(table)
		conn.FlushSet(n)
		if err := addElements(conn, n, s); err != nil {
			return err
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("write sets of nftables table inet %s: %w", kernel.TableName, err)
	}
	return nil
}

// checkSet compares one set. What it says begins with "set ".
func (h *Handle) checkSet(ctx context.Context, want set) (string, error) {
	flags, length, ok, err := h.nl.set(ctx, unix.NFPROTO_INET, kernel.TableName, want.name)
	if err != nil {
		return "", err
	}
	if !ok {
		return "the set " + want.name + " is missing", nil
	}
	if flags != unix.NFT_SET_INTERVAL || int(length) != want.bits/8 {
		return "the set " + want.name + " is of another kind", nil
	}
	have, err := h.nl.elements(ctx, unix.NFPROTO_INET, kernel.TableName, want.name)
	if err != nil {
		return "", err
	}
	if !slices.EqualFunc(have, want.elements(), func(a, b element) bool { return a.compare(b) == 0 }) {
		return "set " + want.name + " holds something else", nil
	}
	return "", nil
}

// set tells flags and length of the keys in bytes of a set; false when there is none.
func (s *socket) set(ctx context.Context, family uint8, table, name string) (flags, length uint32, ok bool, err error) {
	all, err := s.request(ctx, unix.NFT_MSG_GETSET, family, 0, text(unix.NFTA_SET_TABLE, table), text(unix.NFTA_SET_NAME, name))
	if errors.Is(err, unix.ENOENT) {
		return 0, 0, false, nil
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("read nftables set %q of table %q: %w", name, table, err)
	}
	for _, m := range all {
		for t, v := range attributes(m.attrs) {
			switch {
			case t == unix.NFTA_SET_FLAGS && len(v) == 4:
				flags = binary.BigEndian.Uint32(v)
			case t == unix.NFTA_SET_KEY_LEN && len(v) == 4:
				length = binary.BigEndian.Uint32(v)
			}
		}
	}
	return flags, length, len(all) > 0, nil
}

// elements reads what is in a set, in order.
func (s *socket) elements(ctx context.Context, family uint8, table, name string) ([]element, error) {
	var all []message
	err := errInterrupted
	for range 5 {
		all, err = s.request(ctx, unix.NFT_MSG_GETSETELEM, family, unix.NLM_F_DUMP,
			text(unix.NFTA_SET_ELEM_LIST_TABLE, table), text(unix.NFTA_SET_ELEM_LIST_SET, name))
		if !errors.Is(err, errInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list nftables set %q of table %q: %w", name, table, err)
	}
	var out []element
	for _, m := range all {
		for t, list := range attributes(m.attrs) {
			if t != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				continue
			}
			for _, v := range attributes(list) {
				out = append(out, parseElement(v))
			}
		}
	}
	slices.SortFunc(out, element.compare)
	return out, nil
}

func parseElement(b []byte) element {
	var e element
	for t, v := range attributes(b) {
		switch {
		case t == unix.NFTA_SET_ELEM_KEY:
			for t, v := range attributes(v) {
				if t == unix.NFTA_DATA_VALUE {
					e.key = v
				}
			}
		case t == unix.NFTA_SET_ELEM_FLAGS && len(v) == 4:
			e.end = binary.BigEndian.Uint32(v)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		}
	}
	return e
}

// Masqueraded says which sources the table in the kernel masquerades, whoever wrote it; nil when there are none.
func (h *Handle) Masqueraded(ctx context.Context) (func(netip.Addr) bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errClosed
	}
	var all []element
	for _, f := range natFamilies() {
		some, err := h.nl.elements(ctx, unix.NFPROTO_INET, kernel.TableName, setMasqueraded+f.digit)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
		all = append(all, some...)
	}
	if len(all) == 0 {
		return nil, nil
	}
	return func(a netip.Addr) bool {
		key, inside := a.AsSlice(), false
		for _, e := range all { // sorted within a family
			if len(e.key) == len(key) && bytes.Compare(e.key, key) <= 0 {
				inside = !e.end
			}
		}
		return inside
	}, nil
}
