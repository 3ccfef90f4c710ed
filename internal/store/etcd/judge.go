package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fairway/internal/store"
)

// impatient is a time so short that an answer that did not come in it says nothing about etcd.
const impatient = time.Second

// judge puts the outcome of a call that began at start into the store's words, and remembers since when etcd does not
// answer. The context is the caller's.
func (s *Store) judge(ctx context.Context, start time.Time, c *clientv3.Client, err error) error {
	switch {
	case unanswered(err) && !errors.Is(ctx.Err(), context.Canceled):
		if ctx.Err() != nil && time.Since(start) < impatient {
			return &store.UnreachableError{Where: s.Where(), Since: start, Cause: err}
		}
		return s.markDown(start, err)
	case unanswered(err):
		return ctx.Err()
	}
	if _, answer := errors.AsType[rpctypes.EtcdError](err); answer || c != nil {
		s.markUp()
	}
	return s.refused(c, err)
}

// refused puts an answer that is none into the store's words.
func (s *Store) refused(c *clientv3.Client, err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrAuthFailed), errors.Is(err, rpctypes.ErrInvalidAuthToken), errors.Is(err, rpctypes.ErrUserEmpty):
		if c != nil {
			s.forget(c)
		}
		return s.denied(err)
	case errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrUserNotFound):
		return s.denied(err)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%w (%s); compact and defragment it, then: etcdctl alarm disarm", err, s.Where())
	}
	return err
}

// denied says who is denied what, and what to do.
func (s *Store) denied(err error) error {
	who := "an agent without a user"
	switch {
	case s.cfg.User != "":
		who = fmt.Sprintf("user %q", s.cfg.User)
	case s.cfg.Cert != "":
		who = "the user that is the common name of " + s.cfg.Cert
	}
	hint := fmt.Sprintf("it needs a role that may read and write keys with the prefix %s", s.prefix)
	switch {
	case errors.Is(err, rpctypes.ErrAuthFailed):
		hint = fmt.Sprintf("name, or password in %s, is not the right one", s.cfg.PasswordFile)
	case s.cfg.User == "" && s.cfg.Cert == "":
		hint = "give store.etcd.user and passwordFile, or a client certificate"
	}
	return fmt.Errorf("%w to %s (%s): %w; %s", store.ErrDenied, who, s.Where(), err, hint)
}

// unanswered tells an etcd that is not there, or has no leader, from one that has answered.
func unanswered(err error) bool {
	if err == nil {
		return false
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	code := codes.OK
	if e, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		code = e.Code() // no leader, timed out: unavailable
	} else if st, ok := status.FromError(err); ok {
		code = st.Code()
	}
	return code == codes.Unavailable || code == codes.DeadlineExceeded || code == codes.Canceled
}

// markDown remembers since when etcd does not answer, and says so, with the reason as far as it is known.
func (s *Store) markDown(start time.Time, err error) *store.UnreachableError {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.broken != nil:
		err = s.broken
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("no answer in %v", time.Since(start).Round(100*time.Millisecond))
	}
	if s.down.IsZero() {
		s.down = start
		s.log.Warn("the store does not answer", slog.String("store", s.Where()), slog.Any("err", err))
	}
	return &store.UnreachableError{Where: s.Where(), Since: s.down, Cause: err}
}

// lastDown is since when etcd does not answer, or now.
func (s *Store) lastDown() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down.IsZero() {
		return time.Now()
	}
	return s.down
}

// markUp takes in that etcd has answered, if only with a refusal.
func (s *Store) markUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = nil
	if !s.down.IsZero() {
		s.log.Info("the store answers again", slog.String("store", s.Where()), slog.Duration("after", time.Since(s.down)))
		s.down = time.Time{}
	}
}
