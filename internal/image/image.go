// Package image packs a static binary into a container image, from scratch, as an archive for `docker load`. It needs
// neither an engine nor a registry, and the same binary gives the same image.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

// Write packs the binary into the archive out: as /fairway, the entry point of an image of that name and architecture (as
// Go names it).
func Write(out, name, arch, binary string) error {
	content, err := os.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("read binary: %w", err)
	}
	layer, err := archive([]entry{{"fairway", 0o755, content}, {"run/", 0o755, nil}, {"tmp/", 0o1777, nil}})
	if err != nil {
		return fmt.Errorf("pack layer: %w", err)
	}
	config, err := json.Marshal(map[string]any{
		"architecture": arch, "os": "linux", "created": time.Unix(0, 0).UTC(),
		"config": map[string]any{
			"Entrypoint": []string{"/fairway"}, "Cmd": []string{"router"}, "Env": []string{"PATH=/"},
			"Labels": map[string]string{"org.opencontainers.image.title": "fairway"},
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + sum(layer)}},
		"history": []map[string]any{{"created": time.Unix(0, 0).UTC(), "created_by": "make image"}},
	})
	if err != nil {
		return fmt.Errorf("describe image: %w", err)
	}
	manifest, err := json.Marshal([]map[string]any{{
		"Config": sum(config) + ".json", "RepoTags": []string{name}, "Layers": []string{sum(layer) + "/layer.tar"},
	}})
	if err != nil {
		return fmt.Errorf("describe archive: %w", err)
	}
	all, err := archive([]entry{{sum(config) + ".json", 0o644, config}, {sum(layer) + "/layer.tar", 0o644, layer}, {"manifest.json", 0o644, manifest}})
	if err != nil {
		return fmt.Errorf("pack archive: %w", err)
	}
	// Written beside it first: an archive that is cut short would load half an image.
	tmp := out + ".new"
	if err := os.WriteFile(tmp, all, 0o644); err != nil {
		return errors.Join(fmt.Errorf("write archive: %w", err), os.Remove(tmp))
	}
	return os.Rename(tmp, out)
}

type entry struct {
	name    string // a directory's ends with a slash
	mode    int64
	content []byte
}

func archive(entries []entry) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.content)), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if e.content == nil {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}
