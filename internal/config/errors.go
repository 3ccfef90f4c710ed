package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one thing that is wrong with a config.
type Error struct {
	Where  string // "FILE:LINE:COLUMN", "env NAME" or "flag --x"; only FILE when there is no better place
	Key    string // path of the key, "" for the file as a whole
	Value  string // the value as it was written, quoted if it is a text; may be ""
	Reason string // what is allowed, or what to do

	pos position
}

// Error says everything in one line.
func (e *Error) Error() string {
	parts := make([]string, 0, 4)
	for _, s := range []string{e.Where, e.Key, e.Value, e.Reason} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ": ")
}

// Errors is all that is wrong with a config: the file's errors from top to bottom, then
// those of the environment, then those of the flags. It is never empty.
type Errors []*Error

// Error says one error per line.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap makes errors.As find the first one.
func (es Errors) Unwrap() []error {
	errs := make([]error, len(es))
	for i, e := range es {
		errs[i] = e
	}
	return errs
}

// A position is where a value was given.
type position struct {
	source    source
	name      string // of the file, the variable or the flag
	line, col int    // in a file, from 1; 0 if unknown
}

type source uint8

const (
	fromFile source = iota
	fromEnv
	fromFlag
)

func (p position) where() string {
	switch p.source {
	case fromEnv:
		return "env " + p.name
	case fromFlag:
		return "flag --" + p.name
	default:
		if p.line == 0 {
			return p.name
		}
		return fmt.Sprintf("%s:%d:%d", p.name, p.line, p.col)
	}
}

func (p position) origin() string {
	if p.source == fromFile {
		return fmt.Sprintf("file:%d", p.line)
	}
	return p.where()
}

func sortErrors(es Errors) {
	slices.SortStableFunc(es, func(a, b *Error) int {
		return cmp.Or(
			cmp.Compare(a.pos.source, b.pos.source),
			cmp.Compare(a.pos.line, b.pos.line),
			cmp.Compare(a.pos.col, b.pos.col),
		)
	})
}
