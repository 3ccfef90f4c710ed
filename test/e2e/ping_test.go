package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// pinger sends 100 packets a second or more from a container until it is stopped, for two minutes at most.
type pinger struct {
	name  string
	cmd   *exec.Cmd
	out   transcript
	start time.Time
	end   time.Time
	done  chan error
}

const (
	pingInterval = "0.005" // seconds; ping rounds up to the kernel's ticks, and 0.01 would be 16 ms at 250 Hz
	pingMost     = 24_000  // packets
)

// transcript is what a command printed so far.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write takes more of it.
func (t *transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(b)
}

// String is all of it.
func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// more waits until the pinger had so many further answers. That they do not come is for stop to tell.
func (p *pinger) more(n int) {
	answers := func() int { return strings.Count(p.out.String(), "icmp_seq=") }
	want := answers() + n
	limit := time.Duration(n)*20*time.Millisecond + 2*time.Second
	_ = patiently(limit, func() error {
		if answers() < want {
			return errors.New("not yet")
		}
		return nil
	})
}

// startPing starts a pinger. It is ended with the test.
func startPing(tb testing.TB, from *container, to netip.Addr) *pinger {
	tb.Helper()
	p := &pinger{name: fmt.Sprintf("%s to %s", from, to), start: time.Now(), done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(from.h.ctx))
	p.cmd = from.h.Command(ctx, "nsenter", "-t", strconv.Itoa(from.pid), "-n",
		"ping", "-n", "-i", pingInterval, "-c", strconv.Itoa(pingMost), "-W", "1", to.String())
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		cancel()
		tb.Fatalf("start ping: %v", err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	tb.Cleanup(cancel)
	return p
}

var (
	pingAnswer  = regexp.MustCompile(`(?m)^\d+ bytes from .* icmp_seq=(\d+)`)
	pingSummary = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`)
)

// stop ends the pinger and returns how many packets it sent, and the numbers of the ones that were lost.
func (p *pinger) stop() (sent int, lost []int, err error) {
	p.end = time.Now()
	// The group: nsenter waits for its child.
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT); err != nil && !errors.Is(err, syscall.ESRCH) {
		return 0, nil, fmt.Errorf("stop ping: %w", err)
	}
	select {
	case <-p.done: // its exit status tells of losses, which are counted here
	case <-time.After(10 * time.Second):
		return 0, nil, errors.New("ping does not stop")
	}
	out := p.out.String()
	sum := pingSummary.FindStringSubmatch(out)
	if sum == nil {
		return 0, nil, fmt.Errorf("ping %s has no summary: %s", p.name, out)
	}
	if sent, err = strconv.Atoi(sum[1]); err != nil {
		return 0, nil, err
	}
	answered := map[int]bool{}
	last := 0
	for _, m := range pingAnswer.FindAllStringSubmatch(out, -1) {
		seq, err := strconv.Atoi(m[1])
		if err != nil {
			return 0, nil, err
		}
		answered[seq], last = true, max(last, seq)
	}
	end := sent
	if last == sent-1 {
		end = last // the one that was on its way when it was stopped
	}
	for seq := 1; seq <= end; seq++ {
		if !answered[seq] {
			lost = append(lost, seq)
		}
	}
	return sent, lost, nil
}

// noLoss stops pingers and fails the test when one has lost a packet.
func noLoss(tb testing.TB, what string, list ...*pinger) {
	tb.Helper()
	for _, p := range list {
		sent, lost, err := p.stop()
		if err != nil {
			tb.Fatal(err)
		}
		if sent < 20 {
			tb.Errorf("ping %s sent only %d packets", p.name, sent)
		}
		if len(lost) > 0 {
			tb.Errorf("%s: ping %s lost %d of %d packets: %v\n%s", what, p.name, len(lost), sent, lost, complaints(p.out.String()))
		}
		tb.Logf("measured: %s: ping %s every %v: %d sent, %d lost", what, p.name,
			(p.end.Sub(p.start) / time.Duration(max(sent, 1))).Round(100*time.Microsecond), sent, len(lost))
	}
}

// complaints are a ping's lines that are no answers, the last few.
func complaints(out string) string {
	var list []string
	for line := range strings.Lines(out) {
		if !pingAnswer.MatchString(line) {
			list = append(list, line)
		}
	}
	return strings.Join(list[max(0, len(list)-10):], "")
}

// everyPair pings from each container to each other one, at each address.
func everyPair(tb testing.TB, list []*container) {
	tb.Helper()
	for _, from := range list {
		for _, to := range list {
			if from == to {
				continue
			}
			for _, a := range to.addrs() {
				from.reaches(a)
			}
		}
	}
}
