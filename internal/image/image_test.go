package image_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"fairway/internal/image"
)

// files reads an archive.
func files(t *testing.T, b []byte) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	binary, out := filepath.Join(dir, "fairway"), filepath.Join(dir, "image.tar")
	if err := os.WriteFile(binary, []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := image.Write(out, "fairway:test", "arm64", binary); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	all := files(t, first)
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(all["manifest.json"], &manifest); err != nil || len(manifest) != 1 {
		t.Fatalf("manifest %s: %v", all["manifest.json"], err)
	}
	m := manifest[0]
	if len(m.RepoTags) != 1 || m.RepoTags[0] != "fairway:test" || len(m.Layers) != 1 || all[m.Config] == nil {
		t.Errorf("manifest %+v", m)
	}
	if got := files(t, all[m.Layers[0]]); string(got["fairway"]) != "program" {
		t.Errorf("layer has %q", got)
	}
	if err := image.Write(out, "fairway:test", "arm64", binary); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(out); err != nil || !bytes.Equal(first, again) {
		t.Errorf("the same binary makes another image: %v", err)
	}
	if err := image.Write(out, "x", "arm64", filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no binary: %v", err)
	}
}
