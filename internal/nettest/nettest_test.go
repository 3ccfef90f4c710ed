package nettest_test

import (
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"fairway/internal/nettest"
)

func TestNamespacesAreApart(t *testing.T) {
	a, b := nettest.New(t), nettest.New(t)
	nettest.Veth(t, a, "left", b, "right")
	if out := a.IP("-o link"); !strings.Contains(out, "left") || strings.Contains(out, "right:") {
		t.Errorf("links of a:\n%s", out)
	}
	if out := b.IP("-o link"); !strings.Contains(out, "right") {
		t.Errorf("links of b:\n%s", out)
	}
	if out := a.IP("-o link show lo"); !strings.Contains(out, ",UP") {
		t.Errorf("loopback is not up: %s", out)
	}
	net, err := os.ReadFile("/proc/self/net/dev")
	if err != nil || strings.Contains(string(net), "left") {
		t.Errorf("the process is in a's namespace: %v\n%s", err, net)
	}
}

func TestBind(t *testing.T) {
	ns := nettest.New(t)
	path := t.TempDir() + "/netns/box"
	ns.Bind(path)
	other := nettest.New(t)
	if out, err := other.Command("nsenter", "--net="+path, "ip", "-o", "link"); err != nil || !strings.Contains(out, "lo") {
		t.Errorf("enter by path: %v %s", err, out)
	}
}

func TestCommandErrors(t *testing.T) {
	ns := nettest.New(t)
	if _, err := ns.Command("ip", "link", "show", "absent"); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("error %v does not say what ip said", err)
	}
}

func TestScript(t *testing.T) {
	nettest.Require(t)
	testscript.Run(t, nettest.Script(testscript.Params{Dir: "testdata"}))
}
