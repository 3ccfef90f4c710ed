package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// maxFile bounds what is read from a config file, in bytes.
const maxFile = 1 << 20

// Load reads the config file and puts the environment and the flags on top: a flag wins over
// a variable, a variable over the file, the file over the default.
//
// An empty path means $FAIRWAY_CONFIG in env, or else DefaultPath, which need not be there; any other
// file has to be. env is in the form of os.Environ; of it only FAIRWAY_* is looked at. The keys of
// flags are names of flags without dashes as FlagName makes them, or key paths. A wrong config gives Errors.
func Load(path string, env []string, flags map[string]string) (*Config, error) {
	if path == "" {
		path = lookupEnv(env, envPrefix+"CONFIG")
	}
	if path == "" {
		path = DefaultPath
	}
	data, err := readLimited(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) && path == DefaultPath {
		data, err = nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	return Parse(path, data, env, flags)
}

// Parse is Load of a file that is already read; name is what errors call it.
func Parse(name string, data []byte, env []string, flags map[string]string) (*Config, error) {
	c := Default()
	l := &loader{
		file:   name,
		config: c,
		root:   schema(c),
		given:  map[string]position{},
		bad:    map[string]bool{},
	}
	l.readFile(data)
	l.readEnv(env)
	l.readFlags(flags)
	l.derive()
	l.check()
	if len(l.errs) > 0 {
		sortErrors(l.errs)
		return nil, l.errs
	}
	c.origins = l.origins()
	return c, nil
}

func lookupEnv(env []string, name string) string {
	value := ""
	for _, e := range env {
		if k, v, ok := strings.Cut(e, "="); ok && k == name {
			value = v
		}
	}
	return value
}

// readLimited reads a regular file of at most limit bytes. Other files could block or never end.
func readLimited(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("read %s: is larger than %d bytes", path, limit)
	}
	return data, nil
}

// A loader fills one Config and collects what is wrong with it.
type loader struct {
	file   string
	config *Config
	root   []field
	given  map[string]position // key path -> where it was last given
	bad    map[string]bool     // key paths that have an error; their values mean nothing
	errs   Errors
}

// fail records an error of a key at the place where it was given, or else at the nearest place around it.
func (l *loader) fail(key, value, format string, args ...any) {
	l.failAt(l.nearest(key), key, value, format, args...)
}

func (l *loader) failAt(pos position, key, value, format string, args ...any) {
	l.bad[key] = true
	l.errs = append(l.errs, &Error{
		Where:  pos.where(),
		Key:    key,
		Value:  value,
		Reason: fmt.Sprintf(format, args...),
		pos:    pos,
	})
}

func (l *loader) nearest(key string) position {
	for key != "" {
		if pos, ok := l.given[key]; ok {
			return pos
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return position{name: l.file}
}

func (l *loader) isGiven(key string) bool {
	_, ok := l.given[key]
	return ok
}

// ok is true if none of the keys has an error.
func (l *loader) ok(keys ...string) bool {
	for _, k := range keys {
		if l.bad[k] {
			return false
		}
	}
	return true
}

// set stores the text of a scalar and records where it was given.
func (l *loader) set(pos position, key string, f *field, text string) {
	l.given[key] = pos
	// What a stronger source overrides is still checked, but it must not make the value bad.
	delete(l.bad, key)
	if err := f.set(text); err != nil {
		l.failAt(pos, key, quote(f.kind, text), "%s", err)
	}
}

// quote writes a value for an error message.
func quote(k kind, text string) string {
	const limit = 100
	if len(text) > limit {
		text = text[:limit] + "..."
	}
	if k == kindText || k == kindTexts {
		return strconv.Quote(text)
	}
	return strings.ToValidUTF8(text, "?")
}

// origins says where the effective values came from. What is derived from another
// key is as old as that key.
func (l *loader) origins() map[string]string {
	origins := make(map[string]string, len(l.given))
	for key, pos := range l.given {
		origins[key] = pos.origin()
	}
	for _, f := range bridgeFamilies(&l.config.DockerBridge) {
		pool, derived := l.given[f.pool]
		if _, _, subnet := f.values(); derived && subnet.IsValid() && !l.isGiven(f.subnet) {
			origins[f.subnet] = pool.origin()
		}
	}
	hold, ok := l.given["bgp.holdTime"]
	for i := range l.config.BGP.Peers {
		key := fmt.Sprintf("bgp.peers[%d].holdTime", i)
		if !l.isGiven(key) && ok {
			origins[key] = hold.origin()
		}
	}
	return origins
}
