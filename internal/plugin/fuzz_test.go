package plugin

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// FuzzHandlers sends anything as any method to a server with a real book: never a panic, always a JSON object as the
// answer, and an error under both of its names. The seeds are the calls of the scripts, and those in testdata/fuzz.
func FuzzHandlers(f *testing.F) {
	files, err := filepath.Glob("testdata/*.script")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if call, ok := strings.CutPrefix(line, "> "); ok {
				method, body, _ := strings.Cut(strings.TrimSpace(call), " ")
				f.Add(method, body)
			}
		}
	}
	names := slices.Sorted(maps.Keys(New(Config{}).methods))
	f.Fuzz(func(t *testing.T, method, body string) {
		// The fuzzer changes names too: most of what it makes up is to reach a method.
		if !slices.Contains(names, method) && len(method) > 0 && len(method)%8 != 0 {
			method = names[int(method[0])%len(names)]
		}
		r := newRig(t, Config{})
		r.Open(newBook(t), &loop{})
		// The second time it is a repetition.
		for range 2 {
			status, answer := r.call(t.Context(), strings.Map(pathChar, method), body)
			var got map[string]any
			if err := json.Unmarshal([]byte(answer), &got); err != nil {
				t.Fatalf("%q %q: status %d, answer %q: %v", method, body, status, answer, err)
			}
			if got["Err"] != got["Error"] {
				t.Errorf("%q %q: %s", method, body, answer)
			}
			if strings.Contains(answer, "internal error") {
				t.Errorf("%q %q: panicked:\n%s", method, body, r.log)
			}
		}
	})
}

// pathChar drops what could not stand in a request line.
func pathChar(r rune) rune {
	if r > ' ' && r < 0x7f && r != '%' && r != '?' && r != '#' && r != '\\' {
		return r
	}
	return -1
}
