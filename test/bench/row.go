package main

import (
	"fmt"
	"slices"
)

// What is compared.
const (
	all         = "" // everything in a line
	ours        = "fairway"
	hostToHost  = "host to host"
	bridge      = "Docker bridge"
	overlay     = "Docker overlay"
	wholeRun    = "whole docker run"
	wholeStart  = "whole start"
	wholeRemove = "whole docker rm -f"
	ipBatch     = "ip -batch"
	ipShow      = "ip route show"
	noRoutes    = "without routes"
)

// unit is how figures of a line are written.
type unit string

const (
	gigabits  unit = "Gbit/s"
	perSecond unit = "/s"
	micros    unit = "us"
	millis    unit = "ms"
	megabytes unit = "MB" // 10^6 bytes
)

// sample is one figure, taken in a round from 1.
type sample struct {
	Round int     `json:"round"`
	Value float64 `json:"value"`
}

// series is all figures of one of those compared.
type series struct {
	Name    string
	Samples []sample
	Errs    []error // one for each round that gave no figure, or for all
}

// row is a line of the table: a figure of fairway's, and what it is compared with.
type row struct {
	Name    string // as in -only
	Title   string
	Unit    unit
	More    bool // more is better
	Fairway series
	Against []*series
}

func newRow(name, title string, u unit, against ...string) *row {
	r := &row{Name: name, Title: title, Unit: u, Fairway: series{Name: ours}}
	for _, a := range against {
		r.Against = append(r.Against, &series{Name: a})
	}
	return r
}

func (r *row) moreIsBetter() *row {
	r.More = true
	return r
}

// allRows are the table's lines in order. A name may have several lines after it, which are named name/what.
func allRows() []*row {
	paths := []string{hostToHost, bridge, overlay}
	return []*row{
		newRow("tcp1", "TCP, 1 stream", gigabits, paths...).moreIsBetter(),
		newRow("tcp8", "TCP, 8 streams", gigabits, paths...).moreIsBetter(),
		newRow("rate", "requests, 1 core", perSecond, paths...).moreIsBetter(),
		newRow("routes", "65,536 routes set", perSecond, ipBatch).moreIsBetter(),
		newRow("rtt", "request and response", micros, paths...),
		newRow("run", "docker run", millis, bridge),
		newRow("share", "of it, in fairway", millis, wholeRun),
		newRow("start", "start to reachable", millis, bridge),
		newRow("start32", "same, /32 of its own", millis, bridge),
		newRow("join", "Join to reachable", millis, wholeStart),
		newRow("join32", "same, /32 of its own", millis, wholeStart),
		newRow("leave", "Leave to withdrawn", millis, wholeRemove),
		newRow("resync", "65,536 routes resynced", millis, ipShow),
		newRow("memory", "agent, 10,000 routes", megabytes, noRoutes),
		newRow("peak", "its peak", megabytes, noRoutes),
	}
}

func rowNames() []string {
	var names []string
	for _, r := range allRows() {
		names = append(names, r.Name)
	}
	return names
}

// The lines that are measured together.
func kernelRows() []string  { return []string{"routes", "resync"} }
func trafficRows() []string { return []string{"tcp1", "tcp8", "rate", "rtt"} }
func startRows() []string   { return []string{"run", "share"} }
func lifeRows() []string    { return []string{"start", "start32", "join", "join32", "leave"} }
func memoryRows() []string  { return []string{"memory", "peak"} }

func labRows() []string {
	return slices.Concat(trafficRows(), startRows(), lifeRows(), memoryRows())
}

func (r *row) series(who string) *series {
	if who == ours {
		return &r.Fairway
	}
	for _, s := range r.Against {
		if s.Name == who {
			return s
		}
	}
	return nil
}

// add takes in a figure.
func (r *row) add(who string, round int, value float64) {
	if r == nil {
		return
	}
	if s := r.series(who); s != nil {
		s.Samples = append(s.Samples, sample{round, value})
	}
}

// fail takes in why there is no figure.
func (r *row) fail(who string, err error) {
	if r == nil {
		return
	}
	for _, s := range append([]*series{&r.Fairway}, r.Against...) {
		if who == all || who == s.Name {
			s.Errs = append(s.Errs, err)
		}
	}
}

// problem is why a series has no figures, or fewer than rounds; "" when it is complete.
func (s *series) problem() string {
	switch {
	case len(s.Errs) == 0 && len(s.Samples) == 0:
		return "nothing was measured"
	case len(s.Errs) == 0:
		return ""
	case len(s.Samples) == 0:
		return s.Errs[0].Error()
	}
	return fmt.Sprintf("%d of %d rounds gave no figure: %v", len(s.Errs), len(s.Errs)+len(s.Samples), s.Errs[0])
}

// values are the figures alone.
func (s *series) values() []float64 {
	var v []float64
	for _, x := range s.Samples {
		v = append(v, x.Value)
	}
	return v
}

// ratios divides fairway's figures by the other's of the same round.
func (r *row) ratios(other *series) []float64 {
	var out []float64
	for _, x := range r.Fairway.Samples {
		i := slices.IndexFunc(other.Samples, func(y sample) bool { return y.Round == x.Round })
		if i >= 0 && other.Samples[i].Value != 0 {
			out = append(out, x.Value/other.Samples[i].Value)
		}
	}
	return out
}

// median is the middle figure, or the mean of the two; 0 of none.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
