package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// FuzzParse makes sure that no file stops the program, that each error has a place and a reason,
// and that what is parsed comes back the same when all of its settings are written into a file.
func FuzzParse(f *testing.F) {
	for _, path := range []string{"testdata/full.yaml", "testdata/many.yaml", root + "examples/fairway.yaml"} {
		data, err := os.ReadFile(filepath.FromSlash(path))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data), "")
	}
	f.Add("bgp: {import: {prefixes: [fd00::/8, ::/0]}}", "FAIRWAY_BGP_ASN=1")
	f.Fuzz(func(t *testing.T, text, variable string) {
		c, err := Parse("f", []byte(text), []string{variable}, nil)
		if err != nil {
			var all Errors
			if !errors.As(err, &all) || len(all) == 0 {
				t.Fatalf("%T is not a list of errors", err)
			}
			for _, e := range all {
				if e.Where == "" || e.Reason == "" || strings.Contains(e.Where, "\n") {
					t.Errorf("incomplete error %+v", e)
				}
			}
			return
		}
		again := asFile(c)
		c2, err := parse(again)
		if err != nil {
			t.Fatalf("settings of a good config are refused: %v\n%s", err, again)
		}
		if d := diffConfigs(c, c2); d != "" {
			t.Errorf("settings do not come back (-was +is):\n%s\n%s", d, again)
		}
		if live, restart := Diff(c, c2); len(live)+len(restart) > 0 {
			t.Errorf("settings that come back differ: %v %v", live, restart)
		}
	})
}

// asFile writes every setting of c into a file.
func asFile(c *Config) string {
	var b strings.Builder
	writeFields(&b, "", schema(c))
	return b.String()
}

func writeFields(b *strings.Builder, indent string, fields []field) {
	for _, f := range fields {
		fmt.Fprintf(b, "%s%s:", indent, f.name)
		switch f.kind {
		case kindObject:
			b.WriteString("\n")
			writeFields(b, indent+"  ", f.fields)
		case kindObjects:
			if len(f.members()) == 0 {
				b.WriteString(" []\n")
				continue
			}
			b.WriteString("\n")
			for _, member := range f.members() {
				fmt.Fprintf(b, "%s-\n", indent)
				writeFields(b, indent+"  ", member)
			}
		case kindTexts:
			b.WriteString(" [")
			for i, text := range strings.Split(strings.Trim(f.get(), "[]"), ", ") {
				if text != "" {
					fmt.Fprintf(b, "%.*s%s", 2*min(i, 1), ", ", strconv.Quote(text))
				}
			}
			b.WriteString("]\n")
		case kindText:
			fmt.Fprintf(b, " %s\n", strconv.Quote(f.get()))
		default:
			fmt.Fprintf(b, " %s\n", f.get())
		}
	}
}
