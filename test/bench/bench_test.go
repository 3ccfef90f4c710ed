package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func none(string) string { return "" }

func TestParse(t *testing.T) {
	env := map[string]string{"FAIRWAY_TEST_ROOTFS": "bookworm,forky", "FAIRWAY_TEST_BIN": "/x/fairway"}
	s, err := parse([]string{"-rounds", "3", "-only", "tcp1,run"}, func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	want := settings{rounds: 3, only: []string{"tcp1", "run"}, output: "text", program: "/x/fairway", rootfs: "forky"}
	if diff := cmp.Diff(want, s, cmp.AllowUnexported(settings{})); diff != "" {
		t.Error(diff)
	}
	for _, args := range [][]string{{"-rounds", "0"}, {"-rounds", "201"}, {"-only", "tcp2"}, {"-o", "yaml"}, {"more"}} {
		if _, err := parse(args, none); err == nil || !strings.Contains(err.Error(), "want") {
			t.Errorf("%v: %v, want an error that says what is allowed", args, err)
		}
	}
}

func TestGroupsHoldEveryLine(t *testing.T) {
	groups := slices.Sorted(slices.Values(append(labRows(), kernelRows()...)))
	if diff := cmp.Diff(slices.Sorted(slices.Values(rowNames())), groups); diff != "" {
		t.Error(diff)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 3}, 2.5}} {
		if got := median(c.of); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.of, got, c.want)
		}
	}
}

func TestRatiosPairRounds(t *testing.T) {
	r := newRow("x", "x", millis, bridge)
	r.add(ours, 1, 10)
	r.add(ours, 2, 30)
	r.add(ours, 4, 8)
	r.add(bridge, 2, 10)
	r.add(bridge, 3, 99)
	r.add(bridge, 4, 2)
	r.add("stranger", 1, 1) // not compared in this line
	if diff := cmp.Diff([]float64{3, 4}, r.ratios(r.Against[0])); diff != "" {
		t.Error(diff)
	}
	var absent *row // a line that was not asked for
	absent.add(ours, 1, 1)
	absent.fail(all, io.EOF)
}

// TestText has the longest figures, a line without any, and a reason that has no blanks to break it at.
func TestText(t *testing.T) {
	b := newBench(settings{rounds: 2}, io.Discard)
	b.machine.CPU, b.machine.Engine, b.machine.MTU = "A Processor With a Rather Long Name v4 @ 2.60GHz", "28.5.2", "fairway 1500, host to host 1500"
	largest := map[unit]float64{gigabits: 1234, perSecond: 12345678, micros: 1234567, millis: 1234567, megabytes: 123456}
	for _, r := range b.rows {
		for _, s := range append([]*series{&r.Fairway}, r.Against...) {
			switch {
			case r.Name == "tcp8" && s.Name == overlay:
				r.fail(s.Name, errors.New(strings.Repeat("long", 60)))
			case r.Name == "rtt":
			default:
				r.add(s.Name, 1, largest[r.Unit])
				r.fail(s.Name, errors.New("a reason"))
			}
		}
	}
	text := b.report().text()
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, want := range []string{"not measured", "Not complete: rtt (fairway), rtt (host to host)", "1 of 2 rounds gave no figure", "12,345,678 /s"} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
	for _, r := range b.rows {
		if !strings.Contains(text, r.Title) {
			t.Errorf("the table lacks %q", r.Title)
		}
	}
}

func TestJSON(t *testing.T) {
	b := newBench(settings{rounds: 2, only: []string{"resync"}}, io.Discard)
	b.row("resync").add(ours, 1, 2)
	b.row("resync").add(ipShow, 1, 4)
	data, err := json.Marshal(b.report().Lines)
	if err != nil {
		t.Fatal(err)
	}
	const want = `[{"name":"resync","title":"65,536 routes resynced","unit":"ms","better":"less",` +
		`"fairway":{"name":"fairway","median":2,"samples":[{"round":1,"value":2}]},` +
		`"against":[{"name":"ip route show","median":4,"samples":[{"round":1,"value":4}],"ratio":0.5,"ratio_low":0.5,"ratio_high":0.5}]}]`
	if diff := cmp.Diff(want, string(data)); diff != "" {
		t.Error(diff)
	}
}

// TestNotMeasured is a machine without a fairway to measure: each line says why, and the run does not fail.
func TestNotMeasured(t *testing.T) {
	b := newBench(settings{rounds: 1, only: []string{"tcp1", "run", "leave", "memory"}, program: filepath.Join(t.TempDir(), "absent")}, io.Discard)
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, l := range b.report().Lines {
		if l.Fairway.Median != nil || l.Fairway.Problem == "" {
			t.Errorf("%s: %+v, want a reason and no figure", l.Name, l.Fairway)
		}
	}
}

func TestEcho(t *testing.T) {
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- echoServer(ctx, []string{address, "0"}, nil, nil) }()
	var out bytes.Buffer
	if err := soon(t.Context(), patience, func() error {
		return echoClient(t.Context(), []string{address, "20ms", "0"}, nil, &out)
	}); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Errorf("the server ends with: %v", err)
	}
	var e echoes
	if err := json.Unmarshal(out.Bytes(), &e); err != nil {
		t.Fatal(err)
	}
	if e.Count < 1 || e.Median <= 0 || e.Rate <= 0 {
		t.Errorf("%+v, want figures", e)
	}
}

func TestEchoRequest(t *testing.T) {
	for _, id := range []uint16{0, 1, 0x7fff, 0xffff} {
		m := echoRequest(id, 0xfffe)
		var sum uint32 // RFC 1071: with its checksum a message adds up to all ones
		for i := 0; i < len(m); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(m[i:]))
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		if sum != 0xffff {
			t.Errorf("request %x adds up to %x, want ffff", m, sum)
		}
		if isEchoReply(m, id) {
			t.Errorf("request %x is taken for a reply", m)
		}
		m[0] = 0
		if !isEchoReply(m, id) || isEchoReply(m, id+1) || isEchoReply(m[:4], id) {
			t.Errorf("reply %x is not told apart", m)
		}
	}
}

func TestProbe(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("FAIRWAY_REQUIRE_NETNS") == "1" {
			t.Fatal("a raw socket needs root, and FAIRWAY_REQUIRE_NETNS=1 is set")
		}
		t.Skip("a raw socket needs root")
	}
	var out bytes.Buffer
	before := time.Now()
	if err := probeAll(t.Context(), nil, strings.NewReader("127.0.0.1\n127.0.0.2\n"), &out); err != nil {
		t.Fatal(err)
	}
	answers := make(chan string, 3)
	for line := range strings.Lines(out.String()) {
		answers <- strings.TrimSpace(line)
	}
	if said := <-answers; said != "ready" {
		t.Fatalf("it begins with %q", said)
	}
	p := &prober{answers: answers}
	for range 2 {
		at, err := p.answered(t.Context())
		if err != nil || at.Before(before) || at.After(time.Now()) {
			t.Errorf("answered at %s, %v; it was between %s and now", at, err, before)
		}
	}
}

func TestSumOf(t *testing.T) {
	const text = "# TYPE a_sum histogram\na_sum{method=\"x y\"} 0.5\na_sum{method=\"z\"} 1e-3\na_sum_of_others 7\na_summary 7\na_sum 2\n"
	if got, err := sumOf(strings.NewReader(text), "a_sum"); err != nil || got != 2.501 {
		t.Errorf("%v, %v, want 2.501", got, err)
	}
	if _, err := sumOf(strings.NewReader("a_sum{x=\"\"} many\n"), "a_sum"); err == nil {
		t.Error("a word is taken for a number")
	}
}

func TestAgentLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.log")
	w, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	l := newAgentLog(f)
	defer func() { _ = l.Close() }()
	write := func(text string) {
		t.Helper()
		if _, err := w.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	write("no JSON\n" + `{"time":"2026-01-02T03:04:05.000000006Z","op":"NetworkDriver.Join","duration":2500000}` + "\n" + `{"time":"2026`)
	c, err := l.call(t.Context(), "NetworkDriver.Join")
	if err != nil {
		t.Fatal(err)
	}
	want := driverCall{Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Op: "NetworkDriver.Join", Duration: 2500 * time.Microsecond}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := l.call(ctx, "NetworkDriver.Leave"); err == nil {
		t.Error("half a line is taken for a call")
	}
	write(`-01-02T03:04:06Z","op":"NetworkDriver.Leave","err":"it is not there"}` + "\n")
	if _, err := l.call(t.Context(), "NetworkDriver.Leave"); err == nil || !strings.Contains(err.Error(), "it is not there") {
		t.Errorf("%v, want what the agent said", err)
	}
}

func TestRouteLog(t *testing.T) {
	l := &routeLog{at: map[string]time.Time{}}
	lines := make(chan string, 3)
	lines <- "10.9.200.7 via 10.77.0.11 dev eth0 proto 200 metric 200 "
	lines <- "Deleted 10.9.200.8 via 10.77.0.11 dev eth0 proto 200 metric 200 "
	lines <- ""
	close(lines)
	l.follow(lines)
	if at, err := l.deleted(t.Context(), netip.MustParseAddr("10.9.200.8")); err != nil || at.IsZero() {
		t.Error(at, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if at, err := l.deleted(ctx, netip.MustParseAddr("10.9.200.7")); err == nil {
		t.Errorf("a new route is taken for one that went at %s", at)
	}
}

func TestAddressesDoNotMeet(t *testing.T) {
	seen := map[netip.Addr]bool{}
	for _, l := range lives() {
		for round := range mostRounds + 1 {
			a := l.address(round)
			if seen[a] {
				t.Fatalf("%s is used twice", a)
			}
			seen[a] = true
		}
	}
}

// TestKernelNotAtHome keeps 65,536 routes out of whoever's namespace this is.
func TestKernelNotAtHome(t *testing.T) {
	if err := measureKernel(t.Context(), []string{"1"}, nil, io.Discard); err == nil || !strings.Contains(err.Error(), "namespace of its own") {
		t.Errorf("%v, want a refusal", err)
	}
}

func TestWrap(t *testing.T) {
	got := wrap("a " + strings.Repeat("b", 100) + " c")
	want := "a\n  " + strings.Repeat("b", 78) + "\n  " + strings.Repeat("b", 22) + " c\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
