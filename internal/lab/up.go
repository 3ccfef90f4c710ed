package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"fairway/internal/lab/etcd"
	"fairway/internal/lab/machine"
	"fairway/internal/lab/rootfs"
)

// Up makes a lab and returns when every engine and every agent answers. When it fails, or ctx ends first, it takes
// down what it made before it returns. A directory that has a lab already gives ErrExists.
func Up(ctx context.Context, o Options) (*Lab, error) {
	o, err := o.checked()
	if err != nil {
		return nil, err
	}
	if _, err := load(o.Dir); !errors.Is(err, ErrNoLab) {
		return nil, whatIsThere(o.Dir)
	}
	if err := preflight(ctx, o); err != nil {
		return nil, err
	}
	owner, err := machine.Self()
	if err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	l := &Lab{dir: o.Dir, opts: o, state: state{
		Boot: boot, Owner: owner, Created: time.Now(), Topology: o.Topology, Group: groupName(o.Dir),
		Binary: o.Binary, Agents: !o.NoAgent, Planned: o.Hosts, Daemon: o.DaemonJSON, IPForward: o.IPForward, Disk: o.Disk,
		Store: o.Store, Fabric: o.Fabric,
	}}
	if err := claim(o.Dir, l.state); err != nil {
		if errors.Is(err, ErrExists) {
			return nil, whatIsThere(o.Dir)
		}
		return nil, err
	}
	if err := l.raise(ctx); err != nil {
		if ctx.Err() != nil { // what it happened to break off is of no interest
			err = fmt.Errorf("make lab: %w", ctx.Err())
		}
		o.Progress(Event{Subject: "lab", Step: "cleaning up"})
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		return nil, errors.Join(err, tearDown(clean, o.Dir, l.state))
	}
	return l, nil
}

// whatIsThere explains an ErrExists: what lab is in dir and what to do about it.
func whatIsThere(dir string) error {
	s, err := load(dir)
	if err != nil {
		return err
	}
	if s.beingMade() {
		return fmt.Errorf("%w: process %d is making it in %s", ErrExists, s.Owner.PID, dir)
	}
	sw, err := machine.Open(filepath.Join(dir, switchName))
	if s.Up && err == nil && s.sameBoot() && sw.Alive() {
		return fmt.Errorf("%w: it has been up in %s since %s; use it (fairway lab status), or take it down (fairway lab down)",
			ErrExists, dir, s.Created.Format(time.TimeOnly))
	}
	return fmt.Errorf("%w: what is left of one is in %s; clean up with: fairway lab down", ErrExists, dir)
}

// preflight finds what is missing before anything is made.
func preflight(ctx context.Context, o Options) error {
	for tool, pkg := range map[string]string{"ip": "iproute2", "nsenter": "util-linux"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("make lab: %w; install it with: apt-get install %s", err, pkg)
		}
	}
	if o.Store != "" {
		if err := etcd.Installed(); err != nil {
			return fmt.Errorf("make lab: %w", err)
		}
	}
	if o.NoAgent {
		return nil
	}
	if out, err := exec.CommandContext(ctx, o.Agent, "agent", "--help").CombinedOutput(); err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("make lab: %s cannot be an agent (%s); give another program, or make a lab without agents (--no-agent)",
			o.Agent, first)
	}
	return nil
}

// raise makes everything, in the order in which it depends on each other.
func (l *Lab) raise(ctx context.Context) error {
	trees, err := l.trees(ctx)
	if err != nil {
		return err
	}
	var infos []HostInfo
	for n := 1; n <= l.opts.Hosts; n++ {
		h := newHost(l.opts.Topology, n, l.opts.Hosts)
		t := trees[(n-1)%len(trees)]
		h.Rootfs, h.Tree = t.name, t.dir
		infos = append(infos, h)
	}
	if l.opts.Topology == TwoSegments {
		r := newRouter()
		r.Rootfs, r.Tree = trees[0].name, trees[0].dir
		infos = append(infos, r)
	}
	l.state.Hosts = infos
	if err := l.state.save(l.dir); err != nil {
		return err
	}
	if err := copyFile(l.opts.Agent, l.path("fairway")); err != nil {
		return err
	}
	if err := l.startSwitch(ctx); err != nil {
		return err
	}
	if l.opts.Store != "" {
		if err := l.raiseStore(ctx); err != nil {
			return fmt.Errorf("%s: %w", storeName, err)
		}
	}
	jobs := newJobs(ctx)
	for _, info := range infos {
		jobs.add(func(ctx context.Context) error {
			h, err := l.raiseHost(ctx, info)
			if err != nil {
				return fmt.Errorf("%s: %w", info.Name, err)
			}
			l.keep(h)
			return nil
		})
	}
	if err := jobs.wait(); err != nil {
		return err
	}
	l.state.Up = true
	return l.state.save(l.dir)
}

// tree is a root file system: what it was asked for by, and where it is.
type tree struct{ name, dir string }

// trees finds the root file systems and builds the ones that are missing. It also sees to the image, which comes
// from the first of them.
func (l *Lab) trees(ctx context.Context) ([]tree, error) {
	specs := l.opts.Rootfs
	if len(specs) == 0 {
		spec, err := defaultRootfs()
		if err != nil {
			return nil, err
		}
		specs = []string{spec}
	}
	cache := rootfs.Cache{Dir: l.opts.Cache, Mirror: l.opts.Mirror}
	var list []tree
	for _, spec := range specs {
		if strings.Contains(spec, "/") {
			dir, err := filepath.Abs(spec)
			if err == nil {
				err = hasEngine(dir)
			}
			if err != nil {
				return nil, fmt.Errorf("use root file system %s: %w", spec, err)
			}
			list = append(list, tree{name: spec, dir: dir})
			continue
		}
		if _, ok := cache.Lookup(spec); !ok {
			l.opts.Progress(Event{Subject: spec, Step: "building a root file system (once; it is kept in " + l.opts.Cache + ")"})
		}
		dir, err := cache.Build(ctx, spec, func(step string) { l.opts.Progress(Event{Subject: spec, Step: step}) })
		if err != nil {
			return nil, err
		}
		list = append(list, tree{name: spec, dir: dir})
	}
	image, err := cache.ImageFile(ctx, list[0].dir, imageKey(list[0]))
	if err != nil {
		return nil, err
	}
	l.state.Image = image
	return list, nil
}

// imageKey tells images of different trees apart. A tree of the cache never changes; another one may, so its time
// is in the key.
func imageKey(t tree) string {
	if !strings.Contains(t.name, "/") {
		return filepath.Base(t.dir)
	}
	key := groupName(t.dir)
	if st, err := os.Stat(filepath.Join(t.dir, "usr/bin")); err == nil {
		key += fmt.Sprintf("-%x", st.ModTime().Unix())
	}
	return "tree" + strings.TrimPrefix(key, "fairway-lab")
}

// defaultRootfs is this machine's own file system when it has an engine, else its suite.
func defaultRootfs() (string, error) {
	if hasEngine("/") == nil {
		return "/", nil
	}
	suite, err := rootfs.MachineSuite()
	if err != nil {
		return "", fmt.Errorf("choose a root file system: %w; name one with --rootfs", err)
	}
	return suite, nil
}

// hasEngine says what a tree lacks to run an engine.
func hasEngine(dir string) error {
	for _, name := range []string{"dockerd", "docker", "containerd", "runc"} {
		found := false
		for _, bin := range []string{"usr/bin", "usr/sbin", "usr/local/bin"} {
			st, err := os.Stat(filepath.Join(dir, bin, name))
			found = found || (err == nil && st.Mode().IsRegular())
		}
		if !found {
			return fmt.Errorf("%s is not in it", name)
		}
	}
	return nil
}
