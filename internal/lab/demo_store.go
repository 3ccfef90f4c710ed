package lab

import (
	"context"
	"errors"
	"syscall"
)

// laterContainer is the container of the demo that starts while the store is away.
const laterContainer = "demo-later"

// recordNetwork makes the demo's network once, for every host, unless it is there.
func (l *Lab) recordNetwork(ctx context.Context) error {
	h := l.Hosts()[0]
	if _, err := h.output(ctx, "docker", "network", "inspect", demoNetwork); err == nil {
		return nil
	}
	_, err := h.output(ctx, "fairway", "network", "create", demoNetwork, "--subnet", Pool4, "--subnet", Pool6)
	return err
}

// withoutStore kills the store, looks whether packets still pass and a container still starts, and starts the store
// again in any case.
func (l *Lab) withoutStore(ctx context.Context, containers []demoContainer, say func(string, ...any)) (err error) {
	near, far := containers[0], containers[len(containers)-1]
	say("\nNow the store is killed. What runs goes on, and %s starts a\ncontainer from the addresses that it holds:\n", near.host.Name)
	if err := l.store.Stop(ctx, syscall.SIGKILL); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, l.store.Start(context.WithoutCancel(ctx)))
	}()
	later, err := near.host.runDemo(ctx, laterContainer)
	if err != nil {
		return err
	}
	table := newCrossingTable([]demoContainer{near, far, later})
	say("%s", table.head())
	for _, pair := range [][2]demoContainer{{near, far}, {later, far}} {
		if pair[0].name == pair[1].name {
			continue
		}
		x, err := l.cross(ctx, pair[0], pair[1])
		if err != nil {
			return err
		}
		say("%s", table.row(x))
	}
	if _, err := near.host.output(ctx, "docker", "rm", "-f", laterContainer); err != nil {
		return err
	}
	say("\nThe store is started again; nothing else has to be.")
	return nil
}
