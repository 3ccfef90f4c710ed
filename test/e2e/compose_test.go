package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/goccy/go-yaml"

	"fairway/internal/lab/rootfs"
)

// composeFile is what is read of the example.
type composeFile struct {
	Services map[string]struct {
		Networks map[string]struct {
			Address string `yaml:"ipv4_address"`
		} `yaml:"networks"`
	} `yaml:"services"`
	Networks map[string]struct {
		Driver     string            `yaml:"driver"`
		DriverOpts map[string]string `yaml:"driver_opts"`
		IPAM       struct {
			Driver string `yaml:"driver"`
			Config []struct {
				Subnet  string `yaml:"subnet"`
				IPRange string `yaml:"ip_range"`
			} `yaml:"config"`
		} `yaml:"ipam"`
	} `yaml:"networks"`
}

// defaultValue is compose's ${NAME:-default}.
var defaultValue = regexp.MustCompile(`\$\{[A-Z_]+:-([^}]*)\}`)

// The example for docker compose: with compose where the engine's files have it, else with the requests that compose
// sends for it.
func TestComposeExample(t *testing.T) {
	s := newSite(t)
	h := s.hosts[0]
	text, err := os.ReadFile(filepath.Join("..", "..", "examples", "compose", "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if code, _ := h.exitCode("docker", "compose", "version"); code == 0 {
		composeUp(t, h, text)
		return
	}
	var file composeFile
	if err := yaml.Unmarshal(defaultValue.ReplaceAll(text, []byte("$1")), &file); err != nil {
		t.Fatal(err)
	}
	network := file.Networks["routed"]
	type ipamConfig struct{ Subnet, IPRange string }
	request := map[string]any{
		"Name": "demo_routed", "CheckDuplicate": true, "Driver": network.Driver, "Options": network.DriverOpts,
		"IPAM": map[string]any{"Driver": network.IPAM.Driver, "Config": []ipamConfig{{
			network.IPAM.Config[0].Subnet, network.IPAM.Config[0].IPRange,
		}}},
		"Labels": map[string]string{"com.docker.compose.network": "routed", "com.docker.compose.project": "demo"},
	}
	if err := h.engineAPI(http.MethodPost, "/networks/create", request); err != nil {
		t.Fatal(err)
	}
	for name, service := range file.Services {
		args := []string{"--network", "demo_routed", "--network-alias", name, "--init"}
		if a := service.Networks["routed"].Address; a != "" {
			args = append(args, "--ip", a)
		}
		c := h.run("demo-"+name, args...)
		if list := c.links(); len(list) != 1 || list[0].MTU != 1400 {
			t.Errorf("%s has %+v, want one link with the example's MTU", c, list)
		}
	}
	h.docker("exec", "demo-client", "ping", "-c", "1", "-W", "2", "web")
	if web, err := h.inspect("demo-web"); err != nil || web.v4.String() != file.Services["web"].Networks["routed"].Address {
		t.Errorf("web has %+v (%v)", web, err)
	}
}

func composeUp(t *testing.T, h *host, text []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.Path("/tmp"), "compose.yaml"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	compose := []string{"env", "IMAGE=" + rootfs.ImageName, "docker", "compose", "-f", "/tmp/compose.yaml"}
	h.must(append(compose, "up", "-d")...)
	h.must(append(compose, "exec", "-T", "client", "ping", "-c", "1", "-W", "2", "web")...)
	h.must(append(compose, "down")...)
}

// engineAPI sends a request to the engine.
func (h *host) engineAPI(method, path string, body any) error {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", h.DockerSocket())
		},
	}}
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(h.ctx, method, "http://docker"+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		var answer struct{ Message string }
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			return fmt.Errorf("%s %s: %s", method, path, resp.Status)
		}
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer.Message)
	}
	return nil
}
