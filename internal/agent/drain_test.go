package agent

import (
	"path/filepath"
	"testing"
	"time"

	"fairway/internal/plan"
	"fairway/internal/store"
)

// A drain goes through its two phases, outlives the agent, and ends.
func TestDrain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	marks := 0
	open := func() (*drainKeeper, *store.Local) {
		local, err := store.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		d := &drainKeeper{mark: func() { marks++ }}
		if err := d.load(t.Context(), local); err != nil {
			t.Fatal(err)
		}
		return d, local
	}
	d, local := open()
	if state, _ := d.state(); d.phase() != plan.NotDrained || state != "" {
		t.Errorf("at first: %v, %q", d.phase(), state)
	}
	asked := drained{Since: time.Now().UTC().Truncate(time.Second).Add(-time.Hour), Refuse: true} // by a clock that is behind
	if err := d.take(t.Context(), asked); err != nil {
		t.Fatal(err)
	}
	if state, now := d.state(); d.phase() != plan.Draining || state != "draining" || now != asked || marks == 0 {
		t.Errorf("asked: %v, %q, %+v, %d marks", d.phase(), state, now, marks)
	}
	d.began = time.Now().Add(-2 * parting)
	if state, _ := d.state(); d.phase() != plan.Drained || state != "drained" {
		t.Errorf("later: %v, %q", d.phase(), state)
	}
	// Asked once more, it does not begin anew.
	if err := d.take(t.Context(), drained{Since: asked.Since}); err != nil {
		t.Fatal(err)
	}
	if d.phase() != plan.Drained {
		t.Errorf("asked again: %v", d.phase())
	}
	if err := local.Close(); err != nil {
		t.Fatal(err)
	}
	d, local = open()
	defer local.Close()
	if _, now := d.state(); d.phase() != plan.Drained || !now.Since.Equal(asked.Since) || now.Refuse {
		t.Errorf("after a restart: %v, %+v", d.phase(), now)
	}
	if err := d.take(t.Context(), drained{}); err != nil {
		t.Fatal(err)
	}
	if d.phase() != plan.NotDrained {
		t.Errorf("ended: %v", d.phase())
	}
}

// What the store has not heard of is kept so over restarts, until it has heard of that very request.
func TestDrainUntold(t *testing.T) {
	local, err := store.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	d := &drainKeeper{mark: func() {}, local: local}
	first := drained{Since: time.Now().UTC().Truncate(time.Second), Untold: true}
	second := drained{Untold: true} // taken back
	for _, asked := range []drained{first, second} {
		if err := d.take(t.Context(), asked); err != nil {
			t.Fatal(err)
		}
	}
	d = &drainKeeper{mark: func() {}}
	if err := d.load(t.Context(), local); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ told, want drained }{{first, second}, {second, drained{}}} {
		if err := d.told(t.Context(), tt.told); err != nil {
			t.Fatal(err)
		}
		if _, now := d.state(); now != tt.want {
			t.Errorf("told of %+v: %+v, want %+v", tt.told, now, tt.want)
		}
	}
}
