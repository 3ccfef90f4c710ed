package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// container is one that runs on a host, with its place on one network.
type container struct {
	h      *host
	name   string
	pid    int // inside the host
	v4, v6 netip.Addr
	mac    string
}

func (c *container) String() string { return c.name + "@" + c.h.Name }

// addrs are the container's addresses, the IPv4 one first.
func (c *container) addrs() []netip.Addr {
	var list []netip.Addr
	for _, a := range []netip.Addr{c.v4, c.v6} {
		if a.IsValid() {
			list = append(list, a)
		}
	}
	return list
}

// run starts a container; args are flags of docker run, and --network is one of them.
func (h *host) run(name string, args ...string) *container {
	h.t.Helper()
	c, err := h.tryRun(name, args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// tryRun is run for goroutines.
func (h *host) tryRun(name string, args ...string) (*container, error) {
	words := append([]string{"docker", "run", "-d", "--name", name}, args...)
	if _, err := h.try(append(words, idle...)...); err != nil {
		return nil, err
	}
	return h.inspect(name)
}

// place is a container's place on a network, in the engine's words.
type place struct {
	IPAddress, GlobalIPv6Address, MacAddress, Gateway, EndpointID string
}

// places are the container's, by network.
func (h *host) places(name string) (pid int, list map[string]place, err error) {
	out, err := h.try("docker", "container", "inspect", name)
	if err != nil {
		return 0, nil, err
	}
	var all []struct {
		State           struct{ Pid int }
		NetworkSettings struct{ Networks map[string]place }
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 {
		return 0, nil, fmt.Errorf("%s: read docker inspect %s: %w: %s", h.Name, name, err, out)
	}
	return all[0].State.Pid, all[0].NetworkSettings.Networks, nil
}

// inspect finds a container that has one network; of several it takes any.
func (h *host) inspect(name string) (*container, error) {
	pid, list, err := h.places(name)
	if err != nil {
		return nil, err
	}
	if pid == 0 {
		return nil, fmt.Errorf("%s: container %s does not run", h.Name, name)
	}
	c := &container{h: h, name: name, pid: pid}
	for _, p := range list {
		c.v4, _ = netip.ParseAddr(p.IPAddress) // empty when it has none
		c.v6, _ = netip.ParseAddr(p.GlobalIPv6Address)
		c.mac = p.MacAddress
	}
	return c, nil
}

// net runs one of the host's tools in the container's network, which is quicker than docker exec.
func (c *container) net(args ...string) (string, error) {
	return c.h.try(append([]string{"nsenter", "-t", strconv.Itoa(c.pid), "-n"}, args...)...)
}

// mustNet is net for a command that has to succeed.
func (c *container) mustNet(args ...string) string {
	c.h.t.Helper()
	out, err := c.net(args...)
	if err != nil {
		c.h.t.Fatal(err)
	}
	return out
}

// ping sends one packet and waits up to a second.
func (c *container) ping(to netip.Addr) error {
	_, err := c.net("ping", "-n", "-c", "1", "-W", "1", to.String())
	return err
}

// reaches waits until the container reaches an address.
func (c *container) reaches(to netip.Addr) {
	c.h.t.Helper()
	eventually(c.h.t, 15*time.Second, func() error { return within(c.String(), c.ping(to)) })
}

// links are the container's links that are up, but for the loopback.
func (c *container) links() []ipLink {
	c.h.t.Helper()
	var all, up []ipLink
	if err := json.Unmarshal([]byte(c.mustNet("ip", "-json", "-details", "link", "show", "up")), &all); err != nil {
		c.h.t.Fatal(err)
	}
	for _, l := range all {
		if l.Name != "lo" && l.Name != "" {
			up = append(up, l)
		}
	}
	return up
}

// ipLink is a link as iproute2 tells it.
type ipLink struct {
	Name  string `json:"ifname"`
	MTU   int    `json:"mtu"`
	MAC   string `json:"address"`
	Alias string `json:"ifalias"`
}

// inside runs f on a thread that is in the container's network; sockets that f makes stay in it.
func (c *container) inside(f func() error) error {
	path := filepath.Join(c.h.Path("/proc"), strconv.Itoa(c.pid), "ns/net")
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := os.Open(path)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			_ = ns.Close() // entered or not
		}
		if err != nil {
			done <- fmt.Errorf("enter %s: %w", c, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// seenBy connects from c to another container over TCP, and returns the address that the other sees.
func (c *container) seenBy(other *container, at netip.Addr) (netip.Addr, error) {
	var l *net.TCPListener
	err := other.inside(func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(at, 8080)))
		return err
	})
	if err != nil {
		return netip.Addr{}, fmt.Errorf("listen in %s: %w", other, err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(c.h.ctx, 5*time.Second)
	defer cancel()
	err = c.inside(func() error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(at, 8080).String())
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		return netip.Addr{}, fmt.Errorf("connect from %s: %w", c, err)
	}
	if err := l.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return netip.Addr{}, err
	}
	conn, err := l.AcceptTCP()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("accept in %s: %w", other, err)
	}
	defer conn.Close()
	seen, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	return seen.Addr().Unmap(), err
}

// path are the addresses that traceroute shows on the way; "*" where nobody answered.
func (c *container) path(to netip.Addr) ([]string, error) {
	out, err := c.net("traceroute", "-n", "-q", "1", "-w", "1", "-m", "8", to.String())
	if err != nil {
		return nil, err
	}
	var list []string
	for _, line := range strings.Split(out, "\n")[1:] {
		if f := strings.Fields(line); len(f) > 1 {
			list = append(list, f[1])
		}
	}
	return list, nil
}

// capture prints the packets that come to the container and match a filter, until it has seen one with the text last in
// it. It closes ready once it listens.
func (c *container) capture(filter, last string, ready chan<- struct{}) string {
	ctx, cancel := context.WithTimeout(c.h.ctx, 20*time.Second)
	defer cancel()
	cmd := c.h.Command(ctx, "nsenter", "-t", strconv.Itoa(c.pid), "-n", "tcpdump", "-lnni", "eth0", filter)
	var out transcript
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		close(ready)
		return err.Error()
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	listening := false
	_ = patiently(20*time.Second, func() error {
		text := out.String()
		_, packets, found := strings.Cut(text, "listening on eth0")
		if found && !listening {
			listening = true
			close(ready)
		}
		if !strings.Contains(packets, last) {
			return errors.New("not yet")
		}
		return nil
	})
	if !listening {
		close(ready)
	}
	cancel()
	<-done
	return out.String()
}
