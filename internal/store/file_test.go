package store_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"fairway/internal/store"
)

// TestOpenTakesOverSchema1 writes a file as the first version did: revision and value under each key.
func TestOpenTakesOverSchema1(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []store.Record{}
	err = db.Update(func(tx *bbolt.Tx) error {
		records, err := tx.CreateBucket([]byte("records"))
		if err != nil {
			return err
		}
		for i := range 500 { // more than a page
			r := store.Record{Key: fmt.Sprintf("ipam/%03d", i), Value: fmt.Appendf(nil, "value %d", i), Revision: uint64(i/2 + 1)}
			r.Created = r.Revision
			want = append(want, r)
			if err := records.Put([]byte(r.Key), append(binary.BigEndian.AppendUint64(nil, r.Revision), r.Value...)); err != nil {
				return err
			}
		}
		meta, err := tx.CreateBucket([]byte("meta"))
		if err != nil {
			return err
		}
		return errors.Join(records.SetSequence(300), meta.Put([]byte("schema"), binary.BigEndian.AppendUint64(nil, 1)))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"taken over", "opened again"} {
		l := open(t, path)
		got, err := l.List(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.Records); diff != "" || got.Revision != 300 {
			t.Errorf("%s: revision %d: %s", when, got.Revision, diff)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l := open(t, path)
	defer l.Close()
	txn := store.Txn{If: []store.Compare{{Key: "ipam/499", Revision: 250}}, Put: map[string][]byte{"ipam/499": []byte("new")}}
	if rev, err := l.Commit(t.Context(), txn); err != nil || rev != 301 {
		t.Errorf("change a record of before: revision %d, %v", rev, err)
	}
	if r, err := l.Get(t.Context(), "ipam/499"); err != nil || r.Created != 250 || r.Revision != 301 {
		t.Errorf("changed record: %+v, %v", r, err)
	}
}

func TestLiveRecordsGoWithTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	l := open(t, path)
	txns := []store.Txn{
		{Live: map[string][]byte{"a/live": []byte("1"), "a/kept": []byte("1"), "a/deleted": []byte("1")}, Put: map[string][]byte{"a/mine": []byte("1")}},
		{Put: map[string][]byte{"a/kept": []byte("2")}, Live: map[string][]byte{"a/mine": []byte("2")}, Delete: []string{"a/deleted"}},
	}
	for _, txn := range txns {
		if _, err := l.Commit(t.Context(), txn); err != nil {
			t.Fatal(err)
		}
	}
	was, err := l.List(t.Context(), "a/")
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	if len(was.Records) != 3 {
		t.Errorf("before: %+v", was.Records)
	}
	l = open(t, path)
	defer l.Close()
	if diff := cmp.Diff(map[string]string{"a/kept": "2"}, keys(t, l, "")); diff != "" {
		t.Error(diff)
	}
	is, err := l.List(t.Context(), "")
	if err != nil || is.Revision != was.Revision+1 || is.StoreID != was.StoreID || is.StoreID == "" {
		t.Errorf("revision %d after %d, store %q after %q: %v", is.Revision, was.Revision, is.StoreID, was.StoreID, err)
	}
	other := open(t, filepath.Join(t.TempDir(), "other.db"))
	defer other.Close()
	if l, err := other.List(t.Context(), ""); err != nil || l.StoreID == is.StoreID {
		t.Errorf("two files are one store %q: %v", l.StoreID, err)
	}
}

func TestWatchOfForgottenChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	l := open(t, path)
	var rev uint64
	value := map[string][]byte{}
	for i := range 1000 {
		value[fmt.Sprint("k", i)] = nil
	}
	first, err := l.Commit(t.Context(), store.Txn{Put: value})
	for range 9 {
		if err == nil {
			rev, err = l.Commit(t.Context(), store.Txn{Put: value})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if u := <-l.Watch(t.Context(), "", first); !errors.Is(u.Err, store.ErrCompacted) {
		t.Errorf("after revision %d of %d: %d events, %v", first, rev, len(u.Events), u.Err)
	}
	if u := <-l.Watch(t.Context(), "", rev-2); len(u.Events) != 2000 || u.Revision != rev || u.Err != nil {
		t.Errorf("after revision %d of %d: %d events up to %d, %v", rev-2, rev, len(u.Events), u.Revision, u.Err)
	}
	running := l.Watch(t.Context(), "", rev)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if u := <-running; u.Err == nil {
		t.Errorf("the store was closed, the watch says %+v", u)
	}
	l = open(t, path)
	defer l.Close()
	if u := <-l.Watch(t.Context(), "", rev-1); !errors.Is(u.Err, store.ErrCompacted) {
		t.Errorf("of before the file was opened: %+v", u)
	}
}
