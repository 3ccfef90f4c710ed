package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"fairway/internal/api"
	"fairway/internal/lab"
	"fairway/internal/lab/rootfs"
)

// hearsay is how long news takes from host to host at most.
const hearsay = 5 * time.Second

// commandLimit is how long a command on a host may take; a docker run whose plugin is away takes a quarter of a minute.
const commandLimit = 90 * time.Second

// host is a host of the lab as one test sees it.
type host struct {
	*lab.Host
	t    *testing.T
	ctx  context.Context //nolint:containedctx // the test's
	logs map[string]int64
	// lasting are routes of ours that are there without any network: of a whole pool, to the router.
	lasting *regexp.Regexp
}

func newHost(t *testing.T, h *lab.Host) *host {
	t.Helper()
	n := &host{Host: h, t: t, ctx: t.Context(), logs: map[string]int64{}, lasting: regexp.MustCompile("^(" + pool4 + "|" + pool6 + ") via")}
	for _, service := range []string{"agent", "dockerd"} {
		n.logs[service] = fileSize(h.Log(service))
	}
	return n
}

func (h *host) String() string { return h.Name }

// in is the host as a subtest sees it, whose failures are the subtest's.
func (h *host) in(t *testing.T) *host {
	t.Helper()
	sub := *h
	sub.t, sub.ctx = t, t.Context()
	return &sub
}

// try runs a command on the host and returns what it prints, without the last line break. An error has what it says.
func (h *host) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(h.ctx, commandLimit)
	defer cancel()
	return output(h.Command(ctx, args...), h.Name, args)
}

func output(cmd *exec.Cmd, where string, args []string) (string, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	text := strings.TrimRight(string(out), "\n")
	if err != nil {
		return text, fmt.Errorf("%s: %s: %w: %s", where, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return text, nil
}

// must is try for a command that has to succeed.
func (h *host) must(args ...string) string {
	h.t.Helper()
	out, err := h.try(args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// docker runs the docker client.
func (h *host) docker(args ...string) string {
	h.t.Helper()
	return h.must(append([]string{"docker"}, args...)...)
}

// refused runs a command that has to fail, and returns what it says.
func (h *host) refused(args ...string) string {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.ctx, commandLimit)
	defer cancel()
	out, err := h.Command(ctx, args...).CombinedOutput()
	if err == nil {
		h.t.Fatalf("%s: %s: it should have been refused: %s", h.Name, strings.Join(args, " "), out)
	}
	return string(out)
}

// ip asks iproute2 for JSON.
func (h *host) ip(into any, args ...string) error {
	out, err := h.try(append([]string{"ip", "-json"}, args...)...)
	if err != nil {
		return err
	}
	if out == "" {
		out = "[]"
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("read ip %v: %w", args, err)
	}
	return nil
}

// ipRoute is a route as iproute2 tells it.
type ipRoute struct {
	Dst     string `json:"dst"`
	Gateway string `json:"gateway"`
	Dev     string `json:"dev"`
	Proto   string `json:"protocol"`
	Type    string `json:"type"`
	Metric  int    `json:"metric"`
}

// route returns the routes to exactly this prefix.
func (h *host) route(prefix string) ([]ipRoute, error) {
	family := "-4"
	if strings.Contains(prefix, ":") {
		family = "-6"
	}
	var list []ipRoute
	return list, h.ip(&list, family, "route", "show", "exact", prefix)
}

// hasRoute finds a route to exactly this prefix, or finds that there is none.
func (h *host) hasRoute(prefix string, want bool) func() error {
	return func() error {
		list, err := h.route(prefix)
		if err != nil {
			return err
		}
		if (len(list) > 0) != want {
			return fmt.Errorf("%s: routes to %s: %v, want one: %v", h.Name, prefix, list, want)
		}
		return nil
	}
}

// api asks the host's agent.
func (h *host) api() *api.Client { return api.NewClient(h.AgentSocket()) }

// status is the agent's; it has to answer.
func (h *host) status() api.Status {
	h.t.Helper()
	st, err := h.api().Status(h.ctx)
	if err != nil {
		h.t.Fatalf("%s: %v", h.Name, err)
	}
	return st
}

// healthy says what is wrong with the host by its agent's word.
func (h *host) healthy() error {
	st, err := h.api().Status(h.ctx)
	switch {
	case err != nil:
		return within(h.Name, err)
	case st.Bad():
		return fmt.Errorf("%s: ready %v %s, conditions %+v", h.Name, st.Ready, st.Reason, st.Conditions)
	case st.Fabric.PeersEstablished < st.Fabric.PeersConfigured:
		return fmt.Errorf("%s: peers %+v", h.Name, st.Fabric.Peers)
	}
	return nil
}

// createNetwork makes a network of our driver; without subnets of its own it gets the lab's pools.
func (h *host) createNetwork(name string, args ...string) error {
	words := []string{"docker", "network", "create", "-d", "fairway", "--ipam-driver", "fairway"}
	if !slices.Contains(args, "--subnet") {
		words = append(words, "--ipv6", "--subnet", pool4, "--subnet", pool6)
	}
	_, err := h.try(append(append(words, args...), name)...)
	return err
}

// fairway runs the command line on the host.
func (h *host) fairway(args ...string) string {
	h.t.Helper()
	return h.must(append([]string{"fairway"}, args...)...)
}

// exitCode runs a command that may fail, and returns what it exits with and all it says.
func (h *host) exitCode(args ...string) (int, string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.ctx, commandLimit)
	defer cancel()
	out, err := h.Command(ctx, args...).CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		h.t.Fatalf("%s: %s: %v", h.Name, strings.Join(args, " "), err)
	}
	if ended != nil {
		return ended.ExitCode(), string(out)
	}
	return 0, string(out)
}

// idle is what containers run that only have to be there.
var idle = []string{rootfs.ImageName, "sleep", "100000"}
