// Command bench measures fairway against what else there is on one machine, and prints a table. Each line of it has a
// ratio of two figures that were taken in the same run, in turn; docs/benchmarks.md says how, and how to read it.
//
// It makes a lab of Docker hosts in namespaces for itself, and takes it down however it ends. It judges nothing: a slow
// machine gives a table too, and what cannot be measured says so in its line.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// mostRounds is how many addresses there are for containers that are started one after the other.
const mostRounds = 200

// settings are the command line's.
type settings struct {
	rounds  int
	only    []string
	output  string
	program string // the fairway that is measured
	rootfs  string // what the lab's hosts run on; "" is the lab's own default
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Stdout)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case interrupted:
		_, _ = fmt.Fprintln(os.Stderr, "bench: interrupted")
		os.Exit(130) //nolint:forbidigo // this is main
	default:
		_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

// run is the program; a first word that names a helper makes it one of those that run inside of the lab.
func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) > 0 {
		if help, ok := helpers()[args[0]]; ok {
			return help(ctx, args[1:], os.Stdin, out)
		}
	}
	s, err := parse(args, os.Getenv)
	if err != nil {
		return err
	}
	b := newBench(s, os.Stderr)
	if err := b.run(ctx); err != nil {
		return err
	}
	if s.output == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(b.report())
	}
	_, err = io.WriteString(out, b.report().text())
	return err
}

// helper is a part of this program that runs elsewhere: in a container, on a host, in a namespace.
type helper func(ctx context.Context, args []string, in io.Reader, out io.Writer) error

func helpers() map[string]helper {
	return map[string]helper{"echo-server": echoServer, "echo-client": echoClient, "probe": probeAll, "kernel": measureKernel}
}

func parse(args []string, getenv func(string) string) (settings, error) {
	s := settings{program: getenv("FAIRWAY_TEST_BIN")}
	if s.program == "" {
		s.program = "bin/fairway"
	}
	if suites := strings.Split(getenv("FAIRWAY_TEST_ROOTFS"), ","); suites[0] != "" {
		s.rootfs = suites[len(suites)-1] // the newest engine, on all hosts
	}
	names := rowNames()
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&s.rounds, "rounds", 15, "how often each figure is taken; those of routes and memory, which vary little, at most 5 and 3 times")
	only := flags.String("only", "", "measure only these lines, separated by commas: "+strings.Join(names, " "))
	flags.StringVar(&s.output, "o", "text", "text or json")
	flags.StringVar(&s.program, "fairway", s.program, "the fairway to measure; FAIRWAY_TEST_BIN")
	flags.StringVar(&s.rootfs, "rootfs", s.rootfs, "suite or path that the hosts run on; the last one of FAIRWAY_TEST_ROOTFS")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if *only != "" {
		s.only = strings.Split(*only, ",")
	}
	var err error
	if s.program, err = filepath.Abs(s.program); err != nil {
		return s, fmt.Errorf("find fairway: %w", err)
	}
	return s, s.check(names, flags.Args())
}

func (s settings) check(names, rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("word %q: want flags only; -help lists them", rest[0])
	case s.rounds < 1 || s.rounds > mostRounds:
		return fmt.Errorf("-rounds %d: want 1 to %d", s.rounds, mostRounds)
	case s.output != "text" && s.output != "json":
		return fmt.Errorf("-o %q: want text or json", s.output)
	}
	for _, name := range s.only {
		if !slices.Contains(names, name) {
			return fmt.Errorf("-only %q: want one of %s", name, strings.Join(names, ", "))
		}
	}
	return nil
}

// bench is one run.
type bench struct {
	settings
	say     func(format string, args ...any) // progress
	rows    []*row
	machine machine
	began   time.Time
}

func newBench(s settings, progress io.Writer) *bench {
	b := &bench{settings: s, machine: thisMachine(), began: time.Now()}
	for _, r := range allRows() {
		if len(s.only) == 0 || slices.Contains(s.only, r.Name) {
			b.rows = append(b.rows, r)
		}
	}
	b.say = func(format string, args ...any) {
		_, _ = fmt.Fprintf(progress, "%4.0fs  "+format+"\n", append([]any{time.Since(b.began).Seconds()}, args...)...)
	}
	return b
}

// sayRound tells of every fifth round.
func (b *bench) sayRound(what string, round, rounds int) {
	if round%5 == 1 {
		b.say("%s, round %d of %d; load %s", what, round, rounds, loadAverage())
	}
}

// row is the line of a name; nil when it was not asked for. Its methods accept that.
func (b *bench) row(name string) *row {
	for _, r := range b.rows {
		if r.Name == name {
			return r
		}
	}
	return nil
}

func (b *bench) wants(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return b.row(n) != nil })
}

// fail notes why lines have no figures.
func (b *bench) fail(err error, names ...string) {
	for _, n := range names {
		b.row(n).fail(all, err)
	}
}

// run measures everything that was asked for. Its error is that of a run that was cut short; any other one is in the
// lines that it concerns.
func (b *bench) run(ctx context.Context) (err error) {
	if b.wants(kernelRows()...) {
		if err := b.kernel(ctx); err != nil {
			b.fail(err, kernelRows()...)
		}
	}
	if ctx.Err() == nil && b.wants(labRows()...) {
		err = b.inLab(ctx)
	}
	b.machine.LoadAfter = loadAverage()
	b.machine.Seconds = int(time.Since(b.began).Seconds())
	return errors.Join(ctx.Err(), err)
}

// inLab measures what needs Docker hosts. It fails only when the lab could not be taken down.
func (b *bench) inLab(ctx context.Context) (err error) {
	s, err := b.newSite(ctx)
	if err != nil {
		b.fail(err, labRows()...)
		return s.down()
	}
	defer func() { err = errors.Join(err, s.down()) }()
	for _, part := range []struct {
		measure func(context.Context, *site) error
		names   []string
	}{{b.traffic, trafficRows()}, {b.starts, startRows()}, {b.lives, lifeRows()}, {b.memory, memoryRows()}} {
		if ctx.Err() != nil || !b.wants(part.names...) {
			continue
		}
		if err := part.measure(ctx, s); err != nil {
			b.fail(err, part.names...)
		}
	}
	return nil
}
