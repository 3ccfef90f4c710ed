package daemonjson

import (
	"bytes"
	"slices"
	"strings"
)

// diffContext is how many lines are shown around a change.
const diffContext = 2

// Diff shows what differs between two documents, line by line: "- " before what goes, "+ " before what comes, and a few
// lines around it. It is empty when they are the same.
func Diff(before, after *Document) string {
	if bytes.Equal(before.text, after.text) {
		return ""
	}
	lines := compare(lines(before.text), lines(after.text))
	var b strings.Builder
	skipped := false
	for i, l := range lines {
		near := lines[max(0, i-diffContext):min(len(lines), i+diffContext+1)]
		if !slices.ContainsFunc(near, func(l string) bool { return l[0] != ' ' }) {
			skipped = true
			continue
		}
		if skipped {
			b.WriteString("  ...\n")
		}
		skipped = false
		b.WriteString(l + "\n")
	}
	return b.String()
}

func lines(text []byte) []string {
	s := strings.TrimSuffix(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n")
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

// compare marks the lines of two texts. What they begin and end with alike is not looked at further.
func compare(a, b []string) []string {
	var head, tail []string
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		head = append(head, "  "+a[0])
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		tail = append(tail, "  "+a[len(a)-1])
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	slices.Reverse(tail)
	return slices.Concat(head, differ(a, b), tail)
}

// differ marks lines by the longest common subsequence.
func differ(a, b []string) []string {
	// common[i][j] is its length in a[i:] and b[j:].
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i, x := range slices.Backward(a) {
		for j, y := range slices.Backward(b) {
			if x == y {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out []string
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, "  "+a[i])
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			out = append(out, "- "+a[i])
			i++
		default:
			out = append(out, "+ "+b[j])
			j++
		}
	}
	return out
}
