package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

const (
	wantEndpoint = "host:port, or a URL such as https://10.77.0.250:2379"
	wantPrefixOf = `a path of keys, such as /fairway, that starts with "/" and does not end with one`
)

// parseEndpoint reads the place of a server: host:port, with http:// or https:// before it or without.
func parseEndpoint(s string) (string, error) {
	address := strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
	host, port, found := cutPort(address)
	number, err := strconv.ParseUint(port, 10, 16)
	if !found || err != nil || number == 0 || !isHost(host) {
		return "", errors.New("want " + wantEndpoint)
	}
	return s, nil
}

// cutPort splits host:port and [host]:port; the brackets are left out.
func cutPort(s string) (host, port string, found bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, "", false
	}
	host, port = s[:i], s[i+1:]
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		return inner, port, ok && err == nil && addr.Is6()
	}
	return host, port, !strings.Contains(host, ":")
}

// isHost is true for an address and for what can be a host's name.
func isHost(s string) bool {
	if addr, err := netip.ParseAddr(s); err == nil {
		return !addr.IsUnspecified() && !addr.IsMulticast()
	}
	return isWord(s, 253) && isAlnum(s[len(s)-1])
}

func parseUser(s string) (string, error) {
	if hasControl(s) || len(s) > 255 {
		return "", errors.New("want the name of a user of etcd, of at most 255 bytes, without control characters")
	}
	return s, nil
}

// parseKeyPrefix reads a prefix of keys. "/" alone is one too.
func parseKeyPrefix(s string) (string, error) {
	if !strings.HasPrefix(s, "/") || path.Clean(s) != s || hasControl(s) || len(s) > 255 {
		return "", errors.New("want " + wantPrefixOf)
	}
	return s, nil
}

// checkStore looks at how the keys of the store go together, and at its files.
func (l *loader) checkStore() {
	e := l.config.Store.Etcd
	if len(e.Endpoints) == 0 {
		if !l.ok("store.etcd.endpoints") {
			return
		}
		for _, lf := range leaves("", l.root) {
			if key, of := strings.CutPrefix(lf.key, "store.etcd."); of && key != "prefix" && key != "endpoints" && lf.get() != "" && l.ok(lf.key) {
				l.fail(lf.key, quote(lf.kind, lf.get()), "is of no use without store.etcd.endpoints; give these too, or leave it out")
			}
		}
		if l.config.Fabric == FabricStore && l.ok("fabric") {
			l.fail("fabric", quote(kindText, "store"), "needs a store; give store.etcd.endpoints, or want bgp, static, kernel or none")
		}
		return
	}
	l.checkEndpoints(e)
	l.checkUser(e)
	l.checkTLS(e.TLS)
}

// checkEndpoints makes sure that all endpoints are the same way in: what is signed and encrypted for one and not for
// another protects nothing.
func (l *loader) checkEndpoints(e Etcd) {
	const key = "store.etcd.endpoints"
	if !l.ok(key) {
		return
	}
	seen := map[string]bool{}
	for _, endpoint := range e.Endpoints {
		value := quote(kindText, endpoint)
		scheme, address, _ := strings.Cut(endpoint, "://")
		if address == "" {
			scheme, address = "", endpoint
		}
		first, _, _ := strings.Cut(e.Endpoints[0], "://")
		switch {
		case seen[address]:
			l.fail(key, value, "is there twice")
		case (scheme == "https") != (first == "https"):
			l.fail(key, value, "want https:// before all endpoints or before none")
		case scheme == "http" && e.TLS != TLS{}:
			l.fail(key, value, "is without TLS, but store.etcd.tls is given; want https://, or no tls")
		}
		seen[address] = true
	}
}

func (l *loader) checkUser(e Etcd) {
	const user, file = "store.etcd.user", "store.etcd.passwordFile"
	switch {
	case !l.ok(user, file):
	case e.User == "" && e.PasswordFile != "":
		l.fail(file, quote(kindText, e.PasswordFile), "needs store.etcd.user, whose password it is")
	case e.User != "" && e.PasswordFile == "":
		l.fail(user, quote(kindText, e.User), "needs store.etcd.passwordFile; a user without a password is the common name of a client certificate")
	case e.PasswordFile != "":
		data, ok := l.readFileOf(file, e.PasswordFile)
		if line, _, _ := strings.Cut(string(data), "\n"); ok && strings.TrimSuffix(line, "\r") == "" {
			l.fail(file, quote(kindText, e.PasswordFile), "has an empty first line; want the password there")
		}
	}
}

func (l *loader) checkTLS(t TLS) {
	const ca, cert, key = "store.etcd.tls.ca", "store.etcd.tls.cert", "store.etcd.tls.key"
	if t.CA != "" && l.ok(ca) {
		if data, ok := l.readFileOf(ca, t.CA); ok && !x509.NewCertPool().AppendCertsFromPEM(data) {
			l.fail(ca, quote(kindText, t.CA), "has no certificate in PEM")
		}
	}
	if !l.ok(cert, key) {
		return
	}
	switch {
	case t.Cert != "" && t.Key == "":
		l.fail(cert, quote(kindText, t.Cert), "needs store.etcd.tls.key")
	case t.Cert == "" && t.Key != "":
		l.fail(key, quote(kindText, t.Key), "needs store.etcd.tls.cert")
	case t.Cert != "":
		certPEM, okCert := l.readFileOf(cert, t.Cert)
		keyPEM, okKey := l.readFileOf(key, t.Key)
		if !okCert || !okKey {
			return
		}
		if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
			l.fail(cert, quote(kindText, t.Cert), "is no pair with store.etcd.tls.key: %s", strings.TrimPrefix(err.Error(), "tls: "))
		}
	}
}

// readFileOf reads the file that a key names.
func (l *loader) readFileOf(key, file string) ([]byte, bool) {
	data, err := readLimited(file, maxFile)
	if err == nil {
		return data, true
	}
	if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
		err = pathErr.Err // the value says the path already
	}
	l.fail(key, quote(kindText, file), "cannot be read: %s", err)
	return nil, false
}
