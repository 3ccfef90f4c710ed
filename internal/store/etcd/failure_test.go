package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fairway/internal/store"
	"fairway/internal/store/etcd"
	"fairway/internal/store/etcdtest"
)

// bound is how long a call may take when etcd is away, with some air for a busy machine.
const bound = 3*time.Second + 500*time.Millisecond

func eventually(t *testing.T, what string, cond func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		<-tick.C
	}
}

func answers(t *testing.T, s store.Store) {
	t.Helper()
	eventually(t, "etcd answers", func() error {
		_, err := s.List(t.Context(), "")
		return err
	})
}

// unreachable checks that a call fails in time, and with what an operator needs.
func unreachable(t *testing.T, s *etcd.Store, since time.Time, call func(context.Context) error) {
	t.Helper()
	start := time.Now()
	err := call(t.Context())
	if took := time.Since(start); took > bound {
		t.Errorf("failed after %v", took)
	}
	var u *store.UnreachableError
	if !errors.Is(err, store.ErrUnreachable) || !errors.As(err, &u) {
		t.Fatalf("%v, want that the store is unreachable", err)
	}
	if !strings.Contains(err.Error(), "the store ("+s.Where()+") is unreachable since 20") || u.Since.Before(since) || u.Since.After(time.Now()) {
		t.Errorf("error does not say where and since when: %v", err)
	}
	t.Log(err)
}

// end reads a watch up to the error that it ends with.
func end(t *testing.T, ch <-chan store.Update) error {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case u, open := <-ch:
			if !open {
				t.Fatal("the watch ended without an error")
			}
			if u.Err != nil {
				if _, open := <-ch; open {
					t.Error("the watch goes on after its error")
				}
				return u.Err
			}
		case <-timeout:
			t.Fatal("the watch goes on")
		}
	}
}

func TestUnreachableAtStart(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	srv.Stop()
	for _, user := range []string{"", "somebody"} {
		t.Run("user "+user, func(t *testing.T) {
			pass := filepath.Join(t.TempDir(), "password")
			if err := os.WriteFile(pass, []byte("secret\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			s := open(t, etcd.Config{Endpoints: []string{srv.Address()}, User: user, PasswordFile: pass})
			start := time.Now()
			unreachable(t, s, start, func(ctx context.Context) error { _, err := s.Get(ctx, "k"); return err })
			unreachable(t, s, start, func(ctx context.Context) error { _, err := s.Commit(ctx, put("k", "v")); return err })
			if err := end(t, s.Watch(t.Context(), "", 0)); !errors.Is(err, store.ErrUnreachable) {
				t.Errorf("watch: %v", err)
			}
			srv.Start()
			defer srv.Stop()
			answers(t, s) // this etcd knows no users and asks for none
			commit(t, s, put("k", "v"))
		})
	}
}

func TestKillAndRestart(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	s := open(t, etcd.Config{Endpoints: []string{srv.Endpoint()}, TTL: 4 * time.Second})
	rev := commit(t, s, put("k", "v"))
	commit(t, s, store.Txn{Live: map[string][]byte{"alive": []byte("1")}})
	watch := s.Watch(t.Context(), "", rev)
	watched(t, watch, 1)
	start := time.Now()
	srv.Kill()
	if err := end(t, watch); !errors.Is(err, store.ErrUnreachable) {
		t.Errorf("watch: %v", err)
	}
	unreachable(t, s, start, func(ctx context.Context) error { _, err := s.List(ctx, ""); return err })
	// Longer than the TTL: etcd forgives those that it could not hear.
	eventually(t, "the time of the lease is over", func() error {
		if time.Since(start) < 5*time.Second {
			return errors.New("not yet")
		}
		return nil
	})
	srv.Start()
	answers(t, s)
	watch = s.Watch(t.Context(), "alive", rev+1)
	quiet := time.NewTimer(6 * time.Second)
	defer quiet.Stop()
	select {
	case u := <-watch:
		t.Errorf("a live record changed though its owner lives: %+v", u)
	case <-quiet.C:
	}
	if got := content(list(t, s, "")); got != "alive=1 k=v" {
		t.Errorf("after kill -9: %s", got)
	}
}

// TestPartition freezes etcd: it neither answers nor refuses, and a write that it has in its queue it does later.
func TestPartition(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	s := open(t, etcd.Config{Endpoints: []string{srv.Endpoint()}})
	rev := commit(t, s, put("n", "before"))
	watch := s.Watch(t.Context(), "", rev)
	commit(t, s, put("seen", "1"))
	watched(t, watch, 1)
	start := time.Now()
	srv.Pause()
	late := store.Txn{If: []store.Compare{{Key: "n", Revision: rev}}, Put: map[string][]byte{"n": []byte("late")}}
	unreachable(t, s, start, func(ctx context.Context) error { _, err := s.Commit(ctx, late); return err })
	unreachable(t, s, start, func(ctx context.Context) error { _, err := s.Get(ctx, "n"); return err })
	if err := end(t, watch); !errors.Is(err, store.ErrUnreachable) {
		t.Errorf("watch: %v", err)
	}
	t.Logf("the watch ended %v after the partition began", time.Since(start))
	srv.Resume()
	answers(t, s)
	// Whether the write was applied is open. Made again with the same compare, it is applied once in any case.
	_, err := s.Commit(t.Context(), late)
	if err != nil && !errors.Is(err, store.ErrConflict) {
		t.Fatal(err)
	}
	r, getErr := s.Get(t.Context(), "n")
	if getErr != nil || string(r.Value) != "late" {
		t.Errorf("%+v, %v", r, getErr)
	}
	changes := s.Watch(t.Context(), "n", rev)
	if got := watched(t, changes, 1); got[0] != "n=late" {
		t.Error(got)
	}
	commit(t, s, put("n", "end"))
	if got := watched(t, changes, 1); got[0] != "n=end" {
		t.Errorf("the late write came a second time: %q", got)
	}
}

func TestCompaction(t *testing.T) {
	srv := etcdtest.Start(t)
	s := open(t, etcd.Config{Endpoints: []string{srv.Endpoint()}})
	first := commit(t, s, put("k", "1"))
	var last uint64
	for range 5 {
		last = commit(t, s, put("k", "2"))
	}
	srv.Ctl("compact", fmt.Sprint(last))
	if err := end(t, s.Watch(t.Context(), "", first)); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("watch: %v", err)
	}
	changes := s.Watch(t.Context(), "", list(t, s, "").Revision)
	commit(t, s, put("k", "3"))
	if got := watched(t, changes, 1); got[0] != "k=3" {
		t.Error(got)
	}
}

// TestReplaced puts an older copy, another store and an empty one in the place of etcd.
func TestReplaced(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		replace func(srv *etcdtest.Server, snapshot string)
		want    string
		same    bool // store ID
	}{
		{"older copy", func(srv *etcdtest.Server, snap string) { srv.Restore(snap, "") }, "k=1", true},
		{"older copy as a store of its own", func(srv *etcdtest.Server, snap string) { srv.Restore(snap, "other") }, "k=1", false},
		{"empty", func(srv *etcdtest.Server, _ string) { srv.Wipe() }, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := etcdtest.Start(t)
			s := open(t, etcd.Config{Endpoints: []string{srv.Endpoint()}, TTL: 2 * time.Second})
			commit(t, s, put("k", "1"))
			snap := srv.Snapshot()
			for range 10 {
				commit(t, s, put("k", "2"))
			}
			commit(t, s, store.Txn{Live: map[string][]byte{"alive": []byte("1")}})
			before := list(t, s, "")
			watch := s.Watch(t.Context(), "", before.Revision)
			c.replace(srv, snap)
			if err := end(t, watch); !errors.Is(err, store.ErrUnreachable) && !errors.Is(err, store.ErrReplaced) {
				t.Errorf("watch: %v", err)
			}
			answers(t, s)
			if err := end(t, s.Watch(t.Context(), "", before.Revision)); !errors.Is(err, store.ErrReplaced) {
				t.Errorf("watch of a revision of before: %v", err)
			}
			after := list(t, s, "")
			if got := content(after); got != c.want || after.Revision >= before.Revision || (after.StoreID == before.StoreID) != c.same {
				t.Errorf("%q at revision %d of store %s, before %d of %s", got, after.Revision, after.StoreID, before.Revision, before.StoreID)
			}
			// The lease is gone with the rest; a new one is made without being asked for.
			watch = s.Watch(t.Context(), "", after.Revision)
			commit(t, s, store.Txn{Live: map[string][]byte{"alive": []byte("2")}})
			if got := watched(t, watch, 1); got[0] != "alive=2" {
				t.Error(got)
			}
		})
	}
}

func TestLiveRecordEndsWithItsOwner(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	owner := open(t, etcd.Config{Endpoints: []string{srv.Endpoint()}, TTL: time.Second})
	other := open(t, etcd.Config{Endpoints: []string{srv.Endpoint()}})
	rev := commit(t, owner, store.Txn{Live: map[string][]byte{"alive/a": []byte("1")}, Put: map[string][]byte{"node/a": []byte("1")}})
	watch := other.Watch(t.Context(), "", rev)
	alive := time.NewTimer(3 * time.Second)
	defer alive.Stop()
	select {
	case u := <-watch:
		t.Fatalf("it lives, but: %+v", u)
	case <-alive.C:
	}
	if err := owner.Close(); err != nil {
		t.Fatal(err)
	}
	if got := watched(t, watch, 1); got[0] != "-alive/a=" {
		t.Error(got)
	}
	if got := content(list(t, other, "")); got != "node/a=1" {
		t.Error(got)
	}
}

// TestOneOfTwoEndpoints uses the member that is there, and goes on with it when the other one comes and goes.
func TestOneOfTwoEndpoints(t *testing.T) {
	t.Parallel()
	srv, other := etcdtest.Start(t), etcdtest.Start(t)
	other.Stop()
	s := open(t, etcd.Config{Endpoints: []string{other.Endpoint(), srv.Endpoint()}})
	for range 10 {
		start := time.Now()
		commit(t, s, put("k", "v"))
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
	}
}

// TestImpatientCaller gives up before etcd can answer: that says nothing about etcd.
func TestImpatientCaller(t *testing.T) {
	srv := etcdtest.Start(t)
	var logged strings.Builder
	s := open(t, etcd.Config{Endpoints: []string{srv.Endpoint()}, Log: slog.New(slog.NewTextHandler(&logged, nil))})
	answers(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), time.Microsecond)
	defer cancel()
	start := time.Now()
	_, err := s.Commit(ctx, put("k", "v"))
	if !errors.Is(err, store.ErrUnreachable) && !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	if err := s.Close(); err != nil || logged.Len() != 0 {
		t.Errorf("%v; logged:\n%s", err, logged.String())
	}
}

func TestStoreIsFull(t *testing.T) {
	srv := etcdtest.Start(t, "--quota-backend-bytes", "1000000")
	s := open(t, etcd.Config{Endpoints: []string{srv.Endpoint()}})
	txn := store.Txn{Put: map[string][]byte{"k": make([]byte, 100_000)}}
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		_, err = s.Commit(t.Context(), txn)
	}
	if err == nil || errors.Is(err, store.ErrUnreachable) || !strings.Contains(err.Error(), "etcdctl alarm disarm") {
		t.Errorf("%v", err)
	}
	list(t, s, "") // reading goes on
}

func TestTooLargeTransaction(t *testing.T) {
	srv := etcdtest.Start(t)
	s := open(t, etcd.Config{Endpoints: []string{srv.Endpoint()}})
	txn := store.Txn{Put: map[string][]byte{}}
	for i := range store.MaxTxn {
		key := fmt.Sprint("k", i)
		txn.Put[key] = []byte("v")
		txn.If = append(txn.If, store.Compare{Key: key})
	}
	commit(t, s, txn)
	txn.If, txn.Delete = nil, []string{"one more"}
	if _, err := s.Commit(t.Context(), txn); err == nil || !strings.Contains(err.Error(), "129 changes") {
		t.Errorf("%v", err)
	}
}
