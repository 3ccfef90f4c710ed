package config

import "fmt"

// Setting is one effective value and where it came from.
type Setting struct {
	Key    string `json:"key"`    // "bgp.holdTime", "bgp.peers[0].address"
	Value  string `json:"value"`  // as it is written in the file, without quotes
	Origin string `json:"origin"` // "default", "file:LINE", "env NAME" or "flag --x"
}

// Settings lists every effective value in the order of the documentation. An empty list of
// mappings is one setting with the value "[]". Passwords are not among them, only their files.
func (c *Config) Settings() []Setting {
	var all []Setting
	walk("", schema(c), placeOf, func(key string, f *field) {
		s := Setting{Key: key, Value: "[]", Origin: "default"}
		if f.get != nil {
			s.Value = f.get()
		}
		if origin, ok := c.origins[key]; ok {
			s.Origin = origin
		}
		all = append(all, s)
	})
	return all
}

// walk visits every scalar, every list of strings and every empty list of mappings. How a member
// of a list of mappings is called in the key is what name says.
func walk(prefix string, fields []field, name func(f *field, i int, member []field) string, visit func(key string, f *field)) {
	for i := range fields {
		f := &fields[i]
		key := prefix + f.name
		switch f.kind {
		case kindObject:
			walk(key+".", f.fields, name, visit)
		case kindObjects:
			members := f.members()
			if len(members) == 0 {
				visit(key, f)
			}
			for j, member := range members {
				walk(fmt.Sprintf("%s[%s].", key, name(f, j, member)), member, name, visit)
			}
		default:
			visit(key, f)
		}
	}
}

func placeOf(_ *field, i int, _ []field) string { return fmt.Sprint(i) }
