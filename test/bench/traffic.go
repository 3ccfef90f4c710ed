package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// How long one figure is taken. Many short ones, in turn, are compared more fairly on a machine that is busy with other
// things than a few long ones.
const (
	streamTime = time.Second
	echoTime   = 500 * time.Millisecond
)

// traffic measures throughput and latency over all paths, in turn.
func (b *bench) traffic(ctx context.Context, s *site) error {
	b.say("starting servers and clients on four paths")
	s.open(ctx)
	for name, err := range s.failed {
		for _, line := range trafficRows() {
			b.row(line).fail(name, err)
		}
	}
	usable := map[string][]*path{} // by line
	for _, p := range s.paths {
		for _, line := range trafficRows() {
			if b.row(line) == nil {
				continue
			}
			if err := p.ready(ctx, line); err != nil {
				b.row(line).fail(p.name, err)
				continue
			}
			usable[line] = append(usable[line], p)
		}
	}
	b.machine.MTU = s.mtus(ctx)
	for round := 1; round <= b.rounds; round++ {
		b.sayRound("throughput and latency", round, b.rounds)
		for _, line := range []string{"tcp1", "tcp8", "rtt"} {
			b.crossings(ctx, line, round, usable)
		}
	}
	return ctx.Err()
}

// crossings measures one thing over all paths. Each round begins with another one, so that none is always the first.
func (b *bench) crossings(ctx context.Context, line string, round int, usable map[string][]*path) {
	echo := line == "rtt"
	list := usable[line]
	if echo && len(list) == 0 { // both come from the same round trips
		list = usable["rate"]
	}
	for i := range list {
		p := list[(i+round-1)%len(list)]
		if ctx.Err() != nil {
			return
		}
		if echo {
			e, err := p.echo(ctx, echoTime)
			for name, value := range map[string]float64{"rtt": e.Median, "rate": e.Rate} {
				b.note(name, p.name, round, value, err)
			}
			continue
		}
		bits, err := p.stream(ctx, line, "-t", strconv.Itoa(int(streamTime.Seconds())))
		b.note(line, p.name, round, bits/1e9, err)
	}
}

// note takes in a figure, or why there is none.
func (b *bench) note(line, who string, round int, value float64, err error) {
	if err != nil {
		b.row(line).fail(who, err)
		return
	}
	b.row(line).add(who, round, value)
}

// ready waits until the path carries what the line needs.
func (p *path) ready(ctx context.Context, line string) error {
	return soon(ctx, patience, func() error {
		if strings.HasPrefix(line, "tcp") {
			_, err := p.stream(ctx, line, "-n", "16K")
			return err
		}
		_, err := p.echo(ctx, 10*time.Millisecond)
		return err
	})
}

// stream sends with iperf3 from the near end to the far one, and returns what arrived, in bit/s.
//
// Both ends use cubic, which a namespace may choose with NET_ADMIN only, whatever the machine's default is.
func (p *path) stream(ctx context.Context, line string, args ...string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, streamTime+patience)
	defer cancel()
	words := append([]string{"iperf3", "-c", p.address, "-p", iperfPort, "-C", "cubic", "-J"}, args...)
	if line == "tcp8" {
		words = append(words, "-P", "8")
	}
	out, err := output(p.near(ctx, words...))
	var said struct {
		Error string
		End   struct {
			Received struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if jsonErr := json.Unmarshal([]byte(out), &said); jsonErr == nil && said.Error != "" {
		return 0, fmt.Errorf("iperf3 to %s: %s", p.address, said.Error)
	} else if err == nil {
		err = jsonErr
	}
	if err == nil && said.End.Received.Bits <= 0 {
		err = errors.New("nothing arrived")
	}
	if err != nil {
		return 0, fmt.Errorf("iperf3 to %s: %w", p.address, err)
	}
	return said.End.Received.Bits, nil
}

// echo sends one byte to the far end, waits until it comes back, and so on.
func (p *path) echo(ctx context.Context, d time.Duration) (echoes, error) {
	ctx, cancel := context.WithTimeout(ctx, d+patience)
	defer cancel()
	out, err := output(p.near(ctx, inside, "echo-client", p.address+":"+echoPort, d.String(), oneCore()))
	if err != nil {
		return echoes{}, fmt.Errorf("echo of %s: %w", p.address, err)
	}
	var e echoes
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		return e, fmt.Errorf("echo of %s: %w", p.address, err)
	}
	return e, nil
}

// mtus tells the MTU of each path.
func (s *site) mtus(ctx context.Context) string {
	var all []string
	for _, p := range s.paths {
		if mtu, err := output(p.near(ctx, "cat", "/sys/class/net/eth0/mtu")); err == nil {
			all = append(all, p.name+" "+mtu)
		}
	}
	return strings.Join(all, ", ")
}
