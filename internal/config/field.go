package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

type kind uint8

const (
	kindText    kind = iota // a YAML string
	kindNumber              // a YAML integer
	kindBool                // true or false
	kindTexts               // a list of strings
	kindObject              // a mapping
	kindObjects             // a list of mappings
)

// A field is one key of the file, bound to its place in a Config. Which of the
// functions it has depends on its kind.
type field struct {
	name string
	kind kind
	want string             // scalars, members of texts: what a value has to be
	set  func(string) error // scalars: store the value; texts: append a member
	get  func() string      // scalars, texts: the value as it is written in a file, without quotes

	place any       // scalars, texts: pointer to the value
	take  func(any) // scalars, texts: copy the value from the place of the same field of another Config

	clear   func()           // texts, objects: make it empty
	fields  []field          // object
	add     func() []field   // objects: append a member and return its fields
	members func() [][]field // objects
	label   []string         // objects: names of the fields that tell members apart
}

func (f *field) isScalar() bool { return f.kind <= kindBool }

// scalar makes a field of a value that parse reads from text and show writes.
func scalar[T any](name string, k kind, want string, p *T, parse func(string) (T, error), show func(T) string) field {
	return field{
		name: name,
		kind: k,
		want: want,
		set: func(s string) error {
			v, err := parse(s)
			if err != nil {
				return err
			}
			*p = v
			return nil
		},
		get:   func() string { return show(*p) },
		place: p,
		take:  func(from any) { *p = *from.(*T) },
	}
}

func asIs[T ~string](v T) string { return string(v) }

// textField is a string that check agrees to; check returns it in its canonical form.
func textField(name, want string, p *string, check func(string) (string, error)) field {
	return scalar(name, kindText, want, p, check, asIs)
}

func enumField[T ~string](name string, p *T, allowed ...T) field {
	names := make([]string, len(allowed))
	for i, v := range allowed {
		names[i] = string(v)
	}
	want := oneOf(names)
	return scalar(name, kindText, want, p, func(s string) (T, error) {
		if !slices.Contains(allowed, T(s)) {
			return "", errors.New("want " + want)
		}
		return T(s), nil
	}, asIs)
}

func oneOf(names []string) string {
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

func boolField(name string, p *bool) field {
	const want = "true or false"
	return scalar(name, kindBool, want, p, func(s string) (bool, error) {
		switch s {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return false, errors.New("want " + want)
	}, strconv.FormatBool)
}

// numberField is a whole number from lo to hi; T has to hold hi.
func numberField[T ~uint8 | ~uint16 | ~uint32 | ~int](name string, p *T, lo, hi uint64) field {
	want := fmt.Sprintf("a whole number from %d to %d", lo, hi)
	return scalar(name, kindNumber, want, p, func(s string) (T, error) {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil || n < lo || n > hi || len(s) > 1 && s[0] == '0' {
			return 0, errors.New("want " + want)
		}
		return T(n), nil
	}, func(v T) string { return strconv.FormatUint(uint64(v), 10) })
}

// durationField is a duration with a unit; check has the last word and may be nil.
func durationField(name, want string, p *time.Duration, check func(time.Duration) bool) field {
	return scalar(name, kindText, want, p, func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		if err != nil || !check(d) {
			return 0, errors.New("want " + want)
		}
		return d, nil
	}, showDuration)
}

// showDuration writes 2m0s as 2m and 24h0m0s as 24h.
func showDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func levelField(name string, p *slog.Level) field {
	const want = "debug, info, warn or error"
	return scalar(name, kindText, want, p, func(s string) (slog.Level, error) {
		for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
			if s == strings.ToLower(l.String()) {
				return l, nil
			}
		}
		return 0, errors.New("want " + want)
	}, func(l slog.Level) string { return strings.ToLower(l.String()) })
}

// optional lets "" stand for the zero value.
func optional[T any](parse func(string) (T, error)) func(string) (T, error) {
	return func(s string) (T, error) {
		if s == "" {
			var zero T
			return zero, nil
		}
		return parse(s)
	}
}

// showValid writes the zero value of an address or prefix as "".
func showValid[T interface {
	IsValid() bool
	String() string
}](v T) string {
	if !v.IsValid() {
		return ""
	}
	return v.String()
}

func addrField(name, want string, p *netip.Addr, parse func(string) (netip.Addr, error)) field {
	return scalar(name, kindText, want, p, optional(parse), showValid)
}

func prefixField(name string, p *netip.Prefix, parse func(string) (netip.Prefix, error)) field {
	return scalar(name, kindText, wantPrefix, p, optional(parse), showValid)
}

func listenField(name string, p *netip.AddrPort) field {
	const want = `an address with a port, such as 127.0.0.1:9477 or [::1]:9477, or "" for none`
	return scalar(name, kindText, want, p, optional(func(s string) (netip.AddrPort, error) {
		ap, err := netip.ParseAddrPort(s)
		if err != nil || ap.Port() == 0 || ap.Addr().IsMulticast() || ap.Addr().Is4In6() {
			return netip.AddrPort{}, errors.New("want " + want)
		}
		return ap, nil
	}), showValid)
}

// listField is a list of strings.
func listField[T any](name, want string, p *[]T, parse func(string) (T, error), show func(T) string) field {
	return field{
		name:  name,
		kind:  kindTexts,
		want:  want,
		clear: func() { *p = nil },
		set: func(s string) error {
			v, err := parse(s)
			if err != nil {
				return err
			}
			*p = append(*p, v)
			return nil
		},
		get: func() string {
			texts := make([]string, len(*p))
			for i, v := range *p {
				texts[i] = show(v)
			}
			return "[" + strings.Join(texts, ", ") + "]"
		},
		place: p,
		take:  func(from any) { *p = slices.Clone(*from.(*[]T)) },
	}
}

func objectField(name string, fields ...field) field {
	return field{name: name, kind: kindObject, fields: fields}
}

// objectsField is a list of mappings. A new member starts as fresh; bind gives the fields of one.
// The fields of a member are valid until the next one is added.
func objectsField[T any](name string, label []string, p *[]T, fresh T, bind func(*T) []field) field {
	return field{
		name:  name,
		kind:  kindObjects,
		label: label,
		clear: func() { *p = nil },
		add: func() []field {
			*p = append(*p, fresh)
			return bind(&(*p)[len(*p)-1])
		},
		members: func() [][]field {
			all := make([][]field, len(*p))
			for i := range *p {
				all[i] = bind(&(*p)[i])
			}
			return all
		},
	}
}
