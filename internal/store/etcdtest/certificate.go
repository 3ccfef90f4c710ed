package etcdtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Certificates are files, in PEM, of an authority made for a test, and of a server and a client that it signed.
type Certificates struct {
	CA                    string
	ServerCert, ServerKey string
	ClientCert, ClientKey string // the client's common name is "fairway"
}

// StartTLS is Start for a server that wants a client certificate of the authority in Certificates.
func StartTLS(tb testing.TB, args ...string) (*Server, *Certificates) {
	tb.Helper()
	Require(tb)
	s := &Server{tb: tb, host: freeAddress(tb), dir: tb.TempDir(), args: args}
	s.data = filepath.Join(s.dir, "data")
	s.tls = NewCertificates(tb, s.host)
	tb.Cleanup(s.end)
	s.Start()
	return s, s.tls
}

// NewCertificates makes an authority, and a server's certificate for the IP address.
func NewCertificates(tb testing.TB, address string) *Certificates {
	tb.Helper()
	dir := tb.TempDir()
	c := &Certificates{
		CA:         filepath.Join(dir, "ca.crt"),
		ServerCert: filepath.Join(dir, "server.crt"), ServerKey: filepath.Join(dir, "server.key"),
		ClientCert: filepath.Join(dir, "client.crt"), ClientKey: filepath.Join(dir, "client.key"),
	}
	ca := certificate("authority", 1)
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	caKey := sign(tb, ca, ca, nil, c.CA, "")
	server := certificate("etcd", 2)
	server.IPAddresses = []net.IP{net.ParseIP(address)}
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	sign(tb, server, ca, caKey, c.ServerCert, c.ServerKey)
	client := certificate("fairway", 3)
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	sign(tb, client, ca, caKey, c.ClientCert, c.ClientKey)
	return c
}

func certificate(name string, serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

// sign makes a key and its certificate, and writes both. A nil parent key signs the certificate with its own.
func sign(tb testing.TB, cert, parent *x509.Certificate, parentKey *ecdsa.PrivateKey, certFile, keyFile string) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	if parentKey == nil {
		parentKey = key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, parentKey)
	if err != nil {
		tb.Fatal(err)
	}
	write(tb, certFile, "CERTIFICATE", der)
	if keyFile != "" {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			tb.Fatal(err)
		}
		write(tb, keyFile, "PRIVATE KEY", der)
	}
	return key
}

func write(tb testing.TB, file, kind string, der []byte) {
	tb.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		tb.Fatal(err)
	}
}

func (c *Certificates) serverArgs() []string {
	if c == nil {
		return nil
	}
	return []string{
		"--cert-file", c.ServerCert, "--key-file", c.ServerKey,
		"--trusted-ca-file", c.CA, "--client-cert-auth",
	}
}

func (c *Certificates) clientArgs() []string {
	if c == nil {
		return nil
	}
	return []string{"--cacert", c.CA, "--cert", c.ClientCert, "--key", c.ClientKey}
}
