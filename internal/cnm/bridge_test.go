package cnm_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/cnm"
	"fairway/internal/kernel"
)

func TestSubnetMode(t *testing.T) {
	r := newRig(t)
	if err := r.network(t, "net1", "10.9.0.0/16", map[string]string{
		"mode": "subnet", "BRIDGENAME": "br-app", "bridgeMTU": "9000", "bridgehardwareaddr": "02-00-5e-00-53-01", "mtu": "1400",
	}); err != nil {
		t.Fatal(err)
	}
	e, err := r.endpoint(t, "net1", epID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if e.Addrs[0] != pfx("10.9.0.2/24") {
		t.Errorf("the container has %v, want the prefix length of the node's subnet", e.Addrs)
	}
	for range 2 {
		n := r.Snapshot().Networks[0]
		want := cnm.Bridge{Name: "br-app", MTU: 9000, MAC: kernel.MAC{2, 0, 0x5e, 0, 0x53, 1}}
		if n.Mode != cnm.PerNode || n.Bridge != want || n.MTU != 1400 || n.BridgeName() != "br-app" {
			t.Errorf("network %+v", n)
		}
		parts := n.Parts()
		if len(parts) != 1 || parts[0].Part != pfx("10.9.0.0/24") || parts[0].Gateway != ip("10.9.0.1") {
			t.Errorf("parts %+v", parts)
		}
		reply, err := r.Join(t.Context(), "net1", epID, "/run/docker/netns/1")
		if err != nil {
			t.Fatal(err)
		}
		// The gateway is on the container's subnet, so it needs no route.
		same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
		if diff := cmp.Diff(cnm.JoinReply{Link: "fvaabbccddeeff", Gateway4: ip("10.9.0.1")}, reply, same); diff != "" {
			t.Error(diff)
		}
		r.reopen(t)
	}
	if (cnm.Network{ID: "0123456789abcdef"}).BridgeName() != "fwb0123456789ab" {
		t.Error("a bridge without a name of its own is not named after its network")
	}
}

// On an internal network a container has a way to the other nodes' subnets and no default route.
func TestSubnetModeInternal(t *testing.T) {
	r := newRig(t)
	if err := r.network(t, "net1", "10.9.0.0/16", map[string]string{"mode": "subnet"}); err != nil {
		t.Fatal(err)
	}
	e, err := r.endpoint(t, "net1", epID, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := r.Snapshot().Networks[0]
	n.Internal = true
	reply := n.Reply(e)
	if reply.Gateway4.IsValid() || len(reply.OnLink) > 0 || len(reply.Routes) != 1 ||
		reply.Routes[0].Dst != pfx("10.9.0.0/16") || reply.Routes[0].Via != ip("10.9.0.1") {
		t.Errorf("reply %+v", reply)
	}
	n.Subnets[0].Prefix = n.Subnets[0].Part // one node has all of it
	if reply := n.Reply(e); len(reply.Routes) > 0 {
		t.Errorf("a route to what is on the link: %+v", reply)
	}
}

func TestSubnetModeRefused(t *testing.T) {
	for want, opts := range map[string]map[string]string{
		"1 to 15 bytes": {"bridgeName": "sixteen-byteslong"},
		"letters, digits, dots, dashes and underscores": {"bridgeName": "br/0"},
		"a letter or digit first":                       {"bridgeName": "-br0"},
		"for something else":                            {"bridgeName": "all"},
		"given twice":                                   {"bridgeName": "a", "BridgeName": "b"},
		"want bytes, from 68 to 65535":                  {"bridgeMTU": "67"},
		"want a unicast address":                        {"bridgeHardwareAddr": "01:00:5e:00:00:01"},
		"six hexadecimal bytes":                         {"bridgeHardwareAddr": "02:00"},
		"there is no range for all nodes":               {"staticRange": "10.9.3.0/24"},
		"has to be as large":                            {"bridgeMTU": "1400", "mtu": "1500"},
		"unknown option bridge=x":                       {"bridge": "x"},
	} {
		r := newRig(t)
		opts["mode"] = "subnet"
		err := r.network(t, "net1", "10.9.0.0/16", opts)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want %q in it", opts, err, want)
		}
		if n := len(r.Snapshot().Networks); n > 0 {
			t.Errorf("%v: half made", opts)
		}
	}
	r := newRig(t)
	if err := r.network(t, "net1", "10.9.0.0/16", map[string]string{"bridgeName": "br0"}); err == nil || !strings.Contains(err.Error(), "mode=subnet") {
		t.Errorf("a routed network with a bridge: %v", err)
	}
	if err := r.network(t, "net2", "10.8.0.0/16", map[string]string{"mode": "subnet", "bridgeName": "br0"}); err != nil {
		t.Fatal(err)
	}
	if err := r.network(t, "net3", "10.7.0.0/16", map[string]string{"mode": "subnet", "bridgeName": "br0"}); err == nil || !strings.Contains(err.Error(), "network net2 has a bridge of this name") {
		t.Errorf("two bridges of one name: %v", err)
	}
	r.links = map[string]string{"eth7": "device"}
	if err := r.network(t, "net4", "10.6.0.0/16", map[string]string{"mode": "subnet", "bridgeName": "eth7"}); err == nil || !strings.Contains(err.Error(), "a device that is not fairway's") {
		t.Errorf("a bridge with a stranger's name: %v", err)
	}
}
