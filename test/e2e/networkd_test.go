package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// networkdScript runs systemd-networkd on a host that has no systemd, with the files of a directory; no udev either,
// which it sees by a read-only /sys.
const networkdScript = `set -e
mount -o remount,ro,bind /sys
mkdir -p /run/systemd /etc/systemd/network /etc/systemd/networkd.conf.d
mount -t tmpfs tmpfs /etc/systemd/network
mount -t tmpfs tmpfs /etc/systemd/networkd.conf.d
rm -rf /run/systemd/netif
install -d -o systemd-network -g systemd-network /run/systemd/netif
cp $1/*.network /etc/systemd/network/
cp $1/*.conf /etc/systemd/networkd.conf.d/ 2>/dev/null || true
exec /usr/lib/systemd/systemd-networkd`

// networkd runs it until f is content with what it says of the links, and returns what it took away meanwhile.
func (h *host) networkd(t *testing.T, files map[string]string, f func(links string) error) string {
	t.Helper()
	dir := filepath.Join("/etc/fairway", fmt.Sprintf("networkd-%d", len(files)))
	for name, content := range files {
		if err := os.MkdirAll(h.Path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(h.Path(dir), name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	var seen, said transcript
	monitor := h.Command(ctx, "ip", "-o", "monitor", "link", "address", "route")
	monitor.Stdout = &seen
	daemon := h.Command(ctx, "unshare", "--mount", "sh", "-c", networkdScript, "networkd", dir)
	daemon.Stdout, daemon.Stderr = &said, &said
	if err := monitor.Start(); err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	err := patiently(20*time.Second, func() error {
		links, err := h.try("networkctl", "list", "--no-pager", "--no-legend")
		if err != nil {
			return err
		}
		return f(links)
	})
	if err != nil {
		t.Errorf("%v\n%s", err, said.String())
	}
	if _, err := h.try("sh", "-c", "kill $(pidof systemd-networkd)"); err != nil {
		t.Error(err)
	}
	_ = daemon.Wait() // killed
	cancel()
	_ = monitor.Wait() // so is this one
	var gone []string
	for line := range strings.Lines(seen.String()) {
		if strings.HasPrefix(line, "Deleted") && (strings.Contains(line, "proto 200") || strings.Contains(line, " fw")) && !strings.Contains(line, "fe80") {
			gone = append(gone, line)
		}
	}
	return strings.Join(gone, "")
}

// systemd-networkd with the files of packaging/ leaves links, addresses and routes alone; without them it does not.
func TestNetworkd(t *testing.T) {
	s := newSite(t)
	var h *host
	for _, o := range s.hosts {
		if _, err := o.try("sh", "-c", "test -x /usr/lib/systemd/systemd-networkd && which networkctl pidof unshare"); err == nil {
			h = o
		}
	}
	if h == nil {
		cannot(t, "no root file system here has systemd-networkd")
	}
	all := s.bridged("net")
	files := map[string]string{
		"50-uplink.network": fmt.Sprintf("[Match]\nName=eth0\n[Network]\nDHCP=no\nIPv6AcceptRA=no\nLLMNR=no\nKeepConfiguration=static\nAddress=%s\nAddress=%s\n", h.NICs[0].Address4, h.NICs[0].Address6),
		// What matches everything, on some distributions; Docker's own bridges are not the matter here.
		"80-rest.network": "[Match]\nName=fw*\n[Network]\nDHCP=no\nIPv6AcceptRA=no\nLinkLocalAddressing=no\nLLMNR=no\n",
	}
	configured := func(links string) error {
		for line := range strings.Lines(links) {
			if f := strings.Fields(line); len(f) == 5 && f[1] == "eth0" && f[4] == "configured" {
				return nil
			}
		}
		return errors.New("eth0 is not configured yet: " + links)
	}
	bridge := h.bridgeOf(h.Block4.Addr().Next())
	takenOver := func(links string) error {
		for line := range strings.Lines(links) {
			if f := strings.Fields(line); len(f) == 5 && f[1] == bridge && f[4] == "unmanaged" {
				return errors.New("the bridge is not managed yet: " + links)
			}
		}
		return configured(links)
	}
	if gone := h.networkd(t, files, takenOver); gone == "" {
		t.Error("without our files systemd-networkd takes nothing away: this test shows nothing")
	} else {
		t.Logf("without our files systemd-networkd took away:\n%s", gone)
	}
	for c := range all {
		all[0][0].reaches(all[c][1].v4) // put back
	}
	for from, name := range map[string]string{
		"../../packaging/systemd/10-fairway.network": "10-fairway.network", "../../packaging/systemd/10-fairway-networkd.conf": "10-fairway.conf",
	} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(data)
	}
	if gone := h.networkd(t, files, configured); gone != "" {
		t.Errorf("systemd-networkd took away:\n%s", gone)
	}
}
