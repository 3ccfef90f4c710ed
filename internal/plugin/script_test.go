package plugin

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the answers into testdata/*.script")

// TestScripts plays what engines say, call after call, to a server with a real book, and compares the answers. A line
// "> METHOD BODY" is a call, the line "< ANSWER" after it its answer, "= " lines what the book then has; others are
// comment.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.script")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".script"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Error(d)
			}
		})
	}
}

func play(t *testing.T, script string) string {
	t.Helper()
	book := newBook(t)
	r := newRig(t, Config{})
	r.Open(book, &loop{})
	var out strings.Builder
	for line := range strings.Lines(script) {
		switch {
		case strings.HasPrefix(line, "<"):
		case strings.HasPrefix(line, "="):
			out.WriteString("= " + bookText(book.Snapshot().Endpoints, book.Snapshot().Networks, book.Holdings()) + "\n")
		case strings.HasPrefix(line, ">"):
			method, body, _ := strings.Cut(strings.TrimSpace(line[1:]), " ")
			status, answer := r.call(t.Context(), method, body)
			if status != 200 {
				answer = fmt.Sprint(status, " ", answer)
			}
			out.WriteString(line + "< " + answer + "\n")
		default:
			out.WriteString(line)
		}
	}
	return out.String()
}
