package config

import (
	"maps"
	"slices"
	"strings"
	"unicode"
)

const envPrefix = "FAIRWAY_"

// EnvName is the environment variable of a key: FAIRWAY_BGP_HOLD_TIME for "bgp.holdTime".
func EnvName(key string) string {
	return envPrefix + strings.ToUpper(words(key, '_'))
}

// FlagName is the flag of a key, without dashes: bgp-hold-time for "bgp.holdTime".
func FlagName(key string) string {
	return strings.ToLower(words(key, '-'))
}

// words splits a key path before capitals that follow small letters, and at dots.
func words(key string, sep rune) string {
	var b strings.Builder
	small := false
	for _, r := range key {
		if r == '.' {
			r = sep
		} else if small && unicode.IsUpper(r) {
			b.WriteRune(sep)
		}
		small = unicode.IsLower(r)
		b.WriteRune(r)
	}
	return b.String()
}

// isReserved is true for variables that other parts of fairway read.
func isReserved(name string) bool {
	name = strings.TrimPrefix(name, envPrefix)
	if name == "CONFIG" || name == "SOCKET" {
		return true
	}
	for _, p := range []string{"LAB_", "REQUIRE_", "TEST_", "BENCH_"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// A leaf is a field that one text can set, or a list of mappings, which none can.
type leaf struct {
	key string
	*field
}

// leaves lists the fields outside lists of mappings, and those lists, in order.
func leaves(prefix string, fields []field) []leaf {
	var all []leaf
	for i := range fields {
		f := &fields[i]
		if f.kind == kindObject {
			all = append(all, leaves(prefix+f.name+".", f.fields)...)
			continue
		}
		all = append(all, leaf{prefix + f.name, f})
	}
	return all
}

func (l *loader) readEnv(env []string) {
	byName := map[string]leaf{}
	for _, lf := range leaves("", l.root) {
		byName[EnvName(lf.key)] = lf
	}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, envPrefix) || isReserved(name) {
			continue
		}
		pos := position{source: fromEnv, name: name}
		lf, ok := byName[name]
		if !ok {
			l.failAt(pos, "", "", "names no key of the config%s", suggest(name, slices.Sorted(maps.Keys(byName))))
			continue
		}
		l.overlay(pos, lf, value)
	}
}

func (l *loader) readFlags(flags map[string]string) {
	byName := map[string]leaf{}
	for _, lf := range leaves("", l.root) {
		byName[FlagName(lf.key)] = lf
	}
	for _, given := range slices.Sorted(maps.Keys(flags)) {
		name := FlagName(given)
		pos := position{source: fromFlag, name: name}
		lf, ok := byName[name]
		if !ok {
			l.failAt(pos, "", "", "names no key of the config%s", suggest(name, slices.Sorted(maps.Keys(byName))))
			continue
		}
		l.overlay(pos, lf, flags[given])
	}
}

// overlay sets a field from one text. A list of strings is replaced, not added to.
func (l *loader) overlay(pos position, lf leaf, value string) {
	switch lf.kind {
	case kindObjects:
		l.failAt(pos, lf.key, "", "is a list of mappings, which only the file can hold")
	case kindTexts:
		l.given[lf.key] = pos
		lf.clear()
		if value == "" {
			return
		}
		for text := range strings.SplitSeq(value, ",") {
			l.set(pos, lf.key, lf.field, strings.TrimSpace(text))
		}
	default:
		l.set(pos, lf.key, lf.field, value)
	}
}
