package daemonjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

// Document is the text of a daemon.json that was checked.
type Document struct {
	text    []byte   // whole, with a byte order mark if there is one
	members []member // of the object, in the file's order
	open    int      // offset behind the opening brace; -1: there is no object, the file is empty
	end     int      // offset of the closing brace
}

// member is a key and its value, by their offsets in the text.
type member struct {
	key              string
	keyFrom, keyTo   int
	valFrom, valueTo int
}

// SyntaxError is a place in a file at which it is no daemon.json.
type SyntaxError struct {
	Line, Column int // from 1; the column counts characters
	Reason       string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Reason) }

// byteOrderMark may stand before UTF-8; engines from 23.0 on skip it.
const byteOrderMark = "\xef\xbb\xbf"

// Parse checks a text. Nothing but white space, as an engine takes it, is a document without keys. What is wrong is a
// *SyntaxError. The document keeps the text; the caller must not change it.
func Parse(text []byte) (*Document, error) {
	d := &Document{text: text, open: -1, end: -1}
	start := 0
	if bytes.HasPrefix(text, []byte(byteOrderMark)) {
		start = len(byteOrderMark)
	}
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
		return nil, d.fail(0, "is UTF-16; want UTF-8")
	}
	for i := start; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			return nil, d.fail(i, "is not UTF-8")
		}
		i += n
	}
	if len(bytes.TrimSpace(text[start:])) == 0 {
		return d, nil
	}
	var whole json.RawMessage
	if err := json.Unmarshal(text[start:], &whole); err != nil {
		return nil, d.invalid(start, err)
	}
	w := walker{d: d, dec: json.NewDecoder(bytes.NewReader(text[start:])), start: start}
	w.dec.UseNumber()
	return d, w.document()
}

// fail makes an error at an offset.
func (d *Document) fail(at int, format string, args ...any) *SyntaxError {
	e := &SyntaxError{Line: 1, Column: 1, Reason: fmt.Sprintf(format, args...)}
	before := d.text[:min(at, len(d.text))]
	e.Line += bytes.Count(before, []byte("\n"))
	before = bytes.TrimPrefix(before[bytes.LastIndexByte(before, '\n')+1:], []byte(byteOrderMark))
	e.Column += utf8.RuneCount(before)
	return e
}

// invalid puts what the JSON library says at its place. Its offset is behind the character that it cannot take.
func (d *Document) invalid(start int, err error) error {
	at := len(d.text)
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = start + int(s.Offset)
		if at > start && s.Error() != "unexpected end of JSON input" {
			at--
		}
	}
	reason := "is not JSON: " + err.Error()
	if at < len(d.text) && (d.text[at] == '/' || d.text[at] == '#') {
		reason = "is not JSON, which has no comments"
	}
	return d.fail(at, "%s", reason)
}

// walker goes through the tokens of a text that is valid JSON.
type walker struct {
	d     *Document
	dec   *json.Decoder
	start int
}

// at is the offset in the text behind the last token.
func (w *walker) at() int { return w.start + int(w.dec.InputOffset()) }

// next is the offset of the next token: behind white space, and the comma or colon before it.
func (w *walker) next() int {
	i := w.at()
	for i < len(w.d.text) && bytes.IndexByte([]byte(" \t\r\n,:"), w.d.text[i]) >= 0 {
		i++
	}
	return i
}

func (w *walker) document() error {
	first := w.next()
	t, err := w.dec.Token()
	if err != nil {
		return w.d.invalid(w.start, err)
	}
	if t != json.Delim('{') {
		return w.d.fail(first, "is not an object; want { and }")
	}
	w.d.open = w.at()
	if err := w.object(func(m member) { w.d.members = append(w.d.members, m) }); err != nil {
		return err
	}
	w.d.end = w.at() - 1
	if _, err := w.dec.Token(); !errors.Is(err, io.EOF) {
		return w.d.fail(w.at(), "something follows the object")
	}
	return nil
}

// object reads the members of an object and its closing brace.
func (w *walker) object(each func(member)) error {
	seen := map[string]int{}
	for w.dec.More() {
		m := member{keyFrom: w.next()}
		t, err := w.dec.Token()
		if err != nil {
			return w.d.invalid(w.start, err)
		}
		m.key, _ = t.(string)
		m.keyTo, m.valFrom = w.at(), w.next()
		if first, twice := seen[m.key]; twice {
			return w.d.fail(m.keyFrom, "key %q stands twice; the first one is in line %d", m.key, w.d.fail(first, "").Line)
		}
		seen[m.key] = m.keyFrom
		if err := w.value(); err != nil {
			return err
		}
		m.valueTo = w.at()
		each(m)
	}
	_, err := w.dec.Token()
	return err
}

func (w *walker) value() error {
	t, err := w.dec.Token()
	if err != nil {
		return w.d.invalid(w.start, err)
	}
	switch t {
	case json.Delim('{'):
		return w.object(func(member) {})
	case json.Delim('['):
		for w.dec.More() {
			if err := w.value(); err != nil {
				return err
			}
		}
		_, err = w.dec.Token()
	}
	return err
}

// Text is the whole file.
func (d *Document) Text() []byte { return d.text }

// Value returns the JSON of a key as it stands in the file; false when the key is not there.
func (d *Document) Value(key string) (json.RawMessage, bool) {
	for _, m := range d.members {
		if m.key == key {
			return json.RawMessage(d.text[m.valFrom:m.valueTo]), true
		}
	}
	return nil, false
}

// Line is the line that a key stands in; 0 when it is not there.
func (d *Document) Line(key string) int {
	for _, m := range d.members {
		if m.key == key {
			return d.fail(m.keyFrom, "").Line
		}
	}
	return 0
}

// quote is a key as JSON.
func quote(key string) []byte {
	b, err := json.Marshal(key)
	if err != nil { // not of a string
		return strconv.AppendQuote(nil, key)
	}
	return b
}
