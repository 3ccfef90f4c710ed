package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"fairway/internal/kernel"
	"fairway/internal/kernel/rtnl"
	"fairway/internal/reconcile"
)

const (
	// manyRoutes is how many routes are put into the kernel at once.
	manyRoutes = 65536
	// kernelRounds is the most that this is measured.
	kernelRounds = 5
)

// kernelTimes are those of one round, in seconds.
type kernelTimes struct {
	Set    float64 `json:"set"`
	Batch  float64 `json:"batch"`
	Resync float64 `json:"resync"`
	Show   float64 `json:"show"`
}

// kernel measures routes, in a network namespace of its own.
func (b *bench) kernel(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("a network namespace needs root: run it with sudo")
	}
	rounds := min(b.rounds, kernelRounds)
	b.say("%d routes into the kernel of a namespace, %d rounds; load %s", manyRoutes, rounds, loadAverage())
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, "kernel", strconv.Itoa(rounds))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := output(cmd)
	if err != nil {
		return fmt.Errorf("routes in a namespace: %w", err)
	}
	for round, line := range strings.Split(out, "\n") {
		var t kernelTimes
		if err := json.Unmarshal([]byte(line), &t); err != nil {
			return fmt.Errorf("routes in a namespace: %w", err)
		}
		b.row("routes").add(ours, round+1, manyRoutes/t.Set)
		b.row("routes").add(ipBatch, round+1, manyRoutes/t.Batch)
		b.row("resync").add(ours, round+1, t.Resync*1000)
		b.row("resync").add(ipShow, round+1, t.Show*1000)
	}
	return nil
}

// measureKernel is that child. args are how many rounds; each writes a line.
func measureKernel(ctx context.Context, args []string, _ io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("kernel: want a number of rounds")
	}
	rounds, err := strconv.Atoi(args[0])
	if err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	if err := apart(); err != nil {
		return err
	}
	const setUp = "link set lo up\nlink add up0 type veth peer name up1\nlink set up0 up\nlink set up1 up\naddr add 192.0.2.1/24 dev up0\n"
	if err := ipText(ctx, setUp); err != nil {
		return err
	}
	h, err := rtnl.Open(rtnl.Config{})
	if err != nil {
		return err
	}
	defer h.Close()
	table := h.Routes()
	batch, ok := table.(reconcile.Batcher[kernel.RouteKey, kernel.Route])
	if !ok {
		return errors.New("the table of routes takes one at a time")
	}
	k := &kernelBench{table: table, batch: batch}
	k.fill()
	for round := range rounds + 1 { // the first one fills caches
		t, err := k.round(ctx, round%2 == 0)
		if err != nil {
			return err
		}
		if round == 0 {
			continue
		}
		if err := json.NewEncoder(out).Encode(t); err != nil {
			return err
		}
	}
	return nil
}

// apart makes sure that this is not the network namespace of whoever started it.
func apart() error {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", os.Getppid()))
	if err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	if own == theirs {
		return errors.New("kernel: this part of bench runs in a network namespace of its own only")
	}
	return nil
}

// kernelBench is a set of routes and its two ways into the kernel.
type kernelBench struct {
	table reconcile.Table[kernel.RouteKey, kernel.Route]
	batch reconcile.Batcher[kernel.RouteKey, kernel.Route]
	want  map[kernel.RouteKey]kernel.Route
	keys  []kernel.RouteKey
	text  string // the same for ip -batch
}

func (k *kernelBench) fill() {
	k.want = make(map[kernel.RouteKey]kernel.Route, manyRoutes)
	var text strings.Builder
	way := kernel.Route{Type: kernel.Unicast, NextHops: []kernel.NextHop{{Via: netip.AddrFrom4([4]byte{192, 0, 2, 2}), Link: "up0"}}}
	for i := range manyRoutes {
		key := kernel.RouteKey{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128, byte(i >> 8), byte(i)}), 32)}
		k.want[key] = way
		k.keys = append(k.keys, key)
		fmt.Fprintf(&text, "route add %s proto %d metric %d\n", kernel.RouteText(key, way), kernel.RouteProtocol, kernel.RouteMetric)
	}
	k.text = text.String()
}

// round sets all routes in both ways, and lists them in both.
func (k *kernelBench) round(ctx context.Context, batchFirst bool) (t kernelTimes, err error) {
	set := func() error { return k.timed(&t.Set, func() error { return first(k.batch.SetAll(ctx, k.want)) }) }
	batch := func() error { return k.timed(&t.Batch, func() error { return ipText(ctx, k.text) }) }
	ways := []func() error{set, batch}
	if batchFirst {
		ways = []func() error{batch, set}
	}
	for i, way := range ways {
		if err := way(); err != nil {
			return t, err
		}
		if i == 0 {
			if err := first(k.batch.DeleteAll(ctx, k.keys)); err != nil {
				return t, err
			}
		}
	}
	err = errors.Join(
		k.timed(&t.Resync, func() error { return k.resync(ctx) }),
		k.timed(&t.Show, func() error {
			return exec.CommandContext(ctx, "ip", "-4", "route", "show", "proto", strconv.Itoa(kernel.RouteProtocol)).Run()
		}))
	return t, errors.Join(err, first(k.batch.DeleteAll(ctx, k.keys)))
}

// resync is a pass over routes that are all as they should be.
func (k *kernelBench) resync(ctx context.Context) error {
	have, err := k.table.List(ctx)
	if err != nil {
		return err
	}
	set, del := reconcile.Diff(k.want, have, kernel.RouteEqual)
	if len(set)+len(del) > 0 {
		return fmt.Errorf("%d routes are missing and %d too many", len(set), len(del))
	}
	return nil
}

func (*kernelBench) timed(seconds *float64, f func() error) error {
	begin := time.Now()
	err := f()
	*seconds = time.Since(begin).Seconds()
	return err
}

// first is one of the failures.
func first(failed map[kernel.RouteKey]error) error {
	for key, err := range failed {
		return fmt.Errorf("route %s, and %d more: %w", key.Dst, len(failed)-1, err)
	}
	return nil
}

// ipText runs lines of ip(8).
func ipText(ctx context.Context, lines string) error {
	cmd := exec.CommandContext(ctx, "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(lines)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip -batch: %w: %.300s", err, bytes.TrimSpace(out))
	}
	return nil
}
