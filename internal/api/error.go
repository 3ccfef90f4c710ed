package api

import (
	"errors"
	"net/http"
)

// Error is an error with the HTTP status that goes with it: what a Backend returns through NotFound, Conflict,
// Invalid and Unavailable, and what a Client returns when the agent said no.
type Error struct {
	Status int // of HTTP
	Err    error
}

// Error is the text of the cause alone.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// NotFound marks an error about an object that is not there (status 404).
func NotFound(err error) error { return &Error{Status: http.StatusNotFound, Err: err} }

// Conflict marks a refusal because of what is there (status 409).
func Conflict(err error) error { return &Error{Status: http.StatusConflict, Err: err} }

// Invalid marks an error about what was asked (status 400).
func Invalid(err error) error { return &Error{Status: http.StatusBadRequest, Err: err} }

// Unavailable marks an error about something outside that does not answer, or that is not configured (status 503).
func Unavailable(err error) error { return &Error{Status: http.StatusServiceUnavailable, Err: err} }

// statusOf is the HTTP status that an error asks for.
func statusOf(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return http.StatusInternalServerError
}
