package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Event is one thing that happened to a network or a container.
type Event struct {
	Type       string            // "network" or "container"
	Action     string            // network: create, connect, disconnect, destroy; container: start, die, destroy, rename
	ID         string            // of the network or container
	Attributes map[string]string // network: name, type (its driver) and, of connect and disconnect, container (its ID)
	Time       time.Time
	Err        error // set in a stream's last event, when it ended otherwise than by the context or by the engine's stop
}

// Events follows networks and containers. When it returns, the engine has begun to send, so that what a listing asked for
// now does not show comes as an event. The channel is closed when the context ends or the engine goes away; what happens
// then until the next call is lost, so list anew after it. A since other than zero asks for what the engine remembers of
// the time from then on (its last 256 events). The channel must be read, or the context ended.
//
// Engines up to 26 send the disconnect of an explicit `network disconnect` twice.
func (c *Client) Events(ctx context.Context, since time.Time) (<-chan Event, error) {
	prefix, err := c.negotiate(ctx)
	if err != nil {
		return nil, err
	}
	query := filters(map[string][]string{
		"type":  {"network", "container"},
		"event": {"create", "connect", "disconnect", "start", "die", "destroy", "rename"},
	})
	if !since.IsZero() {
		query.Set("since", fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond()))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	begin := time.AfterFunc(requestTimeout, func() { cancel(errSlow()) })
	body, _, err := c.open(ctx, prefix+"/events", query)
	if !begin.Stop() && err == nil {
		err = errors.Join(c.wrap(ctx, prefix+"/events", errSlow()), body.Close())
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	out := make(chan Event, 64)
	go func() {
		defer close(out)
		defer cancel(nil)
		defer func() { _ = body.Close() }()
		if err := stream(ctx, body, out); err != nil {
			select {
			case out <- Event{Err: c.wrap(ctx, prefix+"/events", err)}:
			case <-ctx.Done():
			}
		}
	}()
	return out, nil
}

// stream passes events on until the stream or the context ends, which is no error.
func stream(ctx context.Context, body io.Reader, out chan<- Event) error {
	d := json.NewDecoder(body)
	for {
		var a struct {
			Type, Action string
			Actor        struct {
				ID         string
				Attributes map[string]string
			}
			TimeNano int64
		}
		if err := d.Decode(&a); err != nil {
			if ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = nil
			} else {
				err = fmt.Errorf("read event: %w", err)
			}
			return err
		}
		e := Event{Type: a.Type, Action: a.Action, ID: a.Actor.ID, Attributes: a.Actor.Attributes, Time: time.Unix(0, a.TimeNano)}
		select {
		case out <- e:
		case <-ctx.Done():
			return nil
		}
	}
}
