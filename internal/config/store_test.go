package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fairway/internal/store/etcdtest"
)

func TestStore(t *testing.T) {
	files := etcdtest.NewCertificates(t, "127.0.0.1")
	pass := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(pass, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, endpoints := range []string{
		"10.77.0.250:2379", "etcd1.example.net:2379", "'[fd77::1]:2379'", "'https://10.77.0.250:2379', 'https://etcd2:2379'",
	} {
		c, err := parse(fmt.Sprintf("fabric: store\nstore:\n  etcd:\n    endpoints: [%s]\n    tls: {ca: %s, cert: %s, key: %s}\n"+
			"    user: fairway\n    passwordFile: %s\n    prefix: /site/a\n", endpoints, files.CA, files.ClientCert, files.ClientKey, pass))
		if err != nil {
			t.Errorf("%s: %v", endpoints, err)
			continue
		}
		want := Etcd{
			Endpoints: strings.Split(strings.ReplaceAll(endpoints, "'", ""), ", "),
			TLS:       TLS{CA: files.CA, Cert: files.ClientCert, Key: files.ClientKey},
			User:      "fairway", PasswordFile: pass, Prefix: "/site/a",
		}
		if fmt.Sprint(c.Store.Etcd) != fmt.Sprint(want) || c.Fabric != FabricStore {
			t.Errorf("got %+v, want %+v", c.Store.Etcd, want)
		}
	}
	for _, text := range []string{
		"store: {etcd: {endpoints: ['http://etcd:2379'], prefix: /}}",
		"store: {etcd: {endpoints: ['https://etcd:2379']}}", // the system's authorities
		"store: {etcd: {prefix: /elsewhere}}",
	} {
		if _, err := parse(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	wantError(t, fmt.Sprintf("store: {etcd: {endpoints: ['http://a:2379'], tls: {ca: %s}}}", files.CA), `"http://a:2379": is without TLS`)
	wantError(t, fmt.Sprintf("store: {etcd: {endpoints: ['a:2379'], tls: {cert: %s, key: %s}}}", files.ClientCert, files.ServerKey), `is no pair with`)
	if err := os.WriteFile(pass, []byte("\nsecret"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, fmt.Sprintf("store: {etcd: {endpoints: ['a:2379'], user: u, passwordFile: %s}}", pass), `has an empty first line`)
}
