// Package daemonjson changes single keys of Docker's daemon.json and leaves the rest of the file as it is, byte by byte:
// other keys and their order, indentation, line ends, the way in which numbers are written. It knows JSON and files; which
// keys are right for an engine is said by Keys.
//
// A file that is not what it seems to be is refused rather than repaired: invalid JSON, with line and column; a key that
// stands twice; anything but an object.
package daemonjson
