package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// How long commands wait for the nodes to do what was recorded, and how often they ask.
const (
	clusterWait = 10 * time.Second
	clusterPoll = 100 * time.Millisecond
)

// progress is one line that is written over and over, on a terminal only.
type progress struct {
	w    io.Writer // nil: nobody looks
	last string
}

func progressFor(w io.Writer) *progress {
	if f, ok := w.(*os.File); !ok || !isTerminal(f) {
		w = nil
	}
	return &progress{w: w}
}

// say shows a text in place of the last one.
func (p *progress) say(text string) {
	if p.w == nil || text == p.last {
		return
	}
	p.last = text
	// What a person sees meanwhile is worth no error.
	_, _ = fmt.Fprintf(p.w, "\r%-*s\r", screen-1, cut(clean(text), screen-1))
	_, _ = fmt.Fprint(p.w, strings.TrimRight(cut(clean(text), screen-1), " "))
}

// end takes the line away.
func (p *progress) end() {
	if p.w != nil && p.last != "" {
		_, _ = fmt.Fprintf(p.w, "\r%*s\r", screen-1, "")
	}
}

// until asks again and again until done says so or the time is over; what done says else is shown as progress. It
// returns whether it was done.
func until(ctx context.Context, p *progress, limit time.Duration, done func(context.Context) (bool, string, error)) (bool, error) {
	defer p.end()
	over := time.NewTimer(limit)
	defer over.Stop()
	tick := time.NewTicker(clusterPoll)
	defer tick.Stop()
	for {
		ok, text, err := done(ctx)
		if ok || err != nil {
			return ok, err
		}
		p.say(text)
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-over.C:
			return false, nil
		case <-tick.C:
		}
	}
}
