package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/reconcile"
)

// memory is a table that also writes down what was done to it, and fails on chosen keys.
type memory struct {
	name  string
	has   map[string]int
	log   *[]string
	fails map[string]error
	lists int
}

func (m *memory) List(context.Context) (map[string]int, error) {
	m.lists++
	if err := m.fails["list"]; err != nil {
		return nil, err
	}
	return maps.Clone(m.has), nil
}

func (m *memory) Set(_ context.Context, k string, v int) error {
	*m.log = append(*m.log, fmt.Sprintf("%s set %s=%d", m.name, k, v))
	if err := m.fails[k]; err != nil {
		return err
	}
	m.has[k] = v
	return nil
}

func (m *memory) Delete(_ context.Context, k string) error {
	*m.log = append(*m.log, fmt.Sprintf("%s delete %s", m.name, k))
	if err := m.fails[k]; err != nil {
		return err
	}
	delete(m.has, k)
	return nil
}

func equal(a, b int) bool { return a == b }

func stage(m *memory, want, before map[string]int) *reconcile.Sync[string, int] {
	return &reconcile.Sync[string, int]{
		Name: m.name, Table: m, Desired: want, Before: before, Equal: equal,
		Text: func(k string) string { return k },
	}
}

func TestRunSetsForwardsDeletesBackwards(t *testing.T) {
	var log []string
	links := &memory{name: "link", has: map[string]int{"old": 1}, log: &log}
	routes := &memory{name: "route", has: map[string]int{"old": 1}, log: &log}
	reports := reconcile.Run(t.Context(), []reconcile.Stage{
		stage(links, map[string]int{"new": 2}, nil), stage(routes, map[string]int{"new": 2}, nil),
	})
	want := []string{"link set new=2", "route set new=2", "route delete old", "link delete old"}
	if diff := cmp.Diff(want, log); diff != "" {
		t.Error(diff)
	}
	for _, r := range reports {
		if r.Set != 1 || r.Deleted != 1 || r.Mended != 0 || r.Err() != nil {
			t.Errorf("report %+v", r)
		}
	}
	log = nil
	reconcile.Run(t.Context(), []reconcile.Stage{stage(links, map[string]int{"new": 2}, nil)})
	if len(log) != 0 {
		t.Errorf("a second pass did something: %v", log)
	}
}

func TestOneFailureStopsNoOther(t *testing.T) {
	var log []string
	broken := errors.New("broken")
	m := &memory{name: "link", has: map[string]int{}, log: &log, fails: map[string]error{"bad": broken}}
	blind := &memory{name: "addr", has: map[string]int{}, log: &log, fails: map[string]error{"list": broken}}
	reports := reconcile.Run(t.Context(), []reconcile.Stage{
		stage(m, map[string]int{"bad": 1, "good": 1}, nil), stage(blind, map[string]int{"x": 1}, nil),
	})
	if m.has["good"] != 1 || !errors.Is(reports[0].Failed["bad"], broken) || len(reports[0].Failed) != 1 {
		t.Errorf("has %v, report %+v", m.has, reports[0])
	}
	if !errors.Is(reports[1].Err(), broken) || reports[1].Name != "addr" {
		t.Errorf("unlisted stage: %+v", reports[1])
	}
}

func TestMendedIsWhatWasWantedBefore(t *testing.T) {
	var log []string
	m := &memory{name: "route", has: map[string]int{"a": 9}, log: &log}
	s := stage(m, map[string]int{"a": 1, "b": 1, "c": 2}, map[string]int{"a": 1, "b": 1, "c": 1})
	if r := reconcile.Run(t.Context(), []reconcile.Stage{s})[0]; r.Mended != 2 || r.Set != 3 {
		t.Errorf("report %+v, want two mended of three set", r)
	}
}

func TestKeepProtects(t *testing.T) {
	var log []string
	m := &memory{name: "route", has: map[string]int{"learned": 7, "gone": 1}, log: &log}
	s := stage(m, nil, nil)
	s.Keep = func(_ string, v int) bool { return v == 7 }
	reconcile.Run(t.Context(), []reconcile.Stage{s})
	if diff := cmp.Diff(map[string]int{"learned": 7}, m.has); diff != "" {
		t.Error(diff)
	}
}

func TestTrackedListsOnceUntilContradicted(t *testing.T) {
	var log []string
	m := &memory{name: "route", has: map[string]int{"a": 1}, log: &log}
	tr := reconcile.Track[string, int](m, equal)
	list := func() []string {
		t.Helper()
		have, err := tr.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return slices.Sorted(maps.Keys(have))
	}
	list()
	if err := tr.Set(t.Context(), "b", 2); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, list()); diff != "" || m.lists != 1 {
		t.Errorf("%d lists, %s", m.lists, diff)
	}
	steps := []struct {
		name    string
		change  reconcile.Change[string, int]
		foreign bool
	}{
		{"own set heard", reconcile.Change[string, int]{Key: "b", Val: 2}, false},
		{"absent one gone", reconcile.Change[string, int]{Key: "z", Deleted: true}, false},
		{"one of ours gone", reconcile.Change[string, int]{Key: "a", Deleted: true}, true},
	}
	for _, s := range steps {
		if got := tr.Observe(s.change); got != s.foreign {
			t.Errorf("%s: contradiction %v, want %v", s.name, got, s.foreign)
		}
	}
	delete(m.has, "a")
	if diff := cmp.Diff([]string{"b"}, list()); diff != "" || m.lists != 2 {
		t.Errorf("%d lists, %s", m.lists, diff)
	}
	for _, c := range []reconcile.Change[string, int]{{Key: "new", Val: 1}, {Key: "b", Val: 3}} {
		list()
		if !tr.Observe(c) {
			t.Errorf("%+v is no contradiction", c)
		}
	}
}

func TestTrackedForgetsAfterFailure(t *testing.T) {
	var log []string
	m := &memory{name: "route", has: map[string]int{}, log: &log, fails: map[string]error{"bad": errors.New("no")}}
	tr := reconcile.Track[string, int](m, equal)
	if _, err := tr.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	if tr.Set(t.Context(), "bad", 1) == nil {
		t.Fatal("no error")
	}
	if have, _ := tr.List(t.Context()); len(have) != 0 || m.lists != 2 {
		t.Errorf("after a failed set: %v, %d lists", have, m.lists)
	}
}

// An Example of one table's pass.
func Example() {
	var log []string
	routes := &memory{name: "route", has: map[string]int{"10.9.2.0/24": 1}, log: &log}
	reconcile.Run(context.Background(), []reconcile.Stage{stage(routes, map[string]int{"10.9.3.0/24": 1}, nil)})
	for _, l := range log {
		fmt.Println(l)
	}
	// Output:
	// route set 10.9.3.0/24=1
	// route delete 10.9.2.0/24
}
