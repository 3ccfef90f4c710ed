package daemonjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
)

// Setting is a key and the value that it should have, as JSON.
type Setting struct {
	Key   string
	Value json.RawMessage
}

// Set returns a document in which the settings hold. A key that is there keeps its place, and its text too if it means
// the same already; new keys come behind the last one, in the order of the settings and the manner of those before.
func (d *Document) Set(settings []Setting) (*Document, error) {
	text, err := d.replaced(settings)
	if err != nil {
		return nil, err
	}
	now, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("edit daemon.json: %w", err)
	}
	var missing []Setting
	for _, s := range settings {
		if _, ok := now.Value(s.Key); !ok {
			missing = append(missing, s)
		}
	}
	if len(missing) == 0 {
		return now, nil
	}
	if now, err = Parse(now.appended(missing)); err != nil {
		return nil, fmt.Errorf("edit daemon.json: %w", err)
	}
	return now, nil
}

// replaced is the text with other values for the keys that are there.
func (d *Document) replaced(settings []Setting) ([]byte, error) {
	var out []byte
	from := 0
	for _, m := range d.members {
		i := slices.IndexFunc(settings, func(s Setting) bool { return s.Key == m.key })
		if i < 0 {
			continue
		}
		same, err := Same(d.text[m.valFrom:m.valueTo], settings[i].Value)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", m.key, err)
		}
		if !same {
			out = append(append(out, d.text[from:m.valFrom]...), settings[i].Value...)
			from = m.valueTo
		}
	}
	return append(out, d.text[from:]...), nil
}

// Same says whether two JSON texts mean the same. Numbers are the same only if they are written alike.
func Same(a, b json.RawMessage) (bool, error) {
	read := func(text json.RawMessage) (v any, err error) {
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		err = dec.Decode(&v)
		return v, err
	}
	x, err := read(a)
	if err != nil {
		return false, err
	}
	y, err := read(b)
	return reflect.DeepEqual(x, y), err
}

// appended is the text with further keys. The object has none of them.
func (d *Document) appended(settings []Setting) []byte {
	m := d.manner()
	var add []byte
	for i, s := range settings {
		if i > 0 || len(d.members) > 0 {
			add = append(append(add, ','), m.between...)
		} else {
			add = append(add, m.first...)
		}
		add = append(append(append(add, quote(s.Key)...), m.colon...), s.Value...)
	}
	if d.open < 0 { // an empty file, but perhaps with a byte order mark
		text := bytes.TrimSpace(d.text)
		return slices.Concat(text, []byte("{"), add, m.last, []byte("}"), m.line)
	}
	if len(d.members) == 0 {
		return slices.Concat(d.text[:d.open], add, m.last, d.text[d.end:])
	}
	behind := d.members[len(d.members)-1].valueTo
	return slices.Concat(d.text[:behind], add, d.text[behind:])
}

// manner is how a file is written.
type manner struct {
	line    []byte // end of a line
	first   []byte // before the first key of an object that had none
	between []byte // between a comma and the next key
	last    []byte // before the closing brace of an object that had none
	colon   []byte // between a key and its value
}

// manner looks how the file does it. Where it does nothing yet, it will be as in Docker's own manual: a key a line,
// indented by two.
func (d *Document) manner() manner {
	m := manner{line: []byte("\n"), colon: []byte(": ")}
	if bytes.Contains(d.text, []byte("\r\n")) {
		m.line = []byte("\r\n")
	}
	m.first, m.last = slices.Concat(m.line, []byte("  ")), m.line
	m.between = m.first
	if d.open < 0 || len(d.members) == 0 {
		return m
	}
	last := d.members[len(d.members)-1]
	m.colon = d.text[last.keyTo:last.valFrom]
	if bytes.ContainsAny(m.colon, "\r\n") {
		m.colon = []byte(": ")
	}
	m.between = d.text[d.open:d.members[0].keyFrom]
	if n := len(d.members); n > 1 {
		gap := d.text[d.members[n-2].valueTo:last.keyFrom]
		if _, behind, ok := bytes.Cut(gap, []byte(",")); ok {
			m.between = behind
		}
	}
	// One empty line between two keys makes none between all.
	if i := bytes.LastIndexByte(m.between, '\n'); i >= 0 {
		m.between = slices.Concat(m.line, m.between[i+1:])
	}
	return m
}
