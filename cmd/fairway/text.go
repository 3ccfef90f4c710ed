package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// screen is the width in columns that everything for people fits into.
const screen = 80

// age says how long ago something was, in at most two units: "3m12s", "2d4h". A zero time is "-".
func age(now, then time.Time) string {
	if then.IsZero() {
		return "-"
	}
	return short(now.Sub(then))
}

func short(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second) // clocks may disagree
	days, hours := int(d/(24*time.Hour)), int(d%(24*time.Hour)/time.Hour)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d/time.Minute), int(d%time.Minute/time.Second))
	case days == 0:
		return fmt.Sprintf("%dh%dm", hours, int(d%time.Hour/time.Minute))
	case days < 100:
		return fmt.Sprintf("%dd%dh", days, hours)
	}
	return fmt.Sprintf("%dd", days)
}

// millis is a short duration as a person reads it: "1.2ms", "340ms", "2.1s".
func millis(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1fs", d.Seconds())
}

// clean makes a text fit one line and harmless: peers and engines tell names and errors, and a terminal obeys control
// characters.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
}

// or is the text, or a dash where there is none.
func or(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// shortID keeps the first 12 characters of an engine's ID, as Docker's own listings do.
func shortID(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

// count is "1 route", "2 routes".
func count(n int, one string) string {
	return fmt.Sprintf("%d %s", n, plural(n, one, one+"s"))
}

// wrap breaks a text into lines that are at most screen wide, the first behind head, the others behind as many spaces.
// A word longer than a line is broken.
func wrap(head, text string) string {
	indent := strings.Repeat(" ", utf8.RuneCountInString(head))
	width := screen - len(indent)
	var b strings.Builder
	b.WriteString(head)
	left := width
	for i, word := range strings.Fields(clean(text)) {
		r := []rune(word)
		switch {
		case i == 0:
		case len(r)+1 <= left:
			b.WriteByte(' ')
			left--
		default:
			b.WriteString("\n" + indent)
			left = width
		}
		for len(r) > left {
			b.WriteString(string(r[:left]) + "\n" + indent)
			r, left = r[left:], width
		}
		b.WriteString(string(r))
		left -= len(r)
	}
	b.WriteByte('\n')
	return b.String()
}

// What a text of somebody else's gets of the screen; -o json has all of it.
const (
	longName = 56
	longText = 220
)

// note is a remark below a table, about one of its rows.
func note(name, text string) string {
	return wrap("! ", cut(clean(name), longName)+": "+cut(clean(text), longText))
}

// reflow fits paragraphs into the screen; lines that begin with a space stay as they are.
func reflow(text string) string {
	var out []string
	for para := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if strings.HasPrefix(para, " ") {
			out = append(out, para)
			continue
		}
		out = append(out, strings.TrimSuffix(wrap("", para), "\n"))
	}
	return strings.Join(out, "\n\n")
}

// colour is an SGR code of ECMA-48.
type colour string

const (
	plain  colour = ""
	bold   colour = "1"
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
)

// painter colours texts on a terminal, and leaves them alone elsewhere.
type painter bool

// painterFor says whether w wants colours: a terminal does, unless NO_COLOR is set or it is a dumb one.
func painterFor(w io.Writer) painter {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	return painter(isTerminal(f))
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull) // it is a character device as well
	return err != nil || !os.SameFile(info, null)
}

func (p painter) paint(c colour, s string) string {
	if !p || c == plain {
		return s
	}
	return "\x1b[" + string(c) + "m" + s + "\x1b[0m"
}

// many writes a number of addresses; what no one counts, in a large IPv6 block, is said to be many.
func many(n int) string {
	if n >= 1_000_000 {
		return "many"
	}
	return strconv.Itoa(n)
}
