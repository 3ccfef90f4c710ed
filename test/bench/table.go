package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// width is what fits a terminal.
const width = 80

// report is what a run found, as -o json writes it.
type report struct {
	Machine machine      `json:"machine"`
	Rounds  int          `json:"rounds"`
	Lines   []reportLine `json:"lines"`
}

// reportLine is one line of the table.
type reportLine struct {
	Name    string       `json:"name"`
	Title   string       `json:"title"`
	Unit    unit         `json:"unit"`
	Better  string       `json:"better"` // more or less
	Fairway reportSeries `json:"fairway"`
	Against []reportPair `json:"against"`
}

// reportSeries is all figures of one of those compared. Without any, Median is null.
type reportSeries struct {
	Name    string   `json:"name"`
	Median  *float64 `json:"median"`
	Samples []sample `json:"samples"`
	Problem string   `json:"problem,omitempty"`
}

// reportPair adds fairway's figure divided by this one's, round by round: the median and the extremes.
type reportPair struct {
	reportSeries
	Ratio *float64 `json:"ratio"`
	Low   *float64 `json:"ratio_low"`
	High  *float64 `json:"ratio_high"`
}

func (b *bench) report() report {
	out := report{Machine: b.machine, Rounds: b.rounds, Lines: []reportLine{}}
	for _, r := range b.rows {
		l := reportLine{Name: r.Name, Title: r.Title, Unit: r.Unit, Better: "less", Fairway: seriesOf(&r.Fairway), Against: []reportPair{}}
		if r.More {
			l.Better = "more"
		}
		for _, s := range r.Against {
			p := reportPair{reportSeries: seriesOf(s)}
			if ratios := r.ratios(s); len(ratios) > 0 {
				p.Ratio, p.Low, p.High = new(median(ratios)), new(slices.Min(ratios)), new(slices.Max(ratios))
			}
			l.Against = append(l.Against, p)
		}
		out.Lines = append(out.Lines, l)
	}
	return out
}

func seriesOf(s *series) reportSeries {
	out := reportSeries{Name: s.Name, Samples: slices.Clone(s.Samples), Problem: s.problem()}
	if out.Samples == nil {
		out.Samples = []sample{}
	}
	if len(s.Samples) > 0 {
		out.Median = new(median(s.values()))
	}
	return out
}

// text is the table for people.
func (r report) text() string {
	var b strings.Builder
	b.WriteString(r.Machine.text(r.Rounds))
	for _, better := range []string{"more", "less"} {
		head := false
		for _, l := range r.Lines {
			if l.Better != better {
				continue
			}
			if !head {
				fmt.Fprintf(&b, "\n%-24s %13s  %-19s %13s %6s\n", better+" is better", ours, "compared with", "", "ratio")
				head = true
			}
			l.write(&b)
		}
	}
	r.problems(&b)
	return b.String()
}

func (l reportLine) write(b *strings.Builder) {
	title, figure := l.Title, l.Fairway.text(l.Unit)
	for _, a := range l.Against {
		ratio := "-"
		if a.Ratio != nil {
			ratio = strconv.FormatFloat(*a.Ratio, 'f', 2, 64)
		}
		fmt.Fprintf(b, "  %-22s %13s  %-19s %13s %6s\n", title, figure, a.Name, a.text(l.Unit), ratio)
		title, figure = "", "" // once
	}
}

func (s reportSeries) text(u unit) string {
	if s.Median == nil {
		return "not measured"
	}
	return number(*s.Median) + " " + string(u)
}

// number has three digits or more, and commas between thousands.
func number(v float64) string {
	switch {
	case v < 10:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// problems lists what has no figure, or too few, and why; what shares a reason stands together.
func (r report) problems(b *strings.Builder) {
	var reasons []string
	about := map[string][]string{}
	note := func(line reportLine, s reportSeries) {
		if s.Problem == "" {
			return
		}
		if about[s.Problem] == nil {
			reasons = append(reasons, s.Problem)
		}
		about[s.Problem] = append(about[s.Problem], line.Name+" ("+s.Name+")")
	}
	for _, l := range r.Lines {
		note(l, l.Fairway)
		for _, a := range l.Against {
			note(l, a.reportSeries)
		}
	}
	for _, reason := range reasons {
		b.WriteString("\n" + wrap("Not complete: "+strings.Join(about[reason], ", ")+": "+reason))
	}
}

// wrap breaks a text into lines of at most width, the later ones indented. A word that is longer is broken too.
func wrap(text string) string {
	const indent = "  "
	var b strings.Builder
	line := ""
	for word := range strings.FieldsSeq(text) {
		for len(word) > width-len(indent) {
			cut := width - len(indent)
			if line != "" {
				b.WriteString(line + "\n")
			}
			b.WriteString(indent + word[:cut] + "\n")
			line, word = "", word[cut:]
		}
		switch {
		case line == "" && b.Len() == 0:
			line = word
		case line == "":
			line = indent + word
		case len(line)+1+len(word) > width:
			b.WriteString(line + "\n")
			line = indent + word
		default:
			line += " " + word
		}
	}
	return b.String() + line + "\n"
}
