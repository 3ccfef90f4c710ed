package config

import (
	"fmt"
	"strings"
)

// suggest is ", did you mean …?" with the name that is nearest to a mistyped one, or "".
func suggest(got string, names []string) string {
	if best := nearestName(got, names); best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return ""
}

// nearestName is the name that one gets to with the fewest typing errors, in any case. A name
// that takes more of them than a third of its letters is none.
func nearestName(got string, names []string) string {
	if len(got) > 64 {
		return ""
	}
	best, least := "", 1<<30
	for _, name := range names {
		limit := max(1, min(len(got), len(name))/3)
		if d := distance(strings.ToLower(got), strings.ToLower(name)); d <= limit && d < least {
			best, least = name, d
		}
	}
	return best
}

// distance is how many bytes have to be inserted, deleted, replaced or swapped with
// the next one to make b of a (optimal string alignment).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			replace := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
