package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"fairway/internal/kernel"
)

// maxID is more than any engine's ID has: 64 hexadecimal digits, or 25 letters and digits for Swarm's networks.
const maxID = 128

// errEmpty is for a request without its content. When a connection breaks after the engine has sent a request, it sends
// it again with an empty body: an empty body never means "all defaults".
var errEmpty = errors.New("the request has no content: the connection to fairway broke and the engine repeated its request without it; nothing was done, try again")

func unmarshal[T any](body []byte) (T, error) {
	var v T
	if len(bytes.TrimSpace(body)) == 0 {
		return v, errEmpty
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return v, fmt.Errorf("read request: %w", err)
	}
	return v, nil
}

// checker turns a request's texts into values, and keeps the first thing that is wrong with them.
type checker struct{ err error }

func (c *checker) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

// id checks an ID of the engine's; it becomes part of link names and of keys of records.
func (c *checker) id(key, val string) string {
	switch {
	case val == "":
		c.fail("%s is missing", key)
	case len(val) > maxID || strings.Trim(val, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "":
		c.fail("%s %.20q: want at most %d letters and digits", key, val, maxID)
	}
	return val
}

// family is what an address may be; the zero value allows both.
type family uint8

const (
	anyFamily family = iota
	ipv4
	ipv6
)

func (c *checker) family(key, val string, a netip.Addr, f family) bool {
	switch {
	case a.Is4In6() || a.Zone() != "":
		c.fail("%s %q: want a plain IPv4 or IPv6 address, neither IPv4-mapped nor with a zone", key, val)
	case f == ipv4 && !a.Is4():
		c.fail("%s %q: want an IPv4 address", key, val)
	case f == ipv6 && !a.Is6():
		c.fail("%s %q: want an IPv6 address", key, val)
	default:
		return true
	}
	return false
}

// prefix reads an address with a prefix length, host bits and all; "" is the zero value.
func (c *checker) prefix(key, val string, f family) netip.Prefix {
	if val == "" {
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(val)
	if err != nil {
		c.fail("%s %q: want an address and a prefix length, as 10.9.0.0/16", key, val)
		return netip.Prefix{}
	}
	if !c.family(key, val, p.Addr(), f) {
		return netip.Prefix{}
	}
	return p
}

// addr reads an address, with or without a prefix length: engines write both ("10.9.0.1", "fd99::1/64"). "" is the zero
// value.
func (c *checker) addr(key, val string, f family) netip.Addr {
	if strings.Contains(val, "/") {
		return c.prefix(key, val, f).Addr()
	}
	if val == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(val)
	if err != nil {
		c.fail("%s %q: want an address, as 10.9.0.7", key, val)
		return netip.Addr{}
	}
	if !c.family(key, val, a, f) {
		return netip.Addr{}
	}
	return a
}

func (c *checker) mac(key, val string) kernel.MAC {
	if val == "" {
		return kernel.MAC{}
	}
	m, err := kernel.ParseMAC(val)
	if err != nil {
		c.fail("%s: %w", key, err)
	}
	return m
}

// text reads an option's value. Users' options are strings; a number or a truth value in a file of some tool's making
// means its text.
func (c *checker) text(key string, raw json.RawMessage) string {
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		c.fail("option %s: %w", key, err)
		return ""
	}
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool, json.Number:
		return fmt.Sprint(v)
	default:
		c.fail("option %s=%.60s: want a text", key, raw)
		return ""
	}
}

// texts reads options; nil is none.
func (c *checker) texts(raw map[string]json.RawMessage) map[string]string {
	out := make(map[string]string, len(raw))
	for k, v := range raw {
		out[k] = c.text(k, v)
	}
	return out
}
