package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/store"
	"fairway/internal/store/etcd"
	"fairway/internal/store/etcdtest"
)

const patience = 60 * time.Second

// behaviours hold for every store.
var behaviours = []struct {
	name string
	run  func(*testing.T, store.Store)
}{
	{"a record is what was written", recordIsWhatWasWritten},
	{"a listing is sorted and of one prefix", listingIsSorted},
	{"a transaction is whole or not at all", transactionIsWhole},
	{"compares", compares},
	{"what changes nothing has no revision", nothingChanges},
	{"no key twice", noKeyTwice},
	{"a watch tells all, in order", watchTellsAll},
	{"a watch begins in the past", watchBeginsInThePast},
	{"a watch ends with its context", watchEnds},
	{"many writers of one record", manyWriters},
	{"a context that is over", contextIsOver},
}

func TestBehaviour(t *testing.T) {
	t.Run("local", func(t *testing.T) {
		for _, b := range behaviours {
			t.Run(b.name, func(t *testing.T) {
				l, err := store.Open(filepath.Join(t.TempDir(), "state.db"))
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				b.run(t, l)
			})
		}
	})
	t.Run("etcd", func(t *testing.T) {
		srv := etcdtest.Start(t)
		for i, b := range behaviours {
			t.Run(b.name, func(t *testing.T) {
				b.run(t, open(t, etcd.Config{Endpoints: []string{srv.Endpoint()}, Prefix: fmt.Sprint("/test", i)}))
			})
		}
	})
}

// open opens a store that is closed as the test ends.
func open(t *testing.T, cfg etcd.Config) *etcd.Store {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = "/fairway"
	}
	s, err := etcd.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func put(kv ...string) store.Txn {
	t := store.Txn{Put: map[string][]byte{}}
	for i := 0; i < len(kv); i += 2 {
		t.Put[kv[i]] = []byte(kv[i+1])
	}
	return t
}

func commit(t *testing.T, s store.Store, txn store.Txn) uint64 {
	t.Helper()
	rev, err := s.Commit(t.Context(), txn)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func list(t *testing.T, s store.Store, prefix string) store.Listing {
	t.Helper()
	l, err := s.List(t.Context(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// content is a listing as text.
func content(l store.Listing) string {
	var out []string
	for _, r := range l.Records {
		out = append(out, r.Key+"="+string(r.Value))
	}
	return strings.Join(out, " ")
}

func recordIsWhatWasWritten(t *testing.T, s store.Store) {
	t.Helper()
	if _, err := s.Get(t.Context(), "v1/a"); !errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), "v1/a") {
		t.Errorf("absent: %v", err)
	}
	first := commit(t, s, put("v1/a", "1", "v1/b", ""))
	second := commit(t, s, put("v1/a", "\x00\xff2"))
	if first == 0 || second <= first {
		t.Errorf("revisions %d, %d", first, second)
	}
	for key, want := range map[string]store.Record{
		"v1/a": {Key: "v1/a", Value: []byte("\x00\xff2"), Revision: second, Created: first},
		"v1/b": {Key: "v1/b", Revision: first, Created: first},
	} {
		got, err := s.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Value) == 0 {
			got.Value = nil
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	commit(t, s, store.Txn{Delete: []string{"v1/a"}})
	if _, err := s.Get(t.Context(), "v1/a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
	again := commit(t, s, put("v1/a", "3"))
	if r, err := s.Get(t.Context(), "v1/a"); err != nil || r.Created != again {
		t.Errorf("made again at %d: %+v, %v", again, r, err)
	}
}

func listingIsSorted(t *testing.T, s store.Store) {
	t.Helper()
	if l := list(t, s, ""); l.StoreID == "" || len(l.Records) != 0 {
		t.Errorf("empty: %+v", l)
	}
	rev := commit(t, s, put("b/2", "y", "b/10", "x", "b", "no", "ba", "no", "c/1", "no"))
	commit(t, s, store.Txn{Live: map[string][]byte{"b/3": []byte("z")}})
	l := list(t, s, "b/")
	if got, want := content(l), "b/10=x b/2=y b/3=z"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if l.Revision != rev+1 || l.StoreID != list(t, s, "zzz").StoreID {
		t.Errorf("revision %d after %d, store %q", l.Revision, rev, l.StoreID)
	}
}

func transactionIsWhole(t *testing.T, s store.Store) {
	t.Helper()
	commit(t, s, put("k", "first", "gone", "x"))
	txn := put("k", "second", "new", "n")
	txn.Delete = []string{"gone", "never"}
	txn.If = []store.Compare{{Key: "new"}, {Key: "gone"}}
	if _, err := s.Commit(t.Context(), txn); !errors.Is(err, store.ErrConflict) || !strings.Contains(err.Error(), "record gone:") {
		t.Errorf("%v, want a conflict at gone", err)
	}
	if got, want := content(list(t, s, "")), "gone=x k=first"; got != want {
		t.Errorf("a refused transaction wrote something: %s", got)
	}
	txn.If = txn.If[:1]
	commit(t, s, txn)
	if got, want := content(list(t, s, "")), "k=second new=n"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func compares(t *testing.T, s store.Store) {
	t.Helper()
	made := commit(t, s, put("dir/a", "1"))
	changed := commit(t, s, put("dir/a", "2"))
	for _, c := range []struct {
		cmp   store.Compare
		holds bool
	}{
		{store.Compare{Key: "dir/a", Revision: changed}, true},
		{store.Compare{Key: "dir/a", Revision: made}, false},
		{store.Compare{Key: "dir/a"}, false},
		{store.Compare{Key: "dir/b"}, true},
		{store.Compare{Key: "dir/b", Revision: made}, false},
		{store.Compare{Key: "dir/a", Created: made}, true},
		{store.Compare{Key: "dir/a", Created: changed}, false},
		{store.Compare{Key: "dir/b", Created: made}, false},
		{store.Compare{Key: "dir/", Under: true}, false},
		{store.Compare{Key: "dir/a", Under: true}, false},
		{store.Compare{Key: "dir/b", Under: true}, true},
		{store.Compare{Key: "dir/a/", Under: true}, true},
		{store.Compare{Key: "zzz", Under: true}, true},
	} {
		_, err := s.Commit(t.Context(), store.Txn{If: []store.Compare{{Key: "absent"}, c.cmp}, Put: map[string][]byte{"mark": nil}})
		switch {
		case c.holds && err != nil:
			t.Errorf("%+v: %v", c.cmp, err)
		case !c.holds && (!errors.Is(err, store.ErrConflict) || !strings.Contains(err.Error(), "record "+c.cmp.Key+":")):
			t.Errorf("%+v: %v, want a conflict that names it", c.cmp, err)
		}
	}
}

func nothingChanges(t *testing.T, s store.Store) {
	t.Helper()
	rev := commit(t, s, put("k", "v"))
	for _, txn := range []store.Txn{{}, {Delete: []string{"absent"}}, {If: []store.Compare{{Key: "k", Revision: rev}}}} {
		if got := commit(t, s, txn); got != rev {
			t.Errorf("%+v: revision %d, want still %d", txn, got, rev)
		}
	}
}

func noKeyTwice(t *testing.T, s store.Store) {
	t.Helper()
	for _, txn := range []store.Txn{
		{Put: map[string][]byte{"k": nil}, Delete: []string{"k"}},
		{Live: map[string][]byte{"k": nil}, Delete: []string{"k"}},
		{Put: map[string][]byte{"k": nil}, Live: map[string][]byte{"k": nil}},
	} {
		if _, err := s.Commit(t.Context(), txn); err == nil || !strings.Contains(err.Error(), "record k") {
			t.Errorf("%+v: %v", txn, err)
		}
	}
}

// watched reads events until there are as many as wanted, and returns them as text.
func watched(t *testing.T, ch <-chan store.Update, want int) []string {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	var out []string
	var last uint64
	for len(out) < want {
		select {
		case u, open := <-ch:
			if !open || u.Err != nil {
				t.Fatalf("the watch ended: %v; had %q", u.Err, out)
			}
			for _, e := range u.Events {
				if e.Revision < last || (!e.Deleted && e.Created > e.Revision) {
					t.Errorf("event %+v after revision %d", e, last)
				}
				last = e.Revision
				text := e.Key + "=" + string(e.Value)
				if e.Deleted {
					text = "-" + text
				}
				out = append(out, text)
			}
			if u.Revision != last {
				t.Errorf("update has revision %d, its last event %d", u.Revision, last)
			}
		case <-timeout.C:
			t.Fatalf("no more events, want %d; had %q", want, out)
		}
	}
	return out
}

func watchTellsAll(t *testing.T, s store.Store) {
	t.Helper()
	commit(t, s, put("w/old", "1"))
	ch := s.Watch(t.Context(), "w/", list(t, s, "w/").Revision)
	commit(t, s, put("w/a", "1", "other", "x", "w/b", "1"))
	commit(t, s, put("other", "y"))
	txn := put("w/a", "2")
	txn.Delete = []string{"w/old"}
	commit(t, s, txn)
	commit(t, s, store.Txn{Live: map[string][]byte{"w/l": []byte("1")}})
	want := []string{"w/a=1", "w/b=1", "-w/old=", "w/a=2", "w/l=1"}
	if diff := cmp.Diff(want, watched(t, ch, len(want))); diff != "" {
		t.Error(diff)
	}
}

func watchBeginsInThePast(t *testing.T, s store.Store) {
	t.Helper()
	first := commit(t, s, put("w/0", "x"))
	var want []string
	for i := range 50 {
		commit(t, s, put("w/1", fmt.Sprint(i)))
		want = append(want, fmt.Sprint("w/1=", i))
	}
	ch := s.Watch(t.Context(), "w/", first)
	another := s.Watch(t.Context(), "w/", first)
	commit(t, s, put("w/2", "now"))
	want = append(want, "w/2=now")
	for _, ch := range []<-chan store.Update{ch, another} {
		if diff := cmp.Diff(want, watched(t, ch, len(want))); diff != "" {
			t.Error(diff)
		}
	}
}

func watchEnds(t *testing.T, s store.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ch := s.Watch(ctx, "", list(t, s, "").Revision)
	unread := s.Watch(ctx, "", list(t, s, "").Revision)
	commit(t, s, put("k", "v"))
	watched(t, ch, 1)
	cancel()
	for _, ch := range []<-chan store.Update{ch, unread} {
		timeout := time.After(patience)
		for open := true; open; {
			select {
			case _, open = <-ch:
			case <-timeout:
				t.Fatal("the watch goes on")
			}
		}
	}
}

// manyWriters count one number up, each by what it has seen.
func manyWriters(t *testing.T, s store.Store) {
	t.Helper()
	const writers, times = 8, 10
	start := commit(t, s, put("n", "x"))
	errs := make(chan error, writers)
	for range writers {
		go func() {
			for done := 0; done < times; {
				r, err := s.Get(t.Context(), "n")
				if err != nil {
					errs <- err
					return
				}
				_, err = s.Commit(t.Context(), store.Txn{
					If:  []store.Compare{{Key: "n", Revision: r.Revision}},
					Put: map[string][]byte{"n": append(slices.Clone(r.Value), 'x')},
				})
				switch {
				case err == nil:
					done++
				case !errors.Is(err, store.ErrConflict):
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	r, err := s.Get(t.Context(), "n")
	if err != nil || len(r.Value) != 1+writers*times || r.Created != start {
		t.Errorf("%d of %d changes, made at %d of %d: %v", len(r.Value)-1, writers*times, r.Created, start, err)
	}
}

func contextIsOver(t *testing.T, s store.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, getErr := s.Get(ctx, "k")
	_, listErr := s.List(ctx, "k")
	_, commitErr := s.Commit(ctx, put("k", "v"))
	for _, err := range []error{getErr, listErr, commitErr} {
		if !errors.Is(err, context.Canceled) || errors.Is(err, store.ErrUnreachable) {
			t.Errorf("got %v, want that it was cancelled", err)
		}
	}
	for range s.Watch(ctx, "", 0) {
		t.Error("the watch says something")
	}
}
