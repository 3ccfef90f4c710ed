package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

// tlsConfig reads and checks the files; nil means that the connection is plain. A renewed certificate of ours is taken
// up at the next connection.
func tlsConfig(cfg Config) (*tls.Config, error) {
	if on, err := encrypted(cfg); err != nil || !on {
		return nil, err
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CA != "" {
		pem, err := os.ReadFile(cfg.CA)
		if err != nil {
			return nil, fmt.Errorf("read authorities of etcd: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read authorities of etcd: %s has no certificate in PEM", cfg.CA)
		}
	}
	if (cfg.Cert == "") != (cfg.Key == "") {
		return nil, errors.New("open store: a client certificate needs its key, and a key its certificate")
	}
	if cfg.Cert == "" {
		return t, nil
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
		if err != nil {
			return nil, fmt.Errorf("read client certificate %s and key %s: %w", cfg.Cert, cfg.Key, err)
		}
		return &pair, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return t, nil
}

// encrypted tells whether TLS is to be used: for all endpoints or for none.
func encrypted(cfg Config) (bool, error) {
	files := cfg.CA != "" || cfg.Cert != "" || cfg.Key != ""
	https := 0
	for _, e := range cfg.Endpoints {
		switch {
		case strings.HasPrefix(e, "https://"):
			https++
		case files && strings.HasPrefix(e, "http://"):
			return false, fmt.Errorf("open store: certificates are given, but endpoint %s is without TLS; write https://", e)
		}
	}
	if https != 0 && https != len(cfg.Endpoints) {
		return false, errors.New("open store: endpoints with https:// and without; write it before all of them or none")
	}
	return https != 0 || files, nil
}

// password is the first line of the password file; "" when there is no user.
func password(cfg Config) (string, error) {
	if cfg.User == "" {
		return "", nil
	}
	raw, err := os.ReadFile(cfg.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("read password of user %q of etcd: %w", cfg.User, err)
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	line = strings.TrimSuffix(line, "\r")
	if line == "" {
		return "", fmt.Errorf("read password of user %q of etcd: the first line of %s is empty", cfg.User, cfg.PasswordFile)
	}
	return line, nil
}
