package bgp_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"fairway/internal/config"
	"fairway/internal/fabric"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// speaker is a small BGP client: it tells its prefixes and counts what it is told. Hundreds of them cost next to nothing,
// so that what is measured is the reflector.
type speaker struct {
	conn net.Conn

	mu    sync.Mutex
	heard map[netip.Prefix]netip.Addr // prefix -> next hop
	fault error                       // why the session ended
}

// dialSpeaker opens a session from an address with a node of AS 64512, tells the prefixes, and reads until the test ends.
func dialSpeaker(tb testing.TB, from, to netip.Addr, prefixes ...string) *speaker {
	tb.Helper()
	s := &speaker{heard: map[netip.Prefix]netip.Addr{}}
	caps := []packet.ParameterCapabilityInterface{packet.NewCapMultiProtocol(packet.RF_IPv4_UC), packet.NewCapFourOctetASNumber(64512)}
	open, err := packet.NewBGPOpenMessage(64512, 90, from, []packet.OptionParameterInterface{packet.NewOptionParameterCapability(caps)})
	if err != nil {
		tb.Fatal(err)
	}
	var nlri []packet.PathNLRI
	for _, p := range prefixes {
		n, err := packet.NewIPAddrPrefix(pfx(p))
		if err != nil {
			tb.Fatal(err)
		}
		nlri = append(nlri, packet.PathNLRI{NLRI: n})
	}
	hop, err := packet.NewPathAttributeNextHop(from)
	if err != nil {
		tb.Fatal(err)
	}
	attrs := []packet.PathAttributeInterface{
		packet.NewPathAttributeOrigin(packet.BGP_ORIGIN_ATTR_TYPE_IGP), packet.NewPathAttributeAsPath(nil), hop, packet.NewPathAttributeLocalPref(100),
	}
	// A node that has just taken up a peer may close its first connection.
	eventually(tb, "session of "+from.String(), func() error { return s.dial(tb.Context(), from, to, open) })
	tb.Cleanup(func() { s.conn.Close() })
	go s.read(packet.NewBGPUpdateMessage(nil, attrs, nlri), packet.NewBGPUpdateMessage(nil, nil, nil))
	return s
}

// dial opens the connection, and returns once the other's OPEN is there.
func (s *speaker) dial(ctx context.Context, from, to netip.Addr, open *packet.BGPMessage) error {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}, Timeout: patience}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(to.String(), "179"))
	if err != nil {
		return err
	}
	s.conn = conn
	for _, m := range []*packet.BGPMessage{open, packet.NewBGPKeepAliveMessage()} {
		text, err := m.Serialize()
		if err == nil {
			_, err = conn.Write(text)
		}
		if err != nil {
			conn.Close()
			return err
		}
	}
	m, err := s.next()
	if err != nil || m.Header.Type != packet.BGP_MSG_OPEN {
		conn.Close()
		return fmt.Errorf("want OPEN, have %+v: %w", m, err)
	}
	return nil
}

// read takes in messages until the connection ends. Its own routes go out once the session is up.
func (s *speaker) read(routes ...*packet.BGPMessage) {
	for {
		m, err := s.next()
		if err == nil && m.Header.Type == packet.BGP_MSG_KEEPALIVE {
			for _, r := range append(routes, m) {
				var text []byte
				if text, err = r.Serialize(); err == nil {
					_, err = s.conn.Write(text)
				}
			}
			routes = nil
		}
		s.mu.Lock()
		if err != nil {
			s.fault = err
			s.mu.Unlock()
			return
		}
		s.take(m)
		s.mu.Unlock()
	}
}

func (s *speaker) next() (*packet.BGPMessage, error) {
	head := make([]byte, packet.BGP_HEADER_LENGTH)
	if _, err := io.ReadFull(s.conn, head); err != nil {
		return nil, err
	}
	var h packet.BGPHeader
	if err := h.DecodeFromBytes(head); err != nil {
		return nil, err
	}
	body := make([]byte, int(h.Len)-packet.BGP_HEADER_LENGTH)
	if _, err := io.ReadFull(s.conn, body); err != nil {
		return nil, err
	}
	return packet.ParseBGPBody(&h, body)
}

func (s *speaker) take(m *packet.BGPMessage) {
	u, ok := m.Body.(*packet.BGPUpdate)
	if !ok {
		if n, is := m.Body.(*packet.BGPNotification); is {
			s.fault = fmt.Errorf("notification %d/%d", n.ErrorCode, n.ErrorSubcode)
		}
		return
	}
	var hop netip.Addr
	for _, a := range u.PathAttributes {
		if h, ok := a.(*packet.PathAttributeNextHop); ok {
			hop = h.Value
		}
	}
	for _, n := range u.WithdrawnRoutes {
		delete(s.heard, n.NLRI.(*packet.IPAddrPrefix).Prefix)
	}
	for _, n := range u.NLRI {
		s.heard[n.NLRI.(*packet.IPAddrPrefix).Prefix] = hop
	}
}

// has says whether it was told a number of prefixes, and the next hop of one of them.
func (s *speaker) has(n int, prefix string, hop netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		return s.fault
	}
	if got := s.heard[pfx(prefix)]; len(s.heard) != n || got != hop {
		return fmt.Errorf("%d prefixes, %s over %v; want %d, and over %v", len(s.heard), prefix, got, n, hop)
	}
	return nil
}

// A reflector with 150 clients of 4 blocks each: all of them come at once, as after its restart, and hear all of the others'
// routes; one more joins and leaves, and changes no other session.
func TestReflectorWithManyClients(t *testing.T) {
	if !isolated(t) {
		return
	}
	const clients, blocks = 150, 4
	other := newSpace(t)
	sh(t, "ip link add va type veth peer name vb netns %d; ip link set va up; ip addr add 10.77.2.1/16 dev va", other.pid)
	other.sh("ip link set vb up; ip addr add 10.77.0.1/16 dev vb")
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 1, byte(i)}) }
	block := func(i, j int) string {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(i), byte(j << 6)}), 26).String()
	}
	var lines strings.Builder
	set := settings{ASN: 64512, Node: adr("10.77.0.1"), Pools: pools, BGP: config.BGP{RouteReflector: true}}
	for i := range clients + 1 {
		fmt.Fprintf(&lines, "addr add %s/16 dev va\n", address(i+1))
		set.Mesh = append(set.Mesh, fabric.MeshPeer{
			Node: fmt.Sprintf("h%d", i), Client: true, Peer: config.Peer{Address: address(i + 1), Passive: true},
		})
	}
	sh(t, "ip -batch %s", write(t, t.TempDir(), "addrs", lines.String()))
	all := set
	set.Mesh = set.Mesh[:clients]
	r := other.start(set, "10.9.255.0/26")
	before := processRSS(t, r)
	prefixes := func(i int) []string {
		var own []string
		for j := range blocks {
			own = append(own, block(i, j))
		}
		return own
	}
	eventually(t, "reflector listens", func() error {
		if p := r.peers(); len(p) != clients {
			return fmt.Errorf("%d peers", len(p))
		}
		stranger := &net.TCPAddr{IP: net.IPv4(10, 77, 2, 1)}
		probe, err := (&net.Dialer{LocalAddr: stranger}).DialContext(t.Context(), "tcp", "10.77.0.1:179")
		if err == nil {
			probe.Close()
		}
		return err
	})
	start := time.Now()
	speakers := make([]*speaker, clients)
	for i := range speakers {
		speakers[i] = dialSpeaker(t, address(i+1), adr("10.77.0.1"), prefixes(i)...)
	}
	// Everybody hears the others' blocks and the reflector's own, each over the node that holds it.
	told := func(extra int) func() error {
		return func() error {
			for i, s := range speakers {
				next := (i + 1) % clients
				if err := s.has((clients-1+extra)*blocks+1, block(next, 1), address(next+1)); err != nil {
					return fmt.Errorf("client %d: %w", i, err)
				}
			}
			return nil
		}
	}
	within(t, time.Minute, "all are told", told(0))
	took := time.Since(start)
	used := processRSS(t, r)
	t.Logf("%d clients with %d blocks each: told after %v; the reflector's memory was %.0f MiB and is %.0f MiB", clients, blocks, took, before, used)
	if limit := 800.0; used > limit && !raceDetector {
		t.Errorf("the reflector has %.0f MiB, want %.0f at most", used, limit)
	}
	since := map[string]time.Time{}
	within(t, patience, "all are established", func() error { // the last sessions are noted some time after their routes
		for _, p := range r.peers() {
			if since[p.Name] = p.Since; p.State != "established" {
				return fmt.Errorf("session with %s is %s", p.Name, p.State)
			}
		}
		return nil
	})
	r.ask(request{Do: "update", Set: &all})
	late := dialSpeaker(t, address(clients+1), adr("10.77.0.1"), prefixes(clients)...)
	start = time.Now()
	within(t, patience, "one more", told(1))
	t.Logf("one more client: its blocks were told to all after %v", time.Since(start))
	late.conn.Close()
	r.ask(request{Do: "update", Set: &set})
	within(t, patience, "and gone", told(0))
	for _, p := range r.peers() {
		if p.Since != since[p.Name] {
			t.Errorf("the session with %s began anew: %+v", p.Name, p)
		}
	}
}

// processRSS is what a node's process holds of the machine's memory, in MiB.
func processRSS(tb testing.TB, r *remote) float64 {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	tb.Fatal("no VmRSS in the process's status")
	return 0
}
