package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Times of a probe.
const (
	probeEvery = time.Millisecond
	probeLimit = 15 * time.Second
)

// probeAll reads addresses, a line each, and pings each one every millisecond until it answers for the first time. Then
// it writes the address and when that was (nanoseconds of the Unix time), or "-" when it never did.
func probeAll(ctx context.Context, _ []string, in io.Reader, out io.Writer) error {
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(ctx, "ip4:icmp", "0.0.0.0")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		addr, err := netip.ParseAddr(lines.Text())
		if err != nil {
			return err
		}
		at, err := firstAnswer(ctx, conn, addr)
		when := "-"
		if err == nil {
			when = strconv.FormatInt(at.UnixNano(), 10)
		} else if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if _, err := fmt.Fprintln(out, addr, when); err != nil {
			return err
		}
	}
	return nil
}

// firstAnswer pings until there is one.
func firstAnswer(ctx context.Context, conn net.PacketConn, addr netip.Addr) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	id := uint16(os.Getpid())
	go func() {
		tick := time.NewTicker(probeEvery)
		defer tick.Stop()
		to := &net.IPAddr{IP: addr.AsSlice()}
		for seq := uint16(0); ; seq++ {
			// As long as there is no route, sending fails.
			_, _ = conn.WriteTo(echoRequest(id, seq), to)
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	deadline, _ := ctx.Deadline()
	if err := conn.SetReadDeadline(deadline); err != nil {
		return time.Time{}, err
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		at := time.Now()
		if err != nil {
			return at, err
		}
		if from.String() == addr.String() && isEchoReply(buf[:n], id) {
			return at, nil
		}
	}
}

// echoRequest is an ICMP message of RFC 792: type 8, code 0, checksum, identifier, sequence number.
func echoRequest(id, seq uint16) []byte {
	m := []byte{8, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(m[4:], id)
	binary.BigEndian.PutUint16(m[6:], seq)
	sum := uint32(8)<<8 + uint32(id) + uint32(seq)
	sum = sum>>16 + sum&0xffff
	sum += sum >> 16
	binary.BigEndian.PutUint16(m[2:], ^uint16(sum))
	return m
}

func isEchoReply(m []byte, id uint16) bool {
	return len(m) >= 8 && m[0] == 0 && m[1] == 0 && binary.BigEndian.Uint16(m[4:]) == id
}

// prober is such a process at the other end of a path.
type prober struct {
	cancel  context.CancelFunc
	in      io.WriteCloser
	answers chan string
}

// startProbe starts one at the path's far end.
func startProbe(ctx context.Context, p *path) (*prober, error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := p.far(ctx, inside, "probe")
	lines, in, err := pipe(cmd)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start probe: %w", err)
	}
	pr := &prober{cancel: cancel, in: in, answers: lines}
	if said, err := pr.read(ctx, patience); err != nil || said != "ready" {
		cancel()
		return nil, fmt.Errorf("start probe: said %q: %w", said, errors.Join(err, errors.New("it did not get ready")))
	}
	return pr, nil
}

// pipe starts a command and gives its lines. The channel is closed when it ends; it ends with its context.
func pipe(cmd *exec.Cmd) (chan string, io.WriteCloser, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	lines := make(chan string, 16)
	go func() {
		defer close(lines)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			lines <- sc.Text()
		}
		_ = cmd.Wait() // its end is told by the channel
	}()
	return lines, in, nil
}

func (p *prober) read(ctx context.Context, limit time.Duration) (string, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case <-timer.C:
		return "", fmt.Errorf("no word within %s", limit)
	case said, ok := <-p.answers:
		if !ok {
			return "", errors.New("the probe has ended")
		}
		return said, nil
	}
}

// watch begins to ping an address.
func (p *prober) watch(addr netip.Addr) error {
	if _, err := fmt.Fprintln(p.in, addr); err != nil {
		return fmt.Errorf("ask the probe: %w", err)
	}
	return nil
}

// answered is when the address that is watched answered first.
func (p *prober) answered(ctx context.Context) (time.Time, error) {
	said, err := p.read(ctx, probeLimit+patience)
	if err != nil {
		return time.Time{}, err
	}
	addr, when, _ := strings.Cut(said, " ")
	ns, err := strconv.ParseInt(when, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("no answer of %s within %s", addr, probeLimit)
	}
	return time.Unix(0, ns), nil
}

// end ends the process.
func (p *prober) end() { p.cancel() }
