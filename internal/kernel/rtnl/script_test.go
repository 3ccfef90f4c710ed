package rtnl_test

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"fairway/internal/kernel"
	"fairway/internal/kernel/rtnl"
	"fairway/internal/nettest"
)

// TestScripts runs testdata/*.txtar. Beside nettest's commands there are:
//
//	apply FILE     make the kernel agree with the state in the file, twice: the second time must touch nothing
//	once FILE      make the kernel agree with the state in the file
//	list           print what our tables hold
//	facts          print what is not ours
//	route-get IP   print which way a destination takes
//	sysctl KEY     print a sysctl
//	sandbox PATH MAC [addr PREFIX]... [neigh IP MAC]...  complete a sandbox and print it
//	plug PATH MAC LINK [addr PREFIX]... [gw IP]...       plug a link into a sandbox
func TestScripts(t *testing.T) {
	nettest.Require(t)
	testscript.Run(t, nettest.Script(testscript.Params{
		Dir: "testdata",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"apply":     command(scriptApply),
			"once":      command(scriptOnce),
			"list":      command(scriptList),
			"facts":     command(scriptFacts),
			"route-get": command(scriptRouteGet),
			"sysctl":    command(scriptSysctl),
			"sandbox":   command(scriptSandbox),
			"plug":      command(scriptPlug),
		},
	}))
}

// command opens a handle afresh for each command: what is ours is known by reading back alone.
func command(fn func(ts *testscript.TestScript, h *rtnl.Handle, out io.Writer, args []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		h, err := rtnl.Open(rtnl.Config{Namespace: nettest.ScriptNamespace(ts, nettest.Main).FD()})
		ts.Check(err)
		defer h.Close()
		err = fn(ts, h, ts.Stdout(), args)
		if err != nil {
			_, _ = fmt.Fprintln(ts.Stderr(), err)
		}
		if neg != (err != nil) {
			ts.Fatalf("error: %v", err)
		}
	}
}

func scriptApply(ts *testscript.TestScript, h *rtnl.Handle, _ io.Writer, args []string) error {
	s, err := parseState(ts.ReadFile(args[0]))
	ts.Check(err)
	if _, err := apply(context.Background(), h, s); err != nil {
		return err
	}
	n, err := apply(context.Background(), h, s)
	if err == nil && n != 0 {
		err = fmt.Errorf("applied again: %d objects touched", n)
	}
	return err
}

func scriptOnce(ts *testscript.TestScript, h *rtnl.Handle, _ io.Writer, args []string) error {
	s, err := parseState(ts.ReadFile(args[0]))
	ts.Check(err)
	_, err = apply(context.Background(), h, s)
	return err
}

func scriptList(_ *testscript.TestScript, h *rtnl.Handle, out io.Writer, _ []string) error {
	s, err := readState(context.Background(), h)
	_, _ = fmt.Fprint(out, s)
	return err
}

func scriptFacts(_ *testscript.TestScript, h *rtnl.Handle, out io.Writer, _ []string) error {
	f, err := h.Facts(context.Background())
	for _, l := range f.Links {
		_, _ = fmt.Fprintf(out, "link %s kind %s mtu %d up %t carrier %t addrs %v\n", l.Name, l.Kind, l.MTU, l.Up, l.Carrier, l.Addrs)
	}
	_, _ = fmt.Fprintf(out, "default4 %v %s\ndefault6 %v %s\n", f.Default4.Via, f.Default4.Link, f.Default6.Via, f.Default6.Link)
	return err
}

func scriptRouteGet(_ *testscript.TestScript, h *rtnl.Handle, out io.Writer, args []string) error {
	hop, src, err := h.RouteGet(context.Background(), netip.MustParseAddr(args[0]))
	_, _ = fmt.Fprintf(out, "via %v dev %s src %v\n", hop.Via, hop.Link, src)
	return err
}

func scriptSysctl(_ *testscript.TestScript, h *rtnl.Handle, out io.Writer, args []string) error {
	v, err := h.Sysctls().Read(context.Background(), args)
	for _, k := range args {
		_, _ = fmt.Fprintf(out, "%s = %q\n", k, v[k])
	}
	return err
}

func scriptSandbox(ts *testscript.TestScript, h *rtnl.Handle, out io.Writer, args []string) error {
	key, want, _ := sandboxArgs(ts, args)
	if err := h.Sandboxes().Set(context.Background(), key, want); err != nil {
		return err
	}
	have, err := h.Sandboxes().Read(context.Background(), []kernel.SandboxKey{key})
	if err == nil && !kernel.SandboxEqual(want, have[key]) {
		err = fmt.Errorf("want %v, have %v", want, have[key])
	}
	_, _ = fmt.Fprintf(out, "addrs %v neighs %v\n", have[key].Addrs, have[key].Neighs)
	return err
}

func scriptPlug(ts *testscript.TestScript, h *rtnl.Handle, _ io.Writer, args []string) error {
	key, want, gateways := sandboxArgs(ts, append(args[:2:2], args[3:]...))
	p := kernel.Plug{Addrs: want.Addrs, OnLink: gateways}
	for _, gw := range gateways {
		p.Routes = append(p.Routes, kernel.SandboxRoute{Dst: netip.PrefixFrom(gw, 0).Masked(), Via: gw})
	}
	return h.Plug(context.Background(), key, args[2], p)
}

func sandboxArgs(ts *testscript.TestScript, args []string) (key kernel.SandboxKey, want kernel.Sandbox, gateways []netip.Addr) {
	mac, err := kernel.ParseMAC(args[1])
	ts.Check(err)
	key = kernel.SandboxKey{Path: args[0], MAC: mac}
	for args = args[2:]; len(args) > 0; args = args[2:] {
		switch args[0] {
		case "addr":
			want.Addrs = append(want.Addrs, netip.MustParsePrefix(args[1]))
		case "gw":
			gateways = append(gateways, netip.MustParseAddr(args[1]))
		case "neigh":
			mac, err := kernel.ParseMAC(args[2])
			ts.Check(err)
			want.Neighs = append(want.Neighs, kernel.Neigh{IP: netip.MustParseAddr(args[1]), MAC: mac})
			args = args[1:]
		default:
			ts.Fatalf("unknown word %q", strings.Join(args, " "))
		}
	}
	return key, want, gateways
}
