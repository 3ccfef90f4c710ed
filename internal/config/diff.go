package config

import (
	"maps"
	"slices"
	"strings"
)

// Change is one key whose value differs between two configs. Members of a list are named
// by what they are, not by their place: "bgp.peers[10.77.0.1].holdTime". A member that came
// or went is one change, of "bgp.peers[10.77.0.1]".
type Change struct {
	Key string `json:"key"`
	Old string `json:"old"` // "" if it was not there
	New string `json:"new"` // "" if it is gone
}

// Diff says what is different in after: the keys that a reload puts into effect, and those
// that wait for a restart of the agent. Passwords are compared, but not shown.
func Diff(before, after *Config) (live, restart []Change) {
	for _, ch := range changes(flatten(before), flatten(after)) {
		if NeedsRestart(ch.Key) {
			restart = append(restart, ch)
		} else {
			live = append(live, ch)
		}
	}
	return live, restart
}

// NeedsRestart is true for keys that the agent reads only when it starts. The key may be one of
// Settings, of a Change or of the documentation.
func NeedsRestart(key string) bool {
	for _, k := range []string{
		"node", "state", "run", "docker", "store", "fabric", "metrics", "log.format",
		"bgp.asn", "bgp.routerID", "bgp.listen", "bgp.mesh", "bgp.routeReflector", "bgp.multipath", "bgp.gracefulRestart",
	} {
		if rest, ok := strings.CutPrefix(key, k); ok && (rest == "" || rest[0] == '.') {
			return true
		}
	}
	return false
}

// Reloaded is what is in force after a reload: next, with the values and origins of running
// where NeedsRestart. Neither of the two is changed.
func Reloaded(running, next *Config) *Config {
	c := *next
	c.origins = maps.Clone(next.origins)
	if c.origins == nil {
		c.origins = map[string]string{}
	}
	old := leaves("", schema(running))
	for i, lf := range leaves("", schema(&c)) {
		if !NeedsRestart(lf.key) {
			continue
		}
		lf.take(old[i].place)
		delete(c.origins, lf.key)
		if origin, ok := running.origins[lf.key]; ok {
			c.origins[lf.key] = origin
		}
	}
	return &c
}

// A flat config has every value under a key that stays the same when members of lists change places.
type flat struct {
	keys   []string          // in the order of the documentation
	values map[string]string // key -> text
	member map[string]string // key -> the member of a list that it belongs to; "" for none
	whole  map[string]string // member -> all that it has in one line
}

func flatten(c *Config) flat {
	fl := flat{values: map[string]string{}, member: map[string]string{}, whole: map[string]string{}}
	walk("", schema(c), labelOf, func(key string, f *field) {
		if f.get == nil {
			return // an empty list: its members speak for themselves
		}
		member := ""
		if end := strings.LastIndex(key, "]."); end >= 0 {
			member = key[:end+1]
			if v := f.get(); v != "" && v != "[]" {
				fl.whole[member] = strings.TrimPrefix(fl.whole[member]+", ", ", ") + f.name + ": " + v
			}
		}
		fl.keys = append(fl.keys, key)
		fl.values[key], fl.member[key] = f.get(), member
	})
	for _, p := range c.BGP.Peers {
		key := "bgp.peers[" + p.Name() + "].passwordFile"
		if p.Password != "" {
			fl.values[key] += "\x00" + string(p.Password)
		}
	}
	return fl
}

func labelOf(f *field, _ int, member []field) string {
	var parts []string
	for _, name := range f.label {
		if v := find(member, name).get(); v != "" {
			parts = append(parts, v)
		}
	}
	return strings.Join(parts, " via ")
}

// changes lists what went or changed in the order of before, then what came in the order of after.
func changes(before, after flat) []Change {
	var all []Change
	add := func(ch Change) {
		if !slices.Contains(all, ch) {
			all = append(all, ch)
		}
	}
	for _, key := range before.keys {
		was := before.values[key]
		if is, ok := after.values[key]; !ok {
			add(Change{Key: before.member[key], Old: before.whole[before.member[key]]})
		} else if was != is {
			add(changed(key, was, is))
		}
	}
	for _, key := range after.keys {
		if _, ok := before.values[key]; !ok {
			add(Change{Key: after.member[key], New: after.whole[after.member[key]]})
		}
	}
	return all
}

// changed hides the passwords that flatten put behind the names of their files.
func changed(key, before, after string) Change {
	oldFile, _, _ := strings.Cut(before, "\x00")
	newFile, _, secret := strings.Cut(after, "\x00")
	if secret && oldFile == newFile {
		newFile += " (other contents)"
	}
	return Change{Key: key, Old: oldFile, New: newFile}
}
