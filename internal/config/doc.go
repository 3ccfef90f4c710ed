// Package config turns fairway.yaml, the FAIRWAY_* environment and the command
// line into one checked, typed Config, and says for each value where it came from.
//
// It is strict: an unknown key, a wrong type, a value out of its range or a key
// whose feature this version does not have is an error with its file, line and
// column, and all errors are reported at once. A Config that Load or Parse
// returned needs no further checking.
//
// It reads the config file and the password files it names, and nothing else: it
// does not look at the machine's links, addresses or host name.
package config
