package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"fairway/internal/store"
)

func open(t *testing.T, path string) *store.Local {
	t.Helper()
	l, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func keys(t *testing.T, l *store.Local, prefix string) map[string]string {
	t.Helper()
	recs, err := l.List(t.Context(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, r := range recs.Records {
		out[r.Key] = string(r.Value)
	}
	return out
}

func TestCommitSurvivesReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "state.db")
	l := open(t, path)
	if _, err := l.Commit(t.Context(), store.Txn{Put: map[string][]byte{"a/1": []byte("x"), "a/2": []byte("y"), "b/1": nil}}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Commit(t.Context(), store.Txn{Delete: []string{"a/2", "never"}, Put: map[string][]byte{"a/3": []byte("z")}}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, path)
	defer l.Close()
	if diff := cmp.Diff(map[string]string{"a/1": "x", "a/3": "z"}, keys(t, l, "a/")); diff != "" {
		t.Error(diff)
	}
}

func TestCommitComparesFirst(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "state.db"))
	defer l.Close()
	create := store.Txn{If: []store.Compare{{Key: "k", Revision: 0}}, Put: map[string][]byte{"k": []byte("first"), "other": []byte("o")}}
	if _, err := l.Commit(t.Context(), create); err != nil {
		t.Fatal(err)
	}
	create.Put = map[string][]byte{"k": []byte("second"), "new": []byte("n")}
	if _, err := l.Commit(t.Context(), create); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("second create: %v, want ErrConflict", err)
	}
	if diff := cmp.Diff(map[string]string{"k": "first", "other": "o"}, keys(t, l, "")); diff != "" {
		t.Errorf("a refused transaction wrote something: %s", diff)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	l := open(t, path)
	if _, err := store.Open(path); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("second opener: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte{0, 0, 0, 0, 0, 0, 0, 9})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(path); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("newer schema: %v", err)
	}
	junk := filepath.Join(dir, "junk.db")
	if err := os.WriteFile(junk, []byte(strings.Repeat("no database", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(junk); err == nil || !strings.Contains(err.Error(), junk) {
		t.Errorf("junk file: %v", err)
	}
}
