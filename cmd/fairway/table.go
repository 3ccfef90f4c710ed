package main

import (
	"io"
	"strings"
	"unicode/utf8"
)

// column is one column of a table.
type column struct {
	title string
	right bool // numbers
	// least is how far the column may be cut when the screen is too narrow; 0: not before every other one is cut.
	least int
	// optional columns are left out when the screen is too narrow even so; the last one first.
	optional bool
	colour   func(text string) colour
}

// table is rows for people: aligned, at most screen wide unless it is wide, never wrapped.
type table struct {
	columns []column
	rows    [][]string
	wide    bool // nothing is cut
	indent  int  // spaces before each row
}

func (t *table) add(cells ...string) {
	for i := range cells {
		cells[i] = clean(cells[i])
	}
	t.rows = append(t.rows, cells)
}

const gap = 2 // spaces between columns

// write writes the table with its header.
func (t *table) write(w io.Writer, p painter) error {
	show, width := t.layout()
	var b strings.Builder
	line := func(cell func(i int) (string, colour)) {
		var cells, painted strings.Builder
		for n, i := range show {
			text, c := cell(i)
			text = cut(text, width[i])
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(text))
			lead, tail := "", pad
			if t.columns[i].right {
				lead, tail = pad, ""
			}
			if n == len(show)-1 {
				tail = "" // no blanks at the end of a line
			} else {
				tail += strings.Repeat(" ", gap)
			}
			cells.WriteString(lead + text + tail)
			painted.WriteString(lead + p.paint(c, text) + tail)
		}
		if !p {
			b.WriteString(strings.TrimRight(strings.Repeat(" ", t.indent)+cells.String(), " ") + "\n")
			return
		}
		b.WriteString(strings.Repeat(" ", t.indent) + painted.String() + "\n")
	}
	line(func(i int) (string, colour) { return t.columns[i].title, bold })
	for _, row := range t.rows {
		line(func(i int) (string, colour) {
			if f := t.columns[i].colour; f != nil {
				return row[i], f(row[i])
			}
			return row[i], plain
		})
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// layout says which columns are shown and how wide each is.
func (t *table) layout() (show, width []int) {
	width = make([]int, len(t.columns))
	least := make([]int, len(t.columns))
	for i, c := range t.columns {
		show = append(show, i)
		width[i] = utf8.RuneCountInString(c.title)
		for _, row := range t.rows {
			width[i] = max(width[i], utf8.RuneCountInString(row[i]))
		}
		least[i] = width[i]
		if c.least > 0 {
			least[i] = min(width[i], max(c.least, utf8.RuneCountInString(c.title)))
		}
	}
	if t.wide {
		return show, width
	}
	show = t.drop(show, least)
	t.squeeze(show, width, least)
	for i := range least {
		least[i] = min(least[i], 4)
	}
	t.squeeze(show, width, least) // rather cut an address than break the line
	return show, width
}

// drop leaves out optional columns until the others can be cut to fit.
func (t *table) drop(show, least []int) []int {
	for i := len(show) - 1; i >= 0 && t.total(show, least) > screen; i-- {
		if t.columns[show[i]].optional {
			show = append(show[:i:i], show[i+1:]...)
		}
	}
	return show
}

// squeeze cuts the widest column that may be cut, a step at a time, until the row fits.
func (t *table) squeeze(show, width, least []int) {
	for t.total(show, width) > screen {
		widest := -1
		for _, i := range show {
			if width[i] > least[i] && (widest < 0 || width[i] > width[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		width[widest]--
	}
}

func (t *table) total(show, width []int) int {
	sum := t.indent + gap*(len(show)-1)
	for _, i := range show {
		sum += width[i]
	}
	return sum
}
