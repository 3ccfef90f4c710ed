package fairway_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRooms keeps the map of the house true: every package has a doc comment, and a row in docs/architecture.md, or a
// room above it has one.
func TestRooms(t *testing.T) {
	page, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, root := range []string{"cmd", "internal", "test"} {
		err := filepath.WalkDir(root, func(dir string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() || d.Name() == "testdata" {
				return err
			}
			doc, has := packageDoc(t, dir)
			if !has {
				return nil
			}
			seen++
			if doc == "" {
				t.Errorf("%s: no package comment", dir)
			}
			if !hasRow(string(page), dir) {
				t.Errorf("%s: no row in docs/architecture.md", dir)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 15 {
		t.Errorf("only %d packages were found", seen)
	}
}

func hasRow(page, dir string) bool {
	for ; strings.Contains(dir, "/"); dir = filepath.Dir(dir) {
		if strings.Contains(page, "| `"+dir+"` |") {
			return true
		}
	}
	return false
}

// packageDoc returns the package comment of a directory, and whether it holds Go files.
func packageDoc(t *testing.T, dir string) (doc string, has bool) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Fatal(err)
		}
		if f.Doc != nil {
			doc += f.Doc.Text()
		}
	}
	return doc, len(files) > 0
}
