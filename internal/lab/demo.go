package lab

import (
	"context"
	"errors"
	"io"
)

// Demo x.
func (l *Lab) Demo(ctx context.Context, w io.Writer) error { return errors.New("x") }
