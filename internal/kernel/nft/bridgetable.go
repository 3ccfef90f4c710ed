package nft

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"fairway/internal/kernel"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"
)

// bridgeFindings are how table "bridge fairway" differs from what is wanted.
type bridgeFindings struct {
	lacks []string // in words
	// whole says that the table has to be written anew; otherwise only the sets differ.
	whole bool
	have  map[string][][]byte // the elements of each set
}

// applyBridge makes table "bridge fairway" as fw wants it, and says what was changed. Where only the elements of its sets
// differ, only those that do are written.
func (h *Handle) applyBridge(ctx context.Context, fw kernel.Firewall) ([]string, error) {
	found, err := h.checkBridge(ctx, fw)
	if err != nil {
		return nil, err
	}
	if len(found.lacks) == 0 {
		h.madeBridge = h.madeBridge || len(fw.Ports) > 0 && !h.noBridge
		return nil, nil
	}
	if found.whole {
		err = h.writeBridge(fw.Ports)
	} else {
		err = h.writePorts(fw.Ports, found.have)
	}
	if err != nil && len(fw.Ports) > 0 && isUnsupported(err) && !h.madeBridge {
		if !h.noBridge {
			h.log.Warn("the kernel has no nftables for bridges: containers of networks with mode=subnet are not kept from spoofing each other", slog.Any("err", err))
		}
		h.noBridge = true
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	h.log.Debug("wrote nftables table", slog.String("table", "bridge "+kernel.TableName), slog.Any("because", found.lacks))
	was := h.madeBridge
	h.madeBridge, h.noBridge = len(fw.Ports) > 0, false
	switch {
	case !h.madeBridge:
		return []string{"nftables: removed table bridge " + kernel.TableName}, nil
	case was:
		return []string{fmt.Sprintf("nftables: restored table bridge %s: %s", kernel.TableName, strings.Join(found.lacks, ", "))}, nil
	}
	return []string{"nftables: made table bridge " + kernel.TableName}, nil
}

func bridgeTable() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyBridge, Name: kernel.TableName}
}

func (s portSet) nftables(table *nftables.Table) *nftables.Set {
	n := &nftables.Set{Table: table, Name: s.name, KeyType: s.key}
	if s.key == nftables.TypeIFName {
		n.KeyByteOrder = binaryutil.NativeEndian // else nft shows no names
	}
	return n
}

func setElements(keys [][]byte) []nftables.SetElement {
	out := make([]nftables.SetElement, 0, len(keys))
	for _, k := range keys {
		out = append(out, nftables.SetElement{Key: k})
	}
	return out
}

// writeBridge replaces the table in one transaction.
func (h *Handle) writeBridge(ports []kernel.BridgePort) error {
	conn, err := nftables.New(nftables.WithNetNSFd(h.ns))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table, chains := bridgeTable(), bridgeLayout(ports)
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	if len(chains) > 0 {
		conn.AddTable(table)
	}
	for _, s := range portSets(ports) {
		n := s.nftables(table)
		if err := conn.AddSet(n, nil); err != nil {
			return fmt.Errorf("encode nftables set %s: %w", s.name, err)
		}
		for part := range slices.Chunk(setElements(s.keys), elementsAtOnce) {
			if err := conn.SetAddElements(n, part); err != nil {
				return fmt.Errorf("encode elements of nftables set %s: %w", s.name, err)
			}
		}
	}
	addChains(conn, table, chains)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("write nftables table bridge %s: %w", kernel.TableName, err)
	}
	return nil
}

// writePorts changes the elements that differ, in one transaction.
func (h *Handle) writePorts(ports []kernel.BridgePort, have map[string][][]byte) error {
	conn, err := nftables.New(nftables.WithNetNSFd(h.ns))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	for _, s := range portSets(ports) {
		n := s.nftables(bridgeTable())
		add, del := difference(s.keys, have[s.name]), difference(have[s.name], s.keys)
		for part := range slices.Chunk(setElements(del), elementsAtOnce) {
			if err := conn.SetDeleteElements(n, part); err != nil {
				return fmt.Errorf("encode elements of nftables set %s: %w", s.name, err)
			}
		}
		for part := range slices.Chunk(setElements(add), elementsAtOnce) {
			if err := conn.SetAddElements(n, part); err != nil {
				return fmt.Errorf("encode elements of nftables set %s: %w", s.name, err)
			}
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("write sets of nftables table bridge %s: %w", kernel.TableName, err)
	}
	return nil
}

// difference are the keys that a has and b has not; both are sorted.
func difference(a, b [][]byte) [][]byte {
	return slices.DeleteFunc(slices.Clone(a), func(k []byte) bool {
		_, found := slices.BinarySearchFunc(b, k, bytes.Compare)
		return found
	})
}

// checkBridge says how the table differs from what fw wants. On a kernel that cannot have it nothing is amiss; Status
// says so.
func (h *Handle) checkBridge(ctx context.Context, fw kernel.Firewall) (bridgeFindings, error) {
	chains, sets := bridgeLayout(fw.Ports), portSets(fw.Ports)
	flags, objects, ok, err := h.nl.table(ctx, unix.NFPROTO_BRIDGE)
	none := len(chains) == 0 || h.noBridge
	if err != nil && none && isUnsupported(err) {
		err = nil
	}
	switch {
	case err != nil || !ok && none:
		return bridgeFindings{}, err
	case !ok:
		return bridgeFindings{lacks: []string{"missing"}, whole: true}, nil
	case len(chains) == 0:
		return bridgeFindings{lacks: []string{"not wanted"}, whole: true}, nil
	}
	return h.checkBridgeTable(ctx, chains, sets, flags, objects)
}

// checkBridgeTable compares a table that is there and wanted.
func (h *Handle) checkBridgeTable(ctx context.Context, chains []chain, sets []portSet, flags, objects uint32) (bridgeFindings, error) {
	f := bridgeFindings{have: map[string][][]byte{}}
	if flags != 0 {
		f.lacks = append(f.lacks, fmt.Sprintf("flags %#x (1 is dormant)", flags))
	}
	if want := len(chains) + len(sets); int(objects) != want {
		f.lacks = append(f.lacks, strconv.Itoa(int(objects))+" chains, sets and other objects instead of "+strconv.Itoa(want))
	}
	rules, err := h.nl.rules(ctx, unix.NFPROTO_BRIDGE, kernel.TableName, "")
	if err != nil {
		return f, err
	}
	for _, c := range chains {
		lack, err := h.checkChain(ctx, unix.NFPROTO_BRIDGE, c, rules)
		if err != nil {
			return f, err
		}
		if lack != "" {
			f.lacks = append(f.lacks, lack)
		}
	}
	return f, h.checkPorts(ctx, sets, &f)
}

// checkPorts compares the sets.
func (h *Handle) checkPorts(ctx context.Context, sets []portSet, f *bridgeFindings) error {
	f.whole = len(f.lacks) > 0
	for _, s := range sets {
		_, length, ok, err := h.nl.set(ctx, unix.NFPROTO_BRIDGE, kernel.TableName, s.name)
		if err != nil {
			return err
		}
		if !ok || length != s.key.Bytes {
			f.lacks, f.whole = append(f.lacks, "set "+s.name+" is missing or of another kind"), true
			continue
		}
		elements, err := h.nl.elements(ctx, unix.NFPROTO_BRIDGE, kernel.TableName, s.name)
		if err != nil {
			return err
		}
		for _, e := range elements { // in order
			f.have[s.name] = append(f.have[s.name], e.key)
		}
		if !slices.EqualFunc(f.have[s.name], s.keys, slices.Equal) {
			f.lacks = append(f.lacks, "set "+s.name+" holds something else")
		}
	}
	return nil
}

// bridgeStatus tells what the table dropped, and whether there can be none.
func (h *Handle) bridgeStatus(ctx context.Context, s *Status) error {
	if h.noBridge {
		s.Conditions = append(s.Conditions, Condition{
			"no-bridge-filter",
			"the kernel has no nftables for bridges (CONFIG_NF_TABLES_BRIDGE): containers of networks with mode=subnet are not kept from sending with each other's addresses: use a kernel that has it",
		})
		return nil
	}
	_, _, ok, err := h.nl.table(ctx, unix.NFPROTO_BRIDGE)
	if err != nil || !ok {
		if err != nil && isUnsupported(err) {
			err = nil
		}
		return err
	}
	s.Bridge = true
	rules, err := h.nl.rules(ctx, unix.NFPROTO_BRIDGE, kernel.TableName, "")
	for _, r := range rules {
		if r.counted {
			s.Dropped = append(s.Dropped, Dropped{"bridge: " + r.comment, r.packets, r.bytes})
		}
	}
	return err
}
