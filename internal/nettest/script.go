package nettest

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// Main is the namespace in which a script begins.
const Main = "main"

type scriptKey struct{}

// scriptSpaces are a script's namespaces by name.
type scriptSpaces map[string]*Namespace

// Script adds to the parameters of testscript.Run: every script gets a namespace of its own, named "main", and these
// commands.
//
//	netns NAME       makes another namespace; $NAME is its path
//	ip ARGS          runs ip(8) in "main"
//	in NAME CMD ARGS runs a command in the namespace
//
// Output is matched with stdout, stderr and cmp as for exec. Parameters' own Setup runs afterwards; its and the
// commands' way to a namespace is ScriptNamespace.
func Script(p testscript.Params) testscript.Params {
	setup := p.Setup
	p.Setup = func(env *testscript.Env) error {
		tb, ok := env.T().(testing.TB)
		if !ok {
			return errors.New("the script's T is no testing.TB")
		}
		env.Values[scriptKey{}] = scriptSpaces{Main: New(tb)}
		if setup != nil {
			return setup(env)
		}
		return nil
	}
	cmds := map[string]func(ts *testscript.TestScript, neg bool, args []string){
		"netns": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 1 {
				ts.Fatalf("usage: netns NAME")
			}
			all, main := spaces(ts), ScriptNamespace(ts, Main)
			all[args[0]] = New(main.tb)
			ts.Setenv(args[0], all[args[0]].Path())
		},
		"ip": func(ts *testscript.TestScript, neg bool, args []string) {
			scriptCommand(ts, neg, Main, append([]string{"ip"}, args...))
		},
		"in": func(ts *testscript.TestScript, neg bool, args []string) {
			if len(args) < 2 {
				ts.Fatalf("usage: in NAME COMMAND [ARGUMENT]...")
			}
			scriptCommand(ts, neg, args[0], args[1:])
		},
	}
	maps.Copy(cmds, p.Cmds)
	p.Cmds = cmds
	return p
}

// ScriptNamespace is a script's namespace by name.
func ScriptNamespace(ts *testscript.TestScript, name string) *Namespace {
	ns := spaces(ts)[name]
	if ns == nil {
		ts.Fatalf("no namespace %q: make it with \"netns %s\"", name, name)
	}
	return ns
}

func spaces(ts *testscript.TestScript) scriptSpaces {
	all, ok := ts.Value(scriptKey{}).(scriptSpaces)
	if !ok {
		ts.Fatalf("the script was not set up by nettest.Script")
	}
	return all
}

func scriptCommand(ts *testscript.TestScript, neg bool, space string, args []string) {
	out, err := ScriptNamespace(ts, space).Command(args[0], args[1:]...)
	_, _ = fmt.Fprint(ts.Stdout(), out)
	if err != nil {
		_, _ = fmt.Fprintln(ts.Stderr(), err)
	}
	switch {
	case err != nil && !neg:
		ts.Fatalf("%v", err)
	case err == nil && neg:
		ts.Fatalf("%s: succeeded, which it should not", strings.Join(args, " "))
	}
}
