package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Stage is one table's part in a pass over several tables that depend on each other.
type Stage interface {
	// Compare lists what is there and finds what differs.
	Compare(ctx context.Context) error
	// Set creates and replaces what differs.
	Set(ctx context.Context)
	// Delete removes what is not wanted.
	Delete(ctx context.Context)
	// Report is what came of it, once the others have run.
	Report() Report
}

// Report is what a stage did.
type Report struct {
	Name    string
	Set     int              // objects created or replaced
	Deleted int              // objects removed
	Mended  int              // of these: objects that were right once and were changed by somebody else
	Failed  map[string]error // by the object's text
	Pending int              // objects that wait for something else to appear; no failure
}

// Err joins the failures of a report.
func (r Report) Err() error {
	errs := make([]error, 0, len(r.Failed))
	for k, err := range r.Failed {
		errs = append(errs, fmt.Errorf("%s %s: %w", r.Name, k, err))
	}
	return errors.Join(errs...)
}

// Run compares, sets in the order of the stages and deletes in the reverse one. A stage that cannot be compared fails
// as a whole, and the others still run.
func Run(ctx context.Context, stages []Stage) []Report {
	compared := make([]bool, len(stages))
	reports := make([]Report, len(stages))
	for i, s := range stages {
		if err := s.Compare(ctx); err != nil {
			reports[i] = Report{Name: s.Report().Name, Failed: map[string]error{"list": err}}
			continue
		}
		compared[i] = true
	}
	for i, s := range stages {
		if compared[i] {
			s.Set(ctx)
		}
	}
	for i, s := range slices.Backward(stages) {
		if compared[i] {
			s.Delete(ctx)
		}
	}
	for i, s := range stages {
		if compared[i] {
			reports[i] = s.Report()
		}
	}
	return reports
}

// Sync is the stage of a table that can be listed.
type Sync[K comparable, V any] struct {
	Name    string
	Table   Table[K, V]
	Desired map[K]V
	Equal   func(want, have V) bool
	// Before is what was desired in the pass before; what has to be set again without having changed was mended.
	Before map[K]V
	// Keep protects an object that is not desired from deletion; nil protects none.
	Keep func(key K, have V) bool
	// Text names a key in reports.
	Text func(K) string

	actual map[K]V
	set    map[K]V
	del    []K
	report Report
	failed map[K]error
}

// Made are the keys of what this pass created, as opposed to changed.
func (s *Sync[K, V]) Made() []K {
	var out []K
	for k := range s.set {
		_, was := s.actual[k]
		if _, bad := s.failed[k]; !was && !bad {
			out = append(out, k)
		}
	}
	return out
}

// Changed calls set for each key that this pass set, and deleted for each that it deleted.
func (s *Sync[K, V]) Changed(set, deleted func(K)) {
	for k := range s.set {
		if _, bad := s.failed[k]; !bad {
			set(k)
		}
	}
	for _, k := range s.del {
		if _, bad := s.failed[k]; !bad {
			deleted(k)
		}
	}
}

// Compare implements Stage.
func (s *Sync[K, V]) Compare(ctx context.Context) error {
	actual, err := s.Table.List(ctx)
	if err != nil {
		return err
	}
	s.actual, s.failed = actual, make(map[K]error)
	s.set, s.del = Diff(s.Desired, actual, s.Equal)
	if s.Keep != nil {
		kept := s.del[:0]
		for _, k := range s.del {
			if !s.Keep(k, actual[k]) {
				kept = append(kept, k)
			}
		}
		s.del = kept
	}
	return nil
}

// Set implements Stage.
func (s *Sync[K, V]) Set(ctx context.Context) {
	if len(s.set) == 0 {
		return
	}
	failed := setAll(ctx, s.Table, s.set)
	for k, v := range s.set {
		if err, bad := failed[k]; bad {
			s.failed[k] = err
			continue
		}
		s.report.Set++
		if was, ok := s.Before[k]; ok && s.Equal(v, was) {
			s.report.Mended++
		}
	}
}

// Delete implements Stage.
func (s *Sync[K, V]) Delete(ctx context.Context) {
	if len(s.del) == 0 {
		return
	}
	failed := deleteAll(ctx, s.Table, s.del)
	for _, k := range s.del {
		if err, bad := failed[k]; bad {
			s.failed[k] = err
			continue
		}
		s.report.Deleted++
	}
}

// Report implements Stage.
func (s *Sync[K, V]) Report() Report {
	s.report.Name = s.Name
	if len(s.failed) > 0 {
		s.report.Failed = make(map[string]error, len(s.failed))
		for k, err := range s.failed {
			s.report.Failed[s.Text(k)] = err
		}
	}
	return s.report
}

// Errors are the failures by key; nil when there are none.
func (s *Sync[K, V]) Errors() map[K]error { return s.failed }

// Facets are objects that can be looked at and set one by one but not listed, such as sysctls; they are never deleted.
type Facets[K comparable, V any] interface {
	// Read returns the present values of those keys that exist now.
	Read(ctx context.Context, keys []K) (map[K]V, error)
	Set(ctx context.Context, key K, val V) error
}

// Facade makes a table of facets, for one pass: List looks at the desired keys only.
func Facade[K comparable, V any](f Facets[K, V], desired map[K]V) Table[K, V] {
	return facade[K, V]{f: f, desired: desired}
}

type facade[K comparable, V any] struct {
	f       Facets[K, V]
	desired map[K]V
}

func (t facade[K, V]) List(ctx context.Context) (map[K]V, error) {
	keys := make([]K, 0, len(t.desired))
	for k := range t.desired {
		keys = append(keys, k)
	}
	return t.f.Read(ctx, keys)
}

func (t facade[K, V]) Set(ctx context.Context, key K, val V) error { return t.f.Set(ctx, key, val) }

// Delete does nothing: List never shows what is not desired.
func (t facade[K, V]) Delete(context.Context, K) error { return nil }
