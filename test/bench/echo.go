package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"syscall"
	"time"
)

// echoes is what a client found.
type echoes struct {
	Median float64 `json:"median_us"`  // from sending a byte to having it back
	Rate   float64 `json:"per_second"` // round trips, one at a time
	Count  int     `json:"count"`
}

// echoServer sends every byte back that it gets, until the context ends. args are the address to listen on and a core.
func echoServer(ctx context.Context, args []string, _ io.Reader, _ io.Writer) error {
	if len(args) != 2 {
		return errors.New("echo-server: want an address and a core")
	}
	debug.SetGCPercent(-1) // nothing is allocated for a byte
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", args[0])
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return ctx.Err() // the listener was closed above
		}
		if err != nil {
			return err
		}
		f, err := blocking(conn)
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = f.Close() }()
			if err := pin(args[1]); err == nil { // else the client hears nothing more, and says so
				answerAll(int(f.Fd()))
			}
		}()
	}
}

// answerAll ends when the client does.
func answerAll(fd int) {
	buf := make([]byte, 1)
	for {
		n, err := syscall.Read(fd, buf)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		if _, err := syscall.Write(fd, buf); err != nil {
			return
		}
	}
}

// blocking gives the connection's descriptor without Go's poller, whose wake-ups would be measured as well. TCP_NODELAY
// is on, as Go has it.
func blocking(conn net.Conn) (*os.File, error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, fmt.Errorf("connection of type %T: want TCP", conn)
	}
	defer func() { _ = conn.Close() }() // the file is a duplicate
	f, err := tcp.File()
	if err != nil {
		return nil, err
	}
	if err := syscall.SetNonblock(int(f.Fd()), false); err != nil {
		return nil, errors.Join(fmt.Errorf("make descriptor blocking: %w", err), f.Close())
	}
	return f, nil
}

// warmUp is not counted: windows and caches settle.
const warmUp = 200 * time.Millisecond

// echoClient measures round trips. args are the server's address, for how long, and a core.
func echoClient(ctx context.Context, args []string, _ io.Reader, out io.Writer) error {
	if len(args) != 3 {
		return errors.New("echo-client: want an address, a time and a core")
	}
	d, err := time.ParseDuration(args[1])
	if err != nil {
		return fmt.Errorf("echo-client: %w", err)
	}
	dialer := net.Dialer{Timeout: 2 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", args[0])
	if err != nil {
		return err
	}
	f, err := blocking(conn)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := pin(args[2]); err != nil {
		return err
	}
	debug.SetGCPercent(-1)
	fd := int(f.Fd())
	if _, err := roundTrips(fd, min(warmUp, d), nil); err != nil {
		return err
	}
	took := make([]time.Duration, 0, 1<<20)
	start := time.Now()
	if took, err = roundTrips(fd, d, took); err != nil {
		return err
	}
	total := time.Since(start)
	slices.Sort(took)
	return json.NewEncoder(out).Encode(echoes{
		Median: float64(took[len(took)/2].Nanoseconds()) / 1000, Rate: float64(len(took)) / total.Seconds(), Count: len(took),
	})
}

// roundTrips makes one or more, for the given time, and appends how long each took.
func roundTrips(fd int, d time.Duration, took []time.Duration) ([]time.Duration, error) {
	buf := make([]byte, 1)
	for begin := time.Now(); ; {
		sent := time.Now()
		if _, err := syscall.Write(fd, buf); err != nil {
			return nil, fmt.Errorf("send: %w", err)
		}
		n, err := syscall.Read(fd, buf)
		for errors.Is(err, syscall.EINTR) {
			n, err = syscall.Read(fd, buf)
		}
		if err != nil {
			return nil, fmt.Errorf("receive: %w", err)
		}
		if n == 0 {
			return nil, errors.New("receive: the server has hung up")
		}
		now := time.Now()
		took = append(took, now.Sub(sent))
		if now.Sub(begin) >= d {
			return took, nil
		}
	}
}
